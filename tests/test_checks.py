"""Every kind of damage is found, and nothing whole is taken for damaged."""
import os

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from data import checks

PIXELS = np.random.RandomState(0).randint(0, 256, (40, 30, 3)).astype(np.uint8)


def encoded(encode):
    with tf.Graph().as_default(), tf.Session() as session:
        return session.run(encode(tf.constant(PIXELS)))


@pytest.fixture(name='jpeg', scope='module')
def jpeg_():
    return encoded(tf.image.encode_jpeg)


@pytest.fixture(name='png', scope='module')
def png_():
    return encoded(tf.image.encode_png)


def bmp():
    """24 bits, rows from below, each padded to four bytes."""
    rows = b''.join(row[:, ::-1].tobytes() + b'\0' * (-90 % 4) for row in PIXELS[::-1])
    header = b'BM' + (54 + len(rows)).to_bytes(4, 'little') + bytes(4) + (54).to_bytes(4, 'little')
    header += (40).to_bytes(4, 'little') + (30).to_bytes(4, 'little') + (40).to_bytes(4, 'little')
    return header + (1).to_bytes(2, 'little') + (24).to_bytes(2, 'little') + bytes(24) + rows


GIF = (b'GIF89a' + b'\x01\0\x01\0\x80\0\0' + b'\0\0\0\xff\xff\xff' + b'\x2c\0\0\0\0\x01\0\x01\0\0'
       + b'\x02\x02\x44\x01\0' + b'\x3b')   # one white pixel


def unreadable(folder, files, decode_all=False):
    paths = []
    for name, content in files.items():
        paths.append(os.fsencode(str(folder / name)))
        if content is not None:
            (folder / name).write_bytes(content)
    return {os.path.basename(os.fsdecode(path)): reason for path, reason in checks.unreadable(paths, decode_all).items()}


@pytest.mark.parametrize('decode_all', [False, True])
def test_whole_images(decode_all, tmp_path, jpeg, png):
    files = {'a.JPEG': jpeg, 'b.png': png, 'c.bmp': bmp(), 'd.gif': GIF, 'png named.JPEG': png, 'Wörter "quoted".jpg': jpeg,
             'much behind its end.jpg': jpeg + bytes(5000)}
    assert unreadable(tmp_path, files, decode_all) == {}


def test_damaged_images(tmp_path, jpeg, png):
    os.symlink(str(tmp_path / 'nowhere'), str(tmp_path / 'link.png'))
    (tmp_path / 'folder.png').mkdir()
    files = {'empty.png': b'', 'text.png': b'this is no image', 'cut.jpg': jpeg[:len(jpeg) // 2], 'cut.png': png[:-20],
             'cut.bmp': bmp()[:-500], 'cut.gif': GIF[:-6], 'link.png': None, 'folder.png': None, 'whole.png': png}
    found = unreadable(tmp_path, files)
    assert found == {
        'empty.png': 'is empty', 'text.png': 'is no JPEG, PNG, GIF or BMP image', 'cut.jpg': 'is cut off',
        'cut.png': 'is cut off', 'cut.bmp': 'is cut off', 'cut.gif': 'is cut off',
        'folder.png': 'cannot be read (Is a directory)',
        'link.png': 'is a link to %s, which is not there' % (tmp_path / 'nowhere')}


def test_damage_in_the_middle_needs_decoding(tmp_path, png):
    middle = len(png) // 2
    files = {'a.png': png[:middle] + bytes(200) + png[middle + 200:]}
    assert unreadable(tmp_path, files) == {}
    assert unreadable(tmp_path, files, True) == {'a.png': 'cannot be decoded'}
