"""Finds every kind of damage and takes no whole image for damaged; explains TensorFlow's errors."""
import io
import os

import numpy as np
import PIL.Image
import pytest
import tensorflow.compat.v1 as tf
from common import write

from data import Fault, images

PIXELS = np.random.RandomState(0).randint(0, 256, (40, 30, 3)).astype(np.uint8)
# One white pixel.
GIF = b'GIF89a\1\0\1\0\x80\0\0\0\0\0\xff\xff\xff,\0\0\0\0\1\0\1\0\0\2\2D\1\0;'
SPECIAL = 'is a pipe, a device or a socket; only regular files are read'


def encoded(kind):
    file = io.BytesIO()
    PIL.Image.fromarray(PIXELS).save(file, kind)
    return file.getvalue()


@pytest.fixture(name='files', scope='module')
def files_():
    """Whole images, dict from name to bytes."""
    jpeg = encoded('JPEG')
    png = encoded('PNG')
    return {'a.JPEG': jpeg, 'b.png': png, 'c.bmp': encoded('BMP'), 'd.gif': GIF,
            'png named.JPEG': png, 'Wörter "quoted".jpg': jpeg,
            'much behind its end.jpg': jpeg + bytes(5000)}


def written(folder, files):
    """Writes files. Returns the paths of all files in the folder, list of bytes."""
    write(folder, files)
    return [os.fsencode(str(folder / name)) for name in sorted(os.listdir(str(folder)))]


@pytest.mark.parametrize('decode_all', [False, True])
def test_damaged_images(decode_all, tmp_path, files):
    """Damaged images stand among whole ones, which are not reported."""
    (tmp_path / 'link').symlink_to('whole')
    (tmp_path / 'nowhere').symlink_to('/nowhere\33')
    (tmp_path / 'folder').mkdir()
    os.mkfifo(str(tmp_path / 'pipe'))
    (tmp_path / 'to pipe').symlink_to('pipe')
    (tmp_path / 'device').symlink_to('/dev/zero')
    damaged = {'empty': b'', 'text': b'this is no image', 'jpeg': files['a.JPEG'][:300],
               'png': files['b.png'][:-20], 'bmp': files['c.bmp'][:-500], 'gif': GIF[:-6]}
    paths = written(tmp_path, dict(files, whole=GIF, **damaged))
    paths.append(os.fsencode(str(tmp_path / 'gone')))
    reasons = images.broken(paths, decode_all)
    assert {os.path.basename(path).decode(): reason for path, reason in reasons.items()} == {
        'empty': 'is empty', 'text': 'is no JPEG, PNG, GIF or BMP image', 'jpeg': 'is cut off',
        'png': 'is cut off', 'bmp': 'is cut off', 'gif': 'is cut off', 'folder': 'is a folder',
        'pipe': SPECIAL, 'to pipe': SPECIAL, 'device': SPECIAL,
        'nowhere': 'is a link to /nowhere\\x1b, which is not there', 'gone': 'no such file'}


@pytest.mark.parametrize('kind, where, reason', [
    (tf.errors.InvalidArgumentError, 'middle', 'cannot be decoded'),
    (tf.errors.InternalError, 'middle', None),
    (tf.errors.InternalError, 'end', 'is cut off'),
    (ValueError, 'end', None)])
def test_an_image_breaks_while_it_is_used(kind, where, reason, tmp_path, files):
    """If an error may come from damage in the middle of a file, all images are decoded."""
    png = files['b.png']
    middle = len(png) // 2
    damaged = png[:middle]
    if where == 'middle':
        damaged += bytes(200) + png[middle + 200:]
    paths = written(tmp_path, dict(files, **{'x\33.png': damaged}))
    assert bool(images.broken(paths)) == (where == 'end')
    error = kind('an error') if kind is ValueError else kind(None, None, 'an error')
    with pytest.raises(Fault if reason else kind) as caught:
        with images.explained(np.array(paths * 2, object)):
            raise error
    if reason:
        assert str(caught.value) == (
            '%s: %s; fix it, and the same command resumes from the last checkpoint; or remove it, '
            'and begin a new run in another MODEL_DIR' % (tmp_path / 'x\\x1b.png', reason))


@pytest.mark.parametrize('error, start', [
    (tf.errors.ResourceExhaustedError(
        None, None, 'Graph execution error:\nOOM when allocating tensor\nmore'),
     'out of memory (OOM when allocating tensor); stop what else uses it, and the same command '
     'resumes'),
    (MemoryError('Unable to store 9 GB'),
     'out of memory (Unable to store 9 GB); stop what else uses it, and the same command'),
    (MemoryError(), 'out of memory (MemoryError); stop'),
    (tf.errors.ResourceExhaustedError(None, None, 'too many open files'), None),
    (tf.errors.InternalError(None, None, 'cuDNN'), None)])
def test_errors_that_are_no_images(error, start):
    """If memory is exhausted, the message has a remedy. Other errors stay as they are."""
    with pytest.raises(Fault if start else type(error)) as caught:
        with images.explained(np.array([], object)):
            raise error
    if start:
        assert str(caught.value).startswith(start)
    else:
        assert caught.value is error
