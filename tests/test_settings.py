"""Overrides are data, and every wrong setting is reported, all together."""
import pytest

import imagenet_main
from data import Fault, settings


def read(*arguments, **constants):
    """The settings, or the Fault that the driver would raise."""
    s, faults = settings.read(dict(vars(imagenet_main), **constants), imagenet_main.RECIPES, list(arguments))
    if faults:
        raise Fault('\n'.join(faults.values()))
    return s


def test_overrides():
    s = read('--DATASET=imagenet1000', '--EPOCHS=7', '--LEARNING_RATE=1', '--LR_DROP_EPOCHS=2,5', '--RANDOM_FLIP=False',
             '--DATA_DIR=/some/where = else')
    assert (s.EPOCHS, s.LEARNING_RATE, s.LR_DROP_EPOCHS, s.RANDOM_FLIP) == (7, 1.0, (2, 5), False)
    assert s.DATA_DIR == '/some/where = else'
    assert (s.NUM_CLASSES, s.MEMORY_SIZE, s.TEMPERATURE) == (1000, 20000, 2.0)   # recipe and constants as they stand
    assert read('--LR_DROP_EPOCHS=').LR_DROP_EPOCHS == ()
    assert read('--LR_DROP_EPOCHS=4').LR_DROP_EPOCHS == (4,)


@pytest.mark.parametrize('dataset', sorted(imagenet_main.RECIPES))
def test_recipes_are_complete_and_legal(dataset):
    assert set(vars(read('--DATASET=' + dataset))) == set(settings.RULES)


def test_a_name_is_a_constant_or_a_key_of_recipes():
    for recipe in imagenet_main.RECIPES.values():
        assert not set(recipe) & set(vars(imagenet_main))


@pytest.mark.parametrize('argument, message', [
    ('--DATASET=digit',
     'DATASET=digit: no such dataset; there is a recipe for celeb10000, cifar100, digits, folder, imagenet100, imagenet1000'),
    ('--EPOCH=3', '--EPOCH: no such setting; near it: EPOCHS'),
    ('--memory_size=3', '--memory_size: no such setting; near it: MEMORY_SIZE'),
    ('EPOCHS=3', 'EPOCHS=3: an override is written --NAME=value'),
    ('--EPOCHS', '--EPOCHS: an override is written --NAME=value'),
    ('--EPOCHS=3.5', 'EPOCHS=3.5: must be a whole number, at least 1'),
    ('--EPOCHS=0', 'EPOCHS=0: must be a whole number, at least 1'),
    ('--EPOCHS=True', 'EPOCHS=True: must be a whole number'),
    ('--LEARNING_RATE=fast', 'LEARNING_RATE=fast: must be a number above 0'),
    ('--LEARNING_RATE=nan', 'LEARNING_RATE=nan: must be a number above 0'),
    ('--LEARNING_RATE=inf', 'LEARNING_RATE=inf: must be a number above 0'),
    ('--RANDOM_FLIP=yes', 'RANDOM_FLIP=yes: must be True or False'),
    ('--LR_DROP_EPOCHS=5,3', 'LR_DROP_EPOCHS=(5, 3): must be whole numbers above 0, rising: on the command line 4,6'),
    ('--LR_DROP_EPOCHS=__import__("os")', 'LR_DROP_EPOCHS='),
    ('--VAL_FRACTION=1', 'VAL_FRACTION=1.0: must be a number between 0 and 1'),
    ('--RESNET_DEPTH=19', 'RESNET_DEPTH=19: must be one of 18 34 50 101 152 200 8 20 32 56'),
    ('--SEED=-1', 'SEED=-1: must be a whole number from 0 to 4294967295'),
    ('--MODEL_DIR=', 'MODEL_DIR=: must be a text that is not empty'),
    ('--CLASSES_PER_INCREMENT=3', 'does not divide the 8 classes after the first 2; FIRST_INCREMENT_CLASSES=1 would do'),
    ('--FIRST_INCREMENT_CLASSES=11', 'FIRST_INCREMENT_CLASSES=11: the dataset has 10 classes'),
    ('--CLASSES_PER_INCREMENT=3,4', 'CLASSES_PER_INCREMENT=3,4: these are 7 classes, and after the first 2 there are 8'),
    ('--CLASSES_PER_INCREMENT=', 'CLASSES_PER_INCREMENT=(): must be a whole number, at least 1, or several'),
    ('--MEMORY_SIZE=15', 'MEMORY_SIZE=15, VAL_FRACTION=0.1: too small for one exemplar and one validation image of each of '
                         '8 old classes; MEMORY_SIZE=16 would do'),
    ('--MEMORY_SIZE=5', 'of each of 8 old classes; MEMORY_SIZE=16 would do'),   # though 4 classes are too many already
    ('--VAL_FRACTION=0.98', 'MEMORY_SIZE=100, VAL_FRACTION=0.98: too small for one'),
    ('--IMAGE_SIZE=64', 'IMAGE_SIZE=64, RESIZE_SIDE_MIN=32, RESIZE_SIDE_MAX=38: each must be at least the one before it'),
    ('--DATASET=../x', 'DATASET=../x: no such dataset'),
])
def test_faults(argument, message):
    with pytest.raises(Fault) as fault:
        read(argument)
    assert message in str(fault.value)
    assert '\n' not in str(fault.value)


