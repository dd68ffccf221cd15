"""Every kind of damage is found, nothing whole is taken for damaged, and TensorFlow's errors get a cause and a remedy."""
import os
import struct

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from data import Fault, images

PIXELS = np.random.RandomState(0).randint(0, 256, (40, 30, 3)).astype(np.uint8)
GIF = b'GIF89a\1\0\1\0\x80\0\0\0\0\0\xff\xff\xff,\0\0\0\0\1\0\1\0\0\2\2D\1\0;'  # one white pixel
SPECIAL = 'is a pipe, a device or a socket; only regular files are read'


def bmp():
    """24 bits a pixel, the last row first, each padded to four bytes."""
    rows = b''.join(row[:, ::-1].tobytes() + b'\0' * (-90 % 4) for row in PIXELS[::-1])
    return struct.pack('<2sIIIIIIHH24x', b'BM', 54 + len(rows), 0, 54, 40, 30, 40, 1, 24) + rows


@pytest.fixture(name='files', scope='module')
def files_():
    """Whole images, dict from name to bytes."""
    with tf.Graph().as_default(), tf.Session() as session:
        jpeg, png = session.run([tf.image.encode_jpeg(PIXELS), tf.image.encode_png(PIXELS)])
    return {'a.JPEG': jpeg, 'b.png': png, 'c.bmp': bmp(), 'd.gif': GIF, 'png named.JPEG': png, 'Wörter "quoted".jpg': jpeg,
            'much behind its end.jpg': jpeg + bytes(5000)}


def write(folder, files):
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return [os.fsencode(str(folder / name)) for name in sorted(os.listdir(str(folder)))]


@pytest.mark.parametrize('decode_all', [False, True])
def test_whole_images(decode_all, tmp_path, files):
    assert images.broken(write(tmp_path, files), decode_all) == {}


@pytest.mark.parametrize('decode_all', [False, True])
def test_damaged_images(decode_all, tmp_path, files):
    (tmp_path / 'link').symlink_to('whole')
    (tmp_path / 'nowhere').symlink_to('/nowhere\33')
    (tmp_path / 'folder').mkdir()
    os.mkfifo(str(tmp_path / 'pipe'))
    (tmp_path / 'to pipe').symlink_to('pipe')
    (tmp_path / 'device').symlink_to('/dev/zero')
    paths = write(tmp_path, {
        'whole': GIF, 'empty': b'', 'text': b'this is no image', 'jpeg': files['a.JPEG'][:300], 'png': files['b.png'][:-20],
        'bmp': bmp()[:-500], 'gif': GIF[:-6]}) + [os.fsencode(str(tmp_path / 'gone'))]
    found = {os.path.basename(path).decode(): reason for path, reason in images.broken(paths, decode_all).items()}
    assert found == {
        'empty': 'is empty', 'text': 'is no JPEG, PNG, GIF or BMP image', 'jpeg': 'is cut off', 'png': 'is cut off',
        'bmp': 'is cut off', 'gif': 'is cut off', 'folder': 'is a folder', 'pipe': SPECIAL, 'to pipe': SPECIAL, 'device': SPECIAL,
        'nowhere': 'is a link to /nowhere\\x1b, which is not there', 'gone': 'no such file'}


@pytest.mark.parametrize('kind, where, reason', [
    (tf.errors.InvalidArgumentError, 'middle', 'cannot be decoded'), (tf.errors.InternalError, 'middle', None),
    (tf.errors.InternalError, 'end', 'is cut off'), (ValueError, 'end', None)])
def test_an_image_breaks_while_it_is_used(kind, where, reason, tmp_path, files):
    """Damage in the middle is found by decoding all images, where the error may be due to it."""
    png = files['b.png']
    middle = len(png) // 2
    damaged = {'middle': png[:middle] + bytes(200) + png[middle + 200:], 'end': png[:middle]}[where]
    paths = write(tmp_path, dict(files, **{'x\33.png': damaged}))
    assert bool(images.broken(paths)) == (where == 'end')
    with pytest.raises(Fault if reason else kind) as caught, images.explained(np.array(paths * 2, object)):
        raise kind('an error') if kind is ValueError else kind(None, None, 'an error')
    if reason:
        assert str(caught.value) == ('%s: %s; fix it, and the same command resumes from the last checkpoint; or remove it, and '
                                     'begin a new run in another MODEL_DIR' % (tmp_path / 'x\\x1b.png', reason))


@pytest.mark.parametrize('error, cause', [
    (tf.errors.ResourceExhaustedError(None, None, 'Graph execution error:\nOOM when allocating tensor\nmore'),
     'OOM when allocating tensor'),
    (MemoryError('Unable to store 9 GB'), 'Unable to store 9 GB')])
def test_out_of_memory(error, cause):
    with pytest.raises(Fault) as fault, images.explained(np.array([], object)):
        raise error
    assert str(fault.value).startswith('out of memory (%s); stop what else uses it, and the same command resumes' % cause)


@pytest.mark.parametrize('kind', [tf.errors.InternalError, tf.errors.ResourceExhaustedError])
def test_other_errors_keep_their_message(kind):
    with pytest.raises(kind, match='too many open files'), images.explained(np.array([], object)):
        raise kind(None, None, 'cuDNN, or too many open files')
