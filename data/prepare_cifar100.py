"""Writes CIFAR-100 as a folder of images with list files.

    python -m data.prepare_cifar100 FOLDER [SOURCE]

60,000 images of 32 x 32 pixels in 100 classes (Krizhevsky, "Learning Multiple Layers of Features
from Tiny Images", 2009). SOURCE is an archive of the official binary version (.tar.gz or any other
that tarfile reads) or the folder it unpacks to. Without SOURCE, a file or folder cifar-100-binary*
beside FOLDER is read; if there is none, the archive is downloaded.
"""
import glob
import hashlib
import os
import sys
import tarfile
import tempfile
import urllib.request

import numpy as np

from data import Fault, png_folder, sources

NAME = 'cifar-100-binary'
ORIGIN = 'https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz'
NAMES = 'fine_label_names.txt'
SHA1 = {
    'train.bin': 'e207cd2e05b73b1393c74c7f5e7bea451d63e08e',
    'test.bin': '8fb6623e830365ff53cf14adec797474f5478006',
    NAMES: 'e7cfddbb075fabc53a3ce5b31909a049ff855ca7',  # with one newline after each name
}
RECORD = 2 + 3 * 32 * 32  # bytes: coarse label, fine label, red, green and blue plane


def prepare(folder, source=None):
    """Writes the images to a new folder with `png_folder.write`.

    Args:
        folder: str.
        source: str or None, see above.
    """
    png_folder.write(folder, _images(source, os.path.dirname(os.path.abspath(folder))))


def _images(source, beside):
    """Generates (part, label, name, pixels) of each image.

    Args:
        source: str or None.
        beside: str, the folder to find the source in, or to download it to.
    """
    files = _verified_files(source or _find_or_download(beside))
    names = files[NAMES].decode().split()
    for part, name in (('train', 'train.bin'), ('val', 'test.bin')):
        for record in np.frombuffer(files[name], np.uint8).reshape(-1, RECORD):
            label = record[1]
            pixels = record[2:].reshape(3, 32, 32).transpose(1, 2, 0)
            yield part, label, names[label], pixels


def _find_or_download(beside):
    """The path of the source, str. beside: str, the folder that it is in or comes to."""
    present = sorted(glob.glob(os.path.join(glob.escape(beside), NAME + '*')))
    if present:
        return present[0]
    archive = os.path.join(beside, NAME + '.tar.gz')
    try:
        # Another process must not find half an archive.
        with tempfile.TemporaryDirectory(dir=beside) as temporary:
            partial = os.path.join(temporary, 'archive')
            urllib.request.urlretrieve(ORIGIN, partial)
            os.replace(partial, archive)
    except Exception as error:  # whatever the network or its library raises
        raise Fault('%s: no such file, and it could not be downloaded (%s); put it there by hand'
                    % (archive, error))
    return archive


def _verified_files(source):
    """Reads the files that SHA1 names from a folder or an archive, and verifies them.

    Args:
        source: str.

    Returns:
        dict from name to bytes.
    """
    is_folder = os.path.isdir(source)
    paths = [os.path.join(source, name) for name in SHA1] if is_folder else [source]
    for path in paths:
        reason = sources.irregular(path)
        if reason:
            raise Fault('%s: %s; the binary version of CIFAR-100 belongs there, from %s'
                        % (path, reason, ORIGIN))
    try:
        files = _read_folder(source) if is_folder else _read_archive(source)
    except Exception as error:  # whatever the disk, tarfile or a decompressor raises
        message = str(error).split(':\n')[0]
        raise Fault('%s: cannot be read (%s); get it again from %s' % (source, message, ORIGIN))
    for name, expected in SHA1.items():
        if name not in files:
            raise Fault('%s: has no %s; the binary version of CIFAR-100 is wanted, from %s'
                        % (source, name, ORIGIN))
        content = files[name]
        if name == NAMES:
            content = b'\n'.join(content.split()) + b'\n'
        actual = hashlib.sha1(content).hexdigest()
        if actual != expected:
            raise Fault('%s: %s has SHA-1 %s instead of %s; get it again from %s'
                        % (source, name, actual, expected, ORIGIN))
    return files


def _read_folder(folder):
    """Reads the files that SHA1 names. Returns a dict from name to bytes."""
    files = {}
    for name in SHA1:
        with open(os.path.join(folder, name), 'rb') as file:
            files[name] = file.read()
    return files


def _read_archive(path):
    """Reads the files that SHA1 names. Returns a dict from name to bytes.

    Nothing is unpacked to the disk, so a path in the archive cannot do harm.
    """
    files = {}
    with tarfile.open(path) as archive:
        for member in archive:
            name = os.path.basename(member.name)
            if member.isfile() and name in SHA1:
                files[name] = archive.extractfile(member).read()
    return files


if __name__ == '__main__':
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    try:
        prepare(*sys.argv[1:])
    except Fault as fault:
        sys.exit(str(fault))
