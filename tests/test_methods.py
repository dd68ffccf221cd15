"""Runs the paper's methods by one command: what each trains on and with, what they share, and what they write."""
import contextlib
import csv
import io
import os
import pathlib
import re
import types

import numpy as np
import PIL.Image
import pytest
import tensorflow.compat.v1 as tf
from common import arguments, events, newest_state, recorded, run_main, settings_of

import bic_layer
import exemplar
import imagenet_main
from data import Fault
from logs import checkpoint, draw, export, results
from logs.run import Run

METHODS = ('finetune', 'distill', 'bic', 'joint', 'joint_last')
SMALL = ['--EPOCHS=3', '--LOG_STEPS=2']  # five classes and three: 11 steps, and 13 or, with all images, 18


@pytest.fixture(name='runs', scope='module')
def runs_(handful, tmp_path_factory):
    """Dict from method to its rows, log, checkpoints, folders, and calls that train, draw and fit; `out` is the whole output."""
    folder, patch, out, write = tmp_path_factory.mktemp('methods'), pytest.MonkeyPatch(), io.StringIO(), export.write
    trained, fitted, drawn = (recorded(patch, *function) for function in (
        (imagenet_main, 'train_classifier'), (bic_layer, 'fit_last_layer'), (draw, 'confusion_by_class')))
    patch.setattr(export, 'write', lambda folder, *args: re.search('joint_last|bic', folder) and write(folder, *args))
    with contextlib.redirect_stdout(out):
        rows = imagenet_main.main(arguments(handful, folder, *SMALL, '--METHOD=' + ','.join(METHODS)))
    patch.undo()
    runs = dict(out=out.getvalue())
    for number, name in enumerate('METHOD=' + method for method in METHODS):
        (log,), model = (folder / 'logs' / name).glob('log-digits-*'), str(folder / 'model' / name / 'digits')
        runs[METHODS[number]] = types.SimpleNamespace(
            rows=rows[number], text=log.read_text(encoding='utf-8'), tables=log.parent / log.name.replace('log-', 'run-'),
            saved=[checkpoint.read('%s/increment-%d' % (model, k)) for k in (0, 1)], model=model, fitted=fitted,
            trained=trained[2 * number:][:2], drawn=drawn[2 * number:][:2])
    return runs


def table(run, name):
    return list(csv.DictReader((run.tables / (name + '.csv')).read_text(encoding='utf-8').split('\n')))


def test_the_first_increment_is_trained_once_and_all_are_compared(runs):
    """The table at the end has a line per method, in percent, that agrees with the closing rows."""
    assert [runs[method].text.count('[train]   increment=0') for method in METHODS] == [7, 0, 0, 0, 0]
    head, _, *lines = [re.findall(r'[^ |][^|]*[^ |]|[^ |]', line) for line in runs['out'].split('\n') if line[:1] == '|'][-7:]
    for method, line in zip(METHODS, lines):
        np.testing.assert_equal(runs[method].saved[0][0], runs['finetune'].saved[0][0])
        assert runs[method].rows[0] == runs['finetune'].rows[0]
        cells, (first, last) = dict(zip(head, line)), (100 * row['top1'] for row in runs[method].rows)
        assert [cells[name] for name in ('top1, %', '5', '8', 'average', 'without first', 'runs')] == [method] + [
            '%.2f' % percent for percent in (first, last, (first + last) / 2, last)] + ['1']


def test_what_is_trained_on_and_with(runs):
    """A class has five images to train on; 3 exemplars stay, or all of them. Only methods that distil have an old network."""
    for method in METHODS:
        run, size, distils = runs[method], 40 if method == 'joint' else 30, method not in ('finetune', 'joint')
        assert [len(set(call['train'])) for call in run.trained] == [row['train'] for row in run.rows] == [25, size]
        classes = run.saved[1][1]['classes']
        assert classes == runs['bic'].saved[1][1]['classes']  # with the images that are held out and tested on
        kept = {path for of_class in classes for path in of_class['held'] + of_class['test']}
        assert not any(kept & set(call['run'].data.relative(call['train'])) for call in run.trained)
        assert list(run.trained[1]['model'].networks) == ['resnet', 'resnet_old'][:1 + distils]
        assert events(run.text, 'train')[-1]['lambda'] == ('0.6250' if distils else '0.0000')


