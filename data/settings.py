"""Settings: the constants of imagenet_main.py, the dataset's recipe and the command line's overrides, checked together."""
import difflib
import itertools
import math
import types

import exemplar
from data import Fault

_AT_LEAST_1 = (int, lambda v: v >= 1, 'a whole number, at least 1')
_TEXT = (str, lambda v: v != '', 'a text that is not empty')
_POSITIVE = (float, lambda v: v > 0, 'a number above 0')
_SHARE = (float, lambda v: 0 < v < 1, 'a number between 0 and 1, both excluded')
_SWITCH = (bool, lambda v: True, 'True or False')

# Every setting: kind, what else must hold, and both in words.
RULES = {
    'DATASET': _TEXT,
    'SEED': (int, lambda v: 0 <= v < 2 ** 32, 'a whole number from 0 to 4294967295'),
    'MODEL_DIR': _TEXT,
    'LOG_DIR': _TEXT,
    'LOG_STEPS': _AT_LEAST_1,
    'CLASS_ORDER_SEED': (int, lambda v: 0 <= v < 2 ** 32, 'a whole number from 0 to 4294967295'),
    'TEMPERATURE': _POSITIVE,
    'SCALE_WEIGHT_DECAY': _SWITCH,
    'MOMENTUM': (float, lambda v: 0 <= v < 1, 'a number from 0 to below 1'),
    'BETA_MIN': (float, lambda v: 0 <= v <= 1, 'a number from 0 to 1'),
    'BETA_MAX': (float, lambda v: v >= 1, 'a number, at least 1'),
    'GAMMA_PENALTY': (float, lambda v: v >= 0, 'a number, at least 0'),
    'DATA_DIR': _TEXT,
    'NUM_CLASSES': (int, lambda v: v >= 2, 'a whole number, at least 2'),
    'CLASSES_PER_INCREMENT': _AT_LEAST_1,
    'FIRST_INCREMENT_CLASSES': _AT_LEAST_1,
    'MEMORY_SIZE': _AT_LEAST_1,
    'VAL_FRACTION': _SHARE,
    'RESNET_DEPTH': (int, lambda v: v in (18, 34, 50, 101, 152, 200), 'one of 18 34 50 101 152 200'),
    'IMAGE_SIZE': _AT_LEAST_1,
    'RESIZE_SIDE_MIN': _AT_LEAST_1,
    'RESIZE_SIDE_MAX': _AT_LEAST_1,
    'RANDOM_FLIP': _SWITCH,
    'EPOCHS': _AT_LEAST_1,
    'LR_DROP_EPOCHS': (tuple, lambda v: all(isinstance(e, int) and e > 0 for e in v) and list(v) == sorted(set(v)),
                       'whole numbers above 0, rising, separated by commas'),
    'BATCH_SIZE': _AT_LEAST_1,
    'LEARNING_RATE': _POSITIVE,
    'WEIGHT_DECAY': (float, lambda v: v >= 0, 'a number, at least 0'),
    'BATCH_NORM_DECAY': _SHARE,
    'HEADLINE': (str, lambda v: v in ('top1', 'top5'), 'top1 or top5'),
}


def read(constants, recipes, arguments):
    """Merges constants, recipe and overrides, and checks every value.

    Args:
        constants: dict of the UPPER_CASE names of imagenet_main.py; those without a rule are no settings.
        recipes: dict from dataset to its dict of settings.
        arguments: list of '--NAME=value'.

    Returns:
        types.SimpleNamespace, an attribute per setting.

    Raises:
        Fault: unknown names, wrong values, values that contradict each other; all of them, one line each.
    """
    faults, overrides = [], {}
    for argument in arguments:
        name, equals, text = argument[2:].partition('=')
        if not argument.startswith('--') or not equals:
            faults.append('%s: an override is written --NAME=value; the names are at the top of imagenet_main.py' % argument)
        elif name not in RULES:
            near = difflib.get_close_matches(name.upper(), RULES, 3)
            faults.append('--%s: no such setting%s' % (name, '; near it: ' + ', '.join(near) if near else ''))
        else:
            overrides[name] = _parse(text, RULES[name][0])
    values = {name: value for name, value in constants.items() if name in RULES}
    dataset = overrides.get('DATASET', constants['DATASET'])
    if dataset in recipes:
        recipe = recipes[dataset]
        values.update(recipe)
        faults += ['RECIPES[%r] has %s, which is no setting' % (dataset, name) for name in recipe if name not in RULES]
        faults += ['RECIPES[%r] lacks %s' % (dataset, name) for name in RULES if name not in values]
    else:
        faults.append('DATASET=%s: no such dataset; there is a recipe for %s' % (dataset, ', '.join(sorted(recipes))))
    values.update(overrides)
    wrong = {name: value for name, value in values.items() if name in RULES and not _legal(name, value)}
    faults += ['%s=%s: must be %s' % (name, value, RULES[name][2]) for name, value in wrong.items()]
    settings = types.SimpleNamespace(**values)
    if not faults:
        faults = _contradictions(settings)
    if faults:
        raise Fault('\n'.join(faults))
    return settings


def increment_sizes(settings):
    """New classes of each increment, list of int: the first may differ, the others are equal."""
    rest = settings.NUM_CLASSES - settings.FIRST_INCREMENT_CLASSES
    return [settings.FIRST_INCREMENT_CLASSES] + [settings.CLASSES_PER_INCREMENT] * (rest // settings.CLASSES_PER_INCREMENT)


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


def _contradictions(s):
    """Faults between settings that are legal each by itself."""
    faults = []
    beyond = s.NUM_CLASSES - s.FIRST_INCREMENT_CLASSES
    if beyond < 0:
        faults.append('FIRST_INCREMENT_CLASSES=%d: the dataset has NUM_CLASSES=%d' % (s.FIRST_INCREMENT_CLASSES, s.NUM_CLASSES))
    elif beyond % s.CLASSES_PER_INCREMENT:
        would = s.NUM_CLASSES % s.CLASSES_PER_INCREMENT or s.CLASSES_PER_INCREMENT
        faults.append('CLASSES_PER_INCREMENT=%d does not divide the %d classes after the first %d; FIRST_INCREMENT_CLASSES=%d '
                      'would do' % (s.CLASSES_PER_INCREMENT, beyond, s.FIRST_INCREMENT_CLASSES, would))
    else:
        for num_old in itertools.accumulate(increment_sizes(s)[:-1]):
            if exemplar.quota(s.MEMORY_SIZE, num_old, s.VAL_FRACTION)[0] < 1:
                faults.append('MEMORY_SIZE=%d, VAL_FRACTION=%s: too small for one exemplar and one validation image of each of '
                              '%d old classes; MEMORY_SIZE=%d would do' % (s.MEMORY_SIZE, s.VAL_FRACTION, num_old, num_old *
                                                                           max(2, math.ceil(1 / (1 - s.VAL_FRACTION)))))
                break
    if not s.IMAGE_SIZE <= s.RESIZE_SIDE_MIN <= s.RESIZE_SIDE_MAX:
        faults.append('IMAGE_SIZE=%d, RESIZE_SIDE_MIN=%d, RESIZE_SIDE_MAX=%d: must not fall in this order'
                      % (s.IMAGE_SIZE, s.RESIZE_SIDE_MIN, s.RESIZE_SIDE_MAX))
    return faults
