"""The images of a run: reads list files or class folders to paths and classes."""
import codecs
import collections
import itertools
import os
import re
import stat
import typing
import unicodedata

import numpy as np

from data import class_folders, name_of, shown

# These characters break the lines of logs and tables, and terminals obey some of them.
_CONTROL = re.compile('[\x00-\x1f\x7f-\x9f\u2028\u2029]')

# What stands for bytes that are not UTF-8.
_NOT_UTF8 = re.compile('[\udc80-\udcff]')

_README = 'data/README.md says what belongs there'


class Images(typing.NamedTuple):
    """Images and their classes.

    Attributes:
        paths: object array [images] of bytes.
        classes: int array [images].
    """

    paths: np.ndarray
    classes: np.ndarray


class Listing(typing.NamedTuple):
    """The images of a dataset.

    Attributes:
        train: Images to train on; None where faults prevent it.
        test: Images to test on; None where faults prevent it.
        names: list of str, the name of each class, by number. With lists it is the folder of the
            class's first training image, or the number where two classes share a folder.
        skipped: list of str, as `shown`: paths in class folders without an image's ending.
            Hidden files are not among them.
    """

    train: typing.Optional[Images]
    test: typing.Optional[Images]
    names: list
    skipped: list


def read(s, faults):
    """Reads the list files of DATA_DIR or, if there are none, its class folders.

    Images and folders that a list names and that are not there do not block planning. All other
    faults do.

    Args:
        s: settings: DATA_DIR, NUM_CLASSES, TEST_FRACTION, MODEL_DIR, LOG_DIR.
        faults: data.Faults, to add to.

    Returns:
        Listing.
    """
    data_dir = s.DATA_DIR
    nothing = Listing(None, None, [], [])
    try:
        if not os.path.isdir(data_dir):
            faults.add('%s: no such folder; %s and where to get it' % (shown(data_dir), _README))
            return nothing
        list_files = [os.path.join(data_dir, name) for name in ('train.txt', 'val.txt')]
        if any(os.path.lexists(path) for path in list_files):
            listing = _read_lists(s, faults)
        else:
            listing = _read_folders(s, faults)
    except OSError as error:
        path = shown(error.filename or data_dir)
        faults.add('%s: cannot be read (%s)' % (path, error.strerror))
        return nothing
    # The hold-out takes one image of each class, and one more must be left to train on.
    _check_images(listing.train, listing.names, 2, 'train', s, faults)
    _check_images(listing.test, listing.names, 1, 'test', s, faults)
    return listing


def read_names(path, names, faults):
    """Reads a class order: a UTF-8 file with one class name per line.

    A name that is there in another Unicode form is taken for it: file systems and editors differ
    in whether an accent is a character of its own.

    Args:
        path: str.
        names: list of str, the classes that must be in it.
        faults: data.Faults, to add to.

    Returns:
        list of str, the file's names in its order. Empty if it cannot be read.
    """
    reason = _unreadable_list(path)
    listed = []
    try:
        if not reason:
            with open(path, encoding='utf-8-sig', errors='surrogateescape') as lines:
                listed = [line.rstrip('\n') for line in lines if line.strip()]
    except OSError as error:
        reason = 'cannot be read as a list of class names (%s)' % error
    if reason:
        faults.add('%s: %s' % (shown(path), reason))
        return []

    expected = set(names)
    name_of_form = {unicodedata.normalize('NFC', name): name for name in names}
    for position, name in enumerate(listed):
        if name not in expected:
            listed[position] = name_of_form.get(unicodedata.normalize('NFC', name), name)
    counts = collections.Counter(listed)
    unknown = [name for name in counts if name not in expected]
    missing = [name for name in names if name not in counts]
    repeated = [name for name in counts if counts[name] > 1]
    start = '%s: ' % shown(path)
    faults.add_all([start + 'there is no class %s%s'
                    % (shown(name), '; save the file as UTF-8' if _NOT_UTF8.search(name) else '')
                    for name in unknown])
    faults.add_all([start + 'class %s is missing' % shown(name) for name in missing])
    faults.add_all([start + 'class %s is listed more than once' % shown(name) for name in repeated])
    return listed


