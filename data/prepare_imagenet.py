"""Arranges ILSVRC2012 for the recipes imagenet1000 and imagenet100.

    python -m data.prepare_imagenet SOURCE [--to data]
        [--sets imagenet1000 imagenet100 imagenet100-shuffled]

SOURCE is a folder with one of
- ILSVRC2012_img_train.tar, ILSVRC2012_img_val.tar and ILSVRC2012_devkit_t12.tar.gz, as published;
- ILSVRC2016_CLS-LOC.tar.gz, or the tree ILSVRC/ that it unpacks to (its Annotations give the
  validation classes);
- train/<wnid>/*.JPEG and val/<wnid>/*.JPEG.

Archives are unpacked to TO/ImageNetFiles/, which then is a SOURCE, too. The folder of each set,
such as TO/dataImageNet1000/, gets two list files and two symbolic links, train and val. To
continue an interrupted call, repeat it. imagenet100 is the authors' subset, the first 100 classes;
imagenet100-shuffled is the first 100 of the seed-1993 shuffle.
"""
import argparse
import contextlib
import os
import re
import shutil
import sys
import tarfile
import xml.etree.ElementTree
import zlib

import numpy as np
import scipy.io

import exemplar
from data import Fault, shown, sources

# The folder, and the published numbers of classes, training images and validation images.
# None: it follows from the classes.
SETS = {
    'imagenet1000': ('dataImageNet1000', 1000, 1281167, 50000),
    'imagenet100': ('dataImageNet100', 100, 129395, 5000),
    'imagenet100-shuffled': ('dataImageNet100Shuffled', 100, None, 5000),
}

_WNID = re.compile(r'n\d{8}', re.ASCII)
_IMAGE = re.compile(r'\w+\.JPEG', re.ASCII)
_CLASS_ARCHIVE = re.compile(r'n\d{8}\.tar', re.ASCII)
_IN_TREE = re.compile(
    r'ILSVRC/(Data/CLS-LOC/(train/n\d{8}|val)/\w+\.JPEG|Annotations/CLS-LOC/val/\w+\.xml)',
    re.ASCII)


def prepare(source, to, sets):
    """Unpacks archives, if there are any, checks the images, and writes lists and links.

    Args:
        source: str, folder.
        to: str, folder.
        sets: list of str, keys of SETS.
    """
    try:
        source = _unpacked(source, os.path.join(to, 'ImageNetFiles'))
        tree = os.path.join(source, 'ILSVRC', 'Data', 'CLS-LOC')
        is_tree = os.path.isdir(tree)
        parent = tree if is_tree else source
        folders = {part: os.path.realpath(os.path.join(parent, part)) for part in ('train', 'val')}
        if not all(os.path.isdir(folder) for folder in folders.values()):
            raise Fault('%s: has no images; put the archives, ILSVRC/, or train/ and val/ there, '
                        'as data/README.md says' % source)
        images = {'train': _in_class_folders(folders['train'])}
        if is_tree:
            annotations = os.path.join(source, 'ILSVRC', 'Annotations', 'CLS-LOC', 'val')
            images['val'] = _annotated(folders['val'], annotations)
        else:
            images['val'] = _in_class_folders(folders['val'])
        for name in sets:
            lines = _lists(name, images)
            set_folder = SETS[name][0]
            _write(os.path.join(to, set_folder), folders, lines)
            print('%s: %d training and %d validation images'
                  % (set_folder, len(lines['train']), len(lines['val'])))
    except OSError as error:
        raise Fault('%s: cannot be read or written (%s)' % (error.filename or to, error.strerror))


def _images(folder):
    """The names of the images in a folder, list of str."""
    with os.scandir(folder) as entries:
        return [entry.name for entry in entries
                if _IMAGE.fullmatch(entry.name) and entry.is_file()]


