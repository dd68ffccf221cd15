"""Overrides are data, and all wrong settings are reported together."""
import json
import os
import re
import subprocess
import sys

import common
import pytest

import imagenet_main
import resnet_model
from data import Fault, settings


def read(*arguments, **constants):
    """Returns the settings of each run, or raises the Fault that the driver would raise."""
    runs = settings.read(dict(vars(imagenet_main), **constants), imagenet_main.RECIPES, list(arguments))
    if runs[0][1]:
        raise Fault('\n'.join(runs[0][1].values()))
    return [s for s, _ in runs]


def test_overrides():
    s, = read('--DATASET=imagenet1000', '--EPOCHS=7', '--LEARNING_RATE=1', '--LR_DROP_EPOCHS=2,5', '--RANDOM_FLIP=False',
              '--DATA_DIR=/some/where = else, too')
    assert (s.EPOCHS, s.LEARNING_RATE, s.LR_DROP_EPOCHS, s.RANDOM_FLIP) == (7, 1.0, (2, 5), False)
    assert s.DATA_DIR == '/some/where = else, too'
    assert (s.NUM_CLASSES, s.MEMORY_SIZE, s.TEMPERATURE) == (1000, 20000, 2.0)  # recipe and constants as they stand
    assert [read('--LR_DROP_EPOCHS=' + text)[0].LR_DROP_EPOCHS for text in ('', '4', '(4, 6)')] == [(), (4,), (4, 6)]
    recipe = dict(imagenet_main.RECIPES['digits'], LR_DROP_EPOCHS=[3, 5], CLASSES_PER_INCREMENT=4)  # as people edit them
    (s, faults), = settings.read(vars(imagenet_main), {'digits': recipe}, [])
    assert (s.LR_DROP_EPOCHS, s.CLASSES_PER_INCREMENT, faults) == ((3, 5), (4,), {})


@pytest.mark.parametrize('dataset', sorted(imagenet_main.RECIPES))
def test_recipes_are_complete_legal_and_explained(dataset):
    """A name is either a constant or a key of the recipes. --help shows the value and the meaning of each."""
    s, = read('--DATASET=' + dataset)
    assert set(vars(s)) == set(settings.SETTINGS) and not set(imagenet_main.RECIPES[dataset]) & set(vars(imagenet_main))
    text = settings.help_text(imagenet_main.__file__, s)
    paragraphs = re.findall(r'^--([A-Z_]+)=(.*)\n((?: {4}\S.*\n?)+)', text, re.MULTILINE)
    assert [name for name, _, _ in paragraphs] == list(settings.SETTINGS) and text.count('\n--') == len(paragraphs)
    for name, value, _ in paragraphs:  # given as shown, nothing changes
        assert read('--%s=%s' % (name, value), *['--DATASET=' + dataset] * (name != 'DATASET')) == [s]
    assert '--EPOCHS=%d\n    passes over an increment\'s training set\n--' % s.EPOCHS in text
    assert '--SEED=1\n    decides weights, shuffling, augmentation; 0 .. 2**32 - 1\n--' in text


@pytest.mark.parametrize('argument, message', [
    ('--SEED', '--SEED: an override is written --NAME=value'),
    ('\u2013\u2013SEED=1,2', '\u2013\u2013SEED=1,2: an override is written --NAME=value'),  # dashes that word processors make
    ('--IMAGE_SIZE=9000', 'RESIZE_SIDE_MAX=10688, in proportion to IMAGE_SIZE: must be a whole number from 1 to 10000'),
    ('--DATASET=digit', 'DATASET=digit: no such dataset; there is a recipe for celeb10000, cifar100, digits, folder'),
    ('--EPOCH=3', '--EPOCH: no such setting; near it: EPOCHS'),
    ('--memory_size=3', '--memory_size: no such setting; near it: MEMORY_SIZE'),
    ('EPOCHS=3', 'EPOCHS=3: an override is written --NAME=value'),
    ('--EPOCHS=3.5', 'EPOCHS=3.5: must be a whole number from 1 to 1000000'),
    ('--SEED=4294967296', 'SEED=4294967296: must be a whole number from 0 to 4294967295'),
    ('--LEARNING_RATE=fast', 'LEARNING_RATE=fast: must be a number from 1e-12 to 1e+38'),
    ('--RANDOM_FLIP=yes', 'RANDOM_FLIP=yes: must be True or False'),
    ('--LR_DROP_EPOCHS=5,3', 'LR_DROP_EPOCHS=5,3: must be whole numbers above 0, rising: on the command line 4,6'),
    ('--LR_DROP_EPOCHS=__import__("os")', 'LR_DROP_EPOCHS='),
    ('--VAL_FRACTION=1', 'VAL_FRACTION=1.0: must be a number between 0 and 1'),
    ('--RESNET_DEPTH=19', 'RESNET_DEPTH=19: must be one of 18 34 50 101 152 200 8 20 32 56'),
    ('--MODEL_DIR=', 'MODEL_DIR=: must be a text in UTF-8 without control characters, and not empty'),
    ('--REPLICAS=1,2', 'REPLICAS=1,2: must be a whole number'),  # no list of runs: it does not affect results
    ('--CLASSES_PER_INCREMENT=3', '8 classes in these increments, and the dataset has 10; FIRST_INCREMENT_CLASSES=1 would do'),
    ('--CLASSES_PER_INCREMENT=3,4', 'CLASSES_PER_INCREMENT=3,4: 9 classes in these increments, and the dataset has 10'),
    ('--CLASSES_PER_INCREMENT=', 'CLASSES_PER_INCREMENT=: must be a whole number, several separated by commas, or 0'),
    ('--CLASSES_PER_INCREMENT=0,4', 'CLASSES_PER_INCREMENT=0,4: must be a whole number'),
    ('--MODEL_DIR=a\nb', 'must be a text in UTF-8 without control characters'),
    ('--LOG_DIR=\udcff', 'must be a text in UTF-8 without control characters'),
    ('--MEMORY_SIZE=5', 'of each of 8 old classes; MEMORY_SIZE=16 would do'),  # though 4 classes are too many already
    ('--VAL_FRACTION=0.98', 'MEMORY_SIZE=100, VAL_FRACTION=0.98: too small for one'),
    ('--WEIGHT_DECAY=0,0001', 'WEIGHT_DECAY=0,0001: a fraction is written with a point; several values are written like 1.0,2.0'),
    ('--RESIZE_SIDE_MIN=31', 'IMAGE_SIZE=32, RESIZE_SIDE_MIN=31, RESIZE_SIDE_MAX=38: each must be at least the one before it')])
