"""ImageNet's three shapes, three classes small and made here, to class folders and lists."""
import io
import os
import tarfile

import numpy as np
import pytest
import scipy.io

from data import Fault, lists, prepare_imagenet

WNIDS = ['n00000003', 'n00000001', 'n00000002']          # not in sorted order, like the devkit's numbers
TRAIN = {wnid: ['%s_%d.JPEG' % (wnid, i) for i in range(3 + k)] for k, wnid in enumerate(WNIDS)}
VAL = {'ILSVRC2012_val_%08d.JPEG' % (i + 1): WNIDS[k] for i, k in enumerate([2, 0, 1, 1, 2, 0])}
TOTALS = {'imagenet1000': (3, 12, 6), 'imagenet100': (3, 12, 6), 'imagenet100-shuffled': (3, None, 6)}


def content(name):
    return ('pixels of %s' % name).encode()


def add(archive, name, data):
    member = tarfile.TarInfo(name)
    member.size = len(data)
    archive.addfile(member, io.BytesIO(data))


def tar(path, files, mode='w'):
    with tarfile.open(str(path), mode) as archive:
        for name, data in files.items():
            add(archive, name, data)


def published(folder):
    """The tars of ILSVRC2012."""
    inner = {}
    for wnid, names in TRAIN.items():
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode='w') as archive:
            for name in names:
                add(archive, name, content(name))
            add(archive, '../evil.JPEG', b'must not be written')
        inner[wnid + '.tar'] = out.getvalue()
    tar(folder / 'ILSVRC2012_img_train.tar', inner)
    tar(folder / 'ILSVRC2012_img_val.tar', {name: content(name) for name in VAL})
    meta = io.BytesIO()
    synsets = np.array([(k + 1, wnid) for k, wnid in enumerate(WNIDS)], [('ILSVRC2012_ID', int), ('WNID', object)])
    scipy.io.savemat(meta, {'synsets': synsets})
    truth = ''.join('%d\n' % (WNIDS.index(VAL[name]) + 1) for name in sorted(VAL))
    tar(folder / 'ILSVRC2012_devkit_t12.tar.gz', {
        'ILSVRC2012_devkit_t12/data/meta.mat': meta.getvalue(),
        'ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt': truth.encode()}, 'w:gz')


def localisation_files():
    files = {'ILSVRC/Data/CLS-LOC/train/%s/%s' % (wnid, name): content(name) for wnid, names in TRAIN.items() for name in names}
    files.update({'ILSVRC/Data/CLS-LOC/val/' + name: content(name) for name in VAL})
    files['ILSVRC/Data/CLS-LOC/test/ILSVRC2012_test_00000001.JPEG'] = b'not wanted'
    xml = '<annotation><filename>x</filename><object><name>%s</name></object><object><name>n9</name></object></annotation>'
    files.update({'ILSVRC/Annotations/CLS-LOC/val/%s.xml' % name[:-5]: (xml % wnid).encode() for name, wnid in VAL.items()})
    return files


def localisation(folder):
    """The archive of ILSVRC2016_CLS-LOC."""
    tar(folder / 'ILSVRC2016_CLS-LOC.tar.gz', localisation_files(), 'w:gz')


def unpacked(folder):
    """The tree that it unpacks to."""
    write_tree(folder, localisation_files())


def tree(folder):
    """Class folders, as most people have them."""
    files = {'train/%s/%s' % (wnid, name): content(name) for wnid, names in TRAIN.items() for name in names}
    files.update({'val/%s/%s' % (wnid, name): content(name) for name, wnid in VAL.items()})
    write_tree(folder, files)


def write_tree(folder, files):
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


def prepare(source, to, sets=('imagenet1000',), totals=TOTALS):
    said = []
    prepare_imagenet.prepare(str(source), str(to), list(sets), totals, said.append)
    return said


@pytest.fixture(name='source')
def source_(tmp_path):
    (tmp_path / 'source').mkdir()
    return tmp_path / 'source'


