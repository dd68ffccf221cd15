"""Settings: reads constants, recipe and command line, checks them, and computes the schedule.

A setting is a constant at the top of imagenet_main.py or a key of its recipes. Its kind is that of
the value there; RULES adds the limits that matter. Needs no TensorFlow.
"""
import difflib
import itertools
import math
import os
import re
import types
import typing

import exemplar
from data import rules, shown


class Method(typing.NamedTuple):
    """What a method does. Its correction, stage 2, is chosen in imagenet_main.py.

    Attributes:
        distils: bool, whether the loss has L_d, the distilling term of equation 1.
        trains_on_all: bool, whether stage 1 trains on all images of old classes, not on their
            exemplars alone.
        needs_all: bool, whether all images of old classes must still be there, for any stage.
        teaches_corrected: bool, whether the next increment's old network ends in the layer of
            stage 2, not in the layer as trained.
    """
    distils: bool = True
    trains_on_all: bool = False
    needs_all: bool = False
    teaches_corrected: bool = True


METHODS = {
    'finetune': Method(distils=False),
    'distill': Method(),
    'bic': Method(),
    'joint': Method(distils=False, trains_on_all=True, needs_all=True),
    # Stage 1 is that of distill. Then the last layer is trained again on all images, to measure.
    'joint_last': Method(needs_all=True, teaches_corrected=False),
}

# Settings that do not affect results. They may change when a run is resumed.
FREE = (
    'MODEL_DIR', 'LOG_DIR', 'LOG_STEPS', 'CHECKPOINT_EPOCHS', 'CHECKPOINT_MINUTES',
    'FIRST_INCREMENT_FROM', 'PLAN_ONLY', 'PREDICT', 'REPLICAS', 'WORKER_MINUTES', 'DATA_DIR',
    'NUM_CLASSES', 'HEADLINE')
# Settings that do not affect the first increment's network. Runs that differ in them can share it.
LATER = ('METHOD', 'EXEMPLAR_SELECTION', 'TEMPERATURE', 'BETA_MIN', 'BETA_MAX', 'GAMMA_PENALTY')

_LEAST_BATCH = 4  # images of an increment's last batch, see `num_steps`

# In these, '~' at the beginning is the home folder.
_PATHS = ('MODEL_DIR', 'LOG_DIR', 'DATA_DIR', 'PREDICT', 'FIRST_INCREMENT_FROM', 'CLASS_ORDER')
# One value for all runs: DETERMINISTIC cannot be switched off within a process.
_ONE_VALUE = ('DATASET', 'DETERMINISTIC')

# A wrong value of these does silent harm, costs hours, or ends in an error that does not name it.
# data/dataset.py checks RESNET_DEPTH further: there the network is known.
RULES = {
    'SEED': rules.whole(0, 2 ** 32 - 1),
    'MODEL_DIR': rules.NOT_EMPTY,
    'LOG_DIR': rules.NOT_EMPTY,
    'LOG_STEPS': rules.whole(1, 10 ** 9),
    'CHECKPOINT_EPOCHS': rules.whole(0),
    'CHECKPOINT_MINUTES': rules.number(1e-9, 1e6),
    'REPLICAS': rules.whole(0, 1024),
    'WORKER_MINUTES': rules.number(0.01, 1e4),
    'METHOD': rules.one_of(METHODS),
    'EXEMPLAR_SELECTION': rules.one_of(tuple(exemplar.SELECTIONS)),
    'CLASS_ORDER_SEED': rules.whole(0, 2 ** 32 - 1),
    'TEMPERATURE': rules.number(1e-3, 1e3),
    'MOMENTUM': rules.half_open(0, 1),
    'BETA_MIN': rules.number(0, 1),
    'BETA_MAX': rules.number(1, 1e6),
    'GAMMA_PENALTY': rules.number(0, 1e6),
    'DATA_DIR': rules.NOT_EMPTY,
    'NUM_CLASSES': rules.whole(0),
    'TEST_FRACTION': rules.between(0, 1),
    'CLASS_ORDER': rules.NOT_EMPTY,
    'FIRST_INCREMENT_CLASSES': rules.whole(0),
    'CLASSES_PER_INCREMENT': rules.CLASS_COUNTS,
    'MEMORY_SIZE': rules.whole(1, 10 ** 9),
    'VAL_FRACTION': rules.between(0, 1),
    'RESNET_DEPTH': rules.whole(1),
    'IMAGE_SIZE': rules.whole(1, 10 ** 4),
    'RESIZE_SIDE_MIN': rules.SIDE,
    'RESIZE_SIDE_MAX': rules.SIDE,
    'PADDING': rules.whole(0, 10 ** 4),
    'EPOCHS': rules.whole(1),
    'LR_DROP_EPOCHS': rules.DROPS,
    'BATCH_SIZE': rules.whole(1),
    'LEARNING_RATE': rules.number(1e-12, 1e38),
    'WEIGHT_DECAY': rules.number(0, 1e6),
    'BATCH_NORM_DECAY': rules.between(0, 1),
    'HEADLINE': rules.one_of(('top1', 'top5')),
}


