"""List files and class folders: what is read, and every fault in them, in one message."""
import os

import pytest
from common import listed, write

from data import sources


def faults(folder, num_classes=3):
    """All faults, with paths relative to the folder."""
    _, _, _, wrong, missing, _ = listed(folder, num_classes)
    return [line.replace('%s/' % folder, '') for line in wrong + missing]


def relative(folder, images):
    return [os.path.relpath(os.fsdecode(path), str(folder)) for path in images.paths]


def make(folder, *paths):
    write(folder, dict.fromkeys(paths, b''))


def change(file, old, new, count=1):
    text = file.read_text(encoding='utf-8')
    assert old in text
    file.write_text(text.replace(old, new, count), encoding='utf-8')


@pytest.fixture(name='folders')
def folders_(tmp_path):
    """Three classes of four training and two test images each. In sorted order, their names are 'a b', 'c', 'ä'."""
    for name in ('c', 'a b', 'ä'):
        make(tmp_path, *('%s/%s/%d.JPEG' % (part, name, i) for part, count in (('train', 4), ('val', 2)) for i in range(count)))
    return tmp_path


@pytest.fixture(name='lists')
def lists_(folders):
    """The same classes with list files, where 'c', 'ä' and 'a b' have the labels 0, 1 and 2."""
    for part, count in (('train', 4), ('val', 2)):
        lines = ['%s/%s/%d.JPEG %d\n' % (part, name, i, 'cäa'.index(name[0])) for name in ('c', 'ä', 'a b') for i in range(count)]
        (folders / (part + '.txt')).write_text(''.join(lines), encoding='utf-8')
    return folders


def test_lists(lists):
    train, test, names, wrong, missing, skipped = listed(lists)
    assert (names, wrong, missing, skipped) == (['c', 'ä', 'a b'], [], [], [])
    assert list(train.classes) == [0] * 4 + [1] * 4 + [2] * 4 and list(test.classes) == [0, 0, 1, 1, 2, 2]
    assert faults(lists, 0) == ['%s: has list files; NUM_CLASSES=0 is for class folders without lists' % lists]
    assert train.paths[9] == os.fsencode(str(lists / 'train/a b/1.JPEG')) and relative(lists, test)[3] == 'val/ä/1.JPEG'


def test_classes_that_share_a_folder_are_named_by_number(lists):
    for name, part in (('train.txt', 'train'), ('val.txt', 'val')):
        change(lists / name, '%s/c/' % part, '%s/ä/../ä/9' % part, -1)
        make(lists, *('%s/ä/9%d.JPEG' % (part, i) for i in range(4)))
    assert faults(lists) == [] and listed(lists)[2] == ['0', '1', '2']


@pytest.mark.parametrize('edit', [
    lambda content: b'\n' + content.replace(b'\n', b'\r\n') + b'\r\n',
    lambda content: b'\xef\xbb\xbf' + content,
    lambda content: content.replace(b' 1\n', b'\t 01  \n')], ids=['Windows line ends', 'byte order mark', 'white space'])
def test_variants_of_a_list_behind_a_link(edit, lists):
    expected = listed(lists)[1]
    (lists / 'another').write_bytes(edit((lists / 'val.txt').read_bytes()))
    (lists / 'val.txt').unlink()
    (lists / 'val.txt').symlink_to('another')
    found = listed(lists)[1]
    assert faults(lists) == [] and found.paths.tolist() == expected.paths.tolist() and list(found.classes) == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize('name, old, new, expected', [
    ('train.txt', 'c/0.JPEG 0', 'c/0.JPEG', ["train.txt:1: 'train/c/0.JPEG' is not `path label`"]),
    ('train.txt', 'c/0.JPEG 0', 'c/0.JPEG -1', ["train.txt:1: 'train/c/0.JPEG -1' is not `path label`"]),
    ('train.txt', 'c/0.JPEG 0', '\0/0 0', ["train.txt:1: 'train/\\x00/0 0' is not `path label`"]),
    pytest.param('train.txt', '0.JPEG 0', '0 ' + '9' * 5000, ["train.txt:1: 'train/c/0 %s' is not `path label`" % ('9' * 5000)],
                 id='more digits than Python reads'),
    ('val.txt', 'a b/1.JPEG 2', 'a b/1.JPEG 3', ['val.txt:6: label 3 is outside 0..2']),
    ('val.txt', 'val/c/0', 'train/c/3', ['train/c/3.JPEG: is in train.txt and in val.txt; a test image must not be trained on']),
    ('train.txt', 'c/1.JPEG', 'c/./0.JPEG', ['train/c/0.JPEG: train.txt lists it more than once']),
    ('val.txt', 'val/c/0', 'val/c/\33[2J', ['val/c/\\x1b[2J.JPEG: has control characters in its path; rename it',
                                            'val/c/\\x1b[2J.JPEG: no such image; val.txt lists it']),
    ('val.txt', 'val/c/0', 'val/d/0', ['val/d: no such folder; val.txt has 1 of its images there']),
    ('val.txt', 'val/c/0', 'val/c/7', ['val/c/7.JPEG: no such image; val.txt lists it'])])
