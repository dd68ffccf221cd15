"""Settings: the table of legal values; reads them from constants, recipe and command line; the schedule that they give.

Needs no TensorFlow.
"""
import collections
import difflib
import itertools
import math
import os
import re
import types

import exemplar
from data import Fault, sources

METHODS = ('finetune', 'distill', 'bic', 'joint', 'joint_last')
DEPTHS = (18, 34, 50, 101, 152, 200, 8, 20, 32, 56)  # those of resnet_model.BLOCKS

# What a setting affects: no results; all results; or all results except the first network.
NOTHING, RESULTS, LATER = 'nothing', 'results', 'later results'

Rule = collections.namedtuple('Rule', 'affects kind holds words')
Rule.__doc__ = """One setting: what it affects, its type, a function that says whether a value is legal, and the rule in words."""


def _whole(affects, low, high, none=''):
    """A whole number from low to high. `none`: the meaning of 0, if 0 is legal, too."""
    return Rule(affects, int, lambda v: low <= v <= high or v == 0 and none,
                'a whole number from %d to %d%s' % (low, high, none and ', or 0: ' + none))


def _number(affects, low, high):
    return Rule(affects, float, lambda v: low <= v <= high, 'a number from %g to %g' % (low, high))


def _share(affects):
    return Rule(affects, float, lambda v: 0 < v < 1, 'a number between 0 and 1, both excluded')


def _switch(affects):
    return Rule(affects, bool, lambda v: True, 'True or False')


def _text(affects, empty=False):
    def holds(text):  # Python represents bytes that are not UTF-8 as lone surrogates
        return (text or empty) and not re.search('[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]', text)

    return Rule(affects, str, holds, 'a text in UTF-8 without control characters' + ('' if empty else ', and not empty'))


def _one_of(affects, kind, values):
    return Rule(affects, kind, lambda v: v in values, 'one of ' + ' '.join(map(str, values)))