def test_faults(argument, message):
    with pytest.raises(Fault) as fault:
        read(argument)
    assert message in str(fault.value) and '\n' not in str(fault.value)


@pytest.mark.parametrize('name', [name for name, rule in settings.SETTINGS.items() if rule.kind in (int, float, bool)])
def test_what_no_number_and_no_switch_may_be(name):
    for text in ('-1', 'nan', 'inf', '1' + 39 * '0', '', '1e39', 'true', '[1]'):
        with pytest.raises(Fault, match='^%s=.*: must be ' % name):
            read('--%s=%s' % (name, text))


def test_faults_are_reported_together():
    with pytest.raises(Fault) as fault:
        read('--EPOCHS=0', '--NO_SUCH=1', '--BATCH_SIZE=x', 'stray', '--RESIZE_SIDE_MIN=1', '--CLASSES_PER_INCREMENT=3',
             '--TEMPERATURE=0')
    assert len(str(fault.value).split('\n')) == 7
    with pytest.raises(Fault, match='^--SEED: an override .*\n1: an override .*\n--EPOCHS: an override .*\n2: an override '):
        read('--SEED', '1', '--EPOCHS', '2')
    with pytest.raises(Fault, match='^--SEED: is given more than once$'):
        read('--SEED=1', '--SEED=1,2')
    with pytest.raises(Fault, match="SEED='1': must be a whole number .*\nLOG_STEPS='often': must be a whole number"):
        read(LOG_STEPS='often', SEED='1')  # edited constants
    with pytest.raises(Fault, match="EPOCHS stands at the top of imagenet_main.py and in RECIPES\\['digits'\\]"):
        read(EPOCHS=3)
    with pytest.raises(Fault, match='no such dataset'):
        read(DATASET=['digits'])
    with pytest.raises(Fault) as fault:
        settings.read(vars(imagenet_main), {'mine': {'EPOCHS': 3, 'EPOCHES': 3}}, ['--DATASET=mine'])
    assert "RECIPES['mine'] has EPOCHES, which is no setting" in str(fault.value)
    assert "MEMORY_SIZE is missing, from the top of imagenet_main.py or from RECIPES['mine']" in str(fault.value)


def test_lists_of_values_are_several_runs(tmp_path, monkeypatch):
    """The last list changes fastest. Runs that differ in METHOD alone share the first increment of the earliest."""
    lists = ['--METHOD=joint,bic,joint', '--SEED=3,1']
    runs = read('--MODEL_DIR=m', *lists)
    folders = ['METHOD=joint,SEED=3', 'METHOD=joint,SEED=1', 'METHOD=bic,SEED=3', 'METHOD=bic,SEED=1']
    assert [(s.METHOD, s.SEED) for s in runs] == [('joint', 3), ('joint', 1), ('bic', 3), ('bic', 1)]
    assert [s.MODEL_DIR for s in runs] == ['m/' + name for name in folders]
    assert [s.LOG_DIR for s in runs] == ['logs/' + name for name in folders]
    assert [s.FIRST_INCREMENT_FROM for s in runs] == ['', '', 'm/' + folders[0], 'm/' + folders[1]]
    for more, given in (('--FIRST_INCREMENT_FROM=x', 'x'), ('--PLAN_ONLY=True', '')):
        assert [s.FIRST_INCREMENT_FROM for s in read(more, *lists)] == [given] * 4
    with pytest.raises(Fault) as fault:
        read('--SEED=1,x,2', '--EPOCHS=0')  # a fault of several runs is one line
    assert sorted(line.split(':')[0] for line in str(fault.value).split('\n')) == ['EPOCHS=0', 'SEED=x']
    with pytest.raises(Fault, match='^MODEL_DIR=: must be .*, and not empty$'):  # not the root folder
        read('--MODEL_DIR=', '--SEED=1,2')
    assert [s.LEARNING_RATE for s in read('--LEARNING_RATE=1E-2,1E-3')] == [0.01, 0.001]
    monkeypatch.chdir(str(tmp_path))
    assert [s.CLASS_ORDER for s in read('--CLASS_ORDER=sorted,icarl')] == ['sorted', 'icarl']
    (tmp_path / 'sorted,icarl').write_text('')
    assert [s.CLASS_ORDER for s in read('--CLASS_ORDER=sorted,icarl')] == ['sorted,icarl']