def _in_class_folders(folder):
    """The wnid of each image in class folders, dict from its path below folder."""
    wnid_of = {}
    for wnid in os.listdir(folder):
        if _WNID.fullmatch(wnid):
            for name in _images(os.path.join(folder, wnid)):
                wnid_of['%s/%s' % (wnid, name)] = wnid
    return wnid_of


def _annotated(folder, annotations):
    """Reads the classes of images in one folder from their annotations.

    Args:
        folder: str, has the images.
        annotations: str, the folder with an XML file for each image. Its first object is the class.

    Returns:
        dict from an image's name to its wnid.
    """
    wnid_of = {}
    for name in _images(folder):
        path = os.path.join(annotations, name[:-len('.JPEG')] + '.xml')
        reason = sources.irregular(path)
        try:
            if not reason:
                wnid_of[name] = xml.etree.ElementTree.parse(path).findtext('object/name')
        except (xml.etree.ElementTree.ParseError, ValueError, LookupError) as error:
            reason = 'is not an annotation (%s)' % error
        if reason:
            raise Fault('%s: %s; the class of %s belongs there' % (path, reason, name))
    return wnid_of


def _subset(name, wnids):
    """The classes of a set. name: str, key of SETS. wnids: list of str, all classes, sorted."""
    if name == 'imagenet100':
        return wnids[:100]
    if name == 'imagenet100-shuffled':
        if len(wnids) != 1000:
            raise Fault('%s: is drawn from 1000 classes, and %d are there' % (name, len(wnids)))
        order = exemplar.class_order(1000, np.random.RandomState(1993), 'random')
        return sorted(wnids[position] for position in order[:100])
    return wnids


def _lists(name, images):
    """Makes the lists of a set, and compares its sizes with the published ones.

    Args:
        name: str, key of SETS.
        images: dict from 'train' and 'val' to a dict from an image's path to its wnid.

    Returns:
        dict from 'train' and 'val' to the lines of the list, sorted by class and name.
    """
    wnids = _subset(name, sorted(set(images['train'].values())))
    label_of = {wnid: label for label, wnid in enumerate(wnids)}
    lines = {}
    for part, wnid_of in images.items():
        labelled = sorted((label_of[wnid], path) for path, wnid in wnid_of.items()
                          if wnid in label_of)
        lines[part] = ['%s/%s %d\n' % (part, path, label) for label, path in labelled]
    sizes = (('classes', len(wnids)), ('training images', len(lines['train'])),
             ('validation images', len(lines['val'])))
    wrong = ['%s: %d %s instead of %d' % (name, size, what, published)
             for (what, size), published in zip(sizes, SETS[name][1:])
             if published not in (None, size)]
    if wrong:
        raise Fault('\n'.join(wrong))
    return lines


def _write(folder, folders, lines):
    """Writes lists, then links. Without links, a run never trains on half a list.

    Args:
        folder: str, of the set.
        folders: dict from 'train' and 'val' to the folder of the images.
        lines: dict from 'train' and 'val' to the lines of the list.
    """
    os.makedirs(folder, exist_ok=True)
    for part in folders:
        link = os.path.join(folder, part)
        if os.path.islink(link):
            os.remove(link)
        elif os.path.lexists(link):
            raise Fault('%s: a link belongs there; move what is there elsewhere, or delete it if '
                        'you do not need it' % link)
    for part in lines:
        with open(os.path.join(folder, part + '.txt'), 'w') as file:
            file.writelines(lines[part])
    try:
        for part in folders:
            os.symlink(folders[part], os.path.join(folder, part))
    except OSError as error:
        raise Fault('%s: symbolic links cannot be made there (%s); choose another disk with --to'
                    % (folder, error.strerror))