SETTINGS = {
    'DATASET': Rule(RESULTS, str, lambda v: v and not set(v) & set('/\\'), 'the name of a recipe, without / and \\'),
    'SEED': _whole(RESULTS, 0, 2 ** 32 - 1),
    'MODEL_DIR': _text(NOTHING),
    'LOG_DIR': _text(NOTHING),
    'LOG_STEPS': _whole(NOTHING, 1, 10 ** 9),
    'CHECKPOINT_EPOCHS': _whole(NOTHING, 1, 10 ** 6, 'never'),
    'CHECKPOINT_MINUTES': _number(NOTHING, 1e-9, 1e6),
    'FIRST_INCREMENT_FROM': _text(NOTHING, empty=True),
    'DETERMINISTIC': _switch(RESULTS),
    'PLAN_ONLY': _switch(NOTHING),
    'PREDICT': _text(NOTHING, empty=True),
    'REPLICAS': _whole(NOTHING, 1, 1024, 'all GPUs'),
    'WORKER_MINUTES': _number(NOTHING, 0.01, 1e4),
    'XLA': _switch(RESULTS),
    'METHOD': _one_of(LATER, str, METHODS),
    'EXEMPLAR_SELECTION': _one_of(LATER, str, ('herding', 'random')),
    'CLASS_ORDER_SEED': _whole(RESULTS, 0, 2 ** 32 - 1),
    'TEMPERATURE': _number(LATER, 1e-3, 1e3),
    'SCALE_WEIGHT_DECAY': _switch(RESULTS),
    'MOMENTUM': Rule(RESULTS, float, lambda v: 0 <= v < 1, 'a number from 0 to below 1'),
    'BETA_MIN': _number(LATER, 0, 1),
    'BETA_MAX': _number(LATER, 1, 1e6),
    'GAMMA_PENALTY': _number(LATER, 0, 1e6),
    'DATA_DIR': _text(NOTHING),
    'NUM_CLASSES': _whole(NOTHING, 2, 10 ** 6, 'as many as there are class folders'),
    'TEST_FRACTION': _share(RESULTS),
    'CLASS_ORDER': _text(RESULTS),
    'FIRST_INCREMENT_CLASSES': _whole(RESULTS, 1, 10 ** 6, 'as CLASSES_PER_INCREMENT'),
    'CLASSES_PER_INCREMENT': Rule(RESULTS, tuple, lambda v: v == (0,) or v and all(
        type(n) is int and 0 < n <= 10 ** 6 for n in v),
                                  'a whole number, several separated by commas, or 0: all classes at once'),
    'MEMORY_SIZE': _whole(RESULTS, 1, 10 ** 9),
    'VAL_FRACTION': _share(RESULTS),
    'RESNET_DEPTH': _one_of(RESULTS, int, DEPTHS),
    'IMAGE_SIZE': _whole(RESULTS, 1, 10 ** 4),
    'RESIZE_SIDE_MIN': _whole(RESULTS, 1, 10 ** 4),
    'RESIZE_SIDE_MAX': _whole(RESULTS, 1, 10 ** 4),
    'PADDING': _whole(RESULTS, 0, 10 ** 4),
    'RANDOM_FLIP': _switch(RESULTS),
    'STANDARDIZE': _switch(RESULTS),
    'EPOCHS': _whole(RESULTS, 1, 10 ** 6),
    'LR_DROP_EPOCHS': Rule(RESULTS, tuple, lambda v: all(type(e) is int and 0 < e <= 10 ** 6 for e in v)
                           and list(v) == sorted(set(v)),
                           'whole numbers above 0, rising: on the command line 4,6 or nothing, in the file (4, 6), (4,) or ()'),
    'BATCH_SIZE': _whole(RESULTS, 1, 10 ** 6),
    'LEARNING_RATE': _number(RESULTS, 1e-12, 1e38),
    'WEIGHT_DECAY': _number(RESULTS, 0, 1e6),
    'MIXED_PRECISION': _switch(RESULTS),
    'BATCH_NORM_DECAY': _share(RESULTS),
    'HEADLINE': _one_of(NOTHING, str, ('top1', 'top5')),
}
# Settings that may change when a run is resumed: they do not affect the network, the memory or the class order.
FREE = tuple(name for name, rule in SETTINGS.items() if rule.affects == NOTHING)

_ONE_VALUE = ('DATASET', 'DETERMINISTIC')  # one value for all runs: DETERMINISTIC cannot be switched off within a process


def read(constants, recipes, arguments):
    """Reads the settings of every run that the command line asks for.

    Several values of a setting, separated by commas, give several runs. Each has its own folders in MODEL_DIR and LOG_DIR. Runs
    that share all settings of the first increment train it once: the later ones take it from the first.

    Args:
        constants: dict of the UPPER_CASE names of imagenet_main.py; names that are not in SETTINGS are ignored.
        recipes: dict from dataset to its dict of settings.
        arguments: list of '--NAME=value' or '--NAME=value,value'. Several values are for settings that affect results and are
            not lists themselves, except DATASET and DETERMINISTIC.

    Returns:
        list of (settings, faults); the last list of values changes fastest. settings: types.SimpleNamespace. faults: dict from
        the setting (or argument) to what is wrong with it, one line; with several runs, a Fault is raised instead.
    """
    given = {}
    for name, text in map(_override, arguments):
        if name in given:
            raise Fault('--%s: is given more than once' % sources.shown(name))
        if name:
            given[name] = text
    lists = {name: list(dict.fromkeys(str(_parsed(value, SETTINGS[name].kind)) for value in text.split(',')))
             for name, text in given.items() if _is_list(name, text)}
    for name, text in given.items():
        if name in lists and SETTINGS[name].kind is float and not re.search('[.eE]', text):
            raise Fault('%s=%s: a fraction is written with a point; several values are written like 1.0,2.0'
                        % (name, sources.shown(text)))
    if not lists:
        return [_read_one(constants, recipes, arguments)]
    own_names = [*lists, 'MODEL_DIR', 'LOG_DIR']
    common = [argument for argument in arguments if _override(argument)[0] not in own_names]
    runs, faults, trained_by = [], {}, {}
    for values in itertools.product(*lists.values()):
        own = ['%s=%s' % pair for pair in zip(lists, values)]
        folder = ','.join(sorted(own)).replace('/', '-')
        for name in ('MODEL_DIR', 'LOG_DIR'):
            path = given.get(name, constants[name])
            own.append('%s=%s' % (name, path and '%s/%s' % (path, folder)))  # an empty one is a fault
        s, wrong = _read_one(constants, recipes, common + ['--' + argument for argument in own])
        faults.update(dict.fromkeys(wrong.values()))
        first = repr(sorted((name, value) for name, value in fixed(s).items() if SETTINGS[name].affects != LATER))
        trained_by.setdefault(first, s.MODEL_DIR)
        if trained_by[first] != s.MODEL_DIR and 'FIRST_INCREMENT_FROM' not in given and not s.PLAN_ONLY:
            s.FIRST_INCREMENT_FROM = trained_by[first]
        runs.append((s, wrong))
    if faults:
        raise Fault('\n'.join(faults))
    return runs


