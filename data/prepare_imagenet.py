"""Arranges ILSVRC2012 for the recipes imagenet1000 and imagenet100.

    python -m data.prepare_imagenet SOURCE [--to data] [--sets imagenet1000 imagenet100 imagenet100-shuffled]

SOURCE is a folder with one of
- ILSVRC2012_img_train.tar, ILSVRC2012_img_val.tar and ILSVRC2012_devkit_t12.tar.gz, as published;
- ILSVRC2016_CLS-LOC.tar.gz, or the tree ILSVRC/ that it unpacks to (its Annotations give the validation classes);
- train/<wnid>/*.JPEG and val/<wnid>/*.JPEG.

Archives are unpacked to TO/ImageNetFiles/, which then is a SOURCE, too. The folder of each set, such as TO/dataImageNet1000/,
gets two list files and two symbolic links, train and val. To continue an interrupted call, repeat it. imagenet100 is the
authors' subset, the first 100 classes; imagenet100-shuffled is the first 100 of the seed-1993 shuffle.
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
from data import Fault, sources

# Folder, and the published numbers of classes, training and validation images. None: it follows from the classes.
SETS = {'imagenet1000': ('dataImageNet1000', 1000, 1281167, 50000),
        'imagenet100': ('dataImageNet100', 100, 129395, 5000),
        'imagenet100-shuffled': ('dataImageNet100Shuffled', 100, None, 5000)}

_WNID = re.compile(r'n\d{8}', re.ASCII)
_IMAGE = re.compile(r'\w+\.JPEG', re.ASCII)
_CLASS = re.compile(r'n\d{8}\.tar', re.ASCII)
_IN_TREE = re.compile(r'ILSVRC/(Data/CLS-LOC/(train/n\d{8}|val)/\w+\.JPEG|Annotations/CLS-LOC/val/\w+\.xml)', re.ASCII)


def prepare(source, to, sets):
    """Unpacks archives, if there are any, checks the numbers of images, and writes lists and links of each set.

    Args: source, to: str, folders. sets: list of str, keys of SETS.
    """
    try:
        source = _unpacked(source, os.path.join(to, 'ImageNetFiles'))
        tree = os.path.join(source, 'ILSVRC', 'Data', 'CLS-LOC')
        folder = tree if os.path.isdir(tree) else source
        folders = {part: os.path.realpath(os.path.join(folder, part)) for part in ('train', 'val')}
        if not all(map(os.path.isdir, folders.values())):
            raise Fault('%s: has no images; put the archives, ILSVRC/, or train/ and val/ there, as data/README.md says' % source)
        images = {part: _in_class_folders(folders[part]) for part in folders}
        if folder == tree:
            images['val'] = _annotated(folders['val'], os.path.join(source, 'ILSVRC', 'Annotations', 'CLS-LOC', 'val'))
        for name in sets:
            lines = _lists(name, images)
            _write(os.path.join(to, SETS[name][0]), folders, lines)
            print('%s: %d training and %d validation images' % (SETS[name][0], len(lines['train']), len(lines['val'])))
    except OSError as error:
        raise Fault('%s: cannot be read or written (%s)' % (error.filename or to, error.strerror))


def _images(folder):
    with os.scandir(folder) as entries:
        return [entry.name for entry in entries if _IMAGE.fullmatch(entry.name) and entry.is_file()]


def _in_class_folders(folder):
    """The wnid of each image, dict from its path below folder."""
    return {'%s/%s' % (wnid, name): wnid for wnid in os.listdir(folder) if _WNID.fullmatch(wnid)
            for name in _images(os.path.join(folder, wnid))}


def _annotated(folder, annotations):
    """The wnid of each image, dict from its path below folder. It is the name of the first object in the image's annotation."""
    wnid_of = {}
    for name in _images(folder):
        path = os.path.join(annotations, name[:-len('.JPEG')] + '.xml')
        reason = sources.irregular(path)
        try:
            wnid_of[name] = reason or xml.etree.ElementTree.parse(path).findtext('object/name')
        except (xml.etree.ElementTree.ParseError, ValueError, LookupError) as error:
            reason = 'is not an annotation (%s)' % error
        if reason:
            raise Fault('%s: %s; the class of %s belongs there' % (path, reason, name))
    return wnid_of


def _subset(name, wnids):
    if name == 'imagenet100-shuffled':
        if len(wnids) != 1000:
            raise Fault('%s: is drawn from 1000 classes, and %d are there' % (name, len(wnids)))
        order = exemplar.class_order(1000, np.random.RandomState(1993), 'random')
        return sorted(wnids[i] for i in order[:100])
    return wnids[:100] if name == 'imagenet100' else wnids