def irregular(path):
    """Says why a path is neither a regular file nor a link to one. Opening a pipe could hang.

    Args:
        path: str or bytes.

    Returns:
        str, the reason; or None if it is a regular file.
    """
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        if os.path.islink(path):
            return 'is a link to %s, which is not there' % shown(os.readlink(path))
        return 'no such file'
    except OSError as error:
        return 'cannot be read (%s)' % error.strerror
    if stat.S_ISREG(mode):
        return None
    if stat.S_ISDIR(mode):
        return 'is a folder'
    return 'is a pipe, a device or a socket; only regular files are read'


def _unreadable_list(path):
    """Why a file, str, cannot be read as a list, str; or None."""
    reason = irregular(path)
    if reason:
        return reason
    with open(path, 'rb') as file:
        is_utf16 = file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    return 'is UTF-16; save it as UTF-8' if is_utf16 else None


def _check_images(images, names, least, use, s, faults):
    """Checks that each class has enough images, and that no path has control characters.

    Args:
        images: Images, or None: then there is nothing to check.
        names: list of str, the classes.
        least: int, the images that each class must have.
        use: 'train' or 'test', for messages.
        s: settings.
        faults: data.Faults, to add to.
    """
    if images is None:
        return
    counts = np.bincount(images.classes, minlength=len(names))
    why = ': the hold-out takes one' if use == 'train' else ''
    too_few = []
    for number in np.flatnonzero(counts < least):
        noun = 'image' if counts[number] == 1 else 'images'
        too_few.append('%s: class %s has %d %s to %s on, and at least %d must be there%s'
                       % (shown(s.DATA_DIR), shown(names[number]), counts[number], noun, use,
                          least, why))
    faults.add_all(too_few)
    faults.add_all(['%s: has control characters in its path; rename it' % shown(path)
                    for path in images.paths if _CONTROL.search(name_of(path))])


def _read_lists(s, faults):
    """Reads train.txt and val.txt, in time linear in their lines. Returns a Listing."""
    if not s.NUM_CLASSES:
        faults.add('%s: has list files; NUM_CLASSES=0 is for class folders without lists'
                   % shown(s.DATA_DIR))
        return Listing(None, None, [], [])
    train = _read_list(os.path.join(s.DATA_DIR, 'train.txt'), s.NUM_CLASSES, faults)
    test = _read_list(os.path.join(s.DATA_DIR, 'val.txt'), s.NUM_CLASSES, faults)
    names = [str(number) for number in range(s.NUM_CLASSES)]
    if train is not None:
        _, first_images = np.unique(train.classes, return_index=True)
        folders = [os.path.basename(os.path.dirname(name_of(path)))
                   for path in train.paths[first_images]]
        if len(set(folders)) == s.NUM_CLASSES:
            names = folders
    if train is not None and test is not None:
        in_both = sorted(set(train.paths) & set(test.paths))
        faults.add_all(['%s: is in train.txt and in val.txt; a test image must not be trained on'
                        % shown(path) for path in in_both])
    return Listing(train, test, names, [])


def _read_list(path, num_classes, faults):
    """Reads one list file. A line: a path from the list's folder, white space, the class's number.

    Args:
        path: str.
        num_classes: int.
        faults: data.Faults, to add to.

    Returns:
        Images of the lines that are right; None if the file cannot be read.
    """
    list_name = shown(path)
    reason = _unreadable_list(path)
    if reason:
        faults.add('%s: %s; %s' % (list_name, reason, _README))
        return None
    folder = os.fsencode(os.path.dirname(path))
    paths = []
    classes = []
    wrong = []
    with open(path, 'rb') as lines:
        for number, line in enumerate(lines, 1):
            if line.startswith(codecs.BOM_UTF8):
                line = line[len(codecs.BOM_UTF8):]
            parts = line.rsplit(None, 1)
            if not parts:
                continue
            label = parts[-1]
            is_number = label.isdigit() and len(label) < 10  # int() refuses thousands of digits
            if len(parts) != 2 or not is_number or b'\0' in line:
                text = name_of(line.rstrip())
                wrong.append('%s:%d: %r is not `path label`' % (list_name, number, text))
            elif int(label) >= num_classes:
                wrong.append('%s:%d: label %d is outside 0..%d'
                             % (list_name, number, int(label), num_classes - 1))
            else:
                paths.append(os.path.normpath(os.path.join(folder, parts[0].strip())))
                classes.append(int(label))
    faults.add_all(wrong)
    _check_listed(paths, list_name, faults)
    return Images(np.array(paths, object), np.array(classes, int))