def _is_list(name, text):
    """Whether an override gives several values for a setting that takes one."""
    rule = SETTINGS.get(name)
    return (rule and ',' in text and rule.affects != NOTHING and rule.kind is not tuple and name not in _ONE_VALUE
            and not os.path.exists(text))  # CLASS_ORDER may be a file with a comma in its name


def _read_one(constants, recipes, arguments):
    """Merges constants, recipe and overrides of one run, and checks every value. Returns settings and faults as `read` does."""
    overrides, faults = _overrides(arguments)
    dataset = overrides.get('DATASET', constants.get('DATASET'))
    if dataset not in list(recipes):
        faults['DATASET'] = ('DATASET=%s: no such dataset; there is a recipe for %s'
                             % (sources.shown(str(dataset)), ', '.join(sorted(recipes))))
        raise Fault('\n'.join(faults.values()))
    recipe = recipes[dataset]
    values = {name: value for name, value in constants.items() if name in SETTINGS}
    values.update(recipe)
    incomplete = ['RECIPES[%r] has %s, which is no setting' % (dataset, name) for name in recipe if name not in SETTINGS]
    incomplete += ['%s is missing, from the top of imagenet_main.py or from RECIPES[%r]' % (name, dataset)
                   for name in SETTINGS if name not in values]
    incomplete += ['%s stands at the top of imagenet_main.py and in RECIPES[%r]; it must have one place' % (name, dataset)
                   for name in recipe if name in constants]
    if incomplete:
        raise Fault('\n'.join(incomplete))
    values.update(overrides)
    for name, value in values.items():
        if SETTINGS[name].kind is tuple:  # people write lists, or one number
            values[name] = tuple(value) if isinstance(value, list) else (value,) if type(value) is int else value
        if not _legal(SETTINGS[name], values[name]):
            given = sources.shown(shown(value)) if name in overrides else repr(value)
            faults[name] = '%s=%s: must be %s' % (name, given, SETTINGS[name].words)
    if not faults:
        _scale(values, recipe, overrides)
        faults.update({name: '%s=%s, in proportion to IMAGE_SIZE: must be %s' % (name, values[name], SETTINGS[name].words)
                       for name in ('RESIZE_SIDE_MIN', 'RESIZE_SIDE_MAX') if not _legal(SETTINGS[name], values[name])})
    s = types.SimpleNamespace(**values)
    if not {'NUM_CLASSES', 'FIRST_INCREMENT_CLASSES', 'CLASSES_PER_INCREMENT', 'MEMORY_SIZE', 'VAL_FRACTION'} & set(faults):
        if s.NUM_CLASSES:
            faults.update(increment_faults(s, s.NUM_CLASSES))
    if not {'IMAGE_SIZE', 'RESIZE_SIDE_MIN', 'RESIZE_SIDE_MAX'} & set(faults):
        if not s.IMAGE_SIZE <= s.RESIZE_SIDE_MIN <= s.RESIZE_SIDE_MAX:
            faults['IMAGE_SIZE'] = ('IMAGE_SIZE=%d, RESIZE_SIDE_MIN=%d, RESIZE_SIDE_MAX=%d: each must be at least the one '
                                    'before it' % (s.IMAGE_SIZE, s.RESIZE_SIDE_MIN, s.RESIZE_SIDE_MAX))
    return s, faults


