"""The protocol: which class arrives when; which images are trained on, held out and tested on."""
import hashlib
import os
from typing import NamedTuple

import numpy as np

import exemplar
import resnet_model
from data import (
    batch_sizes,
    bytes_of,
    images,
    name_of,
    prepare_cifar100,
    prepare_digits,
    settings,
    shown,
    sources,
)

# What writes a folder of images that is missing: a module with `prepare(folder)`.
PREPARED = {
    'data/dataDigits': prepare_digits,
    'data/dataCIFAR100': prepare_cifar100,
}


class Known(NamedTuple):
    """What a resumed run knows of its data, from its checkpoint. Empty for a new run.

    Attributes:
        sizes: list of int, new classes of each planned increment.
        classes: list of dict, from `Dataset.classes`.
        exemplars: list of lists of str, by label: paths relative to DATA_DIR, in order of choice.
            Their number is that of the classes learnt.
    """
    sizes: list = ()
    classes: list = ()
    exemplars: list = ()


class Dataset:
    """The images of a run, by number, and how they are divided.

    Args:
        folder: str, DATA_DIR.
        names: list of str, the classes in the order in which they arrive. A class's label is its
            position here.
        paths: object array [images] of bytes, training images before test images.
        labels: int array [images].
        skipped: list of str, paths in class folders that have not the name of an image.

    Attributes:
        names, paths, labels, skipped: as above.
        train, held, test: lists of int arrays, by label: the numbers of all images that may be
            trained on, of the held-out validation images, of the test images.
    """

    def __init__(self, folder, names, paths, labels, skipped=()):
        self.names = names
        self.paths = paths
        self.labels = labels
        self.skipped = skipped
        self.train = []
        self.held = []
        self.test = []
        self._folder = os.path.join(os.fsencode(os.path.normpath(folder)), b'')
        self._number_of = None

    def split(self, now, old_images):
        """The images of an increment.

        Args:
            now: exemplar.Increment.
            old_images: list of num_old int arrays, images of the old classes to train on.

        Returns:
            train: int array.
            val: int array, the validation split of stage 2, balanced over old and new classes.
            test: int array.
        """
        train = old_images + self.train[now.num_old:now.num_seen]
        val = [held[:now.val_per_class] for held in self.held[:now.num_seen]]
        test = self.test[:now.num_seen]
        return np.concatenate(train), np.concatenate(val), np.concatenate(test)

    def relative(self, numbers):
        """Paths of images relative to DATA_DIR, list of str: it may have moved on a resume."""
        paths = []
        for path in self.paths[numbers]:
            if path.startswith(self._folder):
                path = path[len(self._folder):]
            else:
                path = os.path.relpath(path, self._folder)
            paths.append(name_of(path))
        return paths

    def find(self, paths, label):
        """Finds images of a class.

        Args:
            paths: list of str, relative to DATA_DIR.
            label: int.

        Returns:
            numbers: int array, those images that are there and have this label.
            gone: list of str, the other paths.
        """
        if self._number_of is None:
            everything = np.arange(len(self.paths))
            self._number_of = dict(zip(self.relative(everything), everything))
        numbers = []
        gone = []
        for path in paths:
            number = self._number_of.get(path)
            if number is not None and self.labels[number] == label:
                numbers.append(number)
            else:
                gone.append(path)
        return np.array(numbers, int), gone

    def digest(self, numbers):
        """SHA-256 of the images' labels and relative paths, in their order; str."""
        pairs = zip(self.labels[numbers], self.relative(numbers))
        lines = ['%d %s' % pair for pair in pairs]
        return hashlib.sha256(bytes_of('\0'.join(lines))).hexdigest()

    def classes(self, known=None):
        """What a checkpoint stores of the classes.

        Args:
            known: Known, or None for a new run.

        Returns:
            list of dict by label: `name`; `train`, the digest of the training images, which of
            learnt classes is the stored one; `held` and `test`, lists of relative paths.
        """
        known = known or Known()
        stored = []
        for label, name in enumerate(self.names):
            if label < len(known.exemplars):
                train = known.classes[label]['train']
            else:
                train = self.digest(self.train[label])
            stored.append(dict(
                name=name,
                train=train,
                held=self.relative(self.held[label]),
                test=self.relative(self.test[label])))
        return stored


class Cache(dict):
    """What was read from the disk, for other runs on the same images: ImageNet takes minutes."""


