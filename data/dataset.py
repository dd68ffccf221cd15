"""The protocol: which class arrives when, and which images are trained on, held out and tested on."""
import hashlib
import os

import numpy as np

import exemplar
import resnet_model
from data import Fault, devices, images, settings, sources

# What a new run knows about its data. A resumed run has the same keys from its checkpoint.
NEW = dict(sizes=[], classes=[], exemplars=[])


class Dataset:
    """The images of a run, by number, and how they are divided.

    Attributes:
        names: list of str, the classes in the order in which they arrive. A class's label is its position here.
        paths: object array [images] of bytes, training images before test images.
        labels: int array [images].
        train, held, test: lists of int arrays, by label, that index these: all images that may be trained on, the held-out
            validation images, the test images.
        skipped: list of str, paths in class folders that do not have the name of an image.
    """

    def __init__(self, folder, names, paths, labels, skipped=()):
        self.names, self.paths, self.labels, self.skipped = names, paths, labels, skipped
        self.train = self.held = self.test = None  # `_divide` fills them
        self._folder = os.path.join(os.fsencode(os.path.normpath(folder)), b'')
        self._number_of = None

    def images(self, now, old):
        """Returns train, val and test of an increment, int arrays. val is the validation split of stage 2.

        Args: old: list of num_old int arrays, the images of old classes to train on.
        """
        return (np.concatenate(old + self.train[now.num_old:now.num_seen]),
                np.concatenate([held[:now.validation] for held in self.held[:now.num_seen]]),
                np.concatenate(self.test[:now.num_seen]))

    def relative(self, numbers):
        """Paths of images relative to DATA_DIR, list of str: the folder may have moved when the run is resumed."""
        return [os.fsdecode(path[len(self._folder):] if path.startswith(self._folder) else os.path.relpath(path, self._folder))
                for path in self.paths[numbers]]

    def find(self, paths, label):
        """Finds the images of a class by their relative paths, list of str.

        Returns: numbers: int array, the images found that have this label. gone: list of str, the other paths.
        """
        if self._number_of is None:
            self._number_of = dict(zip(self.relative(np.arange(len(self.paths))), range(len(self.paths))))
        numbers = [self._number_of.get(path, -1) for path in paths]
        there = [number >= 0 and self.labels[number] == label for number in numbers]
        return (np.array([number for number, is_there in zip(numbers, there) if is_there], int),
                [path for path, is_there in zip(paths, there) if not is_there])

    def digest(self, numbers):
        """SHA-256 of the images' labels and relative paths, in their order; str."""
        lines = ['%d %s' % line for line in zip(self.labels[numbers], self.relative(numbers))]
        return hashlib.sha256(os.fsencode('\0'.join(lines))).hexdigest()

    def classes(self, known=NEW):
        """What a checkpoint stores of the classes: per label a dict of name, train (digest), held and test (relative paths)."""
        digests = [of_class['train'] for of_class in known['classes'][:len(known['exemplars'])]]  # learnt classes keep theirs
        digests += [self.digest(numbers) for numbers in self.train[len(digests):]]
        return [dict(name=name, train=train, held=self.relative(held), test=self.relative(test))
                for name, train, held, test in zip(self.names, digests, self.held, self.test)]


