"""ImageNet in its four published shapes, here three small classes, becomes links and lists."""
import gzip
import io
import os
import types

import numpy as np
import pytest
import scipy.io
from common import NOT_FILES, tar, write

from data import Fault, Faults, prepare_imagenet, sources

WNIDS = ['n00000003', 'n00000001', 'n00000002']  # not in sorted order, like the devkit's numbers
# Three, four and five training images, and two validation images of each class.
TRAIN = {'%s_%d.JPEG' % (wnid, i): wnid for k, wnid in enumerate(WNIDS) for i in range(3 + k)}
VAL = {'ILSVRC2012_val_%08d.JPEG' % (i + 1): WNIDS[k] for i, k in enumerate([2, 0, 1, 1, 2, 0])}
TRAIN_TAR = 'ILSVRC2012_img_train.tar'
VAL_TAR = 'ILSVRC2012_img_val.tar'
DEVKIT = 'ILSVRC2012_devkit_t12.tar.gz'
META = 'data/meta.mat'
TRUTH = 'data/ILSVRC2012_validation_ground_truth.txt'
CLS_LOC = 'ILSVRC2016_CLS-LOC.tar.gz'
XML = 'ILSVRC/Annotations/CLS-LOC/val/ILSVRC2012_val_00000001.xml'


@pytest.fixture(autouse=True)
def totals(monkeypatch):
    sets = {'imagenet1000': ('dataImageNet1000', 3, 12, 6),
            'imagenet100': ('dataImageNet100', 3, 12, 6)}
    monkeypatch.setattr(prepare_imagenet, 'SETS', sets)


def pixels(name):
    return ('pixels of %s' % name).encode()


def meta(wnids, key='synsets'):
    """The devkit's meta.mat."""
    out = io.BytesIO()
    synsets = np.array(list(enumerate(wnids, 1)), [('ILSVRC2012_ID', int), ('WNID', object)])
    scipy.io.savemat(out, {key: synsets})
    return out.getvalue()


def published(train=(), in_class=(), val=(), devkit=()):
    """The archives of ILSVRC2012. The arguments are changes: dict from a member to its bytes."""
    classes = {}
    for wnid in WNIDS:
        members = {name: pixels(name) for name in TRAIN if TRAIN[name] == wnid}
        classes[wnid + '.tar'] = tar(members, in_class)
    truth = ''.join('%d\n' % (WNIDS.index(VAL[name]) + 1) for name in sorted(VAL))
    val_images = {name: pixels(name) for name in VAL}
    devkit_files = {META: meta(WNIDS), TRUTH: truth.encode()}
    return {TRAIN_TAR: tar(classes, train), VAL_TAR: tar(val_images, val),
            DEVKIT: gzip.compress(tar(devkit_files, devkit))}


def tree(change=()):
    """The tree that the archive of ILSVRC2016_CLS-LOC unpacks to."""
    files = {}
    for name, wnid in TRAIN.items():
        files['ILSVRC/Data/CLS-LOC/train/%s/%s' % (wnid, name)] = pixels(name)
    for name, wnid in VAL.items():
        xml = ('<annotation><filename>x</filename><object><name>%s</name></object>'
               '<object><name>n9</name></object></annotation>' % wnid)
        files['ILSVRC/Data/CLS-LOC/val/' + name] = pixels(name)
        files['ILSVRC/Annotations/CLS-LOC/val/%s.xml' % name[:-len('.JPEG')]] = xml.encode()
    return dict(files, **dict(change))


def archive(change=()):
    return {CLS_LOC: gzip.compress(tar(tree(), change))}


def class_folders(change=()):
    """Class folders, as most people have them."""
    files = {}
    for part, wnid_of in (('train', TRAIN), ('val', VAL)):
        for name, wnid in wnid_of.items():
            files['%s/%s/%s' % (part, wnid, name)] = pixels(name)
    return dict(files, **dict(change))


def prepare(folder, source='source'):
    prepare_imagenet.prepare(str(folder / source), str(folder / 'to'),
                             ['imagenet1000', 'imagenet100'])


def listed(folder):
    """The Listing of a folder, and the Faults in it."""
    faults = Faults()
    s = types.SimpleNamespace(DATA_DIR=str(folder), NUM_CLASSES=3)
    return sources.read(s, faults), faults


def check(folder):
    """Every image is listed with its class, the class has its name, every image can be read."""
    listing, faults = listed(folder)
    assert faults.lines == []
    assert listing.names == sorted(WNIDS)
    for images, expected in ((listing.train, TRAIN), (listing.test, VAL)):
        actual = {}
        for path, number in zip(images.paths, images.classes):
            name = os.path.basename(os.fsdecode(path))
            actual[name] = listing.names[number]
            with open(path, 'rb') as file:
                assert file.read() == pixels(name)
        assert actual == expected
    links = [path.name for path in sorted(folder.iterdir()) if path.is_symlink()]
    assert links == ['train', 'val']


