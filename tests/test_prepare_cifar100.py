"""CIFAR-100's binary version, here of four images, becomes images and lists; and png_folder."""
import hashlib
import os

import numpy as np
import PIL.Image
import pytest
from common import tar, write

from data import Fault, png_folder, prepare_cifar100

# Red, green and blue plane of each image.
PIXELS = np.random.RandomState(0).randint(0, 256, (4, 3, 32, 32)).astype(np.uint8)
RECORDS = [bytes([9, fine]) + image.tobytes() for fine, image in zip((1, 0, 2, 1), PIXELS)]
FILES = {'train.bin': b''.join(RECORDS[:3]), 'test.bin': RECORDS[3],
         'fine_label_names.txt': b'apple\naquarium_fish\nbaby\n'}


@pytest.fixture(autouse=True)
def sums_(monkeypatch):
    sums = {name: hashlib.sha1(content).hexdigest() for name, content in FILES.items()}
    monkeypatch.setattr(prepare_cifar100, 'SHA1', sums)


def archive(path, mode='w:gz', change=()):
    files = dict(FILES, **dict(change))
    members = {'cifar-100-binary/' + name: content for name, content in files.items()}
    path.write_bytes(tar(members, mode=mode))


def check(folder):
    assert (folder / 'train.txt').read_text() == (
        'train/aquarium_fish/00000.png 1\ntrain/apple/00001.png 0\ntrain/baby/00002.png 2\n')
    assert (folder / 'val.txt').read_text() == 'val/aquarium_fish/00003.png 1\n'
    for path, planes in (('train/apple/00001.png', PIXELS[1]),
                         ('val/aquarium_fish/00003.png', PIXELS[3])):
        pixels = np.array(PIL.Image.open(str(folder / path)))
        np.testing.assert_array_equal(pixels.transpose(2, 0, 1), planes)


@pytest.mark.parametrize('mode, ending', [('w:gz', 'tar.gz'), ('w:xz', 'tar.xz')])
def test_archive_beside_the_folder(mode, ending, tmp_path):
    names = b'apple\r\naquarium_fish\r\nbaby\r\n\r\n'
    archive(tmp_path / ('cifar-100-binary.' + ending), mode, {'fine_label_names.txt': names})
    prepare_cifar100.prepare(str(tmp_path / 'dataCIFAR100'))
    check(tmp_path / 'dataCIFAR100')


def test_download(tmp_path, monkeypatch):
    monkeypatch.setattr(prepare_cifar100, 'ORIGIN', (tmp_path / 'published').as_uri())
    message = ('cifar-100-binary.tar.gz: no such file, and it could not be downloaded .*; '
               'put it there')
    with pytest.raises(Fault, match=message):
        prepare_cifar100.prepare(str(tmp_path / 'data' / 'out'))
    archive(tmp_path / 'published')
    prepare_cifar100.prepare(str(tmp_path / 'data' / 'out'))
    check(tmp_path / 'data' / 'out')
    assert sorted(os.listdir(str(tmp_path / 'data'))) == ['cifar-100-binary.tar.gz', 'out']


def test_unpacked_folder(tmp_path):
    write(tmp_path, FILES)
    prepare_cifar100.prepare(str(tmp_path / 'out'), str(tmp_path))
    check(tmp_path / 'out')
    (tmp_path / 'train.bin').unlink()
    os.mkfifo(str(tmp_path / 'train.bin'))
    for source in (tmp_path, tmp_path / 'train.bin'):
        with pytest.raises(Fault, match='train.bin: is a pipe, a device'):
            prepare_cifar100.prepare(str(tmp_path / 'other'), str(source))


@pytest.mark.parametrize('change, damage, message', [
    ({'test.bin': RECORDS[2]}, bytes,
     'test.bin has SHA-1 [0-9a-f]{40} instead of [0-9a-f]{40}; get it again from https://'),
    ({'fine_label_names.txt': b'apple\n../../../evil\nbaby\n'}, bytes,
     'fine_label_names.txt has SHA-1'),
    ({}, lambda data: b'\0' * 10240,
     'has no train.bin; the binary version of CIFAR-100 is wanted'),
    ({}, lambda data: b'text',
     'cannot be read .file could not be opened successfully.; get it again'),
    ({}, lambda data: data[:5000],
     'cannot be read')])
def test_wrong_archives(change, damage, message, tmp_path):
    path = tmp_path / 'a.tar.gz'
    archive(path, change=change)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(Fault, match='a.tar.gz: ' + message):
        prepare_cifar100.prepare(str(tmp_path / 'out'), str(path))
    assert os.listdir(str(tmp_path)) == ['a.tar.gz']


def images(then=lambda: None):
    """Generates an image, calls `then`, and generates another one."""
    yield 'train', 0, 'zero', np.zeros((2, 2, 1), np.uint8)
    then()
    yield 'val', 0, 'zero', np.ones((2, 2, 1), np.uint8)


def test_two_processes_write_the_same_folder(tmp_path):
    folder = tmp_path / 'new' / 'images'
    png_folder.write(str(folder), images(lambda: png_folder.write(str(folder), images())))
    assert os.listdir(str(folder.parent)) == ['images']
    assert (folder / 'val' / 'zero' / '00001.png').exists()
    assert folder.stat().st_mode == folder.parent.stat().st_mode  # not for the owner alone
    with pytest.raises(Fault, match='images: exists already'):
        png_folder.write(str(folder), images())


def test_an_interruption_leaves_nothing(tmp_path):
    def interrupt():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        png_folder.write(str(tmp_path / 'images'), images(interrupt))
    assert os.listdir(str(tmp_path)) == []
    # Nor can anything be written below a file.
    (tmp_path / 'file').write_bytes(b'')
    with pytest.raises(Fault, match='the images cannot be written there .*Not a directory'):
        png_folder.write(str(tmp_path / 'file' / 'new' / 'images'), images())
