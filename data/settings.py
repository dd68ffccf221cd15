"""Settings: the constants of imagenet_main.py, the dataset's recipe and the command line's overrides, checked together; and the
schedule of steps and rates that follows from them."""
import difflib
import itertools
import math
import os
import types

import tensorflow

import exemplar
import resnet_model
from data import FREE, Fault, replicas

_AT_LEAST_1 = (int, lambda v: v >= 1, 'a whole number, at least 1')
_TEXT = (str, lambda v: v != '', 'a text that is not empty')
_POSITIVE = (float, lambda v: v > 0, 'a number above 0')
_SHARE = (float, lambda v: 0 < v < 1, 'a number between 0 and 1, both excluded')
_SWITCH = (bool, lambda v: True, 'True or False')

_WARM_UP_EPOCHS = 5

METHODS = ('finetune', 'distill', 'bic', 'joint', 'joint_last')

# Every setting: kind, what else must hold, and both in words.
RULES = {
    'DATASET': (str, lambda v: v != '' and not set(v) & set('/\\'), 'the name of a recipe, without / and \\'),
    'SEED': (int, lambda v: 0 <= v < 2 ** 32, 'a whole number from 0 to 4294967295'),
    'MODEL_DIR': _TEXT,
    'LOG_DIR': _TEXT,
    'LOG_STEPS': _AT_LEAST_1,
    'PLAN_ONLY': _SWITCH,
    'PREDICT': (str, lambda v: True, 'a text'),
    'DECODE_ALL': _SWITCH,
    'XLA': _SWITCH,
    'REPLICAS': (int, lambda v: v >= 0, 'a whole number, at least 1, or 0 for all GPUs'),
    'WORKER_MINUTES': _POSITIVE,
    'SCALE_BATCH': _SWITCH,
    'CHECKPOINT_EPOCHS': (int, lambda v: v >= 0, 'a whole number, at least 1, or 0 for never'),
    'CHECKPOINT_MINUTES': (float, lambda v: v > 0, 'a number above 0'),
    'FIRST_INCREMENT_FROM': (str, lambda v: True, 'a text'),
    'DETERMINISTIC': (bool, lambda v: not v or hasattr(tensorflow.config.experimental, 'enable_op_determinism'),
                      'False, or True with TensorFlow 2.9 or later'),
    'KEEP_GB': (float, lambda v: v >= 0, 'a number, at least 0'),
    'LEAVE_OUT_BROKEN': _SWITCH,
    'METHOD': (str, lambda v: v in METHODS, 'one of ' + ' '.join(METHODS)),
    'EXEMPLAR_SELECTION': (str, lambda v: v in ('herding', 'random'), 'herding or random'),
    'CLASS_ORDER': _TEXT,
    'CLASS_ORDER_SEED': (int, lambda v: 0 <= v < 2 ** 32, 'a whole number from 0 to 4294967295'),
    'TEMPERATURE': _POSITIVE,
    'SCALE_WEIGHT_DECAY': _SWITCH,
    'MOMENTUM': (float, lambda v: 0 <= v < 1, 'a number from 0 to below 1'),
    'BETA_MIN': (float, lambda v: 0 <= v <= 1, 'a number from 0 to 1'),
    'BETA_MAX': (float, lambda v: v >= 1, 'a number, at least 1'),
    'GAMMA_PENALTY': (float, lambda v: v >= 0, 'a number, at least 0'),
    'DATA_DIR': _TEXT,
    'NUM_CLASSES': (int, lambda v: v == 0 or 2 <= v <= 10 ** 6, 'a whole number from 2 to 1000000, or 0 to count class folders'),
    'TEST_FRACTION': _SHARE,
    'CLASSES_PER_INCREMENT': (tuple, lambda v: v and all(type(n) is int and n > 0 for n in v),
                              'a whole number, at least 1, or several separated by commas'),
    'FIRST_INCREMENT_CLASSES': (int, lambda v: v >= 0, 'a whole number, at least 1, or 0 for all classes'),
    'MEMORY_SIZE': _AT_LEAST_1,
    'VAL_FRACTION': _SHARE,
    'RESNET_DEPTH': (int, lambda v: v in resnet_model.BLOCKS, 'one of ' + ' '.join(map(str, resnet_model.BLOCKS))),
    'IMAGE_SIZE': _AT_LEAST_1,
    'RESIZE_SIDE_MIN': _AT_LEAST_1,
    'RESIZE_SIDE_MAX': _AT_LEAST_1,
    'PADDING': (int, lambda v: v >= 0, 'a whole number, at least 0'),
    'RANDOM_FLIP': _SWITCH,
    'STANDARDIZE': _SWITCH,
    'EPOCHS': _AT_LEAST_1,
    'LR_DROP_EPOCHS': (tuple, lambda v: all(isinstance(e, int) and e > 0 for e in v) and list(v) == sorted(set(v)),
                       'whole numbers above 0, rising: on the command line 4,6 or nothing, in the file (4, 6), (4,) or ()'),
    'BATCH_SIZE': _AT_LEAST_1,
    'LEARNING_RATE': _POSITIVE,
    'WEIGHT_DECAY': (float, lambda v: v >= 0, 'a number, at least 0'),
    'BATCH_NORM_DECAY': _SHARE,
    'MIXED_PRECISION': _SWITCH,
    'HEADLINE': (str, lambda v: v in ('top1', 'top5'), 'top1 or top5'),
}

