"""List files: train.txt and val.txt of a folder, `path label` a line, to arrays; and everything that is wrong with them."""
import collections
import os

import numpy as np

from data import Fault

Images = collections.namedtuple('Images', 'paths classes')
Images.__doc__ = """One list: paths, array [images] of bytes objects; classes, int array [images], in list order."""

_SHOWN = 5  # faults of one kind that are shown in full; the rest is counted


def read(folder, num_classes):
    """Reads and checks both lists in time linear in their lines.

    A line is the image's path relative to the folder, white space, and its class, 0..num_classes-1. Folders are listed
    once each, so that a missing image is found without opening or asking for any single one.

    Args:
        folder: str, with train.txt, val.txt and the images.
        num_classes: int.

    Returns:
        (train, test): two Images.

    Raises:
        Fault: every fault of both lists, one line each.
    """
    faults = []
    lists = [_read_list(folder, name, num_classes, faults) for name in ('train.txt', 'val.txt')]
    if not faults:
        for images, name in zip(lists, ('train.txt', 'val.txt')):
            _check_images(images, os.path.join(folder, name), num_classes, faults)
        counts = np.bincount(lists[0].classes, minlength=num_classes)
        _report(faults, ['%s: class %d has 1 image, and none would be left to train on: the hold-out takes one'
                         % (os.path.join(folder, 'train.txt'), label) for label in np.flatnonzero(counts == 1)])
        both = set(lists[0].paths) & set(lists[1].paths)
        _report(faults, ['%s: stands in train.txt and val.txt; a test image must not be trained on' % os.fsdecode(path)
                         for path in sorted(both)])
    if faults:
        raise Fault('\n'.join(faults))
    return lists


def _read_list(folder, name, num_classes, faults):
    path = os.path.join(folder, name)
    paths, classes, wrong = [], [], []
    if not os.path.isfile(path):
        faults.append('%s: no such file; README.md says under Data what belongs there' % path)
        return None
    with open(path, 'rb') as lines:
        for number, line in enumerate(lines, 1):
            parts = line.rsplit(None, 1)
            if not parts:
                continue
            if len(parts) != 2 or not parts[1].isdigit():
                wrong.append('%s:%d: %r is not `path label`' % (path, number, os.fsdecode(line.rstrip())))
            elif int(parts[1]) >= num_classes:
                wrong.append('%s:%d: label %d is outside 0..%d' % (path, number, int(parts[1]), num_classes - 1))
            else:
                paths.append(os.path.normpath(os.path.join(os.fsencode(folder), parts[0].strip())))
                classes.append(int(parts[1]))
    _report(faults, wrong)
    return Images(np.array(paths, object), np.array(classes, int))


def _check_images(images, name, num_classes, faults):
    """Every class has an image, every image's folder is there and has it, no image is listed twice."""
    counts = np.bincount(images.classes, minlength=num_classes)
    _report(faults, ['%s: class %d has no image' % (name, label) for label in np.flatnonzero(counts == 0)])
    in_folder = collections.defaultdict(set)
    for path in images.paths:
        in_folder[os.path.dirname(path)].add(os.path.basename(path))
    no_folder, no_image = [], []
    for folder, names in sorted(in_folder.items()):
        if not os.path.isdir(folder):
            no_folder.append('%s: no such folder; %s lists %d images in it' % (os.fsdecode(folder), name, len(names)))
        else:
            no_image += ['%s: no such image; %s lists it' % (os.fsdecode(os.path.join(folder, missing)), name)
                         for missing in sorted(names.difference(os.listdir(folder)))]
    _report(faults, no_folder)
    _report(faults, no_image)
    twice = len(images.paths) - sum(len(names) for names in in_folder.values())
    if twice:
        faults.append('%s: %d line%s an image of another line' % (name, twice, ' repeats' if twice == 1 else 's repeat'))


def _report(faults, found):
    faults += found[:_SHOWN]
    if len(found) > _SHOWN:
        faults.append('... and %d more like the one above' % (len(found) - _SHOWN))
