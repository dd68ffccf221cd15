"""CIFAR-100's binary version, from archives of three images made here, to images and lists."""
import hashlib
import io
import os
import tarfile

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from data import Fault, prepare_cifar100

RANDOM = np.random.RandomState(0)
PIXELS = RANDOM.randint(0, 256, (4, 3, 32, 32)).astype(np.uint8)   # red, green and blue plane
RECORDS = [bytes([coarse, fine]) + image.tobytes() for coarse, fine, image in zip((9, 9, 9, 9), (1, 0, 2, 1), PIXELS)]
FILES = {'train.bin': b''.join(RECORDS[:3]), 'test.bin': RECORDS[3], 'fine_label_names.txt': b'apple\naquarium_fish\nbaby\n\n'}


@pytest.fixture(autouse=True)
def sums(monkeypatch):
    monkeypatch.setattr(prepare_cifar100, 'SHA1', {
        name: hashlib.sha1(FILES[name]).hexdigest() for name in ('train.bin', 'test.bin')})


def archive(path, files, mode):
    with tarfile.open(str(path), mode) as out:
        for name, content in files.items():
            member = tarfile.TarInfo('cifar-100-binary/' + name)
            member.size = len(content)
            out.addfile(member, io.BytesIO(content))


def check(folder):
    assert (folder / 'train.txt').read_text() == (
        'train/aquarium_fish/00000.png 1\ntrain/apple/00001.png 0\ntrain/baby/00002.png 2\n')
    assert (folder / 'val.txt').read_text() == 'val/aquarium_fish/00003.png 1\n'
    with tf.Graph().as_default(), tf.Session() as session:
        for path, planes in (('train/apple/00001.png', PIXELS[1]), ('val/aquarium_fish/00003.png', PIXELS[3])):
            pixels = session.run(tf.image.decode_png(tf.read_file(str(folder / path))))
            for channel in range(3):
                np.testing.assert_array_equal(pixels[:, :, channel], planes[channel])


@pytest.mark.parametrize('mode, ending', [('w:gz', 'tar.gz'), ('w:xz', 'tar.xz')])
def test_archive_beside_the_folder(mode, ending, tmp_path):
    archive(tmp_path / ('cifar-100-binary.' + ending), FILES, mode)
    prepare_cifar100.prepare(str(tmp_path / 'dataCIFAR100'))
    check(tmp_path / 'dataCIFAR100')


def test_unpacked_folder(tmp_path):
    (tmp_path / 'source').mkdir()
    for name, content in FILES.items():
        (tmp_path / 'source' / name).write_bytes(content)
    prepare_cifar100.prepare(str(tmp_path / 'out'), str(tmp_path / 'source'))
    check(tmp_path / 'out')


@pytest.mark.parametrize('change, message', [
    ({'test.bin': RECORDS[2]}, 'test.bin has SHA-1 [0-9a-f]{40} instead of [0-9a-f]{40}; get it again from https://'),
    ({'train.bin': None}, 'has no train.bin; the binary version of CIFAR-100 is wanted')])
def test_wrong_files(change, message, tmp_path):
    files = {name: content for name, content in dict(FILES, **change).items() if content is not None}
    archive(tmp_path / 'a.tar.gz', files, 'w:gz')
    with pytest.raises(Fault, match=message):
        prepare_cifar100.prepare(str(tmp_path / 'out'), str(tmp_path / 'a.tar.gz'))
    assert os.listdir(str(tmp_path)) == ['a.tar.gz']


def test_damaged_archive(tmp_path):
    archive(tmp_path / 'a.tar.gz', FILES, 'w:gz')
    (tmp_path / 'a.tar.gz').write_bytes((tmp_path / 'a.tar.gz').read_bytes()[:5000])
    with pytest.raises(Fault, match='cannot be read as an archive'):
        prepare_cifar100.prepare(str(tmp_path / 'out'), str(tmp_path / 'a.tar.gz'))


def test_without_archive_and_network(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError('no network')

    monkeypatch.setattr(tf.keras.utils, 'get_file', refuse)
    with pytest.raises(Fault, match='could not be downloaded .no network.; put it there by hand'):
        prepare_cifar100.prepare(str(tmp_path / 'out'))