def _scale(values, recipe, overrides):
    """Keeps the recipe's ratios: the resize sides follow an overridden IMAGE_SIZE, LR_DROP_EPOCHS an overridden EPOCHS."""
    if 'IMAGE_SIZE' in overrides and _legal(SETTINGS['IMAGE_SIZE'], recipe['IMAGE_SIZE']):
        for name in {'RESIZE_SIDE_MIN', 'RESIZE_SIDE_MAX'} - set(overrides):
            values[name] = round(values[name] * values['IMAGE_SIZE'] / recipe['IMAGE_SIZE'])
    if 'EPOCHS' in overrides and 'LR_DROP_EPOCHS' not in overrides and _legal(SETTINGS['EPOCHS'], recipe['EPOCHS']):
        drops = {round(drop * values['EPOCHS'] / recipe['EPOCHS']) for drop in values['LR_DROP_EPOCHS']}
        values['LR_DROP_EPOCHS'] = tuple(sorted(drop for drop in drops if 0 < drop < values['EPOCHS']))


def _override(argument):
    """Name and text of '--NAME=value', or None and '' of anything else."""
    name, equals, text = argument.partition('=')
    return (name[2:], text) if name.startswith('--') and equals else (None, '')


def _overrides(arguments):
    """The values of '--NAME=value' by name, and what is wrong with these arguments, both dicts."""
    overrides, faults = {}, {}
    for argument in arguments:
        name, text = _override(argument)
        if not name:
            faults[argument] = '%s: an override is written --NAME=value; --help lists the names' % sources.shown(argument)
        elif name not in SETTINGS:
            near = difflib.get_close_matches(name.upper(), SETTINGS, 3)
            faults[argument] = '--%s: no such setting%s' % (sources.shown(name), '; near it: ' + ', '.join(near) if near else '')
        else:
            overrides[name] = _parsed(text, SETTINGS[name].kind)
    return overrides, faults


def _parsed(text, kind):
    """The value of a command line's text, or the text itself if it is not of that kind. Never evaluated as code."""
    if kind is tuple:
        parts = [part.strip() for part in text.strip('()[] ').split(',') if part.strip()]
        return tuple(_parsed(part, int) for part in parts)
    if kind is bool:
        return {'True': True, 'False': False}.get(text, text)
    if kind is str:
        return text
    try:
        return kind(text)
    except ValueError:
        return text


def _legal(rule, value):
    if rule.kind is float and type(value) is int:
        return bool(rule.holds(value))
    return type(value) is rule.kind and bool(rule.holds(value))


