"""Overrides are data, editing does the same, and all wrong settings are reported together."""
import json
import os
import re
import subprocess
import sys
import types

import common
import numpy as np
import published
import pytest

import imagenet_main
from data import Fault, Faults, settings, usage

RECIPES = imagenet_main.RECIPES


def read(*arguments, recipes=RECIPES, **constants):
    """Returns the settings of each run, or raises the Fault that the driver would raise."""
    faults = Faults()
    edited = dict(vars(imagenet_main), **constants)
    runs = settings.read(edited, recipes, list(arguments), faults)
    faults.raise_any()
    return runs


def edited(dataset, **values):
    """The recipes after somebody has edited one of them."""
    return dict(RECIPES, **{dataset: dict(RECIPES[dataset], **values)})


def test_overrides():
    s, = read('--DATASET=imagenet1000', '--EPOCHS=7', '--LEARNING_RATE=1', '--LR_DROP_EPOCHS=2,5',
              '--RANDOM_FLIP=False', '--DATA_DIR=/some/where = else, too')
    assert (s.EPOCHS, s.LEARNING_RATE, s.LR_DROP_EPOCHS, s.RANDOM_FLIP) == (7, 1.0, (2, 5), False)
    assert s.DATA_DIR == '/some/where = else, too'
    # Recipe and constants as they stand.
    assert (s.NUM_CLASSES, s.MEMORY_SIZE, s.TEMPERATURE) == (1000, 20000, 2.0)
    drops = [read('--LR_DROP_EPOCHS=' + text)[0].LR_DROP_EPOCHS for text in ('', '4', '(4, 6)')]
    assert drops == [(), (4,), (4, 6)]


@pytest.mark.parametrize('dataset', sorted(RECIPES))
def test_recipes_are_complete_legal_and_explained(dataset):
    """A name is either a constant or a recipe's key. --help shows value and meaning of each."""
    s, = read('--DATASET=' + dataset)
    assert not set(RECIPES[dataset]) & set(vars(imagenet_main))
    assert set(settings.RULES) | set(settings.FREE) | set(settings.LATER) <= set(vars(s))
    assert not set(settings.FREE) & set(settings.LATER)
    text = usage.text(imagenet_main.__file__, s)
    paragraphs = re.findall(r'^--([A-Z_]+)=(.*)\n((?: {4}\S.*\n?)+)', text, re.MULTILINE)
    assert [name for name, _, _ in paragraphs] == list(vars(s))
    assert text.count('\n--') == len(paragraphs)
    for name, value, _ in paragraphs:  # given as shown, nothing changes
        arguments = {'DATASET': dataset, name: value}
        assert read(*['--%s=%s' % item for item in arguments.items()]) == [s]
    assert '--EPOCHS=%d\n    passes over an increment\'s training set\n--' % s.EPOCHS in text
    assert '--SEED=1\n    decides weights, shuffling, augmentation; 0 .. 2**32 - 1\n--' in text


def test_a_new_constant_is_a_setting_of_its_kind():
    """It affects results, and needs no other line. Of other names in the file nothing is read."""
    s, = read('--SMOOTHING=0.2', '--DEPTHS=3,4', SMOOTHING=0.1, NAME='x', DEPTHS=(1, 2), lower=1,
              TABLE={})
    assert (s.SMOOTHING, s.NAME, s.DEPTHS) == (0.2, 'x', (3, 4))
    assert not {'lower', 'TABLE'} & set(vars(s))
    assert {'SMOOTHING', 'NAME', 'DEPTHS'} < set(settings.fixed(s))
    for argument, words in [('SMOOTHING=inf', 'a number'), ('NAME=a\n', 'a text'),
                            ('DEPTHS=1,x', 'whole numbers')]:
        with pytest.raises(Fault, match='^%s.*: must be %s' % (argument.strip(), words)):
            read('--' + argument, SMOOTHING=0.1, NAME='x', DEPTHS=(1, 2))