# ---- Reading ------------------------------------------------------------------------------------
def read(constants, recipes, arguments, faults):
    """Reads the settings of every run that the command line asks for.

    Several values of a setting, separated by commas, give several runs, each with folders of its
    own in MODEL_DIR and LOG_DIR. Runs that share all settings of the first increment train it once.

    Args:
        constants: dict, the globals of imagenet_main.py. UPPER_CASE names with plain values are
            settings.
        recipes: dict from dataset to its dict of settings.
        arguments: list of '--NAME=value' or '--NAME=value,value'. Several values are for settings
            that affect results and are not lists themselves, except DATASET and DETERMINISTIC.
        faults: data.Faults, to which faults are added.

    Returns:
        list of types.SimpleNamespace, one per run. The last list of values changes fastest.

    Raises:
        Fault: there is no recipe, or settings are missing from it: nothing can be read.
    """
    texts = _overrides(arguments, faults)
    defaults = _defaults(constants, recipes, texts, faults)
    for name in [name for name in texts if name not in defaults]:
        near = difflib.get_close_matches(name.upper(), defaults, 3)
        advice = '; near it: ' + ', '.join(near) if near else ''
        faults.add('--%s: no such setting%s' % (shown(name), advice))
        del texts[name]
    lists = _lists_of_values(texts, defaults, faults)
    runs = []
    for values in itertools.product(*lists.values()):
        own = dict(zip(lists, values))
        s = _read_run(defaults, dict(texts, **own), faults)
        if own:
            folder = ','.join('%s=%s' % pair for pair in sorted(own.items())).replace('/', '-')
            s.MODEL_DIR = '%s/%s' % (s.MODEL_DIR, folder)
            s.LOG_DIR = '%s/%s' % (s.LOG_DIR, folder)
        runs.append(s)
    if 'FIRST_INCREMENT_FROM' not in texts:
        _share_first_increment(runs)
    return runs


def _overrides(arguments, faults):
    """The texts of '--NAME=text', dict by name."""
    texts = {}
    for argument in arguments:
        option, equals, text = argument.partition('=')
        name = option[2:]
        if not option.startswith('--') or not name or not equals:
            faults.add('%s: an override is written --NAME=value; --help lists the names'
                       % shown(argument))
        elif name in texts:
            faults.add('--%s: is given more than once' % shown(name))
        else:
            texts[name] = text
    return texts


def _defaults(constants, recipes, texts, faults):
    """The values in imagenet_main.py for the dataset that is asked for, dict by name."""
    dataset = texts.get('DATASET', constants.get('DATASET'))
    if dataset not in list(recipes):
        faults.add('DATASET=%s: no such dataset; there is a recipe for %s'
                   % (shown(str(dataset)), ', '.join(sorted(recipes))), 'DATASET')
        faults.raise_any()
    plain = (bool, int, float, str, tuple, list, type(None))
    defaults = {name: value for name, value in constants.items()
                if name in RULES or name.isupper() and isinstance(value, plain)}
    incomplete = _recipe_faults(defaults, recipes)
    if incomplete:
        faults.add_all(incomplete)
        faults.raise_any()
    defaults.update(recipes[dataset])
    return defaults


def _recipe_faults(constants, recipes):
    """Settings that do not have exactly one place, list of str."""
    first = next(iter(recipes))
    lines = []
    for dataset in recipes:
        for having, lacking in ((dataset, first), (first, dataset)):
            for name in sorted(set(recipes[having]) - set(recipes[lacking])):
                lines.append('%s is in RECIPES[%r] and not in RECIPES[%r]; all recipes have the '
                             'same settings' % (name, having, lacking))
    for name in sorted(set(constants) & set(recipes[first])):
        lines.append('%s stands at the top of imagenet_main.py and in RECIPES[%r]; it must have '
                     'one place' % (name, first))
    for name in sorted(set(RULES) - set(constants) - set(recipes[first])):
        lines.append('%s is missing, from the top of imagenet_main.py or from RECIPES[%r]'
                     % (name, first))
    return lines