def test_wrong_lines(name, old, new, expected, lists):
    change(lists / name, old, new)
    assert faults(lists) == expected
    assert len(listed(lists)[4]) == sum('no such' in line for line in expected)  # missing, all others are wrong


def test_faults_of_both_lists_are_reported_together_and_many_are_counted(lists):
    change(lists / 'train.txt', '/0.JPEG 0', '/0.JPEG')
    change(lists / 'val.txt', '/0.JPEG 0', '/0.JPEG 9')
    change(lists / 'train.txt', '.JPEG ', '9.JPEG ', -1)
    found = faults(lists)
    assert [line.split(':')[0] for line in found[:3]] == ['train.txt', 'val.txt', 'train/a b/09.JPEG']
    assert found[-1] == '... and 6 more like the one above' and len(found) == 2 + 5 + 1


def test_other_endings_than_listed(lists):
    for before, after in (('0.JPEG', '0.jpg'), ('1.JPEG', '1.jpg'), ('2.JPEG', '2.txt')):
        (lists / 'train/c' / before).rename(lists / 'train/c' / after)
    assert faults(lists) == ['train/c/2.JPEG: no such image; train.txt lists it',
                             'train.txt: images listed as .JPEG are there as .jpg (2, for example train/c/0.JPEG); correct the '
                             'list or rename the images']


@pytest.mark.parametrize('replace, reason', [
    (os.mkfifo, 'is a pipe, a device or a socket; only regular files are read'), (lambda path: None, 'no such file'),
    (lambda path: os.symlink('/nowhere\n', path), 'is a link to /nowhere\\n, which is not there')])
def test_only_regular_files_are_opened(replace, reason, lists):
    os.remove(str(lists / 'val.txt'))
    replace(str(lists / 'val.txt'))
    assert faults(lists) == ['val.txt: %s; data/README.md says what belongs there' % reason]
    assert sources.read_names(str(lists / 'val.txt'), ['a']) == ([], ['%s: %s' % (lists / 'val.txt', reason)])
    os.remove(str(lists / 'train.txt'))
    if reason != 'no such file':  # not taken for class folders
        assert faults(lists)[0] == 'train.txt: no such file; data/README.md says what belongs there'


def test_class_folders(folders):
    make(folders, 'train/c/Thumbs.db', 'val/c/x\n.txt', 'train/c/.hidden.jpg', 'train/.git/x.jpg', 'train/c/4.Png')
    train, test, names, wrong, missing, skipped = listed(folders, 0)
    assert (names, wrong, missing) == (['a b', 'c', 'ä'], [], [])
    assert list(train.classes) == [0] * 4 + [1] * 5 + [2] * 4 and list(test.classes) == [0, 0, 1, 1, 2, 2]
    assert relative(folders, train)[4:9] == ['train/c/%d.%s' % (i, 'JPEG' if i < 4 else 'Png') for i in range(5)]
    assert relative(folders, test)[-1] == 'val/ä/1.JPEG'
    assert skipped == ['%s/train/c/Thumbs.db' % folders, '%s/val/c/x\\n.txt' % folders]


