"""List files and class folders: what is read, and every fault in them, in one message."""
import os
import subprocess
import sys
import types
import unicodedata

import pytest
from common import write

from data import Faults, shown, sources

# What the tests' list files begin with, by part: the classes 'c', 'ä' and 'a b' as 0, 1 and 2.
LABEL_OF = {'c': 0, 'ä': 1, 'a b': 2}
COUNTS = {'train': 4, 'val': 2}


def listed(folder, num_classes=3, test_fraction=0.25, model='model', log='logs'):
    """The Listing of a folder, and the Faults in it."""
    faults = Faults()
    s = types.SimpleNamespace(DATA_DIR=str(folder), NUM_CLASSES=num_classes,
                              TEST_FRACTION=test_fraction, MODEL_DIR=str(model), LOG_DIR=str(log))
    return sources.read(s, faults), faults


def fault_lines(folder, num_classes=3):
    """All faults, with paths relative to the folder."""
    return [line.replace('%s/' % folder, '') for line in listed(folder, num_classes)[1].lines]


def names_in(path, names):
    """What `read_names` returns, and the lines of the faults."""
    faults = Faults()
    return sources.read_names(str(path), names, faults), faults.lines


def relative(folder, images):
    return [os.path.relpath(os.fsdecode(path), str(folder)) for path in images.paths]


def make(folder, *paths):
    """Makes empty files."""
    write(folder, dict.fromkeys(paths, b''))


def change(file, old, new, count=1):
    text = file.read_text(encoding='utf-8')
    assert old in text
    file.write_text(text.replace(old, new, count), encoding='utf-8')


@pytest.fixture(name='folders')
def folders_(tmp_path):
    """Three classes of four training and two test images each: 'a b', 'c' and 'ä', as sorted."""
    for part, count in COUNTS.items():
        for name in LABEL_OF:
            make(tmp_path, *('%s/%s/%d.JPEG' % (part, name, i) for i in range(count)))
    return tmp_path


@pytest.fixture(name='lists')
def lists_(folders):
    """The same classes with list files, which number them in another order."""
    for part, count in COUNTS.items():
        lines = []
        for name, label in LABEL_OF.items():
            lines += ['%s/%s/%d.JPEG %d\n' % (part, name, i, label) for i in range(count)]
        (folders / (part + '.txt')).write_text(''.join(lines), encoding='utf-8')
    return folders


def test_lists(lists):
    listing, faults = listed(lists)
    assert listing.names == ['c', 'ä', 'a b']
    assert (listing.skipped, faults.lines) == ([], [])
    assert list(listing.train.classes) == [0] * 4 + [1] * 4 + [2] * 4
    assert list(listing.test.classes) == [0, 0, 1, 1, 2, 2]
    assert listing.train.paths[9] == os.fsencode(str(lists / 'train/a b/1.JPEG'))
    assert relative(lists, listing.test)[3] == 'val/ä/1.JPEG'
    assert fault_lines(lists, 0) == [
        '%s: has list files; NUM_CLASSES=0 is for class folders without lists' % lists]


def test_classes_that_share_a_folder_are_named_by_number(lists):
    for part in COUNTS:
        change(lists / (part + '.txt'), '%s/c/' % part, '%s/ä/../ä/9' % part, -1)
        make(lists, *('%s/ä/9%d.JPEG' % (part, i) for i in range(4)))
    assert fault_lines(lists) == []
    assert listed(lists)[0].names == ['0', '1', '2']