def _lists_of_values(texts, defaults, faults):
    """Overrides that give several values: dict from name to list of str, each different."""
    lists = {}
    for name, text in texts.items():
        rule = _rule(name, defaults[name])
        if ',' not in text or name in FREE or name in _ONE_VALUE or rule.kind is tuple:
            continue
        if name == 'CLASS_ORDER' and os.path.exists(os.path.expanduser(text)):
            continue  # a file with a comma in its name
        if rule.kind is float and not re.search('[.eE]', text):
            faults.add('%s=%s: a fraction is written with a point; several values are written '
                       'like 1.0,2.0' % (name, shown(text)), name)
        values = [as_text(rule.parsed(value)) for value in text.split(',')]
        lists[name] = list(dict.fromkeys(values))
    return lists


def _read_run(defaults, texts, faults):
    """The settings of one run: defaults and overrides together, each checked."""
    s = types.SimpleNamespace()
    for name, default in defaults.items():
        rule = _rule(name, default)
        value = rule.parsed(texts[name]) if name in texts else default
        if rule.kind is tuple:  # people write lists, or one number
            value = (value,) if type(value) in (int, float) else value
            value = tuple(value) if isinstance(value, list) else value
        if not rule.allows(value):
            text = as_text(value) if name in texts else repr(value)
            faults.add('%s=%s: must be %s' % (name, shown(text), rule.words), name)
        elif name in _PATHS:
            value = os.path.expanduser(value)
        setattr(s, name, value)
    _resolve_drops(s, faults)
    _resolve_sides(s, faults)
    if not faults.concern('NUM_CLASSES') and s.NUM_CLASSES:
        check_increments(s, s.NUM_CLASSES, faults)
    return s


def _rule(name, default):
    """The Rule of a setting. default: its value in imagenet_main.py."""
    return RULES.get(name) or rules.of_kind(default)


def _resolve_drops(s, faults):
    """Turns shares in LR_DROP_EPOCHS into epochs. One that is rounded to 0 or EPOCHS is no drop."""
    if faults.concern('EPOCHS', 'LR_DROP_EPOCHS'):
        return
    late = [drop for drop in s.LR_DROP_EPOCHS if type(drop) is int and drop >= s.EPOCHS]
    if late:
        faults.add('LR_DROP_EPOCHS=%s: must be below EPOCHS=%d, or the rate does not drop; shares '
                   'such as 0.5,0.75 follow EPOCHS, and --LR_DROP_EPOCHS= means no drop'
                   % (as_text(s.LR_DROP_EPOCHS), s.EPOCHS), 'LR_DROP_EPOCHS')
        return
    epochs = {round(drop * s.EPOCHS) if type(drop) is float else drop for drop in s.LR_DROP_EPOCHS}
    s.LR_DROP_EPOCHS = tuple(sorted(epoch for epoch in epochs if 0 < epoch < s.EPOCHS))


def _resolve_sides(s, faults):
    """Turns multiples of IMAGE_SIZE into pixels, and checks that the sides rise."""
    if faults.concern('IMAGE_SIZE', 'RESIZE_SIDE_MIN', 'RESIZE_SIDE_MAX'):
        return
    for name in ('RESIZE_SIDE_MIN', 'RESIZE_SIDE_MAX'):
        side = getattr(s, name)
        if type(side) is float:
            setattr(s, name, round(side * s.IMAGE_SIZE))
    if not s.IMAGE_SIZE <= s.RESIZE_SIDE_MIN <= s.RESIZE_SIDE_MAX:
        faults.add('IMAGE_SIZE=%d, RESIZE_SIDE_MIN=%d, RESIZE_SIDE_MAX=%d: each must be at least '
                   'the one before it' % (s.IMAGE_SIZE, s.RESIZE_SIDE_MIN, s.RESIZE_SIDE_MAX),
                   'RESIZE_SIDE_MIN')


def _share_first_increment(runs):
    """Sets FIRST_INCREMENT_FROM of runs whose first increment an earlier one of them trains."""
    trained_in = {}
    for s in runs:
        same = [(name, value) for name, value in fixed(s).items() if name not in LATER]
        folder = trained_in.setdefault(repr(same), s.MODEL_DIR)
        if folder != s.MODEL_DIR and not s.FIRST_INCREMENT_FROM and not s.PLAN_ONLY:
            s.FIRST_INCREMENT_FROM = folder


