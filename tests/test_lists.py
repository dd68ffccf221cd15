"""List files: what is read, and every fault of a folder in one message."""
import os

import pytest

from data import lists


@pytest.fixture(name='folder')
def folder_(tmp_path):
    """Three classes with four training images and two test images each; one name has a space, one is not ASCII."""
    names = {0: 'n01', 1: 'zwei Wörter', 2: 'n03'}
    for part, count in (('train', 4), ('val', 2)):
        lines = []
        for label, name in names.items():
            (tmp_path / part / name).mkdir(parents=True)
            for i in range(count):
                (tmp_path / part / name / ('%d.JPEG' % i)).write_bytes(b'')
                lines.append('%s/%s/%d.JPEG %d\n' % (part, name, i, label))
        (tmp_path / (part + '.txt')).write_text(''.join(lines), encoding='utf-8')
    return tmp_path


def faults(folder, num_classes=3):
    _, _, wrong, missing = lists.read(str(folder), num_classes)
    return wrong + missing


def change(folder, name, old, new):
    text = (folder / name).read_text(encoding='utf-8')
    assert old in text
    (folder / name).write_text(text.replace(old, new, 1), encoding='utf-8')


def test_reads(folder):
    train, test, wrong, missing = lists.read(str(folder), 3)
    assert wrong == missing == []
    assert list(train.classes) == [0] * 4 + [1] * 4 + [2] * 4
    assert list(test.classes) == [0, 0, 1, 1, 2, 2]
    assert train.paths[5] == os.fsencode(str(folder / 'train' / 'zwei Wörter' / '1.JPEG'))
    assert all(os.path.isfile(path) for path in list(train.paths) + list(test.paths))


def test_windows_line_ends_and_blank_lines(folder):
    text = (folder / 'val.txt').read_text(encoding='utf-8')
    (folder / 'val.txt').write_bytes(('\n' + text.replace('\n', '\r\n') + '\r\n').encode())
    assert list(lists.read(str(folder), 3)[1].classes) == [0, 0, 1, 1, 2, 2]


def test_no_folder_at_all(tmp_path):
    found = faults(tmp_path / 'nowhere')
    assert len(found) == 2
    assert 'train.txt: no such file' in found[0] and 'val.txt: no such file' in found[1]


def test_byte_order_mark(folder):
    (folder / 'val.txt').write_bytes(b'\xef\xbb\xbf' + (folder / 'val.txt').read_bytes())
    assert faults(folder) == []


@pytest.mark.parametrize('line', ['train/n01/0.JPEG', 'train/n01/0.JPEG 1.0', 'train/n01/0.JPEG -1', '7'])
def test_not_path_label(folder, line):
    change(folder, 'train.txt', 'train/n01/0.JPEG 0', line)
    assert faults(folder) == ["%s:1: %r is not `path label`" % (folder / 'train.txt', line)]


def test_label_out_of_range(folder):
    change(folder, 'val.txt', 'val/n03/1.JPEG 2', 'val/n03/1.JPEG 3')
    assert faults(folder) == ['%s:6: label 3 is outside 0..2' % (folder / 'val.txt')]


def test_class_without_images(folder):
    assert [line.split(': ', 1)[1] for line in faults(folder, 4)] == ['class 3 has no image'] * 2


def test_class_with_nothing_left_to_train_on(folder):
    text = (folder / 'train.txt').read_text(encoding='utf-8')
    (folder / 'train.txt').write_text('\n'.join(line for line in text.split('\n') if '/n01/' not in line or '/0.' in line),
                                      encoding='utf-8')
    assert faults(folder) == ['%s: class 0 has 1 image, and none would be left to train on: the hold-out takes one'
                              % (folder / 'train.txt')]


def test_missing_images_and_folders(folder):
    (folder / 'train' / 'n01' / '2.JPEG').unlink()
    for i in range(2):
        (folder / 'val' / 'n03' / ('%d.JPEG' % i)).unlink()
    (folder / 'val' / 'n03').rmdir()
    assert faults(folder) == [
        '%s: no such image; %s lists it' % (folder / 'train' / 'n01' / '2.JPEG', folder / 'train.txt'),
        '%s: no such folder; %s lists 2 images in it' % (folder / 'val' / 'n03', folder / 'val.txt')]


def test_image_in_both_lists(folder):
    change(folder, 'val.txt', 'val/n01/0.JPEG', 'train/n01/3.JPEG')
    assert len(faults(folder)) == 1 and 'train/n01/3.JPEG: stands in train.txt and val.txt' in faults(folder)[0]


def test_image_listed_twice(folder):
    change(folder, 'train.txt', 'train/n01/1.JPEG', 'train/n01/./0.JPEG')
    assert faults(folder) == ['%s: %s lists it more than once' % (folder / 'train' / 'n01' / '0.JPEG', folder / 'train.txt')]


def test_many_faults_of_a_kind_are_counted(folder):
    text = (folder / 'train.txt').read_text(encoding='utf-8')
    (folder / 'train.txt').write_text(text.replace('.JPEG', '.png'), encoding='utf-8')
    found = faults(folder)
    assert len(found) == 6 and found[-1] == '... and 7 more like the one above'


def test_faults_of_both_lists_are_reported_together(folder):
    change(folder, 'train.txt', 'train/n01/0.JPEG 0', 'train/n01/0.JPEG')
    change(folder, 'val.txt', 'val/n01/0.JPEG 0', 'val/n01/0.JPEG 9')
    (folder / 'val' / 'n03' / '1.JPEG').unlink()
    assert len(faults(folder)) == 3