@pytest.mark.parametrize('edit', [
    lambda content: b'\n' + content.replace(b'\n', b'\r\n') + b'\r\n',
    lambda content: b'\xef\xbb\xbf' + content,
    lambda content: content.replace(b' 1\n', b'\t 01  \n'),
], ids=['Windows line ends', 'byte order mark', 'white space'])
def test_variants_of_a_list_behind_a_link(edit, lists):
    expected = listed(lists)[0].test
    (lists / 'another').write_bytes(edit((lists / 'val.txt').read_bytes()))
    (lists / 'val.txt').unlink()
    (lists / 'val.txt').symlink_to('another')
    actual = listed(lists)[0].test
    assert fault_lines(lists) == []
    assert actual.paths.tolist() == expected.paths.tolist()
    assert list(actual.classes) == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize('name, old, new, expected', [
    ('train.txt', 'c/0.JPEG 0', 'c/0.JPEG',
     ["train.txt:1: 'train/c/0.JPEG' is not `path label`"]),
    ('train.txt', 'c/0.JPEG 0', 'c/0.JPEG -1',
     ["train.txt:1: 'train/c/0.JPEG -1' is not `path label`"]),
    ('train.txt', 'c/0.JPEG 0', '\0/0 0',
     ["train.txt:1: 'train/\\x00/0 0' is not `path label`"]),
    pytest.param('train.txt', '0.JPEG 0', '0 ' + '9' * 5000,
                 ["train.txt:1: 'train/c/0 %s' is not `path label`" % ('9' * 5000)],
                 id='more digits than Python reads'),
    ('val.txt', 'a b/1.JPEG 2', 'a b/1.JPEG 3',
     ['val.txt:6: label 3 is outside 0..2']),
    ('val.txt', 'val/c/0', 'train/c/3',
     ['train/c/3.JPEG: is in train.txt and in val.txt; a test image must not be trained on']),
    ('train.txt', 'c/1.JPEG', 'c/./0.JPEG',
     ['train/c/0.JPEG: train.txt lists it more than once'])])
def test_wrong_lines(name, old, new, expected, lists):
    change(lists / name, old, new)
    assert fault_lines(lists) == expected
    assert listed(lists)[1].blocking


@pytest.mark.parametrize('new, expected', [
    ('val/d/0', 'val/d: no such folder; val.txt has 1 of its images there'),
    ('val/c/7', 'val/c/7.JPEG: no such image; val.txt lists it')])
def test_listed_images_that_are_missing_do_not_prevent_a_plan(new, expected, lists):
    change(lists / 'val.txt', 'val/c/0', new)
    listing, faults = listed(lists)
    assert [line.replace('%s/' % lists, '') for line in faults.lines] == [expected]
    assert not faults.blocking
    assert (len(listing.train.paths), len(listing.test.paths)) == (12, 6)


def test_control_characters_in_a_list(lists):
    change(lists / 'val.txt', 'val/c/0', 'val/c/\33[2J')
    assert sorted(fault_lines(lists)) == [
        'val/c/\\x1b[2J.JPEG: has control characters in its path; rename it',
        'val/c/\\x1b[2J.JPEG: no such image; val.txt lists it']
    assert listed(lists)[1].blocking


def test_faults_of_both_lists_are_reported_together_and_many_are_counted(lists):
    change(lists / 'train.txt', '/0.JPEG 0', '/0.JPEG')
    change(lists / 'val.txt', '/0.JPEG 0', '/0.JPEG 9')
    change(lists / 'train.txt', '.JPEG ', '9.JPEG ', -1)
    lines = fault_lines(lists)
    in_train = "train.txt:1: 'train/c/0.JPEG' is not `path label`"
    in_val = 'val.txt:1: label 9 is outside 0..2'
    assert in_train in lines and in_val in lines
    # Eleven listed images are missing.
    others = [line for line in lines if line not in (in_train, in_val)]
    assert others[0] == 'train/a b/09.JPEG: no such image; train.txt lists it'
    assert others[5] == '... and 6 more like the one above'
    assert len(others) == 6


def test_other_endings_than_listed(lists):
    for before, after in (('0.JPEG', '0.jpg'), ('1.JPEG', '1.jpg'), ('2.JPEG', '2.txt')):
        (lists / 'train/c' / before).rename(lists / 'train/c' / after)
    assert fault_lines(lists) == [
        'train/c/2.JPEG: no such image; train.txt lists it',
        'train.txt: images listed as .JPEG are there as .jpg (2, for example train/c/0.JPEG); '
        'correct the list or rename the images']
    assert not listed(lists)[1].blocking


