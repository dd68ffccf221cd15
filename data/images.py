"""Finds broken images before a run begins, and explains errors of images and memory later."""
import contextlib
import multiprocessing.pool

import numpy as np
import tensorflow.compat.v1 as tf

from data import Fault, Faults, formats, numerics, shown

_THREADS = 16  # opening files is mostly waiting, especially on network file systems


def broken(paths, decode_all=False):
    """Finds images that TensorFlow cannot decode, or decodes to wrong pixels.

    A file is decoded only if its first and last bytes give a reason for doubt.

    Args:
        paths: list of bytes.
        decode_all: bool, whether to decode every file, which also finds damage in its middle.

    Returns:
        dict from path to the reason, str, in the order of paths.
    """
    with multiprocessing.pool.ThreadPool(_THREADS) as pool:
        doubts = dict(zip(paths, pool.imap(formats.doubt, paths, 256)))
    reasons = {}
    with tf.Graph().as_default(), numerics.host_session() as session:
        contents = tf.placeholder(tf.string, [])
        pixels = tf.image.decode_image(contents, 3, expand_animations=False)
        # TensorFlow 1.15 may give a BMP another number of channels.
        decode = session.make_callable(tf.ensure_shape(pixels, [None, None, 3]), [contents])
        for path, doubt in doubts.items():
            if doubt is None and decode_all:
                doubt = formats.Doubt('cannot be decoded', False)
            if doubt and (doubt.certain or not _is_decoded(path, decode, doubt.flag)):
                reasons[path] = doubt.reason
    return reasons


@contextlib.contextmanager
def explained(paths):
    """Context for code that reads images: turns TensorFlow's errors into Faults with a remedy.

    It knows two causes: too little memory, and broken images.

    Args:
        paths: object array [images] of bytes, the images that are read.
    """
    try:
        yield
    except (tf.errors.OpError, MemoryError) as error:
        detail = _memory_error(error)
        if detail:
            raise Fault('out of memory (%s); stop what else uses it, and the same command resumes '
                        'from the last checkpoint. If that is not enough: a smaller BATCH_SIZE, '
                        'IMAGE_SIZE or RESNET_DEPTH in another MODEL_DIR' % detail)
        paths = sorted(set(paths))
        reasons = broken(paths)
        if not reasons and isinstance(error, tf.errors.InvalidArgumentError):
            print('an image may be broken: decoding %d of them to find it' % len(paths), flush=True)
            reasons = broken(paths, decode_all=True)
        if not reasons:
            raise
        faults = Faults()
        faults.add_all(['%s: %s; fix it, and the same command resumes from the last checkpoint; or '
                        'remove it, and begin a new run in another MODEL_DIR'
                        % (shown(path), reasons[path]) for path in reasons])
        faults.raise_any()


def _memory_error(error):
    """What an error says about memory, str; None if it says nothing about it."""
    if isinstance(error, MemoryError):
        return str(error).split('\n')[0].strip() or type(error).__name__
    if not isinstance(error, tf.errors.ResourceExhaustedError):
        return None
    lines = str(error).split('\n')
    about_memory = [line.strip() for line in lines if 'OOM' in line or 'allocat' in line]
    return about_memory[0] if about_memory else None


def _is_decoded(path, decode, flag):
    """Whether TensorFlow decodes an image, and to the same pixels without the flag.

    Args:
        path: bytes.
        decode: function from the bytes of a file to an array.
        flag: int or None, as in formats.Doubt.
    """
    try:
        with open(path, 'rb') as file:
            contents = bytearray(file.read())
        pixels = decode(bytes(contents))
        if flag is None:
            return True
        contents[flag] &= 0xfe
        return np.array_equal(pixels, decode(bytes(contents)))
    except (OSError, tf.errors.OpError):
        return False