def read(s, faults, prepared, known=NEW, seen=None):
    """Reads the lists, draws class order and hold-out, and plans the increments.

    On resume, class order, hold-out and test images come from the checkpoint. New class folders arrive together in one more
    increment. A learnt class needs only its exemplars, held-out and test images: its other images may be missing, and added
    ones are not used. METHOD=joint and joint_last need all of its images.

    Args:
        faults: dict from setting to what is wrong with it, from `settings.read`.
        prepared: dict from a folder to the module that writes it if it is missing.
        known: dict with the keys of NEW: sizes, number of classes of each planned increment; classes, from `Dataset.classes`;
            exemplars, for each learnt class a list of relative paths in order of choice.
        seen: dict that keeps what was read, for the next run on the same images: opening all of ImageNet takes minutes.

    Returns:
        data: Dataset. exemplars: list of int arrays, by label, of the learnt classes.
        plan: list of exemplar.Increment. In those that are done, only the numbers of classes are valid.
        missing: list of str, why this plan cannot be carried out. If there is no plan at all, a Fault is raised instead.
    """
    wrong, missing = list(faults.values()), _unwritable(s, faults)
    folder = os.path.normpath(str(s.DATA_DIR))
    if folder in prepared and not os.path.exists(folder):
        if wrong + missing:
            raise Fault('\n'.join(wrong + missing))
        prepared[folder].prepare(folder)
    train, test, names, skipped = None, None, [], []
    found = {} if seen is None else seen.setdefault((s.DATA_DIR, s.NUM_CLASSES, s.TEST_FRACTION), {})
    if not {'DATA_DIR', 'NUM_CLASSES', 'TEST_FRACTION'} & set(faults):
        if 'lists' not in found:
            found['lists'] = sources.read(s)
        train, test, names, wrong_lists, missing_images, skipped = found['lists']
        wrong, missing = wrong + wrong_lists, missing + missing_images
    if not wrong:
        order, random, wrong = _order(s, names, [of_class['name'] for of_class in known['classes']])
    if not wrong:
        sizes, wrong = _sizes(s, known, len(names))
    if wrong:
        raise Fault('\n'.join(wrong + missing))
    if not missing:
        if 'broken' not in found:
            found['broken'] = images.broken(list(train.paths) + list(test.paths))
        remedy = 'fix it: this run may need it' if known['classes'] else 'fix or remove it'
        missing = ['%s: %s; %s' % (os.fsdecode(path), reason, remedy)
                   for path, reason in found['broken'].items()]
    data = Dataset(s.DATA_DIR, [names[number] for number in order], np.concatenate([train.paths, test.paths]),
                   np.argsort(order)[np.concatenate([train.classes, test.classes])], skipped)
    exemplars = _divide(s, data, len(train.paths), sizes[0], random, known, missing)
    joint = s.METHOD == 'joint'
    candidates = data.train if joint else exemplars + data.train[len(exemplars):]
    plan = exemplar.plan(candidates, data.held, data.test, sizes, s.MEMORY_SIZE, s.VAL_FRACTION, joint)
    to_do = [now for now in plan if now.num_seen > len(known['exemplars'])]
    return data, exemplars, plan, missing + (_batch_faults(s, to_do) if to_do else [])


def _unwritable(s, faults):
    """Folders of the run that cannot be written to, list of str."""
    lines = []
    for name, folder in (('LOG_DIR', s.LOG_DIR), ('MODEL_DIR', '%s/%s' % (s.MODEL_DIR, s.DATASET))):
        parent = os.path.abspath(str(folder))
        while not os.path.exists(parent):
            parent = os.path.dirname(parent)
        if name not in faults and (not os.path.isdir(parent) or not os.access(parent, os.W_OK)):
            lines.append('%s=%s: %s is no folder that can be written to' % (name, getattr(s, name), parent))
    return lines


def _order(s, names, known):
    """The class order (positions in names: known classes, then the new ones by CLASS_ORDER), its generator, and errors."""
    number_of, old, wrong = {name: number for number, name in enumerate(names)}, set(known), []
    sources.report(wrong, ['%s: class %s is not there any more, and this run began with it; put it back, or begin a new run in '
                           'another MODEL_DIR' % (s.DATA_DIR, name) for name in known if name not in number_of])
    new = [number for number, name in enumerate(names) if name not in old]
    random = np.random.RandomState([s.CLASS_ORDER_SEED, len(known)] if known else s.CLASS_ORDER_SEED)
    if s.CLASS_ORDER in exemplar.CLASS_ORDERS:
        new = [new[position] for position in exemplar.class_order(len(new), random, s.CLASS_ORDER)]
    elif os.path.exists(s.CLASS_ORDER):
        listed, wrong_names = sources.read_names(s.CLASS_ORDER, names)
        wrong += wrong_names
        new = [number_of[name] for name in listed if name in number_of and name not in old]
    else:
        wrong.append('CLASS_ORDER=%s: is neither one of %s nor a file of class names, one a line'
                     % (s.CLASS_ORDER, ' '.join(exemplar.CLASS_ORDERS)))
    return np.array([number_of[name] for name in known if name in number_of] + new, int), random, wrong


