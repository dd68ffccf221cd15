"""The protocol: which class arrives when, and which images are trained on, held out and tested on."""
import os
import types

import numpy as np

import exemplar
import resnet_model
from data import Fault, checks, folders, lists, settings


def read(s, faults, prepared):
    """Reads the lists, draws class order and hold-out, and plans the increments.

    Args:
        s: settings. faults: dict from setting to what is wrong with it, from `settings.read`.
        prepared: dict from a folder to the module that writes it where it is missing.

    Returns:
        data: namespace of names (of the classes by label), train_paths, train_labels, test_paths, test_labels (arrays in list
            order), of the images by label, train, held and test, each a list of NUM_CLASSES int arrays that index these, and
            of left_out, list of str: images that are done without, and why.
        plan: list of exemplar.Increment.
        missing: list of str: why this plan cannot be carried out, one line each.

    Raises:
        Fault: there is no plan: everything that is wrong with the settings, the lists and the rest, one line each.
    """
    wrong, missing = list(faults.values()), []
    for name in sorted({'LOG_DIR', 'MODEL_DIR'} - set(faults)):
        parent = os.path.abspath(getattr(s, name))
        while not os.path.exists(parent):
            parent = os.path.dirname(parent)
        if not os.path.isdir(parent) or not os.access(parent, os.W_OK):
            missing.append('%s=%s: %s is no folder that can be written to' % (name, getattr(s, name), parent))
    if not wrong + missing and s.DATA_DIR in prepared and not os.path.exists(s.DATA_DIR):
        prepared[s.DATA_DIR].prepare(s.DATA_DIR)
    if not {'DATA_DIR', 'NUM_CLASSES', 'TEST_FRACTION'} & set(faults):
        train_list, test_list, names, wrong_lists, missing_images = _images(s)
        wrong, missing = wrong + wrong_lists, missing + missing_images
    if not wrong and not s.NUM_CLASSES:  # counted now, so what depends on it is checked now
        s.NUM_CLASSES = len(names)
        s.FIRST_INCREMENT_CLASSES = s.FIRST_INCREMENT_CLASSES or len(names)
        wrong += settings.increment_faults(s).values()
    if wrong:
        raise Fault('\n'.join(wrong + missing))
    left_out = []
    if not missing:
        train_list, test_list, missing, left_out = _readable(s, train_list, test_list)
    random = np.random.RandomState(s.CLASS_ORDER_SEED)
    order = exemplar.class_order(s.NUM_CLASSES, random, s.CLASS_ORDER)
    label_of_class = np.argsort(order)
    train_labels, test_labels = label_of_class[train_list.classes], label_of_class[test_list.classes]
    train, held = exemplar.hold_out(exemplar.images_by_label(train_labels, s.NUM_CLASSES), s.MEMORY_SIZE,
                                    s.FIRST_INCREMENT_CLASSES, s.VAL_FRACTION, random)
    test = exemplar.images_by_label(test_labels, s.NUM_CLASSES)
    plan = exemplar.plan(train, held, test, settings.increment_sizes(s), s.MEMORY_SIZE, s.VAL_FRACTION)
    missing += ['BATCH_SIZE=%d: increment %d has only %d training images' % (s.BATCH_SIZE, now.increment, now.train)
                for now in plan if now.train < s.BATCH_SIZE]
    # Between two or three values a deviation is often almost nothing, and the gradient of dividing by it almost infinite.
    missing += ['BATCH_SIZE=%d, EPOCHS=%d: the last batch of increment %d has %d images, too few for batch normalisation over '
                 'feature maps of one pixel; change one of the two, or IMAGE_SIZE=%d to more than 32'
                 % (s.BATCH_SIZE, s.EPOCHS, now.increment, s.EPOCHS * now.train % s.BATCH_SIZE, s.IMAGE_SIZE)
                 for now in plan if s.EPOCHS * now.train % s.BATCH_SIZE in (2, 3)
                 and s.IMAGE_SIZE <= 32 and len(resnet_model.BLOCKS[s.RESNET_DEPTH]) == 4]
    data = types.SimpleNamespace(
        names=[names[number] for number in order], train_paths=train_list.paths, train_labels=train_labels,
        test_paths=test_list.paths, test_labels=test_labels, train=train, held=held, test=test, left_out=left_out)
    return data, plan, missing


def _images(s):
    """Reads list files where there are any, else class folders.

    Returns:
        train, test: lists.Images. names: list of str, the classes: with lists, the folders of their first images.
        wrong, missing: list of str, see `read`.
    """
    if not os.path.isdir(s.DATA_DIR):
        return None, None, [], ['%s: no such folder; README.md says under Data what belongs there' % s.DATA_DIR], []
    if not any(os.path.exists(os.path.join(s.DATA_DIR, name)) for name in ('train.txt', 'val.txt')):
        train, test, names, wrong = folders.read(s.DATA_DIR, s.TEST_FRACTION)
        if s.NUM_CLASSES not in (0, len(names)):
            wrong.append('%s: has %d class folders, and NUM_CLASSES=%d' % (s.DATA_DIR, len(names), s.NUM_CLASSES))
        return train, test, names, wrong, []
    if not s.NUM_CLASSES:
        return None, None, [], ['%s: has list files; NUM_CLASSES=0 is for class folders without lists' % s.DATA_DIR], []
    train, test, wrong, missing = lists.read(s.DATA_DIR, s.NUM_CLASSES)
    names = [str(number) for number in range(s.NUM_CLASSES)]
    if train:
        for number, first in zip(*np.unique(train.classes, return_index=True)):
            names[number] = os.path.basename(os.path.dirname(os.fsdecode(train.paths[first])))
    return train, test, names, wrong, missing


def _readable(s, train, test):
    """Both lists, without images that cannot be decoded where LEAVE_OUT_BROKEN says so.

    Returns:
        train, test: lists.Images. missing: list of str, why the run cannot start. left_out: list of str, what was left out.
    """
    broken = checks.unreadable(list(train.paths) + list(test.paths), s.DECODE_ALL)
    messages = ['%s: %s' % (os.fsdecode(path), reason) for path, reason in broken.items()]
    if not s.LEAVE_OUT_BROKEN:
        return train, test, ['%s; mend or remove it, or do without with LEAVE_OUT_BROKEN=True' % line for line in messages], []
    parts, missing = [], []
    for images, name, least in ((train, 'train.txt', 2), (test, 'val.txt', 1)):
        keep = np.array([path not in broken for path in images.paths], bool)
        parts.append(lists.Images(images.paths[keep], images.classes[keep]))
        left = np.bincount(parts[-1].classes, minlength=s.NUM_CLASSES)
        missing += ['%s: %d image%s of class %d left without the broken ones, and at least %d must be there'
                    % (os.path.join(s.DATA_DIR, name), left[label], ' is' if left[label] == 1 else 's are', label, least)
                    for label in np.flatnonzero(left < least)]
    return parts[0], parts[1], missing, messages