def read(s, faults, known=None, cache=None):
    """Reads the lists, draws class order and hold-out, and plans the remaining increments.

    On resume, class order, hold-out and test images come from the checkpoint. New class folders
    arrive together in one more increment. A learnt class needs only its exemplars, held-out and
    test images: its other images may be missing, and added ones are not used. METHOD=joint and
    joint_last need all of its images.

    Args:
        s: settings.
        faults: data.Faults, to which what is wrong is added.
        known: Known, or None for a new run.
        cache: Cache, or None.

    Returns:
        data: Dataset.
        memory: list by label of int arrays, the exemplars of the learnt classes.
        sizes: list of int, new classes of each increment.
        plan: list of exemplar.Increment, those that remain.

    Raises:
        Fault: there is no plan at all.
    """
    known = known or Known()
    _check_folders(s, faults)
    if s.RESNET_DEPTH not in resnet_model.BLOCKS:
        depths = ' '.join(map(str, resnet_model.BLOCKS))
        faults.add('RESNET_DEPTH=%s: must be one of %s' % (s.RESNET_DEPTH, depths), 'RESNET_DEPTH')
    folder = os.path.normpath(str(s.DATA_DIR))
    if folder in PREPARED and not os.path.exists(folder):
        faults.raise_any()
        PREPARED[folder].prepare(folder)
    listing = _listing(s, faults, cache)
    order = random = sizes = None
    if not faults.blocking:
        known_names = [entry['name'] for entry in known.classes]
        order, random = _order(s, listing.names, known_names, faults)
    if not faults.blocking:
        sizes = _sizes(s, known, len(order), faults)
    if faults.blocking:
        faults.raise_any()
    if not faults.lines:
        _check_images(s, listing, known, faults, cache)

    data = _in_order(s, listing, order)
    memory = _restore(s, data, known, faults)
    new_train, new_held = exemplar.hold_out(
        data.train[len(known.classes):], s.MEMORY_SIZE, sizes[0], s.VAL_FRACTION, random)
    data.train[len(known.classes):] = new_train
    data.held += new_held
    _check_trained_on(s, data, known, faults)

    trains_on_all = settings.METHODS[s.METHOD].trains_on_all
    candidates = data.train if trains_on_all else memory + data.train[len(memory):]
    plan = exemplar.plan(candidates, data.held, data.test, sizes, s.MEMORY_SIZE, s.VAL_FRACTION,
                         trains_on_all)
    remaining = [now for now in plan if now.num_seen > len(known.exemplars)]
    if remaining:
        batch_sizes.check(s, remaining, faults)
    return data, memory, sizes, remaining


def _check_folders(s, faults):
    """Adds the folders of the run that cannot be written to."""
    for name, folder in (('LOG_DIR', s.LOG_DIR), ('MODEL_DIR', os.path.join(
            str(s.MODEL_DIR), str(s.DATASET)))):
        parent = os.path.abspath(str(folder))
        while not os.path.exists(parent):
            parent = os.path.dirname(parent)
        is_writable = os.path.isdir(parent) and os.access(parent, os.W_OK)
        if not is_writable and not faults.concern(name):
            faults.add('%s=%s: %s is no folder that can be written to'
                       % (name, getattr(s, name), parent), name, blocking=False)


def _listing(s, faults, cache):
    """sources.Listing of the data, or None if a setting that it needs is wrong."""
    if faults.concern('DATA_DIR', 'NUM_CLASSES', 'TEST_FRACTION'):
        return None
    if cache is None:
        return sources.read(s, faults)
    key = 'listing', s.DATA_DIR, s.NUM_CLASSES, s.TEST_FRACTION
    if key not in cache:
        cache[key] = sources.read(s, faults)
    return cache[key]


def _check_images(s, listing, known, faults, cache):
    """Adds the images that cannot be decoded."""
    paths = list(listing.train.paths) + list(listing.test.paths)
    key = 'broken', s.DATA_DIR, s.NUM_CLASSES, s.TEST_FRACTION
    cache = {} if cache is None else cache
    if key not in cache:
        cache[key] = images.broken(paths)
    remedy = 'fix it: this run may need it' if known.classes else 'fix or remove it'
    lines = ['%s: %s; %s' % (shown(path), reason, remedy) for path, reason in cache[key].items()]
    faults.add_all(lines, blocking=False)


