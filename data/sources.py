"""The images of a run: reads list files or class folders to paths and classes, and reports what is wrong with them."""
import codecs
import collections
import os
import re
import stat
import zlib

import numpy as np

import exemplar

ENDINGS = (b'.jpg', b'.jpeg', b'.png', b'.bmp', b'.gif')  # of images in class folders, in upper or lower case

Images = collections.namedtuple('Images', 'paths classes')
Images.__doc__ = """Images and their classes: paths, object array [images] of bytes; classes, int array [images]."""

_SHOWN = 5  # faults of one kind that are shown in full; the others are counted
_CONTROL = re.compile('[\x00-\x1f\x7f-\x9f\u2028\u2029]')  # they break lines of logs and tables, and terminals obey some
_ESCAPED = re.compile(_CONTROL.pattern + '|[\ud800-\udfff]')  # the latter stand for bytes that are not UTF-8


def read(s):
    """Reads the list files of DATA_DIR or, if there are none, its class folders.

    Returns:
        train, test: Images; None where faults prevent it.
        names: list of str, the class folders in the order of the class numbers. With lists, the folder of each class's first
            training image; the numbers themselves if two classes share a folder.
        wrong: list of str, what is wrong with lists or folders, one line each.
        missing: list of str, listed folders and images that do not exist, one line each.
        skipped: list of str, paths in class folders without an image's ending, as `shown`. Hidden files are not counted.
    """
    train, test, names, wrong, missing, skipped = None, None, [], [], [], []
    try:
        if not os.path.isdir(s.DATA_DIR):
            wrong.append('%s: no such folder; data/README.md says what belongs there and where to get it' % shown(s.DATA_DIR))
        elif any(os.path.lexists(os.path.join(s.DATA_DIR, name)) for name in ('train.txt', 'val.txt')):
            train, test, names = _read_lists(s.DATA_DIR, s.NUM_CLASSES, wrong, missing)
        else:
            train, test, names = _read_folders(os.path.normpath(s.DATA_DIR), s.NUM_CLASSES, s.TEST_FRACTION, wrong, skipped)
    except OSError as error:
        wrong.append('%s: cannot be read (%s)' % (shown(error.filename or s.DATA_DIR), error.strerror))
    for images, least, use in ((train, 2, 'train'), (test, 1, 'test')):
        if images:
            counts = np.bincount(images.classes, minlength=len(names))
            report(wrong, ['%s: class %s has %d image%s to %s on, and at least %d must be there%s' % (
                shown(s.DATA_DIR), shown(names[number]), counts[number], '' if counts[number] == 1 else 's', use, least,
                ': the hold-out takes one' if use == 'train' else '') for number in np.flatnonzero(counts < least)])
            report(wrong, ['%s: has control characters in its path; rename it' % shown(path)
                           for path in images.paths if _CONTROL.search(os.fsdecode(path))])
    return train, test, names, wrong, missing, skipped