@pytest.mark.parametrize('argument, message', [
    ('--SEED', '--SEED: an override is written --NAME=value'),
    # Dashes that word processors make.
    ('\u2013\u2013SEED=1,2', '\u2013\u2013SEED=1,2: an override is written --NAME=value'),
    ('--IMAGE_SIZE=10001', 'IMAGE_SIZE=10001: must be a whole number from 1 to 10000'),
    ('--RESIZE_SIDE_MAX=101.0', 'RESIZE_SIDE_MAX=101.0: must be a whole number of pixels from 1 to '
                                '10000, or a multiple of IMAGE_SIZE from 1.0 to 100.0'),
    ('--RESIZE_SIDE_MIN=0.9', 'RESIZE_SIDE_MIN=0.9: must be a whole number of pixels'),
    ('--DATASET=digit', 'DATASET=digit: no such dataset; there is a recipe for celeb10000, '
                        'cifar100, digits, folder'),
    ('--EPOCH=3', '--EPOCH: no such setting; near it: EPOCHS'),
    ('--memory_size=3', '--memory_size: no such setting; near it: MEMORY_SIZE'),
    ('EPOCHS=3', 'EPOCHS=3: an override is written --NAME=value'),
    ('--EPOCHS=3.5', 'EPOCHS=3.5: must be a whole number from 1 to 1000000'),
    ('--SEED=4294967296', 'SEED=4294967296: must be a whole number from 0 to 4294967295'),
    ('--LEARNING_RATE=fast', 'LEARNING_RATE=fast: must be a number from 1e-12 to 1e+38'),
    ('--RANDOM_FLIP=yes', 'RANDOM_FLIP=yes: must be True or False'),
    ('--METHOD=BIC', 'METHOD=BIC: must be one of finetune distill bic joint joint_last'),
    ('--MOMENTUM=1', 'MOMENTUM=1.0: must be a number from 0 to below 1'),
    ('--BETA_MIN=1.1', 'BETA_MIN=1.1: must be a number from 0 to 1'),
    ('--BETA_MAX=0.9', 'BETA_MAX=0.9: must be a number from 1 to 1e+06'),
    ('--LR_DROP_EPOCHS=5,3', 'LR_DROP_EPOCHS=5,3: must be epochs, whole numbers above 0, or shares '
                             'of EPOCHS, between 0 and 1, rising: on the command line 4,6 or'),
    ('--LR_DROP_EPOCHS=0,3', 'LR_DROP_EPOCHS=0,3: must be epochs'),
    ('--LR_DROP_EPOCHS=0.5,1.0', 'LR_DROP_EPOCHS=0.5,1.0: must be epochs'),
    ('--LR_DROP_EPOCHS=0.5,nan', 'LR_DROP_EPOCHS=0.5,nan: must be epochs'),
    ('--LR_DROP_EPOCHS=6,8', 'LR_DROP_EPOCHS=6,8: must be below EPOCHS=8, or the rate does not '
                             'drop; shares such as 0.5,0.75 follow EPOCHS, and --LR_DROP_EPOCHS= '),
    ('--LR_DROP_EPOCHS=__import__("os").x', 'LR_DROP_EPOCHS=__import__("os").x: must be epochs'),
    ('--VAL_FRACTION=1', 'VAL_FRACTION=1.0: must be a number between 0 and 1'),
    ('--RESNET_DEPTH=18.0', 'RESNET_DEPTH=18.0: must be a whole number'),
    ('--MODEL_DIR=', 'MODEL_DIR=: must be a text in UTF-8 without control characters, and not '
                     'empty'),
    ('--REPLICAS=1,2', 'REPLICAS=1,2: must be a whole number'),  # it does not affect results
    ('--CLASSES_PER_INCREMENT=3', '8 classes in these increments, and the dataset has 10; '
                                  'FIRST_INCREMENT_CLASSES=1 would do'),
    ('--CLASSES_PER_INCREMENT=3,4', 'CLASSES_PER_INCREMENT=3,4: 9 classes in these increments, and '
                                    'the dataset has 10'),
    ('--CLASSES_PER_INCREMENT=', 'CLASSES_PER_INCREMENT=: must be a whole number, several '
                                 'separated by commas, or 0'),
    ('--CLASSES_PER_INCREMENT=0,4', 'CLASSES_PER_INCREMENT=0,4: must be a whole number'),
    ('--MODEL_DIR=a\nb', 'MODEL_DIR=a\\nb: must be a text in UTF-8 without control characters'),
    ('--LOG_DIR=\udcff', 'LOG_DIR=\\udcff: must be a text in UTF-8 without control characters'),
    # 4 classes are too many already; the advice is for the last increment.
    ('--MEMORY_SIZE=5', 'of each of 8 old classes; MEMORY_SIZE=16 would do'),
    ('--VAL_FRACTION=0.98', 'MEMORY_SIZE=100, VAL_FRACTION=0.98: too small for one'),
    ('--WEIGHT_DECAY=0,0001', 'WEIGHT_DECAY=0,0001: a fraction is written with a point; several '
                              'values are written like 1.0,2.0'),
    ('--RESIZE_SIDE_MIN=31', 'IMAGE_SIZE=32, RESIZE_SIDE_MIN=31, RESIZE_SIDE_MAX=38: each must be '
                             'at least the one before it')])
