"""Class folders: what is read, and every fault of them."""
import os

import pytest

from data import folders


@pytest.fixture(name='folder')
def folder_(tmp_path):
    """Three classes with four training images and two test images each."""
    for part, count in (('train', 4), ('val', 2)):
        for name in ('b', 'a b', 'ä'):
            (tmp_path / part / name).mkdir(parents=True)
            for i in range(count):
                (tmp_path / part / name / ('%d.%s' % (i, ('jpg', 'PNG', 'gif', 'Bmp')[i]))).write_bytes(b'')
    return tmp_path


def relative(folder, images):
    return [os.path.relpath(os.fsdecode(path), str(folder)) for path in images.paths]


def test_train_and_val(folder):
    (folder / 'train' / 'b' / 'Thumbs.db').write_bytes(b'')
    (folder / 'train' / 'b' / '.hidden.jpg').write_bytes(b'')
    (folder / 'train' / '.git').mkdir()
    train, test, names, wrong = folders.read(str(folder), 0.2)
    assert (names, wrong) == (['a b', 'b', 'ä'], [])
    assert list(train.classes) == [0] * 4 + [1] * 4 + [2] * 4 and list(test.classes) == [0, 0, 1, 1, 2, 2]
    assert relative(folder, train)[4:8] == ['train/b/0.jpg', 'train/b/1.PNG', 'train/b/2.gif', 'train/b/3.Bmp']
    assert relative(folder, test)[-1] == 'val/ä/1.PNG'


def test_one_folder_is_divided(tmp_path):
    for name, count in (('x', 20), ('y', 7), ('z', 3)):
        (tmp_path / name).mkdir()
        for i in range(count):
            (tmp_path / name / ('%02d.jpg' % i)).write_bytes(b'')
    train, test, names, wrong = folders.read(str(tmp_path), 0.25)
    assert wrong == [] and list(test.classes) == [0] * 5 + [1] + [2] and len(train.classes) == 15 + 6 + 2
    assert sorted(relative(tmp_path, train) + relative(tmp_path, test)) == sorted(
        '%s/%02d.jpg' % (name, i) for name, count in (('x', 20), ('y', 7), ('z', 3)) for i in range(count))
    assert relative(tmp_path, test)[:5] != ['x/%02d.jpg' % i for i in range(15, 20)]    # at random
    (tmp_path / 'a new class').mkdir()
    for i in range(4):
        (tmp_path / 'a new class' / ('%d.jpg' % i)).write_bytes(b'')
    again = folders.read(str(tmp_path), 0.25)[1]
    assert relative(tmp_path, again)[1:] == relative(tmp_path, test)     # the other classes' stay


def test_faults(folder):
    (folder / 'train' / 'B').mkdir()
    (folder / 'val' / 'c').mkdir()
    assert folders.read(str(folder), 0.2)[3] == [
        '%s: no such class in %s' % (folder / 'val' / 'c', folder / 'train'),
        'B: differs from another class in upper and lower case alone; rename one',
        'b: differs from another class in upper and lower case alone; rename one']


def test_small_classes(folder):
    for i, ending in ((0, 'jpg'), (1, 'PNG'), (2, 'gif')):
        (folder / 'train' / 'b' / ('%d.%s' % (i, ending))).unlink()
    (folder / 'val' / 'ä' / '0.jpg').unlink()
    (folder / 'val' / 'ä' / '1.PNG').unlink()
    assert folders.read(str(folder), 0.2)[3] == [
        '%s: class b has 1 image to train on, and at least two must be there' % folder,
        '%s: class ä has 0 images to test on, and at least one must be there' % folder]


def test_too_few_folders(tmp_path):
    (tmp_path / 'only').mkdir()
    assert folders.read(str(tmp_path), 0.2)[3] == [
        '%s: at least two class folders must be there, and there is 1' % tmp_path]
    (tmp_path / 'train').mkdir()
    assert folders.read(str(tmp_path), 0.2)[3] == [
        '%s: no such folder beside %s; without a test set, put the class folders into %s itself'
        % (tmp_path / 'val', tmp_path / 'train', tmp_path),
        '%s: at least two class folders must be there, and there are 0' % (tmp_path / 'train')]


def test_control_characters(folder):
    (folder / 'train' / 'line\nbreak').mkdir()
    assert "'line\\nbreak': a class name must not have line breaks" in folders.read(str(folder), 0.2)[3][0]
