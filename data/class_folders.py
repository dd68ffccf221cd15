"""Reads class folders: train/<class>/* and val/<class>/*, or <class>/* alone."""
import os
import unicodedata
import zlib

import exemplar
from data import bytes_of, name_of, shown

# Of images, in upper or lower case. Other files in class folders are skipped.
ENDINGS = (b'.jpg', b'.jpeg', b'.png', b'.bmp', b'.gif')


def read(s, faults):
    """Lists the images of all class folders.

    Classes are numbered in the sorted order of their names. Names that are all whole numbers are
    sorted as numbers, 2 before 10: the published class orders mean these numbers. Of <class>/*,
    `_divide` takes TEST_FRACTION of each class to test on.

    Args:
        s: settings: DATA_DIR, NUM_CLASSES, TEST_FRACTION; MODEL_DIR and LOG_DIR are never classes.
        faults: data.Faults, to add to.

    Returns:
        train: list of lists of bytes, by class, the paths of the images to train on; None where
            faults prevent it.
        test: the same, to test on.
        names: list of str, the class folders, in the order of the class numbers.
        skipped: list of str, as `shown`: paths in class folders without an image's ending.
            Hidden files are not among them.
    """
    folder = os.path.normpath(os.fsencode(s.DATA_DIR))
    own_folders = [os.path.realpath(os.fsencode(path)) for path in (s.MODEL_DIR, s.LOG_DIR)]
    parts = _parts(folder, own_folders)
    names = _class_names(parts[0], own_folders)
    if all(name.isdecimal() for name in names):
        names.sort(key=lambda name: (int(name), name))
    wrong = _wrong_folders(parts, names, own_folders)
    faults.add_all(wrong)
    if s.NUM_CLASSES not in (0, len(names)):
        faults.add('%s: has %d class folders, and NUM_CLASSES=%d'
                   % (shown(folder), len(names), s.NUM_CLASSES))
    if wrong:
        return None, None, names, []

    train = []
    test = []
    skipped = []
    without_image = []
    for name in names:
        images_of_parts = []
        for part in parts:
            class_folder = os.path.join(part, bytes_of(name))
            images, others = _list_class(class_folder)
            images_of_parts.append(images)
            skipped += others
            if others and not images:
                without_image.append(
                    '%s: has no image; what is there ends neither in .jpg, .jpeg, .png, .bmp nor '
                    '.gif, for example %s' % (shown(class_folder), others[0]))
        if len(parts) == 1:
            images_of_parts = _divide(images_of_parts[0], name, s.TEST_FRACTION)
        train.append(images_of_parts[0])
        test.append(images_of_parts[1])
    faults.add_all(without_image)
    return train, test, names, skipped


def _parts(folder, own_folders):
    """The folders of class folders, list of bytes: train and val, or the folder itself.

    Args:
        folder: bytes, DATA_DIR.
        own_folders: list of bytes, as in `_class_names`.
    """
    train = os.path.join(folder, b'train')
    val = os.path.join(folder, b'val')
    if not os.path.isdir(train):
        return [folder]
    # A class may be called train: then it has images alone, and other classes are beside it.
    others = set(_class_names(folder, own_folders)) - {'train', 'test'}
    if others and not os.path.isdir(val) and not _class_names(train, own_folders):
        return [folder]
    return [train, val]


def _wrong_folders(parts, names, own_folders):
    """What is wrong with the folders, list of str.

    Args:
        parts: list of bytes, from `_parts`.
        names: list of str, the class folders in the first of them.
        own_folders: list of bytes, as in `_class_names`.
    """
    wrong = []
    if len(names) < 2:
        wrong.append('%s: at least two class folders must be there; number found: %d'
                     % (shown(parts[0]), len(names)))
    if len(parts) == 1:
        return wrong
    train, val = parts
    if not os.path.isdir(val):
        wrong.append('%s: no such folder beside %s; without a test set, put the class folders into '
                     '%s itself' % (shown(val), shown(train), shown(os.path.dirname(train))))
        return wrong
    unknown = sorted(set(_class_names(val, own_folders)) - set(names))
    normal_names = {unicodedata.normalize('NFC', name) for name in names}
    for name in unknown:
        line = '%s: no such class in %s' % (shown(os.path.join(val, bytes_of(name))), shown(train))
        if unicodedata.normalize('NFC', name) in normal_names:
            line += ', but one of the same letters in another Unicode form; rename one of the two'
        wrong.append(line)
    return wrong


def _class_names(folder, own_folders):
    """The names of a folder's class folders, sorted list of str. Hidden ones are left out.

    Args:
        folder: bytes.
        own_folders: list of bytes, the real paths of the folders that the run writes to. They are
            no classes, nor are folders above or directly in them that have no image.
    """
    names = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(b'.') or not entry.is_dir():
                continue
            path = os.path.realpath(entry.path)
            is_above = any(own.startswith(os.path.join(path, b'')) for own in own_folders)
            is_near = is_above or os.path.dirname(path) in own_folders
            if path in own_folders or is_near and not _list_class(path)[0]:
                continue
            names.append(name_of(entry.name))
    return sorted(names)


def _list_class(folder):
    """Lists one class folder.

    Args:
        folder: bytes. It need not exist.

    Returns:
        images: list of bytes, the paths of its images, sorted.
        others: list of str, the paths of its other files, as `shown`. Hidden ones are left out.
    """
    images = []
    others = []
    names = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
    for name in names:
        if name.startswith(b'.'):
            continue
        path = os.path.join(folder, name)
        if name.lower().endswith(ENDINGS):
            images.append(path)
        else:
            others.append(shown(path))
    return images, others


def _divide(paths, name, test_fraction):
    """Divides a class by checksums: when images come or go, nearly all others stay in their part.

    Args:
        paths: list of bytes, the images of the class.
        name: str, the class.
        test_fraction: float in (0, 1).

    Returns:
        train: list of bytes, sorted.
        test: list of bytes, sorted. At least one, if there are any images.
    """
    def key(path):
        return zlib.crc32(bytes_of(name) + os.path.basename(path)), path

    order = sorted(paths, key=key)
    num_test = max(1, int(exemplar.exact(test_fraction) * len(paths)))
    return sorted(order[num_test:]), sorted(order[:num_test])