@pytest.mark.parametrize('shape', [published, localisation, unpacked, tree])
def test_shapes(shape, source, tmp_path):
    shape(source)
    said = prepare(source, tmp_path / 'to', ['imagenet1000', 'imagenet100'])
    assert said[-1] == '%s: 3 classes, 12 training and 6 validation images' % (tmp_path / 'to' / 'dataImageNet100')
    for name in ('dataImageNet1000', 'dataImageNet100'):
        folder = tmp_path / 'to' / name
        train, test, wrong, missing = lists.read(str(folder), 3)
        assert wrong == missing == []
        for images, expected in ((train, {name: wnid for wnid, names in TRAIN.items() for name in names}), (test, VAL)):
            assert {os.path.basename(os.fsdecode(path)): sorted(WNIDS)[label]
                    for path, label in zip(images.paths, images.classes)} == expected
            for path in images.paths:
                with open(path, 'rb') as file:
                    assert file.read() == content(os.path.basename(os.fsdecode(path)))
                assert os.stat(path).st_nlink > 1 and not os.path.islink(path)
    assert not (tmp_path / 'evil.JPEG').exists() and not list(tmp_path.glob('**/evil*'))
    # Once more: nothing changes.
    prepare(source, tmp_path / 'to', ['imagenet1000'])
    assert lists.read(str(tmp_path / 'to' / 'dataImageNet1000'), 3)[2:] == ([], [])


def test_an_interrupted_call_goes_on(source, tmp_path):
    published(source)
    half = tmp_path / 'to' / 'ImageNetFiles' / 'train'
    write_tree(half, {'n00000001/%s' % name: content(name) for name in TRAIN['n00000001']})
    write_tree(half, {'n00000002.partial/n00000002_0.JPEG': b'half'})
    said = prepare(source, tmp_path / 'to')
    assert [line for line in said if 'n00000001' in line] == [] and [line for line in said if 'n00000002' in line] != []
    with open(str(tmp_path / 'to' / 'dataImageNet1000' / 'train' / 'n00000002' / 'n00000002_0.JPEG'), 'rb') as file:
        assert file.read() == content('n00000002_0.JPEG')


def test_wrong_totals(source, tmp_path):
    tree(source)
    (source / 'train' / 'n00000001' / 'n00000001_0.JPEG').unlink()
    with pytest.raises(Fault, match='^imagenet1000: 11 training images instead of 12$'):
        prepare(source, tmp_path / 'to')
    assert not (tmp_path / 'to').exists()


def test_a_class_without_validation_images(source, tmp_path):
    tree(source)
    for path in (source / 'val' / 'n00000002').iterdir():
        path.unlink()
    with pytest.raises(Fault, match='4 validation images instead of 6\nimagenet1000: class n00000002 has no image in val'):
        prepare(source, tmp_path / 'to')


def test_no_source(source, tmp_path):
    with pytest.raises(Fault, match='has neither the archives of ILSVRC2012'):
        prepare(source, tmp_path / 'to')
    published(source)
    (source / 'ILSVRC2012_devkit_t12.tar.gz').unlink()
    with pytest.raises(Fault, match='ILSVRC2012_devkit_t12.tar.gz: no such file'):
        prepare(source, tmp_path / 'to')


def test_no_classes_of_validation_images(source, tmp_path):
    published(source)
    tar(source / 'ILSVRC2012_devkit_t12.tar.gz', {'readme.txt': b''}, 'w:gz')
    with pytest.raises(Fault, match='has no meta.mat or no ILSVRC2012_validation_ground_truth.txt'):
        prepare(source, tmp_path / 'to')


def test_a_damaged_archive(source, tmp_path):
    localisation(source)
    path = source / 'ILSVRC2016_CLS-LOC.tar.gz'
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(Fault, match='ILSVRC2016_CLS-LOC.tar.gz: cannot be read as an archive'):
        prepare(source, tmp_path / 'to')


def test_subsets():
    """The first 100 wnids, and the first 100 of the shuffle that begins 54 7 894 512 126; both in sorted order."""
    wnids = ['n%08d' % i for i in range(1000)]
    assert prepare_imagenet._subset('imagenet100', wnids) == wnids[:100]
    shuffled = prepare_imagenet._subset('imagenet100-shuffled', wnids)
    assert len(shuffled) == 100 and shuffled == sorted(shuffled)
    assert {'n%08d' % i for i in (54, 7, 894, 512, 126)} < set(shuffled)
