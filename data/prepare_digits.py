"""Writes scikit-learn's handwritten digits as a folder of images with list files.

    python -m data.prepare_digits FOLDER

1,797 real digits of 8 x 8 pixels, the test part of Alpaydin and Kaynak, "Optical Recognition of
Handwritten Digits" (UCI, 1998).
"""
import sys

import numpy as np

from data import Fault, png_folder

TEST_SHARE = 5  # every fifth image of a class, in the collection's order, is a test image


def prepare(folder):
    """Writes the digits to a new folder with `png_folder.write`. Needs scikit-learn."""
    png_folder.write(folder, _images())


def _images():
    """Generates (part, label, name, pixels) of each image."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise Fault('the digits come with scikit-learn, which is not installed: '
                    'pip install -r requirements.txt')
    digits = load_digits()
    # From 0..16 to 0..255: uint8 [1797, 8, 8, 1].
    pixels = np.uint8(np.round(digits.images * 255 / 16))[..., None]
    seen = np.zeros(10, int)  # images of each digit so far
    for digit, image in zip(digits.target, pixels):
        seen[digit] += 1
        part = 'val' if seen[digit] % TEST_SHARE == 0 else 'train'
        yield part, digit, str(digit), image


if __name__ == '__main__':
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    try:
        prepare(sys.argv[1])
    except Fault as fault:
        sys.exit(str(fault))