def _sizes(s, known, num_classes):
    """New classes of each increment, list of int, and what is wrong with them, list of str."""
    if not known['sizes']:
        wrong = list(settings.increment_faults(s, num_classes).values())
        return settings.increment_sizes(s, num_classes) if not wrong else [], wrong
    new = num_classes - len(known['classes'])
    sizes = known['sizes'] + [new] * (new > 0)
    return sizes, [line + ', in a new run with another MODEL_DIR' for line in settings.memory_faults(s, sizes).values()]


def _divide(s, data, num_train, first_classes, random, known, missing):
    """Sets train, held and test of every label; returns the exemplars of the learnt classes, list of int arrays.

    Adds to `missing` what a resumed run needs and does not find. num_train: int, images before the first test image.
    """
    num_known, num_learnt = len(known['classes']), len(known['exemplars'])
    data.train = exemplar.images_by_label(data.labels[:num_train], len(data.names))
    data.test = [num_train + of_class for of_class in exemplar.images_by_label(data.labels[num_train:], len(data.names))]
    data.train[num_known:], new_held = exemplar.hold_out(
        data.train[num_known:], s.MEMORY_SIZE, first_classes, s.VAL_FRACTION, random)
    data.held, exemplars, faults = [], [], []

    def stored(paths, label):
        numbers, gone = data.find(paths, label)
        faults.extend('%s: this run needs it, an exemplar, a validation or a test image of class %s, and it is not there any '
                      'more; put it back' % (os.path.join(s.DATA_DIR, path), data.names[label]) for path in gone)
        return numbers

    for label, of_class in enumerate(known['classes']):
        data.held.append(stored(of_class['held'], label))
        data.test[label] = stored(of_class['test'], label)
        data.train[label] = np.setdiff1d(data.train[label], np.concatenate([data.held[label], data.test[label]]))
        if label < num_learnt:
            exemplars.append(stored(known['exemplars'][label], label))
        if ((label >= num_learnt or s.METHOD.startswith('joint') and num_learnt < len(data.names))
                and data.digest(data.train[label]) != of_class['train']):
            faults.append('%s: the images of class %s to train on are not those that this run began with; put them back, or '
                          'begin a new run in another MODEL_DIR' % (s.DATA_DIR, data.names[label]))
    data.held += new_held
    sources.report(missing, faults)
    return exemplars


def _batch_faults(s, plan):
    """Why the batches of some increments cannot be trained on, list of str."""
    total = devices.count(s)
    faults = ['BATCH_SIZE=%d: increment %d has only %d training images' % (s.BATCH_SIZE, now.increment, now.train)
              for now in plan if now.train < s.BATCH_SIZE]
    if s.BATCH_SIZE % total:
        faults.append('BATCH_SIZE=%d: cannot be shared by %d devices equally; %d would do'
                      % (s.BATCH_SIZE, total, -(-s.BATCH_SIZE // total) * total))
    # Between two or three values a deviation is often almost nothing, and the gradient of dividing by it almost infinite.
    pixels = resnet_model.last_side(s.RESNET_DEPTH, s.IMAGE_SIZE) ** 2

    def too_small(batch_size):
        batches = [('each batch', batch_size)]
        batches += [('the last batch of increment %d' % now.increment, s.EPOCHS * now.train % batch_size) for now in plan]
        return [(name, images) for name, images in batches if images and images // total * pixels < 4]

    larger = range(s.BATCH_SIZE, min(now.train for now in plan) + 1)
    advice = next(('BATCH_SIZE=%d or other numbers of images would do' % size for size in larger
                   if size % total == 0 and not too_small(size)), 'change BATCH_SIZE, EPOCHS, IMAGE_SIZE or the number of images')
    return faults + ['BATCH_SIZE=%d: %s (images: %d, devices: %d) has too few values per channel for batch normalisation: %d, '
                     'and 4 are needed; %s' % (s.BATCH_SIZE, name, images, total, images // total * pixels, advice)
                     for name, images in too_small(s.BATCH_SIZE)]