def test_faults(argument, message):
    with pytest.raises(Fault) as fault:
        read(argument)
    assert message in str(fault.value) and '\n' not in str(fault.value)


@pytest.mark.parametrize('name', [
    name for name, value in vars(read()[0]).items() if isinstance(value, (bool, int, float))])
def test_what_no_number_and_no_switch_may_be(name):
    for text in ('-1', 'nan', 'inf', '1' + 39 * '0', '', '1e39', 'true', '[1]'):
        with pytest.raises(Fault, match='^%s=.*: must be ' % name):
            read('--%s=%s' % (name, text))


def test_faults_are_reported_together():
    with pytest.raises(Fault) as fault:
        read('--EPOCHS=0', '--NO_SUCH=1', '--BATCH_SIZE=x', 'stray', '--RESIZE_SIDE_MIN=1',
             '--CLASSES_PER_INCREMENT=3', '--TEMPERATURE=0')
    assert len(str(fault.value).split('\n')) == 7
    lines = ['--SEED: an override .*', '1: an override .*', '--EPOCHS: an override .*',
             '2: an override ']
    with pytest.raises(Fault, match='^' + '\n'.join(lines)):
        read('--SEED', '1', '--EPOCHS', '2')
    with pytest.raises(Fault, match='^--SEED: is given more than once$'):
        read('--SEED=1', '--SEED=1,2')
    with pytest.raises(Fault, match='^--SEED: an override .*\nDATASET=x: no such dataset'):
        read('--SEED', '--DATASET=x')


def test_faults_of_edited_constants_and_recipes():
    message = "SEED='1': must be a whole number .*\nLOG_STEPS='often': must be a whole number"
    with pytest.raises(Fault, match=message):
        read(LOG_STEPS='often', SEED='1')
    with pytest.raises(Fault, match="^RANDOM_FLIP=None: must be True or False, a number, a text"):
        read(recipes=edited('digits', RANDOM_FLIP=None))
    with pytest.raises(Fault, match="^PREDICT=None: must be "):
        read(PREDICT=None)
    message = "^EPOCHS stands at the top of imagenet_main.py and in RECIPES\\['digits'\\]"
    with pytest.raises(Fault, match=message):
        read(EPOCHS=3)
    with pytest.raises(Fault, match='no such dataset'):
        read(DATASET=['digits'])
    with pytest.raises(Fault) as fault:
        read('--DATASET=folder', recipes=edited('folder', EPOCHES=3))
    assert str(fault.value) == ("EPOCHES is in RECIPES['folder'] and not in RECIPES['digits']; all "
                                "recipes have the same settings")
    with pytest.raises(Fault) as fault:
        read(recipes=dict(RECIPES, mine=dict(EPOCHS=3, EPOCHES=3)))
    assert "EPOCHES is in RECIPES['mine'] and not in RECIPES['digits']" in str(fault.value)
    assert "BATCH_SIZE is in RECIPES['digits'] and not in RECIPES['mine']" in str(fault.value)
    without = {dataset: {name: value for name, value in recipe.items() if name != 'MEMORY_SIZE'}
               for dataset, recipe in RECIPES.items()}
    message = "^MEMORY_SIZE is missing, from the top of imagenet_main.py or from RECIPES"
    with pytest.raises(Fault, match=message):
        read(recipes=without)


