"""The protocol: which class arrives when, and which images are trained on, held out and tested on."""
import hashlib
import os
import types

import numpy as np

import exemplar
import resnet_model
from data import Fault, checks, folders, lists, replicas, settings, workers
from logs import checkpoint


def check(runs, prepared, group):
    """Of several runs, none begins before all can.

    Args:
        runs: list of (s, faults). s, faults, prepared, group: those of `read`.

    Raises:
        Fault: what is wrong with any of several runs.
    """
    faults = []
    for s, wrong in runs if len(runs) > 1 else ():
        try:
            faults += [] if s.PREDICT else opened(s, wrong, prepared, group)[2]
        except Fault as fault:
            faults.append(str(fault))
    if faults:
        raise Fault('\n'.join(dict.fromkeys('\n'.join(faults).split('\n'))))


def opened(s, faults, prepared, group):
    """What a run is made of, beside its settings.

    Args:
        s, faults, prepared, group: those of `read`.

    Returns:
        data, plan, missing: from `read`. arrays, state, resumed: from `checkpoint.load`, of its earlier part.

    Raises:
        Fault: from these.
    """
    arrays, state, resumed, damaged = checkpoint.load('%s/%s' % (s.MODEL_DIR, s.DATASET)) if not faults else (
        None, checkpoint.NOTHING, None, [])
    if resumed:
        faults = settings.changes(s, state['settings'], resumed)
    data, plan, missing = read(s, faults, prepared, state, group)
    data.left_out += damaged
    return data, plan, missing, arrays, state, resumed


def read(s, faults, prepared, state=checkpoint.NOTHING, group=workers.NONE):
    """Reads the lists, draws class order and hold-out, and plans the increments.

    What an earlier part of the run decided stands: order, hold-out and test images of its classes come from its state, and
    class folders that were not there yet arrive together in one more increment. Of the classes learnt so far their exemplars,
    held-out and test images must be there still; the other images may be gone, and images that were added are not used. Methods
    that learn from all images want all that there were, and no others.

    Args:
        s: settings. faults: dict from setting to what is wrong with it, from `settings.read`.
        prepared: dict from a folder to the module that writes it where it is missing.
        state: dict, see `checkpoint.save`.
        group: workers.Workers, which write that folder one after the other, where it is not there by then.

    Returns:
        data: namespace of names (list of str, the classes by label); paths (object array [images] of bytes) and labels (int
            array [images]), training and test images together; train, held and test, each a list of int arrays by label that
            index these, where train has the exemplars alone of a class that is learnt already; whole, the same with all its
            images that are there; left_out, list of str: images that are done without, and why.
        plan: list of exemplar.Increment. Of those that are done already only the classes count.
        missing: list of str: why this plan cannot be carried out, one line each.

    Raises:
        Fault: there is no plan: everything that is wrong with the settings, the lists and the rest, one line each.
    """
    wrong, missing = list(faults.values()), []
    folders_written = dict(LOG_DIR=s.LOG_DIR, MODEL_DIR='%s/%s' % (s.MODEL_DIR, s.DATASET))
    for name in sorted(set(folders_written) - set(faults)):
        parent = os.path.abspath(folders_written[name])
        while not os.path.exists(parent):
            parent = os.path.dirname(parent)
        if not os.path.isdir(parent) or not os.access(parent, os.W_OK):
            missing.append('%s=%s: %s is no folder that can be written to' % (name, getattr(s, name), parent))
    if not wrong + missing:
        _prepare(s, prepared, group)
    if not {'DATA_DIR', 'NUM_CLASSES', 'TEST_FRACTION'} & set(faults):
        try:
            train_list, test_list, names, wrong_lists, missing_images = _images(s)
        except OSError as error:
            names, wrong_lists, missing_images = [], ['%s: cannot be read (%s)' % (error.filename, error.strerror)], []
        wrong, missing = wrong + wrong_lists, missing + missing_images
    if not wrong:
        order, random, wrong = _order(s, names, [of_class['name'] for of_class in state['classes']])
    if not wrong:
        new = len(names) - len(state['classes'])
        sizes = state['sizes'] + [new] * (new > 0) if state['sizes'] else settings.increment_sizes(s, len(names))
        faults = settings.memory_faults(s, sizes) if state['sizes'] else settings.increment_faults(s, len(names))
        wrong += [fault + ', in a new run with another MODEL_DIR' * bool(state['sizes']) for fault in faults.values()]
    if wrong:
        raise Fault('\n'.join(wrong + missing))
    left_out = []
    if not missing:
        train_list, test_list, missing, left_out = _readable(s, train_list, test_list, names)
    data = types.SimpleNamespace(
        names=[names[number] for number in order], left_out=left_out,
        paths=np.concatenate([train_list.paths, test_list.paths]),
        labels=np.argsort(order)[np.concatenate([train_list.classes, test_list.classes])])
    _divide(s, data, len(train_list.paths), sizes[0], random, state, missing)
    joint = s.METHOD == 'joint'
    plan = exemplar.plan(data.whole if joint else data.train, data.held, data.test, sizes, s.MEMORY_SIZE, s.VAL_FRACTION, joint)
    return data, plan, missing + _batch_faults(s, plan[len(state['results']):])