def test_what_bic_adds_to_distill(runs):
    """Until the first correction, network and results are the same. joint_last differs from distill only in its last layer."""
    distill = runs['distill']
    for other in (runs['bic'], runs['joint_last']):
        np.testing.assert_equal({name: other.saved[1][0][name] for name in distill.saved[1][0]}, distill.saved[1][0])
        assert other.rows[1]['top1_before'] == distill.rows[1]['top1_before'] == distill.rows[1]['top1']
        assert other.rows[1]['top1_nme'] == distill.rows[1]['top1_nme']
    assert [len(events(runs[method].text, 'bias')) for method in METHODS] == [0, 0, 1, 0, 0]
    assert [(row['beta'], row['gamma']) for row in distill.rows] == [(1.0, 0.0)] * 2 and runs['bic'].rows[1]['beta'] != 1


def test_the_retrained_last_layer(runs):
    """It is fitted to all training images of all eight classes, and beats the trained layer on them."""
    run, (call,) = runs['joint_last'], runs['joint_last'].fitted
    x, y, kernel = call['features'], call['labels'], call['kernel']
    assert x.shape == (40, 64) and sorted(np.bincount(y)) == [5] * 8 and call['decay'] == pytest.approx(1e-4 * 2 / 2)
    np.testing.assert_array_equal(kernel, runs['distill'].saved[1][0]['dense/kernel'])
    wrong = [np.sum((x.dot(k) + b).argmax(axis=1) != y) for k, b in ((kernel, call['bias']), call['returned'])]
    assert wrong[1] < wrong[0] and any(line['before'] != line['after'] for line in table(run, 'predictions')[15:])


@pytest.mark.parametrize('k, method', [(0, 'bic'), (1, 'bic'), (1, 'joint_last')])
def test_exported_models_give_the_labels_in_predictions(k, method, runs):
    """They agree image by image, with the bias correction and with the retrained last layer."""
    run, lines = runs[method], [line for line in table(runs[method], 'predictions') if line['increment'] == str(k)]
    names = [of_class['name'] for of_class in run.saved[1][1]['classes']]
    contents = [pathlib.Path(run.trained[0]['s'].DATA_DIR, line['path']).read_bytes() for line in lines]
    with tf.Graph().as_default(), tf.Session() as session:
        signature = tf.saved_model.load(session, ['serve'], '%s/export/%d' % (run.model, k)).signature_def['serving_default']
        classes = session.run(signature.outputs['classes'].name, {signature.inputs['image_bytes'].name: contents})
    assert [names.index(of_image[0].decode()) for of_image in classes] == [int(line['after']) for line in lines]


def test_tables_beside_the_log(runs):
    for run in (runs[method] for method in METHODS):
        predictions, classes, exemplars = (table(run, name) for name in ('predictions', 'classes', 'exemplars'))
        for k, (row, size) in enumerate(zip(run.rows, (15, 24))):
            of_increment = [line for line in predictions if line['increment'] == str(k)]
            for column, key in (('before', 'top1_before'), ('after', 'top1'), ('nme', 'top1_nme')):
                assert sum(line[column] == line['class'] for line in of_increment) / size == pytest.approx(row[key])
            right = [float(line['top1']) * int(line['images']) for line in classes if line['increment'] == str(k)]
            assert sum(right) / size == pytest.approx(row['top1'])
        names, kept = [of_class['name'] for of_class in run.saved[1][1]['classes']], sum(run.saved[1][1]['exemplars'], [])
        assert (len(predictions), [line['name'] for line in classes][5:]) == (15 + 24, names)
        assert [line['path'] for line in exemplars if line['increment'] == '1'] == kept
        # The [confusion] lines count the same predictions by increment: classes 0..4, and 5..7.
        columns = ('before', 'after')
        said = [(column, line['class'] > '4', line[column] > '4') for line in of_increment for column in columns]
        assert [event['predicted'] for event in events(run.text, 'confusion')[2:]] == [
            '%d,%d' % (said.count((column, new, 0)), said.count((column, new, 1))) for column in columns for new in (0, 1)]


def test_events(runs):
    """TensorBoard's own reader finds the log's numbers and the pictures. Another run trained the first 11 steps."""
    run, curves, pictures, starts = runs['bic'], {}, {}, []
    for event in tf.train.summary_iterator(*map(str, run.tables.glob('events.out.tfevents.*'))):
        starts += [event.step] * (event.session_log.status == tf.SessionLog.START)
        for value in event.summary.value:
            if value.image.encoded_image_string:
                pictures[value.tag, event.step] = np.array(PIL.Image.open(io.BytesIO(value.image.encoded_image_string)))
            else:
                curves.setdefault(value.tag, []).append((event.step, pytest.approx(value.simple_value, abs=1e-4)))
    assert starts == [12] and [step for step, _ in curves['train/loss']] == [12, 13, 15, 17, 19, 21, 23, 24]
    assert [float(event['loss']) for event in events(run.text, 'train')] == [loss for _, loss in curves['train/loss']]
    assert curves['result/top1'] == [(row['classes'], row['top1']) for row in run.rows]
    assert sorted(pictures) == [(name, step) for name in ('confusion', 'exemplars', 'training_images') for step in (5, 8)]
    # One exemplar of each class, resized from 8 to 16 pixels, so that every second one is the file's; no others.
    page, lines, drawn = pictures['exemplars', 8], table(run, 'predictions')[15:], run.drawn[1]
    assert page.shape == (8 * 16, 8 * 16, 3) and (page[:, 16:] == 255).all()
    for label, (image,) in enumerate(run.saved[1][1]['exemplars']):
        original = np.array(PIL.Image.open(os.path.join(run.trained[0]['s'].DATA_DIR, image)), float)
        np.testing.assert_allclose(page[16 * label:][:16:2, :16:2, 0], original, atol=1)
    for column, labels in zip(('class', 'before', 'after'), (drawn['labels'], *drawn['predicted'])):
        assert list(labels) == [int(line[column]) for line in lines]


