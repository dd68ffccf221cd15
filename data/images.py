"""Finds broken image files before a run begins, and explains when they, or too little memory, stop a run later."""
import contextlib
import multiprocessing.pool
import os

import tensorflow.compat.v1 as tf

from data import Fault, batches, sources

_TAIL = 1024  # bytes at a file's end in which its closing mark must be
_THREADS = 16  # opening files is mostly waiting, especially on network file systems


def broken(paths, decode_all=False):
    """Finds images that cannot be decoded: dict from path to the reason, str, in the order of paths, a list of bytes.

    A file is decoded only if its first and last bytes are not those of a complete JPEG, PNG, GIF or BMP. With decode_all every
    file is decoded, which also finds damage in the middle.
    """
    with multiprocessing.pool.ThreadPool(_THREADS) as pool:
        reasons = dict(zip(paths, pool.imap(_suspicion, paths, 256)))
    found = {}
    with tf.Graph().as_default(), batches.host_session() as session:
        path = tf.placeholder(tf.string, [])
        decode = session.make_callable(tf.image.decode_image(tf.read_file(path), 3, expand_animations=False).op, [path])
        for suspect in [name for name in reasons if decode_all or reasons[name]]:
            try:
                if os.path.isfile(suspect):  # reading a pipe would wait for ever
                    decode(suspect)
                    continue
            except tf.errors.OpError:
                pass
            found[suspect] = reasons[suspect] or 'cannot be decoded'
    return found


@contextlib.contextmanager
def explained(paths):
    """Context for code that reads images: turns TensorFlow's errors into Faults with cause and remedy.

    The causes it knows are too little memory and broken images. paths: object array [images] of bytes, the images that are read.
    """
    try:
        yield
    except (tf.errors.OpError, MemoryError) as error:
        lines = [line for line in str(error).split('\n') if isinstance(error, MemoryError) or 'OOM' in line or 'allocat' in line]
        if lines and isinstance(error, (MemoryError, tf.errors.ResourceExhaustedError)):
            raise Fault('out of memory (%s); stop what else uses it, and the same command resumes from the last checkpoint. If '
                        'that is not enough: a smaller BATCH_SIZE, IMAGE_SIZE or RESNET_DEPTH in another MODEL_DIR'
                        % (lines[0].strip() or type(error).__name__))
        found, paths = broken(paths), sorted(set(paths))
        if not found and isinstance(error, tf.errors.InvalidArgumentError):
            print('an image may be broken: decoding %d of them to find it' % len(paths), flush=True)
            found = broken(paths, True)
        if not found:
            raise
        faults = []
        sources.report(faults, ['%s: %s; fix it, and the same command resumes from the last checkpoint; or remove it, and begin '
                                'a new run in another MODEL_DIR' % (sources.shown(path), found[path]) for path in sorted(found)])
        raise Fault('\n'.join(faults))


def _suspicion(path):
    """Why a file does not look like a complete image, or None."""
    reason = sources.irregular(path)
    if reason:
        return reason
    try:
        with open(path, 'rb', buffering=0) as file:
            head = file.read(32)
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _TAIL))
            tail = file.read()
    except OSError as error:
        return 'cannot be read (%s)' % error.strerror
    if not size:
        return 'is empty'
    for start, end in ((b'\xff\xd8\xff', b'\xff\xd9'), (b'\x89PNG\r\n\x1a\n', b'IEND\xaeB`\x82'), (b'GIF8', b'\x00;')):
        if head.startswith(start):
            return None if end in tail else 'is cut off'
    if head.startswith(b'BM'):
        return None if size >= int.from_bytes(head[2:6], 'little') else 'is cut off'
    return 'is no JPEG, PNG, GIF or BMP image'
