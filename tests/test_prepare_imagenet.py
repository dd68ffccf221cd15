"""ImageNet in its four published shapes, here three small classes, becomes links and lists."""
import gzip
import io
import os

import numpy as np
import pytest
import scipy.io
from common import NOT_FILES, listed, tar, write

from data import Fault, prepare_imagenet

WNIDS = ['n00000003', 'n00000001', 'n00000002']          # not in sorted order, like the devkit's numbers
TRAIN = {'%s_%d.JPEG' % (wnid, i): wnid for k, wnid in enumerate(WNIDS) for i in range(3 + k)}
VAL = {'ILSVRC2012_val_%08d.JPEG' % (i + 1): WNIDS[k] for i, k in enumerate([2, 0, 1, 1, 2, 0])}
DEVKIT, META, TRUTH = 'ILSVRC2012_devkit_t12.tar.gz', 'data/meta.mat', 'data/ILSVRC2012_validation_ground_truth.txt'
CLS_LOC, XML = 'ILSVRC2016_CLS-LOC.tar.gz', 'ILSVRC/Annotations/CLS-LOC/val/ILSVRC2012_val_00000001.xml'


@pytest.fixture(autouse=True)
def totals(monkeypatch):
    monkeypatch.setattr(prepare_imagenet, 'SETS', {'imagenet1000': ('dataImageNet1000', 3, 12, 6),
                                                   'imagenet100': ('dataImageNet100', 3, 12, 6)})


def pixels(name):
    return ('pixels of %s' % name).encode()


def meta(wnids, key='synsets'):
    out = io.BytesIO()
    scipy.io.savemat(out, {key: np.array(list(enumerate(wnids, 1)), [('ILSVRC2012_ID', int), ('WNID', object)])})
    return out.getvalue()


def published(train=(), of_class=(), val=(), devkit=()):
    """The archives of ILSVRC2012, each with changes."""
    inner = {wnid + '.tar': tar({name: pixels(name) for name in TRAIN if TRAIN[name] == wnid}, of_class) for wnid in WNIDS}
    truth = ''.join('%d\n' % (WNIDS.index(VAL[name]) + 1) for name in sorted(VAL))
    flat = {name: pixels(name) for name in VAL}
    return {'ILSVRC2012_img_train.tar': tar(inner, train), 'ILSVRC2012_img_val.tar': tar(flat, val), DEVKIT: gzip.compress(
        tar({META: meta(WNIDS), TRUTH: truth.encode()}, devkit))}


def tree(change=()):
    """The tree that the archive of ILSVRC2016_CLS-LOC unpacks to."""
    files = {'ILSVRC/Data/CLS-LOC/train/%s/%s' % (wnid, name): pixels(name) for name, wnid in TRAIN.items()}
    xml = '<annotation><filename>x</filename><object><name>%s</name></object><object><name>n9</name></object></annotation>'
    for name, wnid in VAL.items():
        files['ILSVRC/Data/CLS-LOC/val/' + name] = pixels(name)
        files['ILSVRC/Annotations/CLS-LOC/val/%s.xml' % name[:-5]] = (xml % wnid).encode()
    return dict(files, **dict(change))


def archive(change=()):
    return {CLS_LOC: gzip.compress(tar(tree(), change))}


def class_folders(change=()):
    """Class folders, as most people have them."""
    files = {'%s/%s/%s' % (part, wnid, name): pixels(name)
             for part, images in (('train', TRAIN), ('val', VAL)) for name, wnid in images.items()}
    return dict(files, **dict(change))


def prepare(folder, source='source'):
    prepare_imagenet.prepare(str(folder / source), str(folder / 'to'), ['imagenet1000', 'imagenet100'])


def check(folder):
    """Every image is listed with its class, the class has its name, and every image can be read."""
    train, test, names, wrong, missing, _ = listed(folder)
    assert (names, wrong, missing) == (sorted(WNIDS), [], [])
    for images, expected in ((train, TRAIN), (test, VAL)):
        assert {os.path.basename(os.fsdecode(path)): names[number] for path, number in zip(*images)} == expected
        for path in images.paths:
            with open(path, 'rb') as file:
                assert file.read() == pixels(os.path.basename(os.fsdecode(path)))
    assert [path.name for path in sorted(folder.iterdir()) if path.is_symlink()] == ['train', 'val']


@pytest.mark.parametrize('files', [published(of_class={'../evil.JPEG': b'', 'evil/a.JPEG': b''}), archive({
    'ILSVRC/Data/CLS-LOC/test/evil.JPEG': b'', '../ILSVRC/Data/CLS-LOC/val/evil.JPEG': b''}), tree(), class_folders()])
def test_shapes(files, tmp_path, monkeypatch):
    write(tmp_path / 'source', files)
    monkeypatch.chdir(str(tmp_path))  # to relative paths
    prepare_imagenet.prepare('source', 'to', ['imagenet1000', 'imagenet100'])
    prepare_imagenet.prepare('source', 'to', ['imagenet1000'])  # once more
    check(tmp_path / 'to' / 'dataImageNet1000')
    check(tmp_path / 'to' / 'dataImageNet100')
    assert not list(tmp_path.glob('**/evil*'))
    if (tmp_path / 'to' / 'ImageNetFiles').exists():  # without the archives
        prepare(tmp_path, source='to/ImageNetFiles')
        check(tmp_path / 'to' / 'dataImageNet1000')