def test_random_exemplars(monkeypatch):
    """Of seven candidates of each of five classes, SEED draws three, all with the same probability, whatever the features are."""
    features, counts, train = np.random.RandomState(0).gamma(1.0, size=(35, 4)), np.zeros(35), np.split(np.arange(35), 5)
    run = types.SimpleNamespace(exemplars=[], data=types.SimpleNamespace(train=train), log=lambda *_, **__: None)
    monkeypatch.setattr(results, 'evaluate', lambda session, model, now, data, numbers: [(features[numbers], None, None)])
    for seed in range(200):
        s = settings_of(['--EXEMPLAR_SELECTION=random', '--SEED=%d' % seed])
        chosen, means = imagenet_main.update_memory(s, None, None, run, exemplar.Increment(0, 0, 5, 0, 3, 0, 35, 0, 0))
        assert [list(of_class // 7) for of_class in chosen] == [[label] * 3 for label in range(5)]
        np.testing.assert_array_equal(means, [exemplar.class_mean(features[of_class]) for of_class in chosen])
        counts[np.concatenate(chosen)] += 1
    assert counts.sum() == 200 * 15 and np.abs(counts / 200 - 3 / 7).max() < 0.15  # more than four standard deviations


@pytest.mark.slow
def test_several_runs_are_stopped_and_resumed(runs, handful, tmp_path, monkeypatch, capsys):
    """The message names the second of two runs, and only that run is resumed."""
    command = arguments(handful, tmp_path, *SMALL, '--METHOD=distill,joint')
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt, match='^run 2 of 2, METHOD=joint: $'):
        patch.setattr(Run, 'requests', lambda self, now, step: [self.s.METHOD == 'joint' and now.increment == 1, False])
        imagenet_main.main(command)
    trained = recorded(monkeypatch, imagenet_main, 'train_classifier')
    assert imagenet_main.main(command) == [runs['distill'].rows, runs['joint'].rows]
    assert [(call['s'].METHOD, call['now'].increment) for call in trained] == [('joint', 1)]
    assert '\nrun 1 of 2, METHOD=distill: is finished\n\nrun 2 of 2, METHOD=joint: hours left' in capsys.readouterr().out


def test_several_runs_that_do_not_begin(handful, tmp_path, monkeypatch):
    """A fault of a later run is reported before the first run begins. Predictions need no data."""
    asked = []
    monkeypatch.setattr(imagenet_main, 'learn', None)
    monkeypatch.setattr(export, 'predict', lambda folder, path: asked.append((folder, path)))
    with pytest.raises(Fault, match='^BATCH_SIZE=500: increment 0 has only 25 training images'):
        imagenet_main.main(arguments(handful, tmp_path, '--BATCH_SIZE=7,500'))
    imagenet_main.main(arguments('nowhere', tmp_path, '--METHOD=bic,joint', '--PREDICT=image'))
    assert asked == [('%s/model/METHOD=%s/digits' % (tmp_path, method), 'image') for method in ('bic', 'joint')]


def test_a_memory_of_no_exemplars(handful, tmp_path, monkeypatch):
    """16 / 8 = 2 images a class at the end are 1 to validate and min(2 - 1, 2 - 1) = 1 exemplar; 15 leave no exemplar."""
    monkeypatch.setattr(export, 'write', lambda *args: None)
    rows, text = run_main(handful, tmp_path, '--MEMORY_SIZE=15', '--EPOCHS=1', '--LR_DROP_EPOCHS=')
    assert np.isfinite(rows[0]['top1_nme']) and np.isnan(rows[1]['top1_nme']) and np.isfinite(rows[1]['top1'])
    assert [event['increment'] for event in events(text, 'nme')] == ['0']
    assert newest_state(tmp_path)['exemplars'] == [[]] * 8