@pytest.mark.parametrize('replace, reason', [
    (os.mkfifo, 'is a pipe, a device or a socket; only regular files are read'),
    (lambda path: None, 'no such file'),
    (lambda path: os.symlink('/nowhere\n', path), 'is a link to /nowhere\\n, which is not there')])
def test_only_regular_files_are_opened(replace, reason, lists):
    path = lists / 'val.txt'
    path.unlink()
    replace(str(path))
    assert fault_lines(lists) == ['val.txt: %s; data/README.md says what belongs there' % reason]
    assert names_in(path, ['a']) == ([], ['%s: %s' % (path, reason)])
    (lists / 'train.txt').unlink()
    if reason != 'no such file':  # not taken for class folders
        assert fault_lines(lists)[0] == (
            'train.txt: no such file; data/README.md says what belongs there')


def test_class_folders(folders):
    make(folders, 'train/c/Thumbs.db', 'val/c/x\n.txt', 'train/c/.hidden.jpg', 'train/.git/x.jpg',
         'train/c/4.Png')
    listing, faults = listed(folders, 0)
    assert listing.names == ['a b', 'c', 'ä']
    assert faults.lines == []
    assert list(listing.train.classes) == [0] * 4 + [1] * 5 + [2] * 4
    assert list(listing.test.classes) == [0, 0, 1, 1, 2, 2]
    assert relative(folders, listing.train)[4:9] == [
        'train/c/0.JPEG', 'train/c/1.JPEG', 'train/c/2.JPEG', 'train/c/3.JPEG', 'train/c/4.Png']
    assert relative(folders, listing.test)[-1] == 'val/ä/1.JPEG'
    assert listing.skipped == ['%s/train/c/Thumbs.db' % folders, '%s/val/c/x\\n.txt' % folders]


def test_one_folder_is_divided(tmp_path):
    paths = []
    for name, count in (('train', 7), ('x', 20), ('z', 3)):  # a class may be called train
        paths += ['%s/%02d.jpg' % (name, i) for i in range(count)]
    make(tmp_path, *paths)
    listing, faults = listed(tmp_path, 0)
    assert faults.lines == []
    assert list(listing.train.classes) == [0] * 6 + [1] * 15 + [2] * 2
    assert list(listing.test.classes) == [0] + [1] * 5 + [2]
    train = relative(tmp_path, listing.train)
    test = relative(tmp_path, listing.test)
    assert sorted(train + test) == paths
    # These have the least CRC-32 of 'x' + name.
    assert test[1:6] == ['x/%02d.jpg' % i for i in (0, 1, 9, 14, 15)]
    make(tmp_path, *('a new class/%d.jpg' % i for i in range(4)))
    assert relative(tmp_path, listed(tmp_path, 0)[0].test)[1:] == test  # the other classes' stay


def test_test_fraction_is_exact(tmp_path):
    """0.58 * 50 is 28.999999999999996 with floats."""
    for name in 'xy':
        make(tmp_path, *('%s/%02d.jpg' % (name, i) for i in range(50)))
    assert list(listed(tmp_path, 0, 0.58)[0].test.classes) == [0] * 29 + [1] * 29


CONTROL = ': has control characters in its path; rename it'


@pytest.mark.parametrize('add, expected', [
    (['val/d/0.jpg'],
     ['val/d: no such class in train']),
    (['train/d/0.jpg'],
     ['FOLDER: class d has 1 image to train on, and at least 2 must be there: the hold-out takes '
      'one',
      'FOLDER: class d has 0 images to test on, and at least 1 must be there']),
    (['train/\33[2J/0.jpg', 'train/\33[2J/1.jpg', 'val/\33[2J/0.jpg'],
     ['train/\\x1b[2J/0.jpg' + CONTROL, 'train/\\x1b[2J/1.jpg' + CONTROL,
      'val/\\x1b[2J/0.jpg' + CONTROL]),
    (['val/c/\u2028.png'],
     ['val/c/\\u2028.png' + CONTROL]),
    (['train/d/x.tif', 'train/d/y.tif', 'val/d/0.png'],
     ['train/d: has no image; what is there ends neither in .jpg, .jpeg, .png, .bmp nor .gif, for '
      'example train/d/x.tif',
      'FOLDER: class d has 0 images to train on, and at least 2 must be there: the hold-out takes '
      'one'])])