def _check_listed(paths, list_name, faults):
    """Checks that each image is listed once and is in its folder.

    Args:
        paths: list of bytes, in the order of the list.
        list_name: str, the list, for messages.
        faults: data.Faults, to add to.
    """
    listed_names = collections.defaultdict(set)  # by folder
    repeated = []
    for path in paths:
        folder, name = os.path.split(path)
        if name in listed_names[folder]:
            repeated.append('%s: %s lists it more than once' % (shown(path), list_name))
        listed_names[folder].add(name)
    faults.add_all(repeated)
    _check_present(listed_names, list_name, faults)


def _check_present(listed_names, list_name, faults):
    """Checks that listed images are in their folders.

    Each folder is read once, and no image is opened: opening all of ImageNet takes minutes.

    Args:
        listed_names: dict from a folder, bytes, to the set of the names listed in it.
        list_name: str, the list, for messages.
        faults: data.Faults, to add to.
    """
    no_folder = []
    no_image = []
    missing_names = []
    renamed = collections.defaultdict(list)  # by (ending in the list, ending in the folder)
    for folder, names in sorted(listed_names.items()):
        if not os.path.isdir(folder):
            no_folder.append('%s: no such folder; %s has %d of its images there'
                             % (shown(folder), list_name, len(names)))
            missing_names.append(os.path.basename(folder))
            continue
        present = set(os.listdir(folder))
        absent = sorted(names - present)
        unlisted = {}  # from the name without its ending to the ending
        if absent:
            unlisted = dict(os.path.splitext(name) for name in present - names
                            if name.lower().endswith(class_folders.ENDINGS))
        for name in absent:
            path = os.path.join(folder, name)
            stem, ending = os.path.splitext(name)
            if stem in unlisted:
                renamed[ending, unlisted[stem]].append(path)
            else:
                no_image.append('%s: no such image; %s lists it' % (shown(path), list_name))
                missing_names.append(name)
    faults.add_all(no_folder, blocking=False)
    faults.add_all(no_image, blocking=False)
    wrong_endings = []
    for (listed, actual), images in sorted(renamed.items()):
        wrong_endings.append('%s: images listed as %s are there as %s (%d, for example %s); '
                             'correct the list or rename the images'
                             % (list_name, shown(listed), shown(actual), len(images),
                                shown(images[0])))
    faults.add_all(wrong_endings, blocking=False)
    if not all(name.isascii() for name in missing_names):
        faults.add('%s: has names that are not ASCII and not there; a list must have the bytes of '
                   'the names on the disk: UTF-8, and accents in the same Unicode form'
                   % list_name, blocking=False)


def _read_folders(s, faults):
    """Reads the class folders. Returns a Listing."""
    train, test, names, skipped = class_folders.read(s, faults)
    return Listing(_joined(train), _joined(test), names, skipped)


def _joined(paths_of_classes):
    """Joins the images of all classes.

    Args:
        paths_of_classes: list of lists of bytes, one per class; or None.

    Returns:
        Images, or None.
    """
    if paths_of_classes is None:
        return None
    counts = [len(paths) for paths in paths_of_classes]
    paths = list(itertools.chain.from_iterable(paths_of_classes))
    return Images(np.array(paths, object), np.repeat(np.arange(len(counts)), counts))