def test_one_folder_is_divided(tmp_path):
    counts = {'train': 7, 'x': 20, 'z': 3}  # a class may be called train
    everything = ['%s/%02d.jpg' % (name, i) for name in counts for i in range(counts[name])]
    make(tmp_path, *everything)
    train, test, _, wrong, _, _ = listed(tmp_path, 0)
    assert wrong == [] and list(train.classes) == [0] * 6 + [1] * 15 + [2] * 2 and list(test.classes) == [0] + [1] * 5 + [2]
    assert sorted(relative(tmp_path, train) + relative(tmp_path, test)) == everything
    assert relative(tmp_path, test)[1:6] == ['x/%02d.jpg' % i for i in (0, 1, 9, 14, 15)]  # the least CRC-32 of 'x' + name
    make(tmp_path, *('a new class/%d.jpg' % i for i in range(4)))
    assert relative(tmp_path, listed(tmp_path, 0)[1])[1:] == relative(tmp_path, test)  # the other classes' stay


def test_test_fraction_is_exact(tmp_path):
    """0.58 * 50 is 28.999999999999996 with floats."""
    make(tmp_path, *('%s/%02d.jpg' % (name, i) for name in 'xy' for i in range(50)))
    assert list(listed(tmp_path, 0, 0.58)[1].classes) == [0] * 29 + [1] * 29


@pytest.mark.parametrize('add, expected', [
    (['val/d/0.jpg'], ['val/d: no such class in train']),
    (['train/d/0.jpg'], [
        'FOLDER: class d has 1 image to train on, and at least 2 must be there: the hold-out takes one',
        'FOLDER: class d has 0 images to test on, and at least 1 must be there']),
    (['train/\33[2J/%d.jpg' % i for i in range(2)] + ['val/\33[2J/0.jpg'], [
        'train/\\x1b[2J/%d.jpg: has control characters in its path; rename it' % i for i in range(2)] + [
        'val/\\x1b[2J/0.jpg: has control characters in its path; rename it']),
    (['val/c/\u2028.png'], ['val/c/\\u2028.png: has control characters in its path; rename it']),
    (['train/d/x.tif', 'train/d/y.tif', 'val/d/0.png'], [
        'train/d: has no image; what is there ends neither in .jpg, .jpeg, .png, .bmp nor .gif, for example train/d/x.tif',
        'FOLDER: class d has 0 images to train on, and at least 2 must be there: the hold-out takes one'])])
def test_wrong_class_folders(add, expected, folders):
    make(folders, *add)
    assert [line.replace(str(folders), 'FOLDER') for line in faults(folders, 0)] == expected


def test_too_few_folders(tmp_path):
    assert faults(tmp_path / 'x', 0) == ['%s: no such folder; data/README.md says what belongs there and where to get it'
                                         % (tmp_path / 'x')]
    (tmp_path / 'only').mkdir()
    few = 'at least two class folders must be there; number found: '
    assert faults(tmp_path, 2) == ['%s: %s1' % (tmp_path, few), '%s: has 1 class folders, and NUM_CLASSES=2' % tmp_path]
    (tmp_path / 'train' / 'only').mkdir(parents=True)
    no_val = 'val: no such folder beside train; without a test set, put the class folders into %s itself' % tmp_path
    assert faults(tmp_path, 0) == [no_val, 'train: %s1' % few]
    for name in ('train', 'test'):  # images without class folders
        make(tmp_path / 'flat', *('%s/%d.jpg' % (name, i) for i in range(3)))
    assert listed(tmp_path / 'flat', 0)[3][1] == '%s/flat/train: %s0' % (tmp_path, few)


def test_a_folder_that_cannot_be_read(folders, monkeypatch):
    def denied(path):
        raise PermissionError(13, 'Permission denied', path)

    monkeypatch.setattr(os, 'listdir', denied)
    assert faults(folders, 3) == ['train/a b/: cannot be read (Permission denied)']


def test_read_names(tmp_path):
    (tmp_path / 'order').write_bytes('\ufeffb\r\n\na b\nä\na b\nx\33\n'.encode())
    names, wrong = sources.read_names(str(tmp_path / 'order'), ['a b', 'b', 'c', 'ä'])
    assert names == ['b', 'a b', 'ä', 'a b', 'x\33']
    assert wrong == ['%s: %s' % (tmp_path / 'order', line) for line in (
        'there is no class x\\x1b', 'class c is missing', 'class a b is listed more than once')]
    assert sources.shown(b'a \xc3\xa4\xff\x1b') == 'a ä\\udcff\\x1b'
    (tmp_path / 'order').write_bytes(b'\xff')
    assert 'cannot be read as a list of class names' in sources.read_names(str(tmp_path / 'order'), ['a'])[1][0]