def _unpacked(source, files):
    """Unpacks the archives in source to files, if there are any.

    Args:
        source: str, folder.
        files: str, folder.

    Returns:
        str, the folder to read: files, or source if there are no archives.
    """
    train = os.path.join(source, 'ILSVRC2012_img_train.tar')
    tree = os.path.join(source, 'ILSVRC2016_CLS-LOC.tar.gz')
    if os.path.isfile(train):
        wnid_of = _devkit(os.path.join(source, 'ILSVRC2012_devkit_t12.tar.gz'), files)

        def val_place(name):
            return os.path.join('val', wnid_of[name], name) if name in wnid_of else None

        def train_place(name):
            return os.path.join('train', name) if _CLASS_ARCHIVE.fullmatch(name) else None

        with _opened(os.path.join(source, 'ILSVRC2012_img_val.tar')) as archive:
            _save(archive, val_place, files)
        with _opened(train) as archive:
            _save(archive, train_place, files)
        return files
    if os.path.isfile(tree):
        with _opened(tree) as archive:
            _save(archive, lambda name: name if _IN_TREE.fullmatch(name) else None, files)
        return files
    return source


@contextlib.contextmanager
def _opened(path):
    """Context: an open archive. Damage in it is reported as a Fault."""
    reason = sources.irregular(path)
    if reason:
        raise Fault('%s: %s' % (path, reason))
    print('unpacking %s' % shown(path), flush=True)
    try:
        with tarfile.open(path) as archive:
            yield archive
    except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # from the disk, not about the archive's content
        message = str(error).split(':\n')[0]
        raise Fault('%s: cannot be read as an archive (%s); get it again' % (path, message))


def _save(archive, place, folder):
    """Writes the members of an archive that are wanted. Complete files are not written again.

    Args:
        archive: tarfile.TarFile.
        place: function from a member's name to its path below folder, or None: not wanted.
        folder: str.
    """
    for member in archive:
        name = place(os.path.normpath(member.name))
        if not name:
            continue
        if not member.isfile():  # extractfile would follow a link
            raise tarfile.TarError('%s in it is not a regular file' % name)
        path = os.path.join(folder, name)
        content = archive.extractfile(member)
        if name.endswith('.tar'):  # of one class
            class_folder = path[:-len('.tar')]
            with tarfile.open(fileobj=content, mode='r:') as images:
                _save(images, lambda name: name if _IMAGE.fullmatch(name) else None, class_folder)
            print('unpacked %s' % name)
        elif not os.path.isfile(path) or os.path.getsize(path) != member.size:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, 'wb') as file:
                shutil.copyfileobj(content, file)


def _devkit(path, files):
    """Reads the validation classes: the devkit's ground truth, and its meta.mat.

    Args:
        path: str, the devkit's archive.
        files: str, the folder to unpack it to.

    Returns:
        dict from a validation image's file name to its wnid.
    """
    meta = 'meta.mat'
    truth = 'ILSVRC2012_validation_ground_truth.txt'

    def place(name):
        base_name = os.path.basename(name)
        return base_name if base_name in (meta, truth) else None

    with _opened(path) as archive:
        _save(archive, place, files)
    try:
        synsets = scipy.io.loadmat(os.path.join(files, meta), squeeze_me=True)['synsets']
        wnids = {int(synset['ILSVRC2012_ID']): _WNID.fullmatch(str(synset['WNID'])).group()
                 for synset in synsets}
        with open(os.path.join(files, truth)) as file:
            ids = [int(number) for number in file.read().split()]
        return {'ILSVRC2012_val_%08d.JPEG' % number: wnids[class_id]
                for number, class_id in enumerate(ids, 1)}
    except Exception as error:  # whatever SciPy raises for another file
        raise Fault('%s: %s or %s is missing or wrong (%r); get it again'
                    % (path, meta, truth, error))


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('source')
    parser.add_argument('--to', default='data')
    parser.add_argument('--sets', nargs='+', choices=sorted(SETS),
                        default=['imagenet1000', 'imagenet100'])
    options = parser.parse_args()
    try:
        prepare(options.source, options.to, options.sets)
    except Fault as fault:
        sys.exit(str(fault))