def test_lists_of_values_are_several_runs(tmp_path, monkeypatch):
    """The last list changes fastest. Runs that differ in METHOD alone share the first increment."""
    lists = ['--METHOD=joint,bic,joint', '--SEED=3,1']
    runs = read('--MODEL_DIR=m', *lists)
    folders = ['METHOD=joint,SEED=3', 'METHOD=joint,SEED=1', 'METHOD=bic,SEED=3',
               'METHOD=bic,SEED=1']
    values = [(s.METHOD, s.SEED) for s in runs]
    assert values == [('joint', 3), ('joint', 1), ('bic', 3), ('bic', 1)]
    assert [s.MODEL_DIR for s in runs] == ['m/' + name for name in folders]
    assert [s.LOG_DIR for s in runs] == ['logs/' + name for name in folders]
    first = ['m/' + folders[0], 'm/' + folders[1]]
    assert [s.FIRST_INCREMENT_FROM for s in runs] == ['', '', *first]
    for more, given in (('--FIRST_INCREMENT_FROM=x', 'x'), ('--FIRST_INCREMENT_FROM=', ''),
                        ('--PLAN_ONLY=True', '')):
        assert [s.FIRST_INCREMENT_FROM for s in read(more, *lists)] == [given] * 4
    assert {s.FIRST_INCREMENT_FROM for s in read(*lists, FIRST_INCREMENT_FROM='x')} == {'x'}
    with pytest.raises(Fault) as fault:
        read('--SEED=1,x,2', '--EPOCHS=0')  # a fault of several runs is one line
    lines = str(fault.value).split('\n')
    assert sorted(line.split(':')[0] for line in lines) == ['EPOCHS=0', 'SEED=x']
    with pytest.raises(Fault, match='^MODEL_DIR=: must be .*, and not empty$'):  # not the root
        read('--MODEL_DIR=', '--SEED=1,2')
    rates = read('--LEARNING_RATE=1E-2,1E-3')
    assert [s.LEARNING_RATE for s in rates] == [0.01, 0.001]
    assert [s.MODEL_DIR for s in rates] == ['model/LEARNING_RATE=0.01', 'model/LEARNING_RATE=0.001']
    monkeypatch.chdir(str(tmp_path))
    orders = read('--CLASS_ORDER=sorted,icarl')
    assert [s.CLASS_ORDER for s in orders] == ['sorted', 'icarl']
    (tmp_path / 'sorted,icarl').write_text('')
    assert [s.CLASS_ORDER for s in read('--CLASS_ORDER=sorted,icarl')] == ['sorted,icarl']


def test_the_home_folder(monkeypatch):
    """'~' at the beginning of a path is expanded, in constants, recipes and overrides."""
    monkeypatch.setenv('HOME', '/home/me')
    names = ('MODEL_DIR', 'LOG_DIR', 'DATA_DIR', 'PREDICT', 'FIRST_INCREMENT_FROM', 'CLASS_ORDER')
    s, = read(*['--%s=~/a~b' % name for name in names])
    assert {getattr(s, name) for name in names} == {'/home/me/a~b'}
    assert read('--MODEL_DIR=~')[0].MODEL_DIR == '/home/me'
    assert read('--MODEL_DIR=a/~')[0].MODEL_DIR == 'a/~'
    s, = read(MODEL_DIR='~/m', recipes=edited('digits', DATA_DIR='~/d'))
    assert (s.MODEL_DIR, s.DATA_DIR) == ('/home/me/m', '/home/me/d')
    runs = read('--MODEL_DIR=~/m', '--SEED=1,2')
    assert [s.MODEL_DIR for s in runs] == ['/home/me/m/SEED=1', '/home/me/m/SEED=2']


