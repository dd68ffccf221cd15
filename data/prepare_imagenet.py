"""Arranges ILSVRC2012 for the recipes imagenet1000 and imagenet100: class folders and list files.

    python -m data.prepare_imagenet SOURCE [--to data] [--sets imagenet1000 imagenet100 imagenet100-shuffled]

SOURCE is what people have, a folder with one of
- ILSVRC2012_img_train.tar, ILSVRC2012_img_val.tar and ILSVRC2012_devkit_t12.tar.gz, as published;
- ILSVRC2016_CLS-LOC.tar.gz, or the tree ILSVRC/ that it unpacks to (its Annotations give the validation classes);
- train/<wnid>/*.JPEG and val/<wnid>/*.JPEG.

Archives are unpacked to TO/ImageNetFiles/. Each set's folder (dataImageNet1000/, dataImageNet100/, ..) then gets links to the
images, so that there is no second copy; where links are impossible, copies. An interrupted call is repeated and goes on where
it was. imagenet100 is the authors' subset, the first 100 classes; imagenet100-shuffled the first 100 of the seed-1993 shuffle.
"""
import argparse
import collections
import os
import re
import shutil
import sys
import tarfile
import xml.etree.ElementTree

import numpy as np
import scipy.io

import exemplar
from data import Fault

FOLDERS = {'imagenet1000': 'dataImageNet1000', 'imagenet100': 'dataImageNet100',
           'imagenet100-shuffled': 'dataImageNet100Shuffled'}
# Published totals of classes, training and validation images; those of the shuffled subset follow from its classes.
TOTALS = {'imagenet1000': (1000, 1281167, 50000), 'imagenet100': (100, 129395, 5000), 'imagenet100-shuffled': (100, None, 5000)}

_WNID = re.compile(r'^n\d{8}$')
_TRAIN = re.compile(r'(?:^|/)train/(n\d{8})/(\w+\.JPEG)$')
_VAL = re.compile(r'(?:^|/)(ILSVRC2012_val_\d{8}\.JPEG)$')
_ANNOTATION = re.compile(r'(?:^|/)(ILSVRC2012_val_\d{8})\.xml$')


def prepare(source, to, sets, totals=TOTALS, say=print):
    """Does what the module says.

    Args:
        source, to: str, folders. sets: list of str, keys of FOLDERS.
        totals: dict from set to the numbers to verify. say: function of a line of text, for progress.

    Raises:
        Fault: the source is none of the three, an archive is damaged, or the numbers are not the published ones.
    """
    files = os.path.join(to, 'ImageNetFiles')

    def at(*names):
        return os.path.join(source, *names)

    loc = os.path.join('Data', 'CLS-LOC')
    if os.path.isfile(at('ILSVRC2012_img_train.tar')):
        for name in ('ILSVRC2012_img_val.tar', 'ILSVRC2012_devkit_t12.tar.gz'):
            if not os.path.isfile(at(name)):
                raise Fault('%s: no such file; the validation images and their classes are in it' % at(name))
        _unpack_train(at('ILSVRC2012_img_train.tar'), files, say)
        _unpack(at('ILSVRC2012_img_val.tar'), files, say)
        train, val = os.path.join(files, 'train'), _flat(os.path.join(files, 'val'), _devkit(at('ILSVRC2012_devkit_t12.tar.gz')))
    elif os.path.isfile(at('ILSVRC2016_CLS-LOC.tar.gz')):
        _unpack(at('ILSVRC2016_CLS-LOC.tar.gz'), files, say)
        train, val = os.path.join(files, 'train'), _flat(os.path.join(files, 'val'), _annotations(os.path.join(files, 'xml')))
    elif os.path.isdir(at('ILSVRC', loc, 'train')):
        train, val = at('ILSVRC', loc, 'train'), _flat(at('ILSVRC', loc, 'val'),
                                                       _annotations(at('ILSVRC', 'Annotations', 'CLS-LOC', 'val')))
    elif os.path.isdir(at('train')) and os.path.isdir(at('val')):
        train = at('train')
        val = {wnid: [at('val', wnid, name) for name in _jpegs(at('val', wnid))] for wnid in _wnids(at('val'))}
    else:
        raise Fault('%s: has neither the archives of ILSVRC2012, nor that of ILSVRC2016_CLS-LOC or its tree, nor train/ and val/'
                    % source)
    wnids = _wnids(train)
    for name in sets:
        _arrange(name, _subset(name, wnids), train, val, os.path.join(to, FOLDERS[name]), totals[name], say)


def _subset(name, wnids):
    if name == 'imagenet1000':
        return wnids
    if name == 'imagenet100':
        return wnids[:100]
    order = exemplar.class_order(len(wnids), np.random.RandomState(1993), 'random')
    return sorted(wnids[i] for i in order[:100])


def _arrange(name, wnids, train, val, folder, total, say):
    """Links and lists of one set, under another name until its numbers are verified."""
    folders = {wnid: os.path.join(train, wnid) for wnid in wnids}
    images = {'train': {wnid: [os.path.join(folder, image) for image in _jpegs(folder)] for wnid, folder in folders.items()},
              'val': {wnid: val.get(wnid, []) for wnid in wnids}}
    counts = (len(wnids),) + tuple(sum(map(len, images[part].values())) for part in ('train', 'val'))
    wrong = ['%s: %d %s instead of %d' % (name, have, what, want) for have, want, what in zip(
        counts, total, ('classes', 'training images', 'validation images')) if want not in (None, have)]
    wrong += ['%s: class %s has no image in %s' % (name, wnid, part)
              for part in images for wnid in wnids if not images[part][wnid]]
    if wrong:
        raise Fault('\n'.join(wrong))
    partial = folder + '.partial'
    shutil.rmtree(partial, ignore_errors=True)
    for part, by_class in images.items():
        lines = []
        for label, wnid in enumerate(wnids):
            os.makedirs(os.path.join(partial, part, wnid))
            for image in by_class[wnid]:
                path = '%s/%s/%s' % (part, wnid, os.path.basename(image))
                _link(os.path.realpath(image), os.path.join(partial, path))
                lines.append('%s %d\n' % (path, label))
        with open(os.path.join(partial, part + '.txt'), 'w') as file:
            file.writelines(lines)
    if os.path.exists(folder):
        shutil.rmtree(folder)  # links and lists, written anew
    os.rename(partial, folder)
    say('%s: %d classes, %d training and %d validation images' % ((folder,) + counts))