def _prepare(s, prepared, group):
    """Writes a missing DATA_DIR that can be written: worker after worker, for some may share a disk; all meet every time."""
    for turn in range(len(group.addresses)):
        if turn == group.index and s.DATA_DIR in prepared and not os.path.exists(s.DATA_DIR):
            prepared[s.DATA_DIR].prepare(s.DATA_DIR)
        group.meet()


def _order(s, names, known):
    """The class numbers by label: those known already, then the new ones as CLASS_ORDER says.

    Returns:
        order: int array. random: the generator, for the hold-out. wrong: list of str, one line each.
    """
    number_of, old = {name: number for number, name in enumerate(names)}, set(known)
    wrong = []
    lists.report(wrong, ['%s: there is no class %s any more, and this run began with it; put it back, or begin a new run in '
                         'another MODEL_DIR' % (s.DATA_DIR, name) for name in known if name not in number_of])
    new = [number for number, name in enumerate(names) if name not in old]
    random = np.random.RandomState([s.CLASS_ORDER_SEED, len(known)] if known else s.CLASS_ORDER_SEED)
    if s.CLASS_ORDER in exemplar.CLASS_ORDERS:
        new = [new[position] for position in exemplar.class_order(len(new), random, s.CLASS_ORDER)]
    elif os.path.isfile(s.CLASS_ORDER):
        listed, wrong_names = lists.read_names(s.CLASS_ORDER, names)
        wrong += wrong_names
        new = [number_of[name] for name in listed if name in number_of and name not in old]
    else:
        wrong.append('CLASS_ORDER=%s: is neither one of %s nor a file of class names, one a line'
                     % (s.CLASS_ORDER, ' '.join(exemplar.CLASS_ORDERS)))
    return np.array([number_of[name] for name in known if name in number_of] + new, int), random, wrong


