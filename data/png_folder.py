"""Writes images as PNG files in class folders with list files, a layout that a run reads."""
import contextlib
import os
import tempfile

import tensorflow.compat.v1 as tf

from data import Fault, numerics


def write(folder, images):
    """Writes train/<class>/<number>.png, val/<class>/<number>.png, train.txt and val.txt.

    All of them are written, or none. If several processes write the same folder at once, the
    first to finish is kept.

    Args:
        folder: str. It must not exist.
        images: iterable of (part, label, name, pixels): 'train' or 'val'; int; str, the class;
            uint8 array [height, width, 1 or 3].
    """
    if os.path.lexists(folder):
        raise Fault('%s: exists already; delete it to have it written again' % folder)
    parent, name = os.path.split(os.path.abspath(folder))
    try:
        os.makedirs(parent, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=name + '.partial-', dir=parent) as temporary:
            written = os.path.join(temporary, 'images')
            _write(written, images)
            try:
                os.rename(written, folder)
            except OSError:
                # If it is a folder now, another process has written the same images meanwhile.
                if not os.path.isdir(folder):
                    raise
    except OSError as error:
        raise Fault('%s: the images cannot be written there (%s)' % (folder, error))


@contextlib.contextmanager
def encoder():
    """Context: a function from uint8 [height, width, 1 or 3] to the bytes of a PNG file."""
    with tf.Graph().as_default(), numerics.host_session() as session:
        pixels = tf.placeholder(tf.uint8, [None, None, None])
        yield session.make_callable(tf.image.encode_png(pixels), [pixels])


def _write(folder, images):
    """Writes images and lists to a new folder. Arguments as in `write`."""
    lines = {'train': [], 'val': []}
    with encoder() as encode:
        for number, (part, label, name, pixels) in enumerate(images):
            os.makedirs(os.path.join(folder, part, name), exist_ok=True)
            path = '%s/%s/%05d.png' % (part, name, number)
            with open(os.path.join(folder, path), 'wb') as file:
                file.write(encode(pixels))
            lines[part].append('%s %d\n' % (path, label))
    for part in lines:
        with open(os.path.join(folder, part + '.txt'), 'w', encoding='utf-8') as file:
            file.writelines(lines[part])
