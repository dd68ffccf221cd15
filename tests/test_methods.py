"""The paper's methods side by side, by one command: what each trains on and with, and what they must have in common."""
import csv
import glob
import json
import os
import types

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from test_main import arguments, events, without_times

import bic_layer
import imagenet_main
from data import Fault, settings

METHODS = ('finetune', 'distill', 'bic', 'joint', 'joint_last')
# Five classes and three, eleven and thirteen or more steps.
SMALL = ['--EPOCHS=3', '--IMAGE_SIZE=16', '--LOG_STEPS=2']


@pytest.fixture(name='runs', scope='session')
def runs_(handful, tmp_path_factory):
    """By method: rows, log, state, folder of the run's tables, paths trained on by increment, arguments and result of the fit of
    the last layer."""
    folder, trained, fitted = tmp_path_factory.mktemp('methods'), [], []
    train_classifier, fit_last_layer = imagenet_main.train_classifier, bic_layer.fit_last_layer
    patch = pytest.MonkeyPatch()
    patch.setattr(imagenet_main, 'train_classifier', lambda *args: trained.append(
        (args[0].METHOD, args[4].increment, args[7]['step'], set(args[5].paths[args[6]]))) or train_classifier(*args))
    patch.setattr(bic_layer, 'fit_last_layer', lambda *args: fitted.append(args + fit_last_layer(*args)) or fitted[-1][-2:])
    rows = imagenet_main.main(arguments(handful, folder, *SMALL) + ['--METHOD=' + ','.join(METHODS)])
    patch.undo()
    runs = {}
    for method, of_run in zip(METHODS, rows):
        log, = glob.glob('%s/logs/METHOD=%s/log-digits-*' % (folder, method))
        tables, = glob.glob('%s/logs/METHOD=%s/run-digits-*' % (folder, method))
        model = '%s/model/METHOD=%s/digits' % (folder, method)
        with open(log, encoding='utf-8') as file, open(model + '/increment-1/state.json', encoding='utf-8') as state:
            runs[method] = types.SimpleNamespace(
                rows=of_run, text=file.read(), tables=tables, model=model, state=json.loads(state.readline()), fitted=fitted,
                trained={k: (step, paths) for name, k, step, paths in trained if name == method})
    return runs


def network(run, k):
    with np.load('%s/increment-%d/network.npz' % (run.model, k)) as archive:
        return {name: archive[name] for name in archive.files}


def table(run, name):
    with open(os.path.join(run.tables, name), encoding='utf-8', newline='') as file:
        return list(csv.DictReader(file))


def test_the_first_increment_is_trained_once_and_shared(runs, handful, tmp_path):
    assert [runs[method].trained[0][0] for method in METHODS] == [0, 11, 11, 11, 11]   # steps that were done already
    first = network(runs['finetune'], 0)
    for method in METHODS[1:]:
        assert all((network(runs[method], 0)[name] == first[name]).all() for name in first)
        assert runs[method].rows[0] == runs['finetune'].rows[0]
    # A run that shares nothing ends with the same results, and says the same.
    assert imagenet_main.main(arguments(handful, tmp_path, *SMALL) + ['--METHOD=bic']) == runs['bic'].rows
    path, = glob.glob('%s/logs/log-digits-*' % tmp_path)
    with open(path, encoding='utf-8') as file:
        texts = runs['bic'].text, file.read()
    in_list, alone = ([line for line in without_times(text).split('\n') if not line.startswith(
        ('[env]', '[config]', '[train]   increment=0', '[save]'))] for text in texts)
    assert in_list == alone


def test_what_is_trained_on(runs):
    """6 images a class, one of them held out; 3 exemplars of each old class; to learn jointly all of them."""
    sizes = {method: len(runs[method].trained[1][1]) for method in METHODS}
    assert sizes == dict(finetune=30, distill=30, bic=30, joint=40, joint_last=30)
    for method in METHODS:
        run = runs[method]
        assert [row['train'] for row in run.rows] == [25, sizes[method]]
        assert [int(event['train']) for event in events(run.text, 'plan')] == [25, sizes[method]]
        # All keep the same hold-out, and nothing of it is trained on.
        assert [of_class['held'] for of_class in run.state['classes']] == [
            of_class['held'] for of_class in runs['bic'].state['classes']]
        held = {os.path.basename(path) for of_class in run.state['classes'] for path in of_class['held'] + of_class['test']}
        assert not held & {os.path.basename(os.fsdecode(path)) for _, paths in run.trained.values() for path in paths}