def _lists(name, images):
    """The lines of train.txt and val.txt, sorted by class and name. Checks the numbers of classes and images."""
    wnids = _subset(name, sorted(set(images['train'].values())))
    labels = {wnid: label for label, wnid in enumerate(wnids)}
    chosen = {part: sorted((labels[wnid], path) for path, wnid in images[part].items() if wnid in labels) for part in images}
    counts = {'classes': len(wnids), 'training images': len(chosen['train']), 'validation images': len(chosen['val'])}
    wrong = ['%s: %d %s instead of %d' % (name, count, what, published)
             for (what, count), published in zip(counts.items(), SETS[name][1:]) if published not in (None, count)]
    if wrong:
        raise Fault('\n'.join(wrong))
    return {part: ['%s/%s %d\n' % (part, path, label) for label, path in chosen[part]] for part in chosen}


def _write(folder, folders, lines):
    """Writes lists, then links. If it is interrupted there is no link, so a run never trains on half a list."""
    os.makedirs(folder, exist_ok=True)
    for part in folders:
        link = os.path.join(folder, part)
        if os.path.islink(link):
            os.remove(link)
        elif os.path.lexists(link):
            raise Fault('%s: a link belongs there; move what is there elsewhere, or delete it if you do not need it' % link)
    for part in lines:
        with open(os.path.join(folder, part + '.txt'), 'w') as file:
            file.writelines(lines[part])
    try:
        for part in folders:
            os.symlink(folders[part], os.path.join(folder, part))
    except OSError as error:
        raise Fault('%s: symbolic links cannot be made there (%s); choose another disk with --to' % (folder, error.strerror))


def _unpacked(source, files):
    """Unpacks the archives in source to files. Returns the folder to read: files, or source if there are no archives."""
    train, tree = [os.path.join(source, name) for name in ('ILSVRC2012_img_train.tar', 'ILSVRC2016_CLS-LOC.tar.gz')]
    if os.path.isfile(train):
        wnid_of = _devkit(os.path.join(source, 'ILSVRC2012_devkit_t12.tar.gz'), files)
        with _opened(os.path.join(source, 'ILSVRC2012_img_val.tar')) as archive:
            _save(archive, lambda name: name in wnid_of and os.path.join('val', wnid_of[name], name), files)
        with _opened(train) as archive:
            _save(archive, lambda name: _CLASS.fullmatch(name) and os.path.join('train', name), files)
    elif os.path.isfile(tree):
        with _opened(tree) as archive:
            _save(archive, lambda name: _IN_TREE.fullmatch(name) and name, files)
    return files if os.path.isfile(train) or os.path.isfile(tree) else source


@contextlib.contextmanager
def _opened(path):
    """Context: an open archive. Damage in it is reported as a Fault."""
    reason = sources.irregular(path)
    if reason:
        raise Fault('%s: %s' % (path, reason))
    print('unpacking %s' % sources.shown(path), flush=True)
    try:
        with tarfile.open(path) as archive:
            yield archive
    except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # from the disk, not about the archive's content
        raise Fault('%s: cannot be read as an archive (%s); get it again' % (path, str(error).split(':\n')[0]))


def _save(archive, place, folder):
    """Writes each member to the path below folder that `place` gives for its name, or skips it. Skips complete files, too."""
    for member in archive:
        name = place(os.path.normpath(member.name))
        if not name:
            continue
        if not member.isfile():  # extractfile would follow a link
            raise tarfile.TarError('%s in it is not a regular file' % name)
        path, content = os.path.join(folder, name), archive.extractfile(member)
        if name.endswith('.tar'):  # of one class
            with tarfile.open(fileobj=content, mode='r:') as images:
                _save(images, lambda name: _IMAGE.fullmatch(name) and name, path[:-len('.tar')])
            print('unpacked %s' % name)
        elif not os.path.isfile(path) or os.path.getsize(path) != member.size:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, 'wb') as file:
                shutil.copyfileobj(content, file)


def _devkit(path, files):
    """The wnid of each validation image, dict from its file name; from the devkit's ground truth and its meta.mat."""
    names = 'meta.mat', 'ILSVRC2012_validation_ground_truth.txt'
    with _opened(path) as archive:
        _save(archive, lambda name: os.path.basename(name) in names and os.path.basename(name), files)
    try:
        synsets = scipy.io.loadmat(os.path.join(files, names[0]), squeeze_me=True)['synsets']
        wnids = {int(synset['ILSVRC2012_ID']): _WNID.fullmatch(str(synset['WNID'])).group() for synset in synsets}
        with open(os.path.join(files, names[1])) as numbers:
            return {'ILSVRC2012_val_%08d.JPEG' % i: wnids[int(number)] for i, number in enumerate(numbers.read().split(), 1)}
    except Exception as error:  # whatever SciPy raises for another file
        raise Fault('%s: %s or %s is missing or wrong (%r); get it again' % (path, *names, error))


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('source')
    parser.add_argument('--to', default='data')
    parser.add_argument('--sets', nargs='+', choices=sorted(SETS), default=['imagenet1000', 'imagenet100'])
    options = parser.parse_args()
    try:
        prepare(options.source, options.to, options.sets)
    except Fault as fault:
        sys.exit(str(fault))
