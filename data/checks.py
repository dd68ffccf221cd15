"""Images that cannot be decoded: found before a run starts, without decoding more than need be."""
import contextlib
import multiprocessing.pool
import os

import tensorflow.compat.v1 as tf

from data import Fault, batches, lists

_TAIL = 1024           # bytes at a file's end in which its closing mark must stand
_THREADS = 16          # opening files is waiting, above all on network file systems


class BrokenImages(Fault):
    """Images that vanished or broke during the run."""


@contextlib.contextmanager
def explained(paths):
    """Gives TensorFlow's errors a cause and a remedy, where images are read from paths, an array of bytes, and computed with.

    Raises:
        BrokenImages: some of these images cannot be decoded any more.
        Fault: the memory does not suffice.
    """
    try:
        yield
    except (tf.errors.OpError, MemoryError) as error:
        lines = [line for line in str(error).split('\n') if isinstance(error, MemoryError) or 'OOM' in line or 'allocat' in line]
        if isinstance(error, (MemoryError, tf.errors.ResourceExhaustedError)) and lines:
            raise Fault('out of memory (%s); stop what else is using it, and the same command goes on from the last checkpoint. '
                        'If it is too little: a smaller KEEP_GB, or in another MODEL_DIR a smaller BATCH_SIZE, IMAGE_SIZE or '
                        'RESNET_DEPTH' % lines[0].strip())
        paths = sorted(set(paths))
        broken = unreadable(paths, False)
        if not broken and isinstance(error, tf.errors.InvalidArgumentError):
            print('an image may be broken: decoding %d of them to find it' % len(paths), flush=True)
            broken = unreadable(paths, True)
        if not broken:
            raise
        faults = []
        lists.report(faults, ['%s: %s; mend it, and the same command goes on from the last checkpoint, or do without with '
                              'LEAVE_OUT_BROKEN=True and DECODE_ALL=True' % (os.fsdecode(path), reason)
                              for path, reason in broken.items()])
        raise BrokenImages('\n'.join(faults))


def unreadable(paths, decode_all):
    """Finds images that cannot be decoded.

    Each file's first and last bytes are read; only where these are not those of a whole JPEG, PNG, GIF or BMP is the image
    decoded, and that decides. A file damaged in its middle is found by decoding all of them.

    Args:
        paths: list of bytes. decode_all: bool.

    Returns:
        dict from path to the reason, in the order of paths.
    """
    with multiprocessing.pool.ThreadPool(_THREADS) as pool:
        reasons = dict(zip(paths, pool.imap(_suspicion, paths, 256)))
    suspects = [path for path in paths if decode_all or reasons[path]]
    broken = {}
    with tf.Graph().as_default(), batches.host_session() as session:
        path = tf.placeholder(tf.string, [])
        decode = session.make_callable(tf.image.decode_image(tf.read_file(path), 3, expand_animations=False).op, [path])
        for suspect in suspects:
            try:
                decode(suspect)
            except tf.errors.OpError:
                broken[suspect] = reasons[suspect] or 'cannot be decoded'
    return broken


def _suspicion(path):
    """Why a file does not look like a whole image, or None."""
    try:
        with open(path, 'rb') as file:
            head = file.read(32)
            file.seek(0, os.SEEK_END)
            size = file.tell()
            file.seek(max(0, size - _TAIL))
            tail = file.read()
    except OSError as error:
        if os.path.islink(path) and not os.path.exists(path):
            return 'is a link to %s, which is not there' % os.fsdecode(os.readlink(path))
        return 'cannot be read (%s)' % error.strerror
    if not size:
        return 'is empty'
    for start, end in ((b'\xff\xd8\xff', b'\xff\xd9'), (b'\x89PNG\r\n\x1a\n', b'IEND\xaeB`\x82'), (b'GIF8', b'\x00;')):
        if head.startswith(start):
            return None if end in tail else 'is cut off'
    if head.startswith(b'BM'):
        return None if size >= int.from_bytes(head[2:6], 'little') else 'is cut off'
    return 'is no JPEG, PNG, GIF or BMP image'