@pytest.mark.parametrize('files', [
    published(in_class={'../evil.JPEG': b'', 'evil/a.JPEG': b''}),
    archive({'ILSVRC/Data/CLS-LOC/test/evil.JPEG': b'',
             '../ILSVRC/Data/CLS-LOC/val/evil.JPEG': b''}),
    tree(),
    class_folders(),
], ids=['published', 'archive', 'tree', 'class folders'])
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
    train = tmp_path / 'to' / 'ImageNetFiles' / 'train'
    write(train, {'n00000002/n00000002_0.JPEG': b'half',
                  'n00000001/n00000001_0.JPEG': pixels('n00000001_0.JPEG')})
    whole = train / 'n00000001' / 'n00000001_0.JPEG'
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
    message = ('dataImageNet1000: symbolic links cannot be made there '
               '.Operation not permitted.; choose')
    with pytest.raises(Fault, match=message):
        prepare(tmp_path)
    _, faults = listed(tmp_path / 'to' / 'dataImageNet1000')
    assert any('val/n00000001: no such folder' in line for line in faults.lines)


def with_member(kind):
    """Sources in which one wanted member, each time another one, is no regular file."""
    return [
        published(train={'n00000001.tar': kind}),
        published(in_class={'n00000001_0.JPEG': kind}),
        published(val={'ILSVRC2012_val_00000001.JPEG': kind}),
        published(devkit={META: kind}),
        archive({XML: kind}),
        archive({'ILSVRC/Data/CLS-LOC/train/n00000001/n00000001_0.JPEG': kind}),
    ]


NOT_REGULAR = [(files, 'in it is not a regular file')
               for kind in NOT_FILES for files in with_member(kind)]


@pytest.mark.parametrize('files, message', NOT_REGULAR + [
    (published(train={'n00000001.tar': b'text'}),
     'img_train.tar: cannot be read as an archive'),
    ({CLS_LOC: b'text'},
     'CLS-LOC.tar.gz: cannot be read as an archive .file could not be opened'),
    ({CLS_LOC: archive()[CLS_LOC][:-300]},
     'CLS-LOC.tar.gz: cannot be read as an archive'),
    ({CLS_LOC: archive()[CLS_LOC][:12] + b'text' + archive()[CLS_LOC][16:]},
     'CLS-LOC.tar.gz: cannot be read as an archive'),
    (published(devkit={META: b'text'}),
     'meta.mat .* is missing or wrong'),
    (published(devkit={META: meta(WNIDS, 'other')}),
     "meta.mat .* is missing or wrong .KeyError.'synsets'"),
    (published(devkit={META: meta(['../../evil'] * 3)}),
     'meta.mat .* is missing or wrong'),
    (published(devkit={TRUTH: b'4'}),
     'meta.mat .* is missing or wrong .KeyError.4'),
    (dict(published(), **{DEVKIT: tar({'readme': b''})}),
     'meta.mat .* is missing or wrong'),
    (dict(published(), **{DEVKIT: None}),
     'ILSVRC2012_devkit_t12.tar.gz: no such file'),
    (tree({XML: b'text'}),
     'val_00000001.xml: is not an annotation .syntax error'),
    (tree({XML: b'<?xml version="1.0" encoding="no"?><a/>'}),
     'val_00000001.xml: is not an annotation .unknown encoding'),
    (tree({XML: None}),
     'val_00000001.xml: no such file; the class of ILSVRC2012_val_00000001.JPEG belongs there'),
    (tree({XML: None, XML + '/x': b''}),
     'val_00000001.xml: is a folder'),
    ({CLS_LOC: tar({})},
     'ImageNetFiles: has no images; put'),
    ({'readme': b''},
     'source: has no images; put'),
    (class_folders({'train/n00000004': b''}),
     'train/n00000004: cannot be read or written .Not a directory'),
    (class_folders({'train/n00000004/a.JPEG': b''}),
     '4 classes instead of 3\nimagenet1000: 13 training images instead of 12$'),
    (class_folders({'val/n00000001/a.JPEG': b''}),
     'imagenet1000: 7 validation images instead of 6$'),
    (class_folders({'../to': b''}),
     'to/.*: cannot be read or written .Not a directory.$'),
    (dict(published(), **{'../to': b''}),
     'to/.*: cannot be read or written .Not a directory.$'),
    (class_folders({'../to/dataImageNet1000/train/a.JPEG': b''}),
     'train: a link belongs there; move what is there elsewhere')])
def test_faults(files, message, tmp_path):
    write(tmp_path / 'source', files)
    with pytest.raises(Fault, match=message) as raised:
        prepare(tmp_path)
    assert str(raised.value).count('\n') == message.count('\n')
    assert not list(tmp_path.glob('to/data*/*.txt'))
    assert not list(tmp_path.glob('**/evil*'))
    for name, content in files.items():
        assert content is None or (tmp_path / 'source' / name).exists()


def test_subsets():
    """The first 100 wnids, and the first 100 of the shuffle that begins 54 7 894 512 126."""
    wnids = ['n%08d' % i for i in range(1000)]
    assert prepare_imagenet._subset('imagenet100', wnids) == wnids[:100]
    shuffled = prepare_imagenet._subset('imagenet100-shuffled', wnids)
    assert len(shuffled) == 100
    assert shuffled == sorted(shuffled)
    assert {'n%08d' % i for i in (54, 7, 894, 512, 126)} < set(shuffled)
    with pytest.raises(Fault, match='is drawn from 1000 classes, and 100 are there'):
        prepare_imagenet._subset('imagenet100-shuffled', wnids[:100])