# What the first increment's network does not depend on.
LATER = ('METHOD', 'EXEMPLAR_SELECTION', 'TEMPERATURE', 'BETA_MIN', 'BETA_MAX', 'GAMMA_PENALTY')


def runs(constants, recipes, arguments):
    """Several values of a setting are several runs, each with a folder of its own in MODEL_DIR and LOG_DIR; those that agree on
    all that the first increment depends on train it once.

    Args:
        constants, recipes: those of `read`. arguments: list of '--NAME=value' or '--NAME=value,value'; lists of values are for
            settings that affect results, and that are no lists themselves.

    Returns:
        list of lists of '--NAME=value': the runs, in the order in which they must run; the last list changes fastest.

    Raises:
        Fault: what is wrong with the settings of any of several runs.
    """
    given = dict(argument[2:].partition('=')[::2] for argument in arguments)
    lists = {name: list(dict.fromkeys(str(_parse(value, RULES[name][0])) for value in text.split(',')))
             for name, text in given.items()
             if ',' in text and name in RULES and name not in FREE + ('DATASET',) and RULES[name][0] is not tuple
             and not os.path.exists(text)}  # a class order's file
    if not lists:
        return [arguments]
    each, faults, trained_by = [], {}, {}
    for values in itertools.product(*lists.values()):
        pairs = ['%s=%s' % pair for pair in zip(lists, values)]
        folders = ['%s=%s/%s' % (name, given.get(name, constants[name]), ','.join(sorted(pairs)).replace('/', '-'))
                   for name in ('MODEL_DIR', 'LOG_DIR')]
        each.append([argument for argument in arguments if argument[2:].partition('=')[0] not in lists]
                    + ['--' + pair for pair in pairs + folders])
        s, wrong = read(constants, recipes, each[-1])
        faults.update(dict.fromkeys(wrong.values()))
        first = repr(sorted((name, value) for name, value in fixed(s).items() if name not in LATER))
        if trained_by.setdefault(first, s.MODEL_DIR) != s.MODEL_DIR and not ('FIRST_INCREMENT_FROM' in given or s.PLAN_ONLY):
            each[-1].append('--FIRST_INCREMENT_FROM=' + trained_by[first])
    if faults:
        raise Fault('\n'.join(faults))
    return each


