"""Writes CIFAR-100 as a folder of images with list files, from its official binary version alone.

60,000 images of 32 x 32 pixels in 100 classes (Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009).
From the command line: python -m data.prepare_cifar100 FOLDER [SOURCE], SOURCE an archive of the binary version (.tar.gz or
any other that tarfile reads) or the folder it unpacks to. Without SOURCE either is looked for beside FOLDER, else downloaded.
"""
import glob
import hashlib
import os
import sys
import tarfile

import numpy as np
import tensorflow.compat.v1 as tf

from data import Fault, png_folder

NAME = 'cifar-100-binary'
ORIGIN = 'https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz'
SHA1 = {'train.bin': 'e207cd2e05b73b1393c74c7f5e7bea451d63e08e', 'test.bin': '8fb6623e830365ff53cf14adec797474f5478006'}
NAMES = 'fine_label_names.txt'
RECORD = 2 + 3 * 32 * 32  # coarse label, fine label, red, green and blue plane


def prepare(folder, source=None):
    """Writes the images as `png_folder.write` does.

    Args:
        folder: str, made by this function. source: str or None, see above.

    Raises:
        Fault: no source, a file in it missing or altered, or the folder exists.
    """
    if os.path.exists(folder):  # before a download
        raise Fault('%s: exists already; delete it to have it written again' % folder)
    source = source or _found_or_downloaded(os.path.dirname(os.path.abspath(folder)))
    files = _folder_files(source) if os.path.isdir(source) else _archive_files(source)
    for name in (*SHA1, NAMES):
        if name not in files:
            raise Fault('%s: has no %s; the binary version of CIFAR-100 is wanted, from %s' % (source, name, ORIGIN))
    for name, expected in SHA1.items():
        actual = hashlib.sha1(files[name]).hexdigest()
        if actual != expected:
            raise Fault('%s: %s has SHA-1 %s instead of %s; get it again from %s' % (source, name, actual, expected, ORIGIN))
    names = files[NAMES].decode().split()
    png_folder.write(folder, _images(files, names))


def _images(files, names):
    for part, name in (('train', 'train.bin'), ('val', 'test.bin')):
        for record in np.frombuffer(files[name], np.uint8).reshape(-1, RECORD):
            yield part, record[1], names[record[1]], record[2:].reshape(3, 32, 32).transpose(1, 2, 0)


def _found_or_downloaded(beside):
    found = sorted(glob.glob(os.path.join(beside, NAME + '*')))
    if found:
        return found[0]
    try:
        return tf.keras.utils.get_file(NAME + '.tar.gz', ORIGIN, cache_dir=beside, cache_subdir='.')
    except Exception as error:  # whatever the network or its library raises
        raise Fault('%s: no %s.tar.gz there, and it could not be downloaded (%s); put it there by hand, from %s'
                    % (beside, NAME, error, ORIGIN))


def _wanted(name):
    return os.path.basename(name) in (*SHA1, NAMES)


def _folder_files(folder):
    found = {}
    for name in filter(_wanted, os.listdir(folder)):
        with open(os.path.join(folder, name), 'rb') as file:
            found[name] = file.read()
    return found


def _archive_files(path):
    """Contents by base name, read in memory: nothing is unpacked, so no path in the archive can lead anywhere."""
    try:
        with tarfile.open(path) as archive:
            return {os.path.basename(member.name): archive.extractfile(member).read()
                    for member in archive if member.isfile() and _wanted(member.name)}
    except (OSError, EOFError, tarfile.TarError) as error:
        raise Fault('%s: cannot be read as an archive (%s); get it again from %s' % (path, error, ORIGIN))


if __name__ == '__main__':
    try:
        prepare(*sys.argv[1:]) if len(sys.argv) in (2, 3) else sys.exit(__doc__)
    except Fault as fault:
        sys.exit(str(fault))