def test_the_loss_of_each(runs):
    for method in METHODS:
        weights = {event['lambda'] for event in events(runs[method].text, 'train') if event['increment'] == '1'}
        assert weights == {'0.0000' if method in ('finetune', 'joint') else '0.6250'}
        for event in events(runs[method].text, 'train'):
            value = {key: float(text) for key, text in event.items()}
            assert value['loss'] == pytest.approx(value['lambda'] * value['loss_distill'] + (1 - value['lambda']) * value[
                'loss_class'] + value['loss_l2'], abs=2e-4)


def test_what_bic_adds_to_distill(runs):
    """At its first correction the network is the same, and so is what comes before it; joint_last is distill but for its end."""
    distill, bic, last = (runs[method] for method in ('distill', 'bic', 'joint_last'))
    for other in (bic, last):
        assert all((network(distill, 1)[name] == value).all() for name, value in network(other, 1).items())
        assert other.rows[1]['top1_before'] == distill.rows[1]['top1_before'] == distill.rows[1]['top1']
        assert other.rows[1]['top1_nme'] == distill.rows[1]['top1_nme']
    assert [len(events(runs[method].text, 'bias')) for method in METHODS] == [0, 0, 1, 0, 0]
    assert [(row['beta'], row['gamma']) for row in distill.rows] == [(1.0, 0.0)] * 2 and bic.rows[1]['beta'] != 1


def test_only_what_distils_has_an_old_network(handful, tmp_path):
    for method, scopes in (('finetune', ['resnet']), ('joint', ['resnet']), ('joint_last', ['resnet', 'resnet_old'])):
        s, faults = settings.read(vars(imagenet_main), imagenet_main.RECIPES, arguments(
            handful, tmp_path, *SMALL, '--METHOD=' + method))
        _, plan, _ = imagenet_main.protocol.read(s, faults, {})
        with tf.Graph().as_default():
            assert list(imagenet_main.build(s, plan, plan[1], [bic_layer.IDENTITY]).networks) == scopes


def test_the_retrained_last_layer(runs):
    """It beats the layer that was trained, on the images it is fitted to: all that are not held out, of all eight classes."""
    (features, labels, kernel, bias, decay, new_kernel, new_bias), = runs['joint_last'].fitted
    assert features.shape == (40, 64) and sorted(np.bincount(labels)) == [5] * 8 and kernel.shape == (64, 8)
    assert decay == pytest.approx(1e-4 * 2 / 2)
    np.testing.assert_array_equal(kernel, network(runs['distill'], 1)['dense/kernel'])
    right = [np.mean((features.dot(k) + b).argmax(axis=1) == labels) for k, b in ((kernel, bias), (new_kernel, new_bias))]
    assert right[1] > right[0]