def test_faults_are_reported_together():
    with pytest.raises(Fault) as fault:
        read('--EPOCHS=0', '--NO_SUCH=1', '--BATCH_SIZE=x', 'stray', '--IMAGE_SIZE=64', '--CLASSES_PER_INCREMENT=3')
    assert len(str(fault.value).split('\n')) == 6


@pytest.mark.parametrize('fraction', [0.1, 0.3, 0.8, 0.95])
def test_the_memory_that_would_do_does(fraction):
    with pytest.raises(Fault) as fault:
        read('--MEMORY_SIZE=3', '--VAL_FRACTION=%s' % fraction)
    would = int(str(fault.value).split('MEMORY_SIZE=')[-1].split()[0])
    assert would == 8 * {0.1: 2, 0.3: 2, 0.8: 5, 0.95: 20}[fraction]
    assert read('--MEMORY_SIZE=%d' % would, '--VAL_FRACTION=%s' % fraction).MEMORY_SIZE == would


def test_edited_constants_are_checked_too():
    with pytest.raises(Fault, match="SEED='1': must be a whole number .*\nLOG_STEPS='often': must be a whole number"):
        read(LOG_STEPS='often', SEED='1')
    with pytest.raises(Fault, match="EPOCHS stands at the top of imagenet_main.py and in RECIPES\\['digits'\\]"):
        read(EPOCHS=3)
    with pytest.raises(Fault, match='no such dataset'):
        read(DATASET=['digits'])


def test_lists_may_be_edited_as_lists():
    recipe = dict(imagenet_main.RECIPES['digits'], LR_DROP_EPOCHS=[3, 5])
    assert settings.read(vars(imagenet_main), {'digits': recipe}, [])[0].LR_DROP_EPOCHS == (3, 5)


def test_incomplete_recipe():
    with pytest.raises(Fault) as fault:
        settings.read(vars(imagenet_main), {'mine': {'EPOCHS': 3, 'EPOCHES': 3}}, ['--DATASET=mine'])
    assert "RECIPES['mine'] has EPOCHES, which is no setting" in str(fault.value)
    assert "MEMORY_SIZE is missing, from the top of imagenet_main.py or from RECIPES['mine']" in str(fault.value)


def test_what_may_change_when_a_run_goes_on():
    s = read()
    stored = settings.fixed(s)
    assert settings.changes(s, stored, 'state') == {}
    for name in settings.RULES:
        changed = type(s)(**dict(vars(s), **{name: 'other'}))
        assert list(settings.changes(changed, stored, 'state')) == ([] if name in settings.FREE else [name])
    assert set(settings.FREE) == {'MODEL_DIR', 'LOG_DIR', 'LOG_STEPS', 'PLAN_ONLY', 'PREDICT', 'KEEP_GB', 'DECODE_ALL',
                                  'LEAVE_OUT_BROKEN', 'DATA_DIR', 'NUM_CLASSES', 'HEADLINE', 'CHECKPOINT_EPOCHS',
                                  'CHECKPOINT_MINUTES', 'FIRST_INCREMENT_FROM', 'REPLICAS', 'SCALE_BATCH',
                                  'WORKER_MINUTES'}


@pytest.mark.parametrize('arguments, sizes', [
    ([], [2, 2, 2, 2, 2]),
    (['--FIRST_INCREMENT_CLASSES=1', '--CLASSES_PER_INCREMENT=3'], [1, 3, 3, 3]),
    (['--FIRST_INCREMENT_CLASSES=5', '--CLASSES_PER_INCREMENT=5'], [5, 5]),
    (['--FIRST_INCREMENT_CLASSES=10'], [10]),
    (['--FIRST_INCREMENT_CLASSES=0'], [10]),
    (['--FIRST_INCREMENT_CLASSES=4', '--CLASSES_PER_INCREMENT=1,3,2'], [4, 1, 3, 2]),
    (['--DATASET=cifar100', '--FIRST_INCREMENT_CLASSES=50', '--CLASSES_PER_INCREMENT=10'], [50, 10, 10, 10, 10, 10])])
def test_increment_sizes(arguments, sizes):
    s = read(*arguments)
    assert settings.increment_sizes(s, s.NUM_CLASSES) == sizes