def test_what_may_change_when_a_run_is_resumed():
    s, = read()
    stored = json.loads(json.dumps(settings.fixed(s)))
    assert settings.changes(s, stored, 'state') == {}
    others = {name: type(s)(**dict(vars(s), **{name: 'other'})) for name in settings.SETTINGS}
    refused = {name: settings.changes(other, stored, 'state') for name, other in others.items()}
    for name, found in refused.items():
        was = settings.shown(stored.get(name))
        assert found in ({}, {name: '%s=other: state has %s; another MODEL_DIR begins a new run' % (name, was)})
    free = {name for name in others if not refused[name]}
    later = {name for name in others if not settings.changes(others[name], stored, 'state', [settings.LATER])} - free
    assert free == {'MODEL_DIR', 'LOG_DIR', 'LOG_STEPS', 'PLAN_ONLY', 'PREDICT', 'DATA_DIR', 'NUM_CLASSES', 'HEADLINE',
                    'REPLICAS', 'CHECKPOINT_EPOCHS', 'CHECKPOINT_MINUTES', 'FIRST_INCREMENT_FROM', 'WORKER_MINUTES'}
    assert later == {'METHOD', 'EXEMPLAR_SELECTION', 'TEMPERATURE', 'BETA_MIN', 'BETA_MAX', 'GAMMA_PENALTY'}


def test_increments_and_the_memory_that_would_do():
    for first, later, sizes in [('2', '2', [2, 2, 2, 2, 2]), ('1', '3', [1, 3, 3, 3]), ('5', '5', [5, 5]), ('10', '2', [10]),
                                ('0', '2', [2, 2, 2, 2, 2]), ('0', '0', [10]), ('4', '0', [4, 6]), ('10', '0', [10]),
                                ('4', '1,3,2', [4, 1, 3, 2]), ('0', '1,3,6', [1, 3, 6]), ('10', '45', [10, 45, 45])]:
        s, = read('--FIRST_INCREMENT_CLASSES=' + first, '--CLASSES_PER_INCREMENT=' + later,
                  *['--DATASET=imagenet100'] * (later == '45'))
        assert settings.increment_sizes(s, s.NUM_CLASSES) == sizes
    for fraction, share in [('0.1', 2), ('0.3', 2), ('0.8', 5), ('0.95', 20)]:
        with pytest.raises(Fault, match='; MEMORY_SIZE=%d would do' % (8 * share)):
            read('--MEMORY_SIZE=3', '--VAL_FRACTION=' + fraction)
        assert read('--MEMORY_SIZE=%d' % (8 * share), '--VAL_FRACTION=' + fraction)


def test_what_follows_another_setting():
    """It keeps the recipe's ratio, unless it is set as well. The published values do not change."""
    for more, sides in (('', (256, 512)), ('--IMAGE_SIZE=32', (37, 73)), ('--IMAGE_SIZE=32 --RESIZE_SIDE_MIN=40', (40, 73))):
        s, = read('--DATASET=folder', *more.split())
        assert (s.RESIZE_SIDE_MIN, s.RESIZE_SIDE_MAX) == sides
    for epochs, drops in ((100, (30, 60, 80, 90)), (10, (3, 6, 8, 9)), (2, (1,)), (1, ())):
        assert read('--DATASET=folder', '--EPOCHS=%d' % epochs)[0].LR_DROP_EPOCHS == drops
    assert read('--EPOCHS=2', '--LR_DROP_EPOCHS=5')[0].LR_DROP_EPOCHS == (5,)
    assert [s.LR_DROP_EPOCHS for s in read('--EPOCHS=4,16')] == [(2, 3), (8, 12)]


def test_settings_and_tables_need_neither_tensorflow_nor_matplotlib():
    """Although settings know the network's depths, and the report draws with matplotlib."""
    assert settings.DEPTHS == tuple(resnet_model.BLOCKS)
    code = 'import sys; from logs import report; print({"tensorflow", "matplotlib", "data.settings"} & set(sys.modules))'
    assert subprocess.check_output([sys.executable, '-c', code], cwd=os.path.dirname(common.SCRIPT)) == b"{'data.settings'}\n"