def _divide(s, data, num_train, first_classes, random, state, missing):
    """Adds train, held and test of every label to the data; num_train: images before the first test image."""
    known, learnt, num_classes = len(state['classes']), len(state['exemplars']), len(data.names)
    data.train = exemplar.images_by_label(data.labels[:num_train], num_classes)
    data.test = [num_train + images for images in exemplar.images_by_label(data.labels[num_train:], num_classes)]
    data.train[known:], new_held = exemplar.hold_out(data.train[known:], s.MEMORY_SIZE, first_classes, s.VAL_FRACTION, random)
    number_of = {path: number for number, path in enumerate(relative(s, data, np.arange(len(data.paths))))} if known else {}
    gone = []

    def numbers(label, paths):
        there = [path in number_of and data.labels[number_of[path]] == label for path in paths]
        gone.extend((label, path) for path, is_there in zip(paths, there) if not is_there)
        return np.array([number_of[path] for path, is_there in zip(paths, there) if is_there], int)

    data.held = [numbers(label, of_class['held']) for label, of_class in enumerate(state['classes'])] + new_held
    data.test[:known] = [numbers(label, of_class['test']) for label, of_class in enumerate(state['classes'])]
    data.whole = [np.setdiff1d(data.train[label], np.concatenate([data.held[label], data.test[label]])) for label in range(known)]
    data.whole += data.train[known:]
    data.train = [numbers(label, paths) for label, paths in enumerate(state['exemplars'])] + data.whole[learnt:]
    faults = ['%s: this run needs it, an exemplar, a validation or a test image of class %s, and it is broken or not there any '
              'more; put it back, or do without with LEAVE_OUT_BROKEN=True'
              % (os.path.join(s.DATA_DIR, path), data.names[label]) for label, path in gone]
    faults += ['%s: the images of class %s to train on are not those that this run began with; put them back, or take what is '
               'there with LEAVE_OUT_BROKEN=True, or begin a new run in another MODEL_DIR' % (s.DATA_DIR, data.names[label])
               for label in range(0 if s.METHOD.startswith('joint') and learnt < num_classes else learnt, known)
               if digest(s, data, data.whole[label]) != state['classes'][label]['train']]
    if s.LEAVE_OUT_BROKEN:
        data.left_out += [fault.split(';')[0] for fault in faults]
        faults = ['%s: no image of class %s is left to train, to validate or to test on' % (s.DATA_DIR, data.names[label])
                  for label in range(known) if not all(len(part[label]) for part in (data.train, data.held, data.test))]
    lists.report(missing, faults)