def test_tables_beside_the_log(runs):
    for method in METHODS:
        run = runs[method]
        predictions, classes, exemplars = (table(run, name + '.csv') for name in ('predictions', 'classes', 'exemplars'))
        assert [len([row for row in predictions if row['increment'] == k]) for k in '01'] == [15, 24]
        for k, row in enumerate(run.rows):
            of_increment = [line for line in predictions if line['increment'] == str(k)]
            for column, key in (('before', 'top1_before'), ('after', 'top1'), ('nme', 'top1_nme')):
                assert np.mean([line[column] == line['class'] for line in of_increment]) == pytest.approx(row[key])
            shares = [float(line['top1']) * int(line['images']) for line in classes if line['increment'] == str(k)]
            assert sum(shares) / row['test'] == pytest.approx(row['top1'])
        assert [line['name'] for line in classes][5:] == [of_class['name'] for of_class in run.state['classes']]
        kept = [line['path'] for line in exemplars if line['increment'] == '1']
        assert kept == [path for of_class in run.state['exemplars'] for path in of_class]
        # The [confusion] lines count the same predictions by increment: classes 0..4, and 5..7.
        counts = np.zeros([2, 2, 2], int)
        for line in predictions[15:]:
            for c, column in enumerate(('before', 'after')):
                counts[c, int(line['class']) // 5, int(line[column]) // 5] += 1
        lines = [event['predicted'] for event in events(run.text, 'confusion') if event['increment'] == '1']
        assert lines == ['%d,%d' % tuple(row) for row in counts.reshape(4, 2)]


@pytest.mark.parametrize('method', ['bic', 'joint_last'])
def test_the_model_says_what_the_log_says(method, runs, handful):
    """With the correction, or the retrained layer, inside: the labels in predictions.csv, image by image."""
    run = runs[method]
    predictions = [line for line in table(run, 'predictions.csv') if line['increment'] == '1']
    names = [of_class['name'] for of_class in run.state['classes']]
    contents = []
    for line in predictions:
        with open(os.path.join(handful, line['path']), 'rb') as file:
            contents.append(file.read())
    with tf.Graph().as_default(), tf.Session() as session:
        signature = tf.saved_model.load(session, ['serve'], run.model + '/export/1').signature_def['serving_default']
        classes = session.run(signature.outputs['classes'].name, {signature.inputs['image_bytes'].name: contents})
    assert classes.shape == (24, 8)
    assert [names.index(of_image[0].decode()) for of_image in classes] == [int(line['after']) for line in predictions]
    assert any(line['before'] != line['after'] for line in predictions)


def test_events(runs):
    """TensorBoard's own reader finds the log's numbers, steps running on over increments, and the pictures."""
    run = runs['bic']
    path, = glob.glob(run.tables + '/events.out.tfevents.*')
    curves, pictures = {}, {}
    for event in tf.train.summary_iterator(path):
        for value in event.summary.value:
            if value.image.encoded_image_string:
                pictures[value.tag, event.step] = value.image
            else:
                curves.setdefault(value.tag, []).append((event.step, value.simple_value))
    # The first increment's training is the one of finetune's run.
    lines = events(run.text, 'train')
    assert [step for step, _ in curves['train/loss']] == [11 + int(line['step']) for line in lines]
    np.testing.assert_allclose([loss for _, loss in curves['train/loss']], [float(line['loss']) for line in lines], atol=1e-4)
    assert curves['result/top1'] == [(5, np.float32(run.rows[0]['top1'])), (8, np.float32(run.rows[1]['top1']))]
    assert curves['bias/beta'] == [(8, np.float32(run.rows[1]['beta']))]
    names = ('confusion_off', 'confusion_on', 'exemplars', 'training_images')
    assert sorted(pictures) == sorted((name, step) for name in names for step in (5, 8))
    page = pictures['exemplars', 8]
    assert (page.height, page.width) == (8 * 16, 8 * 16)
    with tf.Graph().as_default(), tf.Session() as session:
        pixels = session.run(tf.image.decode_png(pictures['confusion_on', 8].encoded_image_string))
    predictions = [line for line in table(run, 'predictions.csv') if line['increment'] == '1']
    cell = pixels.shape[0] // 8
    for label in range(8):
        after = [int(line['after']) for line in predictions if line['class'] == str(label)]
        for other in range(8):
            assert abs(255 * (1 - after.count(other) / 3) - pixels[label * cell, other * cell, 0]) <= 1


def test_random_exemplars(runs, handful, tmp_path):
    """Not herding's, as many, drawn by SEED."""
    kept, herded = [], runs['bic'].state['exemplars']
    imagenet_main.main(arguments(handful, tmp_path, *SMALL, '--EXEMPLAR_SELECTION=random', '--SEED=1,2', '--EPOCHS=1'))
    for seed in (1, 2):
        with open('%s/model/SEED=%d/digits/increment-1/state.json' % (tmp_path, seed), encoding='utf-8') as file:
            kept.append(json.loads(file.readline())['exemplars'])
        assert [len(of_class) for of_class in kept[-1]] == [len(of_class) for of_class in herded] == [1] * 8
    assert kept[0] != kept[1] and herded not in kept


def test_several_runs_are_stopped_and_go_on(runs, handful, tmp_path, monkeypatch, capsys):
    """In the second of two; the first is not done again, and the table at the end has both."""
    command = arguments(handful, tmp_path, *SMALL) + ['--METHOD=distill,joint']
    asked = []
    monkeypatch.setattr(imagenet_main.stop, 'asked', lambda: asked.append(0) or len(asked) > 50)
    with pytest.raises(imagenet_main.stop.Stopped):
        imagenet_main.main(command)
    monkeypatch.undo()
    assert len(glob.glob('%s/logs/*/log-*' % tmp_path)) == 2
    capsys.readouterr()
    assert imagenet_main.main(command) == [runs['distill'].rows, runs['joint'].rows]
    lines = [[cell.strip() for cell in line.strip('|').split('|')] for line in capsys.readouterr().out.split('\n')[-5:-1]]
    assert lines[0] == ['top1, %', '5', '8', 'average', 'without first', 'runs']
    for method, line in zip(('distill', 'joint'), lines[2:]):
        first, last = (100 * row['top1'] for row in runs[method].rows)
        assert line == [method] + ['%.2f' % percent for percent in (first, last, (first + last) / 2, last)] + ['1']
    assert len(glob.glob('%s/logs/*/log-*' % tmp_path)) == 3


def listed(*more):
    return settings.runs(vars(imagenet_main), imagenet_main.RECIPES, list(more))


@pytest.mark.parametrize('argument, message', [
    ('--BATCH_SIZE=7,500', 'BATCH_SIZE=500: increment 0 has only 25 training images'),
    ('--CLASS_ORDER=random,nofile.txt', 'CLASS_ORDER=nofile.txt: is neither one of')])
def test_faults_of_later_runs_come_before_the_first(argument, message, handful, tmp_path, monkeypatch):
    monkeypatch.setattr(imagenet_main, 'learn', None)
    with pytest.raises(Fault) as fault:
        imagenet_main.main(arguments(handful, tmp_path, argument))
    assert str(fault.value).startswith(message)


def test_predictions_of_several_models_ask_for_no_data(monkeypatch, tmp_path):
    predicted = []
    monkeypatch.setattr(imagenet_main.export, 'predict', lambda *args: predicted.append(args))
    imagenet_main.main(arguments('nowhere', tmp_path, '--METHOD=bic,joint', '--PREDICT=image'))
    assert predicted == [('%s/model/METHOD=%s/digits' % (tmp_path, method), 'image') for method in ('bic', 'joint')]


def test_a_memory_of_no_exemplars(handful, tmp_path):
    """16 / 8 = 2 images a class after the last increment: 1 to validate, and min(2 - 1, 2 - 1) = 1; of 15 none is left."""
    rows = imagenet_main.main(arguments(handful, tmp_path, *SMALL, '--MEMORY_SIZE=15', '--EPOCHS=1', '--LR_DROP_EPOCHS='))
    assert np.isfinite(rows[0]['top1_nme']) and np.isnan(rows[1]['top1_nme']) and np.isfinite(rows[1]['top1'])
    path, = glob.glob('%s/logs/log-digits-*' % tmp_path)
    with open(path, encoding='utf-8') as file:
        assert [event['increment'] for event in events(file.read(), 'nme')] == ['0']


def test_lists_of_values():
    one = ['--SEED=3', '--LR_DROP_EPOCHS=4,6', '--METHOD=bic']
    assert listed(*one) == [one]
    each = listed('--METHOD=bic,joint', '--LR_DROP_EPOCHS=4,6', '--SEED=1,2,01', '--MODEL_DIR=there')
    assert [sorted(of_run) for of_run in listed('--SEED=1,2', '--METHOD=bic')] == [
        sorted(of_run) for of_run in listed('--METHOD=bic', '--SEED=1,2')]
    folders = ['METHOD=%s,SEED=%d' % pair for pair in (('bic', 1), ('bic', 2), ('joint', 1), ('joint', 2))]
    assert [[argument for argument in of_run if 'DIR' in argument] for of_run in each] == [
        ['--MODEL_DIR=there', '--MODEL_DIR=there/' + folder, '--LOG_DIR=logs/' + folder] for folder in folders]
    assert all('--LR_DROP_EPOCHS=4,6' in of_run for of_run in each)
    # SEED decides the first increment, METHOD does not.
    assert [of_run[-1] for of_run in each[2:]] == ['--FIRST_INCREMENT_FROM=there/' + folder for folder in folders[:2]]
    assert not any('FIRST' in argument for of_run in each[:2] for argument in of_run)
    assert not any('FIRST_INCREMENT_FROM=m' in argument for of_run in listed('--METHOD=bic,joint', '--FIRST_INCREMENT_FROM=')
                   for argument in of_run)
    # The validation share decides the hold-out.
    assert not any('FIRST' in argument for of_run in listed('--VAL_FRACTION=0.1,0.2') for argument in of_run)


@pytest.mark.parametrize('argument, message', [
    ('--METHOD=bic,none,lwf', 'METHOD=none: must be one of finetune distill bic joint joint_last\nMETHOD=lwf: must be'),
    ('--SEED=1,x', 'SEED=x: must be a whole number'),
    ('--SEED=1,', 'SEED=: must be a whole number'),
    ('--EXEMPLAR_SELECTION=herding,best', 'EXEMPLAR_SELECTION=best: must be herding or random'),
    ('--VAL_FRACTION=0.1,0.2,2', 'VAL_FRACTION=2.0: must be a number between 0 and 1')])
def test_every_value_of_a_list_is_checked_before_the_first_run(argument, message):
    with pytest.raises(Fault) as fault:
        listed(argument)
    assert str(fault.value).startswith(message)