def test_what_may_change_when_a_run_is_resumed():
    s, = read()
    stored = json.loads(json.dumps(settings.fixed(s)))

    def refused(**values):
        """The lines about settings that are not as stored, by the settings that may differ."""
        lines = []
        for ignored in ((), settings.LATER):
            faults = Faults()
            other = types.SimpleNamespace(**dict(vars(s), **values))
            settings.changes(other, stored, 'state', faults, ignored)
            assert faults.concern(*values) == bool(faults.lines)
            lines.append(faults.lines)
        return lines

    assert refused() == [[], []]
    free, later = set(), set()
    for name in vars(s):
        always, shared = refused(**{name: 'other'})
        was = settings.as_text(stored.get(name))
        line = '%s=other: state has %s; another MODEL_DIR begins a new run' % (name, was)
        assert (always, shared) in (([], []), ([line], []), ([line], [line]))
        if not always:
            free.add(name)
        elif not shared:
            later.add(name)
    assert free == {'MODEL_DIR', 'LOG_DIR', 'LOG_STEPS', 'PLAN_ONLY', 'PREDICT', 'DATA_DIR',
                    'NUM_CLASSES', 'HEADLINE', 'REPLICAS', 'CHECKPOINT_EPOCHS',
                    'CHECKPOINT_MINUTES', 'FIRST_INCREMENT_FROM', 'WORKER_MINUTES'}
    assert later == {'METHOD', 'EXEMPLAR_SELECTION', 'TEMPERATURE', 'BETA_MIN', 'BETA_MAX',
                     'GAMMA_PENALTY'}


def test_a_checkpoint_of_another_version():
    """It may lack a setting, or have one that is not known. Free settings in it do not matter."""
    s, = read()
    stored = dict(settings.fixed(s), OLD='a\nb', LOG_DIR='x')
    del stored['PADDING']
    faults = Faults()
    settings.changes(s, stored, 'state', faults, remedy='do this')
    assert faults.lines == ['OLD=no such setting: state has a\\nb; do this',
                            'PADDING=0: state has no such setting; do this']


def test_increments_and_the_memory_that_would_do():
    for first, later, sizes in [
            ('2', '2', [2, 2, 2, 2, 2]), ('1', '3', [1, 3, 3, 3]), ('5', '5', [5, 5]),
            ('10', '2', [10]), ('0', '2', [2, 2, 2, 2, 2]), ('0', '0', [10]), ('4', '0', [4, 6]),
            ('10', '0', [10]), ('4', '1,3,2', [4, 1, 3, 2]), ('0', '1,3,6', [1, 3, 6]),
            ('10', '45', [10, 45, 45])]:
        dataset = 'imagenet100' if later == '45' else 'digits'
        s, = read('--DATASET=' + dataset, '--FIRST_INCREMENT_CLASSES=' + first,
                  '--CLASSES_PER_INCREMENT=' + later)
        assert settings.increment_sizes(s, s.NUM_CLASSES) == sizes
    s, = read(recipes=edited('digits', CLASSES_PER_INCREMENT=[1, 3, 4]))  # as people edit it
    assert s.CLASSES_PER_INCREMENT == (1, 3, 4)
    for fraction, share in [('0.1', 2), ('0.3', 2), ('0.8', 5), ('0.95', 20)]:
        with pytest.raises(Fault, match='; MEMORY_SIZE=%d would do$' % (8 * share)):
            read('--MEMORY_SIZE=3', '--VAL_FRACTION=' + fraction)
        assert read('--MEMORY_SIZE=%d' % (8 * share), '--VAL_FRACTION=' + fraction)