def test_an_interrupted_call_is_continued(tmp_path):
    write(tmp_path / 'source', published())
    write(tmp_path / 'to' / 'ImageNetFiles' / 'train', {
        'n00000002/n00000002_0.JPEG': b'half', 'n00000001/n00000001_0.JPEG': pixels('n00000001_0.JPEG')})
    whole = tmp_path / 'to' / 'ImageNetFiles' / 'train' / 'n00000001' / 'n00000001_0.JPEG'
    os.utime(str(whole), (0, 0))
    prepare(tmp_path)
    check(tmp_path / 'to' / 'dataImageNet1000')
    assert whole.stat().st_mtime == 0  # not written again


def test_without_symbolic_links(tmp_path, monkeypatch):
    """As after an interruption, there are lists without images, which a run refuses."""
    def refuse(*paths):
        raise OSError(1, 'Operation not permitted')

    write(tmp_path / 'source', class_folders())
    monkeypatch.setattr(os, 'symlink', refuse)
    with pytest.raises(Fault, match='dataImageNet1000: symbolic links cannot be made there .Operation not permitted.; choose'):
        prepare(tmp_path)
    assert 'val/n00000001: no such folder' in str(listed(tmp_path / 'to' / 'dataImageNet1000')[4])


@pytest.mark.parametrize('files, message', [(make(kind), 'in it is not a regular file') for make in (
    lambda kind: published(train={'n00000001.tar': kind}), lambda kind: published(of_class={'n00000001_0.JPEG': kind}),
    lambda kind: published(val={'ILSVRC2012_val_00000001.JPEG': kind}), lambda kind: published(devkit={META: kind}),
    lambda kind: archive({XML: kind}), lambda kind: archive({'ILSVRC/Data/CLS-LOC/train/n00000001/n00000001_0.JPEG': kind}))
    for kind in NOT_FILES] + [
    (published(train={'n00000001.tar': b'text'}), 'img_train.tar: cannot be read as an archive'),
    ({CLS_LOC: b'text'}, 'CLS-LOC.tar.gz: cannot be read as an archive .file could not be opened'),
    ({CLS_LOC: archive()[CLS_LOC][:-300]}, 'CLS-LOC.tar.gz: cannot be read as an archive'),
    ({CLS_LOC: archive()[CLS_LOC][:12] + b'text' + archive()[CLS_LOC][16:]}, 'CLS-LOC.tar.gz: cannot be read as an archive'),
    (published(devkit={META: b'text'}), 'meta.mat .* is missing or wrong'),
    (published(devkit={META: meta(WNIDS, 'other')}), "meta.mat .* is missing or wrong .KeyError.'synsets'"),
    (published(devkit={META: meta(['../../evil'] * 3)}), 'meta.mat .* is missing or wrong'),
    (published(devkit={TRUTH: b'4'}), 'meta.mat .* is missing or wrong .KeyError.4'),
    (dict(published(), **{DEVKIT: tar({'readme': b''})}), 'meta.mat .* is missing or wrong'),
    (dict(published(), **{DEVKIT: None}), 'ILSVRC2012_devkit_t12.tar.gz: no such file'),
    (tree({XML: b'text'}), 'val_00000001.xml: is not an annotation .syntax error'),
    (tree({XML: b'<?xml version="1.0" encoding="no"?><a/>'}), 'val_00000001.xml: is not an annotation .unknown encoding'),
    (tree({XML: None}), 'val_00000001.xml: no such file; the class of ILSVRC2012_val_00000001.JPEG belongs there'),
    (tree({XML: None, XML + '/x': b''}), 'val_00000001.xml: is a folder'),
    ({CLS_LOC: tar({})}, 'ImageNetFiles: has no images; put'), ({'readme': b''}, 'source: has no images; put'),
    (class_folders({'train/n00000004': b''}), 'train/n00000004: cannot be read or written .Not a directory'),
    (class_folders({'train/n00000004/a.JPEG': b''}), '4 classes instead of 3\nimagenet1000: 13 training images instead of 12$'),
    (class_folders({'val/n00000001/a.JPEG': b''}), 'imagenet1000: 7 validation images instead of 6$'),
    (class_folders({'../to': b''}), 'to/.*: cannot be read or written .Not a directory.$'),
    (dict(published(), **{'../to': b''}), 'to/.*: cannot be read or written .Not a directory.$'),
    (class_folders({'../to/dataImageNet1000/train/a.JPEG': b''}), 'train: a link belongs there; move what is there elsewhere')])
def test_faults(files, message, tmp_path):
    write(tmp_path / 'source', files)
    with pytest.raises(Fault, match=message) as raised:
        prepare(tmp_path)
    assert str(raised.value).count('\n') == message.count('\n')
    assert not list(tmp_path.glob('to/data*/*.txt')) and not list(tmp_path.glob('**/evil*'))
    assert all((tmp_path / 'source' / name).exists() for name, data in files.items() if data is not None)


def test_subsets():
    """The first 100 wnids, and the first 100 of the shuffle that begins 54 7 894 512 126. Both are sorted."""
    wnids = ['n%08d' % i for i in range(1000)]
    assert prepare_imagenet._subset('imagenet100', wnids) == wnids[:100]
    shuffled = prepare_imagenet._subset('imagenet100-shuffled', wnids)
    assert len(shuffled) == 100 and shuffled == sorted(shuffled)
    assert {'n%08d' % i for i in (54, 7, 894, 512, 126)} < set(shuffled)
    with pytest.raises(Fault, match='is drawn from 1000 classes, and 100 are there'):
        prepare_imagenet._subset('imagenet100-shuffled', wnids[:100])
