"""Writes scikit-learn's handwritten digits as a folder of images with list files. No network is needed.

1,797 real digits of 8 x 8 pixels (Alpaydin and Kaynak, "Optical Recognition of Handwritten Digits", UCI, 1998: its test
part, which scikit-learn ships). From the command line: python -m data.prepare_digits FOLDER
"""
import os
import shutil
import sys

import numpy as np
import tensorflow.compat.v1 as tf

from data import Fault

TEST_SHARE = 5  # every fifth image of a class, in the collection's order, is a test image


def prepare(folder):
    """Writes train/<digit>/*.png, val/<digit>/*.png, train.txt and val.txt; all of them or, where it fails, none.

    Args:
        folder: str, made by this function.

    Raises:
        Fault: scikit-learn is missing, or the folder exists or cannot be written.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise Fault('the digits come with scikit-learn, which is not installed: pip install -r requirements.txt')
    if os.path.exists(folder):
        raise Fault('%s: exists already; delete it to have it written again' % folder)
    partial = folder.rstrip('/') + '.partial'
    shutil.rmtree(partial, ignore_errors=True)
    digits = load_digits()
    pixels = np.uint8(np.round(digits.images * 255 / 16))[..., None]  # [1797, 8, 8, 1]; the originals count 0..16
    # Not on a GPU: the first session of a process decides how all of them take its memory.
    with tf.Graph().as_default(), tf.Session(config=tf.ConfigProto(device_count={'GPU': 0})) as session:
        image = tf.placeholder(tf.uint8, [8, 8, 1])
        png = tf.image.encode_png(image)
        encoded = [session.run(png, {image: one}) for one in pixels]
    try:
        _write(partial, encoded, digits.target)
        os.rename(partial, folder)
    except OSError as error:
        raise Fault('%s: the digits cannot be written there (%s)' % (folder, error))


def _write(folder, encoded, labels):
    seen, lines = [0] * 10, {'train': [], 'val': []}
    for number, (content, digit) in enumerate(zip(encoded, labels)):
        part = 'val' if seen[digit] % TEST_SHARE == TEST_SHARE - 1 else 'train'
        seen[digit] += 1
        name = '%s/%d/%04d.png' % (part, digit, number)
        os.makedirs(os.path.join(folder, os.path.dirname(name)), exist_ok=True)
        with open(os.path.join(folder, name), 'wb') as file:
            file.write(content)
        lines[part].append('%s %d\n' % (name, digit))
    for part in lines:
        with open(os.path.join(folder, part + '.txt'), 'w') as file:
            file.writelines(lines[part])


if __name__ == '__main__':
    try:
        prepare(sys.argv[1] if len(sys.argv) == 2 else sys.exit(__doc__))
    except Fault as fault:
        sys.exit(str(fault))