# ---- Increments and schedule --------------------------------------------------------------------
def increment_sizes(s, num_classes):
    """New classes of each increment, list of int. `check_increments` checks their sum."""
    first, later = s.FIRST_INCREMENT_CLASSES, s.CLASSES_PER_INCREMENT
    if len(later) > 1:
        return [first, *later] if first else list(later)
    first = first or later[0] or num_classes
    size = later[0] or max(1, num_classes - first)
    return [first] + [size] * ((num_classes - first) // size)


def check_increments(s, num_classes, faults):
    """Adds a fault if the increments do not add up to num_classes, or need more memory."""
    if faults.concern('FIRST_INCREMENT_CLASSES', 'CLASSES_PER_INCREMENT'):
        return
    sizes = increment_sizes(s, num_classes)
    if sum(sizes) == num_classes:
        check_memory(s, sizes, faults)
        return
    size = s.CLASSES_PER_INCREMENT[0]
    advice = ''
    if len(s.CLASSES_PER_INCREMENT) == 1 and 0 < size < num_classes:
        advice = '; FIRST_INCREMENT_CLASSES=%d would do' % (num_classes % size or size)
    faults.add('FIRST_INCREMENT_CLASSES=%d, CLASSES_PER_INCREMENT=%s: %d classes in these '
               'increments, and the dataset has %d%s'
               % (s.FIRST_INCREMENT_CLASSES, as_text(s.CLASSES_PER_INCREMENT), sum(sizes),
                  num_classes, advice), 'CLASSES_PER_INCREMENT')


def check_memory(s, sizes, faults, remedy=''):
    """Adds a fault if the memory is too small for increments of these sizes.

    remedy: str, ends the message.
    """
    if faults.concern('MEMORY_SIZE', 'VAL_FRACTION'):
        return
    nums_old = list(itertools.accumulate(sizes[:-1]))
    quotas = [exemplar.quota(s.MEMORY_SIZE, num_old, s.VAL_FRACTION) for num_old in nums_old]
    if all(exemplars >= 1 for exemplars, _ in quotas):
        return
    images_per_class = max(2, math.ceil(1 / (1 - exemplar.exact(s.VAL_FRACTION))))
    faults.add('MEMORY_SIZE=%d, VAL_FRACTION=%s: too small for one exemplar and one validation '
               'image of each of %d old classes; MEMORY_SIZE=%d would do%s'
               % (s.MEMORY_SIZE, s.VAL_FRACTION, nums_old[-1], nums_old[-1] * images_per_class,
                  remedy), 'MEMORY_SIZE')


def num_steps(s, num_train):
    """Number of training steps of an increment, int.

    Batches run across epochs. A last batch of one to three images is left out: it may be too small
    for batch normalisation. No published number of steps has one.
    """
    full, last = divmod(s.EPOCHS * num_train, s.BATCH_SIZE)
    return full + 1 if last >= _LEAST_BATCH else full


def batch_size(s, num_train, step):
    """Images in the batch of a 0-based step, int. The last batch of an increment may be smaller."""
    return min(s.BATCH_SIZE, s.EPOCHS * num_train - step * s.BATCH_SIZE)


def lr_drops(s, num_train):
    """The steps after which the rate drops, list of int: N / batch * epoch, floored [C]."""
    return [int(num_train / s.BATCH_SIZE * epoch) for epoch in s.LR_DROP_EPOCHS]


def learning_rate(s, num_train, step):
    """The learning rate at a 0-based step, float: a tenth after each of `lr_drops` [C]."""
    drops = sum(step > drop for drop in lr_drops(s, num_train))
    return s.LEARNING_RATE * 0.1 ** drops


def weight_decay(s, index, num_increments):
    """The factor of weight decay in an increment, float.

    Args:
        s: settings.
        index: int, the increment.
        num_increments: int, of the whole plan.
    """
    if not s.SCALE_WEIGHT_DECAY:  # [P]
        return s.WEIGHT_DECAY
    return s.WEIGHT_DECAY * (num_increments / (index + 1))  # [C]


# ---- Comparing and showing ----------------------------------------------------------------------
def fixed(s):
    """The settings that affect results, dict. Tuples are lists, as in JSON."""
    return {name: list(value) if isinstance(value, tuple) else value
            for name, value in vars(s).items() if name not in FREE}


def changes(s, stored, where, faults, ignored=(), remedy='another MODEL_DIR begins a new run'):
    """Adds a fault for each setting that affects results and is not as in a checkpoint.

    Args:
        s: settings.
        stored: dict, the settings of the checkpoint, from `fixed`.
        where: str, the checkpoint's folder.
        faults: data.Faults.
        ignored: tuple of str, settings that may differ, such as LATER.
        remedy: str, ends the message.
    """
    now = fixed(s)
    for name in sorted(set(now).union(stored).difference(ignored, FREE)):
        ours, theirs = [shown(as_text(values.get(name, 'no such setting')))
                        for values in (now, stored)]
        if name not in now or name not in stored or now[name] != stored[name]:
            faults.add('%s=%s: %s has %s; %s' % (shown(name), ours, where, theirs, remedy), name)


def as_text(value):
    """A setting's value as the command line and the [config] lines write it, str."""
    return ','.join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