def increment_sizes(s, num_classes):
    """New classes of each increment, list of int. They add up to num_classes unless `increment_faults` says otherwise."""
    first, later = s.FIRST_INCREMENT_CLASSES, s.CLASSES_PER_INCREMENT
    if len(later) > 1:
        return [first, *later] if first else list(later)
    first = first or later[0] or num_classes
    size = later[0] or max(1, num_classes - first)
    return [first] + [size] * ((num_classes - first) // size)


def increment_faults(s, num_classes):
    """Why the increments do not add up to num_classes, or need more memory; dict like the faults of `read`."""
    sizes = increment_sizes(s, num_classes)
    if sum(sizes) != num_classes:
        size = s.CLASSES_PER_INCREMENT[0]
        advice = ('; FIRST_INCREMENT_CLASSES=%d would do' % (num_classes % size or size)
                  if len(s.CLASSES_PER_INCREMENT) == 1 and 0 < size < num_classes else '')
        given = s.FIRST_INCREMENT_CLASSES, shown(s.CLASSES_PER_INCREMENT), sum(sizes), num_classes, advice
        return {'CLASSES_PER_INCREMENT': 'FIRST_INCREMENT_CLASSES=%d, CLASSES_PER_INCREMENT=%s: %d classes in these increments, '
                                         'and the dataset has %d%s' % given}
    return memory_faults(s, sizes)


def memory_faults(s, sizes):
    """Why the memory is too small for increments of these sizes; dict like the faults of `read`."""
    olds = list(itertools.accumulate(sizes[:-1]))
    if all(exemplar.quota(s.MEMORY_SIZE, num_old, s.VAL_FRACTION)[0] >= 1 for num_old in olds):
        return {}
    share = max(2, math.ceil(1 / (1 - exemplar.exact(s.VAL_FRACTION))))
    return {'MEMORY_SIZE': 'MEMORY_SIZE=%d, VAL_FRACTION=%s: too small for one exemplar and one validation image of each of '
                           '%d old classes; MEMORY_SIZE=%d would do'
                           % (s.MEMORY_SIZE, s.VAL_FRACTION, olds[-1], olds[-1] * share)}


def num_steps(s, now):
    """Number of training steps of an increment. Batches run across epochs; the last one may be smaller."""
    return -(-s.EPOCHS * now.train // s.BATCH_SIZE)


def lr_drops(s, num_images):
    """The steps after which the learning rate drops, list of int: int(N / batch * epoch) for each of LR_DROP_EPOCHS [C]."""
    return [int(num_images / s.BATCH_SIZE * epoch) for epoch in s.LR_DROP_EPOCHS]


def learning_rate(s, num_images, step):
    """The learning rate at 0-based `step`: divided by ten for every step of `lr_drops` before it [C]."""
    return s.LEARNING_RATE * 0.1 ** sum(step > boundary for boundary in lr_drops(s, num_images))


def fixed(s):
    """The settings that affect results, dict, with lists in place of tuples, as in JSON."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in vars(s).items() if name not in FREE}


def illegal(stored):
    """Why no run can have these stored settings, str, or None. stored: dict, from `fixed`."""
    for name, rule in SETTINGS.items():
        if name in FREE:
            continue
        if name not in stored:
            return '%s is missing: another version of this program wrote it' % name
        value = tuple(stored[name]) if isinstance(stored[name], list) else stored[name]
        if not _legal(rule, value):
            return '%s=%s must be %s' % (name, shown(value), rule.words)
    return None


def changes(s, stored, where, but=(), remedy='another MODEL_DIR begins a new run'):
    """Settings that affect results and differ from those of a checkpoint; dict like the faults of `read`.

    Args: stored: dict, the checkpoint's settings. where: str, its folder. but: effects, of RESULTS and LATER, whose settings
        may differ. remedy: str, the advice in the message.
    """
    return {name: '%s=%s: %s has %s; %s' % (name, shown(value), where, shown(stored.get(name)), remedy)
            for name, value in fixed(s).items() if SETTINGS[name].affects not in but and value != stored.get(name)}


def help_text(path, s):
    """All settings with values and meanings, str. path: the program with the constants; its comments are the meanings."""
    meanings, name = {}, None
    with open(path, encoding='utf-8') as file:
        for line in file:
            code, _, comment = line.partition('#')
            found = re.match(r'\s*([A-Z][A-Z0-9_]*)\s?=', code)
            if found or code.strip() or not line.startswith(' '):
                name = found.group(1) if found else None
            if name in SETTINGS and comment.strip():
                meanings.setdefault(name, []).append(comment.strip())
    usage = 'usage: python %s [--NAME=value ...]; [P] is the paper, [C] the authors\' code' % os.path.basename(path)
    return '\n'.join([usage] + ['--%s=%s\n    %s' % (name, shown(getattr(s, name)), '\n    '.join(meanings.get(name, [])))
                                for name in SETTINGS])


def shown(value):
    """A setting's value as the command line and the [config] lines write it."""
    return ','.join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