def read(constants, recipes, arguments):
    """Merges constants, recipe and overrides, and checks every value.

    Args:
        constants: dict of the UPPER_CASE names of imagenet_main.py; those without a rule are no settings.
        recipes: dict from dataset to its dict of settings.
        arguments: list of '--NAME=value'.

    Returns:
        settings: types.SimpleNamespace, an attribute per setting.
        faults: dict from the setting (or argument) to what is wrong with it, one line each: unknown names, wrong values,
            values that contradict each other.

    Raises:
        Fault: the dataset has no recipe, or an incomplete one.
    """
    faults, overrides = {}, {}
    for argument in arguments:
        name, equals, text = argument[2:].partition('=')
        if not argument.startswith('--') or not equals:
            faults[argument] = '%s: an override is written --NAME=value; the names are at the top of imagenet_main.py' % argument
        elif name not in RULES:
            near = difflib.get_close_matches(name.upper(), RULES, 3)
            faults[argument] = '--%s: no such setting%s' % (name, '; near it: ' + ', '.join(near) if near else '')
        else:
            overrides[name] = _parse(text, RULES[name][0])
    values = {name: value for name, value in constants.items() if name in RULES}
    dataset = overrides.get('DATASET', constants.get('DATASET'))
    if dataset not in list(recipes):
        faults['DATASET'] = 'DATASET=%s: no such dataset; there is a recipe for %s' % (dataset, ', '.join(sorted(recipes)))
        raise Fault('\n'.join(faults.values()))
    recipe = recipes[dataset]
    values.update(recipe)
    incomplete = ['RECIPES[%r] has %s, which is no setting' % (dataset, name) for name in recipe if name not in RULES]
    incomplete += ['%s is missing, from the top of imagenet_main.py or from RECIPES[%r]' % (name, dataset)
                   for name in RULES if name not in values]
    incomplete += ['%s stands at the top of imagenet_main.py and in RECIPES[%r]; it must have one place' % (name, dataset)
                   for name in recipe if name in constants]
    if incomplete:
        raise Fault('\n'.join(incomplete))
    values.update(overrides)
    values.update({name: tuple(value) for name, value in values.items() if isinstance(value, list)})
    values.update({name: (value,) for name, value in values.items() if type(value) is int and RULES[name][0] is tuple})
    faults.update({name: '%s=%s: must be %s' % (name, value if name in overrides else repr(value), RULES[name][2])
                   for name, value in values.items() if not _legal(name, value)})
    settings = types.SimpleNamespace(**values)
    if not faults and settings.SCALE_BATCH:
        settings.BATCH_SIZE *= replicas.count(settings)
        settings.LEARNING_RATE *= replicas.count(settings)
    if not {'NUM_CLASSES', 'FIRST_INCREMENT_CLASSES', 'CLASSES_PER_INCREMENT', 'MEMORY_SIZE', 'VAL_FRACTION'} & set(faults):
        if settings.NUM_CLASSES:
            faults.update(increment_faults(settings, settings.NUM_CLASSES))
    if not {'IMAGE_SIZE', 'RESIZE_SIDE_MIN', 'RESIZE_SIDE_MAX'} & set(faults):
        faults.update(_size_faults(settings))
    return settings, faults


def increment_sizes(settings, num_classes):
    """New classes of each increment, list of int: the first, then equal ones, or one by one as listed."""
    first, later = settings.FIRST_INCREMENT_CLASSES or num_classes, settings.CLASSES_PER_INCREMENT
    if len(later) == 1:
        later *= (num_classes - first) // later[0]
    return [first, *later]