def test_wrong_class_folders(add, expected, folders):
    make(folders, *add)
    lines = [line.replace(str(folders), 'FOLDER') for line in fault_lines(folders, 0)]
    assert lines == expected
    assert listed(folders, 0)[1].blocking


def test_too_few_folders(tmp_path):
    assert fault_lines(tmp_path / 'x', 0) == [
        '%s: no such folder; data/README.md says what belongs there and where to get it'
        % (tmp_path / 'x')]
    (tmp_path / 'only').mkdir()
    few = 'at least two class folders must be there; number found: '
    assert fault_lines(tmp_path, 2) == [
        '%s: %s1' % (tmp_path, few), '%s: has 1 class folders, and NUM_CLASSES=2' % tmp_path]
    (tmp_path / 'train' / 'only').mkdir(parents=True)
    assert fault_lines(tmp_path, 0) == [
        'train: %s1' % few,
        'val: no such folder beside train; without a test set, put the class folders into %s itself'
        % tmp_path]
    for name in ('train', 'test'):  # images without class folders
        make(tmp_path / 'flat', *('%s/%d.jpg' % (name, i) for i in range(3)))
    assert fault_lines(tmp_path / 'flat', 0)[0] == 'train: %s0' % few


def test_a_folder_that_cannot_be_read(folders, monkeypatch):
    def denied(path):
        raise PermissionError(13, 'Permission denied', path)

    monkeypatch.setattr(os, 'listdir', denied)
    assert fault_lines(folders, 3) == ['train/a b: cannot be read (Permission denied)']


def test_read_names(tmp_path):
    order = tmp_path / 'order'
    order.write_bytes('\ufeffb\r\n\na b\nä\na b\nx\33\n'.encode())
    names, lines = names_in(order, ['a b', 'b', 'c', 'ä'])
    assert names == ['b', 'a b', 'ä', 'a b', 'x\33']
    assert lines == ['%s: there is no class x\\x1b' % order, '%s: class c is missing' % order,
                     '%s: class a b is listed more than once' % order]
    assert shown(b'a \xc3\xa4\xff\x1b') == 'a ä\\udcff\\x1b'


def test_encodings_of_a_class_order(tmp_path):
    """Bytes are names; accents may be characters of their own; everything else is explained."""
    order = tmp_path / 'order'
    for form in ('NFC', 'NFD'):
        for form_in_file in ('NFC', 'NFD'):
            name = unicodedata.normalize(form, 'ä')
            order.write_text('b\n%s\n' % unicodedata.normalize(form_in_file, 'ä'), encoding='utf-8')
            assert names_in(order, [name, 'b']) == (['b', name], [])
    order.write_bytes(b'b\n\xe4\n')
    assert names_in(order, ['b', '\udce4']) == (['b', '\udce4'], [])
    assert names_in(order, ['b', 'ä'])[1] == [
        '%s: there is no class \\udce4; save the file as UTF-8' % order,
        '%s: class ä is missing' % order]
    order.write_bytes('b\nä\n'.encode('utf-16'))
    assert names_in(order, ['b', 'ä']) == ([], ['%s: is UTF-16; save it as UTF-8' % order])


@pytest.mark.parametrize('encode', [
    lambda text: text.encode('latin-1'),
    lambda text: unicodedata.normalize('NFD', text).encode()], ids=['Latin-1', 'NFD'])
def test_encodings_of_a_list(encode, lists):
    """The bytes of a list must be those on the disk. If not, the fault says so."""
    text = (lists / 'train.txt').read_text(encoding='utf-8')
    (lists / 'train.txt').write_bytes(encode(text))
    folder = shown(encode('ä'))
    assert fault_lines(lists) == [
        'train/%s: no such folder; train.txt has 4 of its images there' % folder,
        'train.txt: has names that are not ASCII and not there; a list must have the bytes of the '
        'names on the disk: UTF-8, and accents in the same Unicode form']
    (lists / 'train/ä').rename(os.fsdecode(os.fsencode(str(lists)) + b'/train/' + encode('ä')))
    assert fault_lines(lists) == []
    (lists / 'train.txt').write_bytes(text.encode('utf-16'))
    assert fault_lines(lists) == [
        'train.txt: is UTF-16; save it as UTF-8; data/README.md says what belongs there']


