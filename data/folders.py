"""Class folders without any list: train/<class>/* and val/<class>/*, or <class>/* alone."""
import collections
import os
import zlib

import numpy as np

from data.lists import Images, report

EXTENSIONS = ('.jpg', '.jpeg', '.png', '.bmp', '.gif')


def read(folder, test_fraction):
    """Finds the images of every class folder; classes are numbered in the sorted order of their names.

    Files with another ending than an image's, and hidden ones, are no images.

    Args:
        folder: str, with train/ and val/, which have the class folders; or with the class folders themselves.
        test_fraction: float in (0, 1), the share of each class that is tested on in the second case. It is drawn at random, but
            the same in every run, whatever other classes there are, and nearly so when images come or go.

    Returns:
        train, test: lists.Images, or None where something is wrong.
        names: list of str, the classes.
        wrong: list of str, one line each.
    """
    folder = os.path.normpath(folder)
    parts = [os.path.join(folder, part) for part in ('train', 'val')]
    split = os.path.isdir(parts[0])
    names = _class_folders(parts[0] if split else folder)
    wrong, unknown = [], []
    if split and os.path.isdir(parts[1]):
        unknown = sorted(set(_class_folders(parts[1])) - set(names))
    elif split:
        wrong.append('%s: no such folder beside %s; without a test set, put the class folders into %s itself'
                     % (parts[1], parts[0], folder))
    report(wrong, ['%s: no such class in %s' % (os.path.join(parts[1], name), parts[0]) for name in unknown])
    if len(names) < 2:
        wrong.append('%s: at least two class folders must be there, and there %s %d'
                     % (parts[0] if split else folder, 'is' if len(names) == 1 else 'are', len(names)))
    by_case = collections.Counter(name.casefold() for name in names)
    report(wrong, ['%s: differs from another class in upper and lower case alone; rename one' % name
                   for name in names if by_case[name.casefold()] > 1])
    report(wrong, ['%r: a class name must not have line breaks or other control characters; rename it' % name
                   for name in names if any(ord(character) < 32 for character in name)])
    if wrong:
        return None, None, names, wrong
    lists, small = (([], []), ([], [])), []
    for number, name in enumerate(names):
        if split:
            images = [_images(os.path.join(part, name)) for part in parts]
        else:
            images = _divided(_images(os.path.join(folder, name)), name, test_fraction)
        for (paths, classes), of_class, part in zip(lists, images, ('train', 'val')):
            paths += of_class
            classes += [number] * len(of_class)
            if len(of_class) < (2 if part == 'train' else 1):
                small.append('%s: class %s has %d image%s to %s, and at least %s must be there' % (
                    folder, name, len(of_class), '' if len(of_class) == 1 else 's',
                    *(('train on', 'two') if part == 'train' else ('test on', 'one'))))
    report(wrong, small)
    train, test = (Images(np.array(paths, object), np.array(classes, int)) for paths, classes in lists)
    return train, test, names, wrong


def _class_folders(folder):
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith('.'))


def _images(folder):
    if not os.path.isdir(folder):
        return []
    return sorted(os.fsencode(os.path.join(folder, name)) for name in os.listdir(folder)
                  if name.lower().endswith(EXTENSIONS) and not name.startswith('.'))


def _divided(paths, name, test_fraction):
    # By each image's own number, so that a few images more or less leave the others where they are.
    order = sorted(paths, key=lambda path: (zlib.crc32(os.fsencode(name) + os.path.basename(path)), path))
    count = max(1, int(test_fraction * len(paths)))
    return sorted(order[count:]), sorted(order[:count])