def _batch_faults(s, plan):
    """Increments whose batches cannot be trained on, list of str."""
    faults = ['BATCH_SIZE=%d: increment %d has only %d training images' % (s.BATCH_SIZE, now.increment, now.train)
              for now in plan if now.train < s.BATCH_SIZE]
    devices = replicas.count(s)
    one_pixel = s.IMAGE_SIZE <= 32 and len(resnet_model.BLOCKS[s.RESNET_DEPTH]) == 4
    if devices > 1 and s.BATCH_SIZE // devices < 4 and one_pixel:
        faults.append('BATCH_SIZE=%d: too small for batch normalisation on each of %d devices over feature maps of one pixel'
                      % (s.BATCH_SIZE, devices))
    if s.BATCH_SIZE % devices:
        faults.append('BATCH_SIZE=%d: cannot be shared by %d devices equally; %d would do'
                      % (s.BATCH_SIZE, devices, -(-s.BATCH_SIZE // devices) * devices))
    last = {now.increment: s.EPOCHS * now.train % s.BATCH_SIZE for now in plan}
    faults += ['BATCH_SIZE=%d, EPOCHS=%d: the last batch of increment %d has %d images, too few for %d devices; change one of '
               'the two' % (s.BATCH_SIZE, s.EPOCHS, k, images, devices) for k, images in last.items() if 0 < images < devices]
    # Between two or three values a deviation is often almost nothing, and the gradient of dividing by it almost infinite.
    return faults + [
        'BATCH_SIZE=%d, EPOCHS=%d: the last batch of increment %d has %d images%s, too few for batch normalisation over feature '
        'maps of one pixel; change one of the two, the number of its images, or IMAGE_SIZE=%d to more than 32'
        % (s.BATCH_SIZE, s.EPOCHS, k, images, ' for %d devices' % devices if devices > 1 else '', s.IMAGE_SIZE)
        for k, images in last.items() if {images // devices, -(-images // devices)} & {2, 3} and one_pixel]


def estimate(s, data, plan, done):
    """What the increments from the done-th on take, near enough to choose a machine: within a sixth of what was measured
    on CPUs with ResNets of 18 to 50 layers.

    Returns:
        dict of network_gb: network, old network, gradients and what one training batch keeps, on the GPU or, without one, in main
        memory; main_gb: TensorFlow itself, the lists, the logits or features that stage 2 is fitted on; disk_gb: the networks
        that are written, to checkpoints and as models to use, and what the checkpoints within an increment take at most (three
        times student, old network and momentum). All in 10^9 bytes.
    """
    variables, activations = resnet_model.size(s.RESNET_DEPTH, len(data.names), s.IMAGE_SIZE)
    logits = max(now.val * now.num_seen for now in plan[done:])
    of_class = resnet_model.size(s.RESNET_DEPTH, 1, s.IMAGE_SIZE)[0] - resnet_model.size(s.RESNET_DEPTH, 0, s.IMAGE_SIZE)[0]
    features = of_class * sum(map(len, data.whole)) if s.METHOD == 'joint_last' else 0
    return dict(network_gb=4e-9 * (5 * variables + 1.5 * s.BATCH_SIZE / replicas.count(s) * activations),
                main_gb=0.8 + 6e-7 * len(data.paths) + 1.2e-8 * logits + 4e-9 * features,
                disk_gb=4e-9 * variables * (2 * len(plan[done:]) + 9))


def known_classes(s, data, state=checkpoint.NOTHING):
    """What a run must remember of its data, for `checkpoint.save`: per label a dict of name, train (a digest), held and test."""
    digests = [of_class['train'] for of_class in state['classes'][:len(state['exemplars'])]]  # of those learnt: what it was
    digests += [digest(s, data, images) for images in data.train[len(digests):]]
    return [dict(name=name, train=train, held=relative(s, data, held), test=relative(s, data, test))
            for name, train, held, test in zip(data.names, digests, data.held, data.test)]


def facts(s, data, state, resumed, step):
    """What several workers must have alike before an increment, dict. state, resumed: those of `checkpoint.load`. step: int, how
    many steps of it are done."""
    return dict(settings.fixed(s), checkpoint=resumed and os.path.basename(resumed), step=step, classes=len(data.names),
                images=len(data.paths), trained_on=state['trained'], lists=state['classes'])


def among(s, data, candidates, paths):
    """Images by the relative paths that a checkpoint has. candidates: int array, of which they are. paths: list of lists of str;
    the result is a list of int arrays."""
    number_of = dict(zip(relative(s, data, candidates), candidates))
    return [np.array([number_of[path] for path in of_class], int) for of_class in paths]


def digest(s, data, images):
    """SHA-256 of images' labels and relative paths, in their order; str."""
    lines = ['%d %s' % line for line in zip(data.labels[images], relative(s, data, images))]
    return hashlib.sha256(os.fsencode('\0'.join(lines))).hexdigest()


def first_increment(s, data, plan):
    """The first network of the run in FIRST_INCREMENT_FROM, as if this run had just trained it.

    Returns:
        arrays, state: like those of `checkpoint.load`, of the end of stage 1.

    Raises:
        Fault: there is none, or it is not what this run would train.
    """
    path = '%s/%s/increment-0' % (s.FIRST_INCREMENT_FROM, s.DATASET)
    try:
        network, state = checkpoint.read(path)
    except Fault:
        raise
    except (OSError, ValueError) as error:
        raise Fault('FIRST_INCREMENT_FROM=%s: %s is not the first increment of a run (%s)'
                    % (s.FIRST_INCREMENT_FROM, path, error))
    faults = list(settings.changes(s, state['settings'], path, settings.LATER,
                                   'with --FIRST_INCREMENT_FROM= it is trained anew').values())
    trained = digest(s, data, np.concatenate(data.train[:plan[0].num_seen]))
    if trained != state['trained'] or len(network['dense/bias']) != len(data.names):
        faults.append('FIRST_INCREMENT_FROM=%s: that network was trained on other images, or has another number of classes; '
                      'with --FIRST_INCREMENT_FROM= it is trained anew'
                      % s.FIRST_INCREMENT_FROM)
    if faults:
        raise Fault('\n'.join(faults))
    return ({'resnet/' + name: value for name, value in network.items()},
            dict(checkpoint.NOTHING, step=settings.num_steps(s, plan[0]), trained=trained))


def relative(s, data, images):
    """Paths of images relative to DATA_DIR, list of str; the folder may be elsewhere when the run goes on."""
    folder = os.path.join(os.fsencode(os.path.normpath(s.DATA_DIR)), b'')
    return [os.fsdecode(path[len(folder):] if path.startswith(folder) else os.path.relpath(path, folder))
            for path in data.paths[images]]


def _images(s):
    """Reads list files where there are any, else class folders.

    Returns:
        train, test: lists.Images.
        names: list of str, the classes: with lists, the folders of their first images, or numbers where two share a folder.
        wrong, missing: list of str, see `read`.
    """
    if not os.path.isdir(s.DATA_DIR):
        begun = os.path.isdir(s.DATA_DIR.rstrip('/') + '.partial')
        return None, None, [], ['%s: %s' % (s.DATA_DIR, 'its preparation was interrupted; repeat the command' if begun else
                                            'no such folder; data/README.md says what belongs there and where to get it')], []
    if not any(os.path.exists(os.path.join(s.DATA_DIR, name)) for name in ('train.txt', 'val.txt')):
        train, test, names, wrong = folders.read(s.DATA_DIR, s.TEST_FRACTION)
        if s.NUM_CLASSES not in (0, len(names)):
            wrong.append('%s: has %d class folders, and NUM_CLASSES=%d' % (s.DATA_DIR, len(names), s.NUM_CLASSES))
        return train, test, names, wrong, []
    if not s.NUM_CLASSES:
        return None, None, [], ['%s: has list files; NUM_CLASSES=0 is for class folders without lists' % s.DATA_DIR], []
    train, test, wrong, missing = lists.read(s.DATA_DIR, s.NUM_CLASSES)
    missing = [] if s.LEAVE_OUT_BROKEN else missing  # `_readable` finds them, too
    names = [str(number) for number in range(s.NUM_CLASSES)]
    if train:
        folder_of = [os.path.basename(os.path.dirname(os.fsdecode(train.paths[first])))
                     for first in np.unique(train.classes, return_index=True)[1]]
        names = folder_of if len(set(folder_of)) == s.NUM_CLASSES else names
    return train, test, names, wrong, missing


def _readable(s, train, test, names):
    """Both lists, without images that cannot be decoded where LEAVE_OUT_BROKEN says so.

    Returns:
        train, test: lists.Images. missing: list of str, why the run cannot start. left_out: list of str, what was left out.
    """
    broken = checks.unreadable(list(train.paths) + list(test.paths), s.DECODE_ALL)
    messages = ['%s: %s' % (os.fsdecode(path), reason) for path, reason in broken.items()]
    if not s.LEAVE_OUT_BROKEN:
        return train, test, ['%s; mend or remove it, or do without with LEAVE_OUT_BROKEN=True' % line for line in messages], []
    parts, missing = [], []
    for images, use, least in ((train, 'train', 2), (test, 'test', 1)):
        keep = np.array([path not in broken for path in images.paths], bool)
        parts.append(lists.Images(images.paths[keep], images.classes[keep]))
        left = np.bincount(parts[-1].classes, minlength=len(names))
        missing += ['%s: %d image%s of class %s left to %s on without the broken ones, and at least %d must be there'
                    % (s.DATA_DIR, left[number], ' is' if left[number] == 1 else 's are', names[number], use, least)
                    for number in np.flatnonzero(left < least)]
    return parts[0], parts[1], missing, messages