def test_class_folders_in_two_unicode_forms(folders):
    (folders / 'val/ä').rename(folders / unicodedata.normalize('NFD', 'val/ä'))
    line, = fault_lines(folders, 0)
    assert line == ('val/a\u0308: no such class in train, but one of the same letters in another '
                    'Unicode form; rename one of the two')


def test_names_and_parts_do_not_depend_on_the_locale(tmp_path):
    """In the locale C without Python's UTF-8 mode, paths are ASCII and escapes."""
    for name in ('b', 'ä', '図'):
        make(tmp_path, *('%s/ü%02d.jpg' % (name, i) for i in range(9)))
    program = """
import sys, types
from data import Faults, sources
s = types.SimpleNamespace(DATA_DIR=sys.argv[1], NUM_CLASSES=0, TEST_FRACTION=0.3,
                          MODEL_DIR='model', LOG_DIR='logs')
faults = Faults()
listing = sources.read(s, faults)
print(ascii([sys.getfilesystemencoding() == 'utf-8', listing.names, listing.train.paths.tolist(),
             faults.lines]))
"""
    listing, _ = listed(tmp_path, 0, 0.3)
    assert listing.names == ['b', 'ä', '図']
    for utf8_mode in ('0', '1'):
        env = dict(os.environ, LC_ALL='C', PYTHONCOERCECLOCALE='0', PYTHONUTF8=utf8_mode)
        out = subprocess.check_output([sys.executable, '-c', program, str(tmp_path)], env=env,
                                      cwd=os.path.dirname(os.path.dirname(sources.__file__)))
        expected = [utf8_mode == '1', listing.names, listing.train.paths.tolist(), []]
        assert out.decode().strip() == ascii(expected)


def test_class_folders_that_are_numbers_are_sorted_as_numbers(tmp_path):
    for name in ('10', '9', '0', '011', '1'):
        make(tmp_path, *('%s/%d.jpg' % (name, i) for i in range(3)))
    listing, _ = listed(tmp_path, 0)
    assert listing.names == ['0', '1', '9', '10', '011']
    for path, number in zip(relative(tmp_path, listing.train), listing.train.classes):
        assert path.startswith(listing.names[number] + '/')
    make(tmp_path, *('a/%d.jpg' % i for i in range(3)))
    assert listed(tmp_path, 0)[0].names == ['0', '011', '1', '10', '9', 'a']


@pytest.mark.parametrize('model, log, written', [
    ('model', 'logs', ['model/folder/lock', 'logs/log', 'logs/picture.png']),
    ('out/model', 'out/logs', ['out/model/folder/lock', 'out/logs/log']),
    ('train/cats/model', 'train/logs', ['train/cats/model/folder/lock', 'train/logs/log']),
    ('.', '.', ['folder/lock', 'log', 'run-folder/results.csv']),
    ('link', 'logs', ['../elsewhere/folder/lock', 'logs/log'])])
@pytest.mark.parametrize('parts', [['.'], ['train', 'val']])
def test_what_a_run_writes_is_no_class(parts, model, log, written, tmp_path, monkeypatch):
    folder = tmp_path / 'data'
    for part in parts:
        for name in ('cats', 'dogs', 'train'):
            make(folder, *('%s/%s/%d.jpg' % (part, name, i) for i in range(4)))
    (folder / 'link').symlink_to('../elsewhere')
    monkeypatch.chdir(str(folder))
    expected = ['cats', 'dogs', 'train']
    for data_dir in ('.', folder):
        before, faults = listed(data_dir, 0, model=model, log=log)
        assert (before.names, faults.lines) == (expected, [])
    make(folder, *written)
    for data_dir in ('.', folder):
        after, faults = listed(data_dir, 0, model=model, log=log)
        assert (after.names, faults.lines) == (expected, [])
        assert len(after.train.paths) == len(before.train.paths)