def test_checks_of_increments_that_the_data_decide():
    """The number of classes may be known later. A fault names the remedy; wrong values wait."""
    s, = read('--DATASET=folder', '--CLASSES_PER_INCREMENT=3', '--MEMORY_SIZE=10')
    for num_classes, remedy, message in [
            (6, '', None),
            (7, '', 'FIRST_INCREMENT_CLASSES=0, CLASSES_PER_INCREMENT=3: 6 classes in these '
                    'increments, and the dataset has 7; FIRST_INCREMENT_CLASSES=1 would do'),
            (9, ', in a new run', 'MEMORY_SIZE=10, VAL_FRACTION=0.1: too small for one exemplar '
                                  'and one validation image of each of 6 old classes; '
                                  'MEMORY_SIZE=12 would do')]:
        faults = Faults()
        settings.check_increments(s, num_classes, faults)
        assert faults.lines == ([message] if message else [])
        assert faults.blocking == bool(message)
        if remedy:
            faults = Faults()
            settings.check_memory(s, [3, 3, 3], faults, remedy)
            assert faults.lines == [message + remedy]
    for name in ('CLASSES_PER_INCREMENT', 'MEMORY_SIZE'):
        faults = Faults()
        faults.add('is wrong', setting=name)
        settings.check_increments(s, 9 if name == 'MEMORY_SIZE' else 7, faults)
        assert faults.lines == ['is wrong']


# ---- What follows another setting ---------------------------------------------------------------
@pytest.mark.parametrize('dataset, epochs, drops, image_size, sides', [
    ('digits', 8, (4, 6), 32, (32, 38)),
    ('imagenet100', 100, (30, 60, 80, 90), 224, (256, 512)),
    ('imagenet1000', 100, (30, 60, 80, 90), 224, (256, 512)),
    ('celeb10000', 100, (30, 60, 80, 90), 224, (256, 512)),
    ('folder', 100, (30, 60, 80, 90), 224, (256, 512)),
    ('cifar100', 250, (100, 150, 200), 32, (32, 32))])
def test_published_schedules_and_sizes(dataset, epochs, drops, image_size, sides):
    """Epochs and pixels are whole numbers, as typed in here: in logs, and in old checkpoints."""
    s, = read('--DATASET=' + dataset)
    schedule = (s.EPOCHS, s.LR_DROP_EPOCHS, s.IMAGE_SIZE, s.RESIZE_SIDE_MIN, s.RESIZE_SIDE_MAX)
    assert schedule == (epochs, drops, image_size, *sides)
    assert {type(number) for number in (*schedule[2:], *s.LR_DROP_EPOCHS)} == {int}


