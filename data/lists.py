"""List files: train.txt and val.txt of a folder, `path label` a line, to arrays; and everything that is wrong with them."""
import codecs
import collections
import os

import numpy as np

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
        train, test: Images, without the lines that are wrong.
        wrong: list of str: what is wrong with the lists themselves, one line each.
        missing: list of str: listed folders and images that are not there, one line each.
    """
    wrong, missing = [], []
    train, test = (_read_list(os.path.join(folder, name), num_classes, wrong) for name in ('train.txt', 'val.txt'))
    if train and test:
        counts = np.bincount(train.classes, minlength=num_classes)
        report(wrong, ['%s: class %d has 1 image, and none would be left to train on: the hold-out takes one'
                        % (os.path.join(folder, 'train.txt'), label) for label in np.flatnonzero(counts == 1)])
        both = set(train.paths) & set(test.paths)
        report(wrong, ['%s: stands in train.txt and val.txt; a test image must not be trained on' % os.fsdecode(path)
                        for path in sorted(both)])
    for images, name in ((train, 'train.txt'), (test, 'val.txt')):
        if images:
            _check_images(images, os.path.join(folder, name), num_classes, wrong, missing)
    return train, test, wrong, missing


def _read_list(path, num_classes, faults):
    paths, classes, wrong = [], [], []
    if not os.path.isfile(path):
        faults.append('%s: no such file; data/README.md says what belongs there' % path)
        return None
    with open(path, 'rb') as lines:
        for number, line in enumerate(lines, 1):
            parts = (line[3:] if line.startswith(codecs.BOM_UTF8) else line).rsplit(None, 1)
            if not parts:
                continue
            if len(parts) != 2 or not parts[1].isdigit():
                wrong.append('%s:%d: %r is not `path label`' % (path, number, os.fsdecode(line.rstrip())))
            elif int(parts[1]) >= num_classes:
                wrong.append('%s:%d: label %d is outside 0..%d' % (path, number, int(parts[1]), num_classes - 1))
            else:
                paths.append(os.path.normpath(os.path.join(os.fsencode(os.path.dirname(path)), parts[0].strip())))
                classes.append(int(parts[1]))
    report(faults, wrong)
    return Images(np.array(paths, object), np.array(classes, int))


def _check_images(images, name, num_classes, wrong, missing):
    """Every class has an image, every image's folder is there and has it, no image is listed twice."""
    counts = np.bincount(images.classes, minlength=num_classes)
    report(wrong, ['%s: class %d has no image' % (name, label) for label in np.flatnonzero(counts == 0)])
    in_folder = collections.defaultdict(set)
    no_folder, no_image, twice = [], [], []
    for path in images.paths:
        names = in_folder[os.path.dirname(path)]
        if os.path.basename(path) in names:
            twice.append('%s: %s lists it more than once' % (os.fsdecode(path), name))
        names.add(os.path.basename(path))
    for folder, names in sorted(in_folder.items()):
        if not os.path.isdir(folder):
            no_folder.append('%s: no such folder; %s lists %d images in it' % (os.fsdecode(folder), name, len(names)))
        else:
            no_image += ['%s: no such image; %s lists it' % (os.fsdecode(os.path.join(folder, image)), name)
                         for image in sorted(names.difference(os.listdir(folder)))]
    report(wrong, twice)
    report(missing, no_folder)
    report(missing, no_image)


def read_names(path, names):
    """Reads a class order: the names of all classes, one a line.

    Args:
        path: str. names: list of str, the classes that there are.

    Returns:
        listed: list of str, the file's names in its order. wrong: list of str, what is wrong with it, one line each.
    """
    wrong = []
    try:
        with open(path, encoding='utf-8-sig') as lines:
            listed = [line.rstrip('\n') for line in lines if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        return [], ['%s: cannot be read as a list of class names (%s)' % (path, error)]
    counts, there = collections.Counter(listed), set(names)
    report(wrong, ['%s: there is no class %s' % (path, name) for name in counts if name not in there])
    report(wrong, ['%s: class %s is missing' % (path, name) for name in names if name not in counts])
    report(wrong, ['%s: class %s stands there %d times' % (path, name, count) for name, count in counts.items() if count > 1])
    return listed, wrong


def report(faults, found):
    """Adds to the faults what was found, the first few in full and the rest counted."""
    faults += found[:_SHOWN]
    if len(found) > _SHOWN:
        faults.append('... and %d more like the one above' % (len(found) - _SHOWN))