def _order(s, names, known_names, faults):
    """The order in which the classes arrive: known classes, then the new ones by CLASS_ORDER.

    Args:
        s: settings.
        names: list of str, the classes in DATA_DIR.
        known_names: list of str, the classes of a resumed run, in their order.
        faults: data.Faults.

    Returns:
        order: int array, positions in names.
        random: the np.random.RandomState that drew it; the hold-out is drawn from it next.
    """
    number_of = {name: number for number, name in enumerate(names)}
    faults.add_all(['%s: class %s is not there any more, and this run began with it; put it back, '
                    'or begin a new run in another MODEL_DIR' % (s.DATA_DIR, shown(name))
                    for name in known_names if name not in number_of])
    known_set = set(known_names)
    new_names = [name for name in names if name not in known_set]
    seed = [s.CLASS_ORDER_SEED, len(known_names)] if known_names else s.CLASS_ORDER_SEED
    random = np.random.RandomState(seed)
    if s.CLASS_ORDER in exemplar.CLASS_ORDERS:
        positions = exemplar.class_order(len(new_names), random, s.CLASS_ORDER)
        new_names = [new_names[position] for position in positions]
    elif os.path.exists(s.CLASS_ORDER):
        listed = sources.read_names(s.CLASS_ORDER, names, faults)
        new_names = [name for name in listed if name in number_of and name not in known_set]
    else:
        faults.add('CLASS_ORDER=%s: is neither one of %s nor a file of class names, one a line'
                   % (s.CLASS_ORDER, ' '.join(exemplar.CLASS_ORDERS)), 'CLASS_ORDER')
    arriving = [name for name in known_names if name in number_of] + new_names
    return np.array([number_of[name] for name in arriving], int), random


def _sizes(s, known, num_classes, faults):
    """New classes of each increment, list of int, or None where they do not fit."""
    if not known.sizes:
        settings.check_increments(s, num_classes, faults)
        return None if faults.blocking else settings.increment_sizes(s, num_classes)
    num_new = num_classes - len(known.classes)
    sizes = list(known.sizes) + [num_new] * (num_new > 0)
    settings.check_memory(s, sizes, faults, ', in a new run with another MODEL_DIR')
    return sizes


def _in_order(s, listing, order):
    """The Dataset of the listed images, with train and test; nothing is held out yet.

    Args:
        s: settings.
        listing: sources.Listing.
        order: int array, positions of the classes in the listing, as they arrive.
    """
    classes = np.concatenate([listing.train.classes, listing.test.classes])
    data = Dataset(
        s.DATA_DIR,
        names=[listing.names[number] for number in order],
        paths=np.concatenate([listing.train.paths, listing.test.paths]),
        labels=np.argsort(order)[classes],
        skipped=listing.skipped)
    num_train = len(listing.train.paths)
    data.train = exemplar.images_by_label(data.labels[:num_train], len(data.names))
    test = exemplar.images_by_label(data.labels[num_train:], len(data.names))
    data.test = [num_train + class_images for class_images in test]
    return data


def _restore(s, data, known, faults):
    """Sets held and test images of the known classes, and takes them out of train.

    Adds what is needed and missing to the faults.

    Returns:
        list by label of int arrays, the exemplars of the learnt classes.
    """
    missing = []

    def find(paths, label):
        numbers, gone = data.find(paths, label)
        for path in gone:
            missing.append('%s: this run needs it, an exemplar, a validation or a test image of '
                           'class %s, and it is not there any more; put it back'
                           % (os.path.join(s.DATA_DIR, path), data.names[label]))
        return numbers

    memory = []
    for label, entry in enumerate(known.classes):
        data.held.append(find(entry['held'], label))
        data.test[label] = find(entry['test'], label)
        not_trained_on = np.concatenate([data.held[label], data.test[label]])
        data.train[label] = np.setdiff1d(data.train[label], not_trained_on)
        if label < len(known.exemplars):
            memory.append(find(known.exemplars[label], label))
    faults.add_all(missing, blocking=False)
    return memory


def _check_trained_on(s, data, known, faults):
    """Adds the known classes that will be trained on and have other images than at the start."""
    num_learnt = len(known.exemplars)
    if num_learnt < len(data.names) and settings.METHODS[s.METHOD].needs_all:
        first = 0
    else:
        first = num_learnt
    changed = []
    for label in range(first, len(known.classes)):
        if data.digest(data.train[label]) != known.classes[label]['train']:
            changed.append('%s: the images of class %s to train on are not those that this run '
                           'began with; put them back, or begin a new run in another MODEL_DIR'
                           % (s.DATA_DIR, data.names[label]))
    faults.add_all(changed, blocking=False)