def _link(image, path):
    for make in (os.link, os.symlink, shutil.copyfile):  # a long symbolic link takes a block, 5 GB for all of ImageNet
        try:
            return make(image, path)
        except OSError:
            if make is shutil.copyfile:
                raise


def _unpack_train(archive, files, say):
    """An archive of one archive per class. A class is there whole or not at all."""
    with _opened(archive) as outer:
        for member in outer:
            wnid = os.path.splitext(os.path.basename(member.name))[0]
            folder = os.path.join(files, 'train', wnid)
            if not _WNID.match(wnid) or os.path.isdir(folder):
                continue
            shutil.rmtree(folder + '.partial', ignore_errors=True)
            os.makedirs(folder + '.partial')
            with tarfile.open(fileobj=outer.extractfile(member)) as inner:
                for image in inner:
                    if re.match(r'^\w+\.JPEG$', image.name):
                        _write(inner, image, os.path.join(folder + '.partial', image.name))
            os.rename(folder + '.partial', folder)
            say('unpacked %s' % folder)


def _unpack(archive, files, say):
    """Images and annotations of an archive, by their own names: nothing else in it is written, and nowhere else."""
    with _opened(archive) as members:
        for number, member in enumerate(members):
            for pattern, folder in ((_TRAIN, 'train'), (_VAL, 'val'), (_ANNOTATION, 'xml')):
                found = pattern.search(member.name)
                if found and member.isfile():
                    path = os.path.join(files, folder, *found.groups()) + ('.xml' if folder == 'xml' else '')
                    if not os.path.isfile(path) or os.path.getsize(path) != member.size:
                        os.makedirs(os.path.dirname(path), exist_ok=True)
                        _write(members, member, path)
            if number and number % 50000 == 0:
                say('%s: %d members' % (archive, number))


def _write(archive, member, path):
    with open(path, 'wb') as file:
        shutil.copyfileobj(archive.extractfile(member), file)


class _opened:
    """An archive whose damage is reported as a Fault."""

    def __init__(self, path):
        self.path = path

    def __enter__(self):
        try:
            self.archive = tarfile.open(self.path)
        except (OSError, EOFError, tarfile.TarError) as error:
            self.__exit__(type(error), error, None)
        return self.archive

    def __exit__(self, kind, error, _):
        if isinstance(error, (EOFError, tarfile.TarError)) or kind in (OSError,):
            raise Fault('%s: cannot be read as an archive (%s); get it again' % (self.path, error))
        self.archive.close()
        return False


def _devkit(path):
    """Class of each validation image, in the order of their numbers, from the devkit's ground truth and its meta.mat."""
    wnid, numbers = {}, []
    with _opened(path) as archive:
        for member in archive:
            if member.name.endswith('data/meta.mat'):
                synsets = scipy.io.loadmat(archive.extractfile(member), squeeze_me=True)['synsets']
                wnid = {int(synset['ILSVRC2012_ID']): str(synset['WNID']) for synset in synsets}
            elif member.name.endswith('ILSVRC2012_validation_ground_truth.txt'):
                numbers = archive.extractfile(member).read().split()
    if not wnid or not numbers:
        raise Fault('%s: has no meta.mat or no ILSVRC2012_validation_ground_truth.txt; get it again' % path)
    return {'ILSVRC2012_val_%08d' % i: wnid[int(number)] for i, number in enumerate(numbers, 1)}


def _annotations(folder):
    """Class of each validation image from its annotation, the first object's name."""
    if not os.path.isdir(folder):
        raise Fault('%s: no such folder; the classes of the validation images are in it' % folder)
    return {os.path.splitext(name)[0]: xml.etree.ElementTree.parse(os.path.join(folder, name)).find('object/name').text
            for name in sorted(os.listdir(folder)) if _ANNOTATION.search(name)}


def _flat(folder, wnid_of):
    """Validation images that lie in one folder, by class."""
    by_class = collections.defaultdict(list)
    unknown = []
    for name in _jpegs(folder):
        wnid = wnid_of.get(os.path.splitext(name)[0])
        by_class[wnid].append(os.path.join(folder, name))
        unknown += [] if wnid else ['%s: its class is not known' % os.path.join(folder, name)]
    if unknown:
        raise Fault('\n'.join(unknown))
    return by_class


def _wnids(folder):
    return sorted(name for name in os.listdir(folder) if _WNID.match(name))


def _jpegs(folder):
    return sorted(name for name in os.listdir(folder) if name.endswith('.JPEG')) if os.path.isdir(folder) else []


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('source')
    parser.add_argument('--to', default='data')
    parser.add_argument('--sets', nargs='+', choices=sorted(FOLDERS), default=['imagenet1000', 'imagenet100'])
    options = parser.parse_args()
    try:
        prepare(options.source, options.to, options.sets)
    except Fault as fault:
        sys.exit(str(fault))