@pytest.mark.parametrize('values, expected', [
    (dict(EPOCHS=50), dict(EPOCHS=50, LR_DROP_EPOCHS=(15, 30, 40, 45))),
    (dict(EPOCHS=10), dict(LR_DROP_EPOCHS=(3, 6, 8, 9))),
    (dict(EPOCHS=2), dict(LR_DROP_EPOCHS=(1,))),  # 0.6, 1.2, 1.6, 1.8: two at 1, two at the end
    (dict(EPOCHS=1), dict(LR_DROP_EPOCHS=())),
    (dict(LR_DROP_EPOCHS=(10, 20)), dict(EPOCHS=100, LR_DROP_EPOCHS=(10, 20))),
    (dict(LR_DROP_EPOCHS=(0.5, 70)), dict(LR_DROP_EPOCHS=(50, 70))),
    (dict(LR_DROP_EPOCHS=7), dict(LR_DROP_EPOCHS=(7,))),
    (dict(LR_DROP_EPOCHS=0.25), dict(LR_DROP_EPOCHS=(25,))),
    (dict(LR_DROP_EPOCHS=()), dict(LR_DROP_EPOCHS=())),
    (dict(EPOCHS=30, LR_DROP_EPOCHS=(10, 20)), dict(LR_DROP_EPOCHS=(10, 20))),
    (dict(EPOCHS=20, LR_DROP_EPOCHS=(10, 20)), 'LR_DROP_EPOCHS=10,20: must be below EPOCHS=20'),
    (dict(IMAGE_SIZE=64), dict(RESIZE_SIDE_MIN=73, RESIZE_SIDE_MAX=146)),
    (dict(IMAGE_SIZE=32), dict(RESIZE_SIDE_MIN=37, RESIZE_SIDE_MAX=73)),
    (dict(IMAGE_SIZE=9000), dict(RESIZE_SIDE_MIN=10286, RESIZE_SIDE_MAX=20571)),
    (dict(IMAGE_SIZE=32, RESIZE_SIDE_MIN=40), dict(RESIZE_SIDE_MIN=40, RESIZE_SIDE_MAX=73)),
    (dict(RESIZE_SIDE_MIN=256, RESIZE_SIDE_MAX=300), dict(RESIZE_SIDE_MIN=256)),
    (dict(IMAGE_SIZE=300, RESIZE_SIDE_MIN=256), 'IMAGE_SIZE=300, RESIZE_SIDE_MIN=256, '),
    (dict(IMAGE_SIZE=10, RESIZE_SIDE_MIN=1.0), dict(RESIZE_SIDE_MIN=10, RESIZE_SIDE_MAX=23))])
def test_editing_a_recipe_and_overriding_it_do_the_same(values, expected):
    given = ['--%s=%s' % (name, settings.as_text(value)) for name, value in values.items()]
    for arguments, recipes in ((given, RECIPES), ([], edited('folder', **values))):
        if isinstance(expected, str):
            with pytest.raises(Fault, match='^' + expected):
                read('--DATASET=folder', *arguments, recipes=recipes)
        else:
            s, = read('--DATASET=folder', *arguments, recipes=recipes)
            assert s == read('--DATASET=folder', *given)[0]
            assert {name: getattr(s, name) for name in expected} == expected


def test_drops_follow_a_list_of_epochs():
    assert [s.LR_DROP_EPOCHS for s in read('--EPOCHS=4,16')] == [(2, 3), (8, 12)]


@pytest.mark.parametrize('dataset, rows', [
    ('imagenet100', published.IMAGENET100), ('imagenet1000', published.IMAGENET1000)])
def test_steps_and_batches_of_the_published_runs(dataset, rows):
    """Batches run across epochs: only the last one is smaller, and no image is left out."""
    s, = read('--DATASET=' + dataset)
    for num_train, steps in zip(rows['train'], rows['steps']):
        assert settings.num_steps(s, num_train) == steps
        sizes = [settings.batch_size(s, num_train, step) for step in range(steps)]
        assert set(sizes[:-1]) == {256} and 0 < sizes[-1] <= 256
        assert sum(sizes) == 100 * num_train


def test_learning_rates_of_a_published_run():
    """They drop where the 0-based step exceeds 1500 3000 4000 4500: epochs of 50 steps."""
    s, = read('--DATASET=imagenet100')
    assert settings.lr_drops(s, 12800) == [1500, 3000, 4000, 4500]
    steps = [0, 1500, 1501, 3000, 3001, 4000, 4001, 4500, 4501, 4999]
    rates = [settings.learning_rate(s, 12800, step) for step in steps]
    assert rates == pytest.approx(np.repeat(0.1 ** np.arange(1, 6), 2))


def test_settings_and_tables_need_neither_tensorflow_nor_matplotlib():
    """Although the report draws with matplotlib."""
    code = ('import sys; from logs import report; '
            'print({"tensorflow", "matplotlib", "data.settings"} & set(sys.modules))')
    loaded = subprocess.check_output([sys.executable, '-c', code],
                                     cwd=os.path.dirname(common.SCRIPT))
    assert loaded == b"{'data.settings'}\n"