def read_names(path, names):
    """Reads a class order: a UTF-8 file with one class name per line. names: list of str, the classes that must be in it.

    Returns: listed: list of str, the file's names in its order. wrong: list of str, what is wrong with it, one line each.
    """
    reason, listed, wrong = irregular(path), [], []
    try:
        if not reason:
            with open(path, encoding='utf-8-sig') as lines:
                listed = [line.rstrip('\n') for line in lines if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        reason = 'cannot be read as a list of class names (%s)' % error
    if reason:
        return [], ['%s: %s' % (shown(path), reason)]
    counts, there = collections.Counter(listed), set(names)
    for message, found in (('there is no class %s', [name for name in counts if name not in there]),
                           ('class %s is missing', [name for name in names if name not in counts]),
                           ('class %s is listed more than once', [name for name in counts if counts[name] > 1])):
        report(wrong, ['%s: %s' % (shown(path), message % shown(name)) for name in found])
    return listed, wrong


def report(faults, found):
    """Adds found to faults, both lists of str: the first few in full, then how many more there are."""
    faults += found[:_SHOWN]
    if len(found) > _SHOWN:
        faults.append('... and %d more like the one above' % (len(found) - _SHOWN))


def shown(name):
    """A name or path, str or bytes, for messages: control characters and bytes that are not UTF-8 are escaped."""
    return _ESCAPED.sub(lambda match: match.group().encode('unicode_escape').decode(), os.fsdecode(name))


def irregular(path):
    """Why a path, str or bytes, is neither a regular file nor a link to one, or None. Opening a pipe could wait for ever."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return 'is a link to %s, which is not there' % shown(os.readlink(path)) if os.path.islink(path) else 'no such file'
    except OSError as error:
        return 'cannot be read (%s)' % error.strerror
    if stat.S_ISREG(mode):
        return None
    return 'is a folder' if stat.S_ISDIR(mode) else 'is a pipe, a device or a socket; only regular files are read'


def _read_lists(folder, num_classes, wrong, missing):
    """train, test and names from train.txt and val.txt, in time linear in their lines. Adds faults to wrong and missing."""
    if not num_classes:
        wrong.append('%s: has list files; NUM_CLASSES=0 is for class folders without lists' % shown(folder))
        return None, None, []
    train, test = [_read_list(os.path.join(folder, name), num_classes, wrong, missing) for name in ('train.txt', 'val.txt')]
    names = [str(number) for number in range(num_classes)]
    if train and test:
        report(wrong, ['%s: is in train.txt and in val.txt; a test image must not be trained on' % shown(path)
                       for path in sorted(set(train.paths) & set(test.paths))])
    if train:
        first_images = np.unique(train.classes, return_index=True)[1]
        folders = [os.path.basename(os.path.dirname(os.fsdecode(path))) for path in train.paths[first_images]]
        names = folders if len(set(folders)) == num_classes else names
    return train, test, names


def _read_list(path, num_classes, wrong, missing):
    """Images of one list file, or None. A line is a path from the list's folder, white space, and the class's number."""
    name, folder, reason = shown(path), os.fsencode(os.path.dirname(path)), irregular(path)
    if reason:
        wrong.append('%s: %s; data/README.md says what belongs there' % (name, reason))
        return None
    paths, classes, faults = [], [], []
    with open(path, 'rb') as lines:
        for number, line in enumerate(lines, 1):
            parts = (line[3:] if line.startswith(codecs.BOM_UTF8) else line).rsplit(None, 1)
            if not parts:
                continue
            if len(parts) != 2 or not parts[1].isdigit() or len(parts[1]) > 9 or b'\0' in line:
                faults.append('%s:%d: %r is not `path label`' % (name, number, os.fsdecode(line.rstrip())))
            elif int(parts[1]) >= num_classes:
                faults.append('%s:%d: label %d is outside 0..%d' % (name, number, int(parts[1]), num_classes - 1))
            else:
                paths.append(os.path.normpath(os.path.join(folder, parts[0].strip())))
                classes.append(int(parts[1]))
    report(wrong, faults)
    _check_listed(paths, name, wrong, missing)
    return _images(paths, classes)


def _check_listed(paths, listing, wrong, missing):
    """Each image must be listed once and be in its folder. Reads each folder once, and opens no image."""
    in_folder, renamed = collections.defaultdict(set), collections.defaultdict(list)
    twice, no_folder, no_image = [], [], []
    for path in paths:
        folder, name = os.path.split(path)
        if name in in_folder[folder]:
            twice.append('%s: %s lists it more than once' % (shown(path), listing))
        in_folder[folder].add(name)
    for folder, names in sorted(in_folder.items()):
        if not os.path.isdir(folder):
            no_folder.append('%s: no such folder; %s has %d of its images there' % (shown(folder), listing, len(names)))
            continue
        there = set(os.listdir(folder))
        absent = sorted(names - there)
        unlisted = dict(os.path.splitext(name) for name in there - names if name.lower().endswith(ENDINGS)) if absent else {}
        for name in absent:
            stem, ending = os.path.splitext(name)
            if stem in unlisted:
                renamed[ending, unlisted[stem]].append(os.path.join(folder, name))
            else:
                no_image.append('%s: no such image; %s lists it' % (shown(os.path.join(folder, name)), listing))
    for faults, found in ((wrong, twice), (missing, no_folder), (missing, no_image)):
        report(faults, found)
    report(missing, ['%s: images listed as %s are there as %s (%d, for example %s); correct the list or rename the images'
                     % (listing, shown(listed), shown(found), len(images), shown(images[0]))
                     for (listed, found), images in sorted(renamed.items())])


def _read_folders(folder, num_classes, test_fraction, wrong, skipped):
    """train, test and names from train/<class>/* and val/<class>/*, or else from <class>/*. Adds faults to wrong.

    Classes are numbered in the sorted order of their names. From <class>/*, `_divide` takes test_fraction of each class.
    """
    parts = [os.path.join(folder, part) for part in ('train', 'val')]
    if not os.path.isdir(parts[0]) or _is_class(*parts):
        parts = [folder]
    names = _subfolders(parts[0])
    if not os.path.isdir(parts[-1]):
        wrong.append('%s: no such folder beside %s; without a test set, put the class folders into %s itself'
                     % (shown(parts[1]), shown(parts[0]), shown(folder)))
    else:
        report(wrong, ['%s: no such class in %s' % (shown(os.path.join(parts[-1], name)), shown(parts[0]))
                       for name in sorted(set(_subfolders(parts[-1])) - set(names))])
    if len(names) < 2:
        wrong.append('%s: at least two class folders must be there; number found: %d' % (shown(parts[0]), len(names)))
    unusable = bool(wrong)
    if num_classes not in (0, len(names)):
        wrong.append('%s: has %d class folders, and NUM_CLASSES=%d' % (shown(folder), len(names), num_classes))
    if unusable:
        return None, None, names
    faults, paths, classes = [], ([], []), ([], [])
    for number, name in enumerate(names):
        listed = [_list_class(os.path.join(part, name), faults, skipped) for part in parts]
        if len(parts) == 1:
            listed = _divide(listed[0], name, test_fraction)
        for part, images in enumerate(listed):  # 0: train, 1: test
            paths[part].extend(images)
            classes[part].extend([number] * len(images))
    report(wrong, faults)
    return _images(paths[0], classes[0]), _images(paths[1], classes[1]), names


def _is_class(train, val):
    """Whether the folder train is a class: it has images alone, and there are other classes beside it."""
    beside = set(_subfolders(os.path.dirname(train))) - {'train', 'test'}
    return bool(beside) and not os.path.isdir(val) and not _subfolders(train)


def _subfolders(folder):
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith('.'))


def _list_class(folder, faults, skipped):
    """Images of one class folder, sorted list of bytes. Adds other files to skipped, except hidden ones."""
    images, others, prefix = [], [], os.fsencode(os.path.join(folder, ''))
    for name in sorted(os.listdir(prefix)) if os.path.isdir(prefix) else ():
        if name.lower().endswith(ENDINGS) and not name.startswith(b'.'):
            images.append(prefix + name)
        elif not name.startswith(b'.'):
            others.append(shown(prefix + name))
    if others and not images:
        faults.append('%s: has no image; what is there ends neither in .jpg, .jpeg, .png, .bmp nor .gif, for example %s'
                      % (shown(folder), others[0]))
    skipped += others
    return images


def _divide(paths, name, test_fraction):
    """Splits a class into training and test images by checksums: when images come or go, nearly all others stay in their part."""
    order = sorted(paths, key=lambda path: (zlib.crc32(os.fsencode(name) + os.path.basename(path)), path))
    count = max(1, int(exemplar.exact(test_fraction) * len(paths)))
    return sorted(order[count:]), sorted(order[:count])


def _images(paths, classes):
    return Images(np.array(paths, object), np.array(classes, int))