def num_steps(s, now):
    """Batches run across the borders of epochs; the last one of an increment may be smaller."""
    return -(-s.EPOCHS * now.train // s.BATCH_SIZE)


def learning_rate(s, num_images, step):
    """The rate of 0-based `step`: divided by ten for every boundary that lies before the step [C].

    With SCALE_BATCH it rises from that of one device over the first epochs (Goyal et al., "Accurate, Large Minibatch SGD", 2017).
    """
    rate = s.LEARNING_RATE * 0.1 ** sum(step > boundary for boundary in lr_drops(s, num_images))
    if s.SCALE_BATCH:
        begin, warm = 1 / replicas.count(s), step * s.BATCH_SIZE / (_WARM_UP_EPOCHS * num_images)
        rate *= min(1, begin + (1 - begin) * warm)
    return rate


def lr_drops(s, num_images):
    """The boundaries in steps, int(N / batch * epoch) for each of LR_DROP_EPOCHS [C]; list of int."""
    return [int(num_images / s.BATCH_SIZE * epoch) for epoch in s.LR_DROP_EPOCHS]


def _parse(text, kind):
    """The value that a command line's text stands for, or the text itself where it is not of that kind. Never evaluated."""
    if kind is tuple:
        parts = [part.strip() for part in text.strip('()[] ').split(',') if part.strip()]
        return tuple(_parse(part, int) for part in parts)
    if kind is bool:
        return {'True': True, 'False': False}.get(text, text)
    if kind is str:
        return text
    try:
        return kind(text)
    except ValueError:
        return text


def _legal(name, value):
    kind, holds, _ = RULES[name]
    if kind is float and type(value) is int:
        kind = int
    return type(value) is kind and abs(value) < float('inf') and holds(value) if kind in (int, float) else \
        isinstance(value, kind) and holds(value)


def increment_faults(s, num_classes):
    """Why the increments do not add up to num_classes, or the memory is too small for them; dict like that of `read`."""
    first, later = s.FIRST_INCREMENT_CLASSES or num_classes, s.CLASSES_PER_INCREMENT
    beyond = num_classes - first
    if beyond < 0:
        return {'FIRST_INCREMENT_CLASSES': 'FIRST_INCREMENT_CLASSES=%d: the dataset has %d classes' % (first, num_classes)}
    if len(later) > 1 and sum(later) != beyond:
        return {'CLASSES_PER_INCREMENT': 'CLASSES_PER_INCREMENT=%s: these are %d classes, and after the first %d there are %d'
                                         % (','.join(map(str, later)), sum(later), first, beyond)}
    if len(later) == 1 and beyond % later[0]:
        return {'CLASSES_PER_INCREMENT': 'CLASSES_PER_INCREMENT=%d does not divide the %d classes after the first %d; '
                                         'FIRST_INCREMENT_CLASSES=%d would do'
                                         % (later[0], beyond, first, num_classes % later[0] or later[0])}
    return memory_faults(s, increment_sizes(s, num_classes))


def memory_faults(s, sizes):
    """Why the memory is too small for increments of these sizes; dict like that of `read`."""
    olds = list(itertools.accumulate(sizes[:-1]))
    if all(exemplar.quota(s.MEMORY_SIZE, num_old, s.VAL_FRACTION)[0] >= 1 for num_old in olds):
        return {}
    share = max(2, math.ceil(1 / (1 - exemplar.exact(s.VAL_FRACTION))))
    return {'MEMORY_SIZE': 'MEMORY_SIZE=%d, VAL_FRACTION=%s: too small for one exemplar and one validation image of each of '
                           '%d old classes; MEMORY_SIZE=%d would do'
                           % (s.MEMORY_SIZE, s.VAL_FRACTION, olds[-1], olds[-1] * share)}


def changes(s, stored, where, but=(), remedy='another MODEL_DIR begins a new run'):
    """Settings that affect results and are not what they were in another part of the run, or in the run it begins with.

    Args:
        s: settings. stored: dict, those of that part. where: str, the folder that has them. but: names that may differ.
        remedy: str.

    Returns:
        dict like that of `read`.
    """
    faults = {name: '%s=%s: %s has %s; %s' % (name, getattr(s, name), where, stored.get(name), remedy)
              for name, value in fixed(s).items() if name not in but and value != stored.get(name)}
    if 'BATCH_SIZE' in faults and 'LEARNING_RATE' in faults:
        faults['BATCH_SIZE'] += '; with SCALE_BATCH both depend on the number of devices, here %d' % replicas.count(s)
    return faults


def fixed(s):
    """The settings that affect results, as JSON gives them back; dict."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in vars(s).items() if name not in FREE}


def _size_faults(s):
    if s.IMAGE_SIZE <= s.RESIZE_SIDE_MIN <= s.RESIZE_SIDE_MAX:
        return {}
    return {'IMAGE_SIZE': 'IMAGE_SIZE=%d, RESIZE_SIDE_MIN=%d, RESIZE_SIDE_MAX=%d: each must be at least the one before it'
                          % (s.IMAGE_SIZE, s.RESIZE_SIDE_MIN, s.RESIZE_SIDE_MAX)}
