"""Runs the paper's methods by one command.

What each trains on and with, what they share, and what they write.
"""
import contextlib
import csv
import io
import os
import pathlib
import re
import signal
import types

import common
import numpy as np
import PIL.Image
import pytest
import tensorflow.compat.v1 as tf
from common import arguments, events, newest_state, run_at, run_main

import exemplar
import imagenet_main
from data import Fault
from logs import checkpoint, draw, export, plot
from logs.log import Log

METHODS = ('finetune', 'distill', 'bic', 'joint', 'joint_last')
DISTIL = ('distill', 'bic', 'joint_last')
EXPORTED = ('bic', 'joint_last')
SMALL = ['--EPOCHS=3', '--LOG_STEPS=2']  # five classes: 11 steps; three: 13, or 18 with all images


@pytest.fixture(name='runs', scope='module')
def runs_(handful, tmp_path_factory):
    """The runs of all methods by one command: its output, and of each what it wrote."""
    folder = tmp_path_factory.mktemp('methods')
    write = export.write

    def write_some(path, *args):
        if re.search('METHOD=(%s)/' % '|'.join(EXPORTED), path):
            write(path, *args)

    out = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out):
        patch.setattr(export, 'write', write_some)  # which takes time
        rows = imagenet_main.main(
            arguments(handful, folder, *SMALL, '--METHOD=' + ','.join(METHODS)))
    by_method = {}
    for number, method in enumerate(METHODS):
        name = 'METHOD=' + method
        model = str(folder / 'model' / name / 'digits')
        log, = (folder / 'logs' / name).glob('log-digits-*')
        by_method[method] = run_of(rows[number], model, log)
    return types.SimpleNamespace(out=out.getvalue(), folder=str(folder), by_method=by_method)


def run_of(rows, model, log):
    """What a run of two increments wrote. model: str, its folder; log: pathlib.Path."""
    saved = [checkpoint.read('%s/increment-%d' % (model, k)) for k in (0, 1)]
    return types.SimpleNamespace(
        rows=rows, model=model, text=log.read_text(encoding='utf-8'),
        tables=log.parent / log.name.replace('log-', 'run-'),
        networks=[checkpoint.split(arrays)[0] for arrays, _ in saved],
        corrections=[checkpoint.split(arrays)[1] for arrays, _ in saved],
        states=[state for _, state in saved])


def table(run, name, increment=None):
    """The rows of a table beside the log, list of dict from column to text."""
    text = (run.tables / (name + '.csv')).read_text(encoding='utf-8')
    rows = list(csv.DictReader(text.split('\n')))
    return [row for row in rows if increment is None or row['increment'] == str(increment)]


def exported(run, k, signature, output, contents):
    """What an exported model gives for image files. contents: list of bytes."""
    with tf.Graph().as_default(), tf.Session() as session:
        model = tf.saved_model.load(session, ['serve'], '%s/export/%d' % (run.model, k))
        signature = model.signature_def[signature]
        feed = {signature.inputs['image_bytes'].name: contents}
        return session.run(signature.outputs[output].name, feed)


def contents_of(data, paths):
    """The bytes of image files. paths: list of str, below the folder data."""
    return [pathlib.Path(data, path).read_bytes() for path in paths]


def test_the_first_increment_is_trained_once_and_all_are_compared(runs):
    """The table at the end has a line per method, in percent, that agrees with the rows."""
    first = runs.by_method['finetune']
    num_lines = [runs.by_method[method].text.count('[train]   increment=0') for method in METHODS]
    assert num_lines == [7, 0, 0, 0, 0]
    lines = [line for line in runs.out.split('\n') if line[:1] == '|'][-7:]
    head, _, *cells_of_methods = [[cell.strip() for cell in line.split('|')[1:-1]]
                                  for line in lines]
    for method, cells in zip(METHODS, cells_of_methods):
        run = runs.by_method[method]
        np.testing.assert_equal(run.networks[0], first.networks[0])
        assert run.rows[0] == first.rows[0]
        cell = dict(zip(head, cells))
        top1, last_top1 = [100 * row['top1'] for row in run.rows]
        assert (cell['top1, %'], cell['runs']) == (method, '1')
        assert (cell['5'], cell['8']) == ('%.2f' % top1, '%.2f' % last_top1)
        assert cell['average'] == '%.2f' % ((top1 + last_top1) / 2)
        assert cell['without first'] == '%.2f' % last_top1


@pytest.mark.parametrize('method', METHODS)
def test_what_is_trained_on_and_with(method, runs, handful, tmp_path):
    """A class has five images to train on; 3 exemplars stay, or all of them.

    Only methods that distil have an old network.
    """
    run = runs.by_method[method]
    size = 40 if method == 'joint' else 30
    classes = run.states[1].classes
    assert classes == runs.by_method['bic'].states[1].classes
    kept = set()
    for entry in classes:
        kept.update(entry['held'] + entry['test'])
    assert len(kept) == 8 * (1 + 3)
    for k in (0, 1):
        begun = run_at(k, run.model, handful, tmp_path / str(k), *SMALL, '--METHOD=' + method)
        now = begun.remaining[0]
        train, _, _ = begun.begin(now)
        assert len(set(train)) == len(train) == run.rows[k]['train'] == [25, size][k]
        assert begun.data.digest(train) == run.states[k].trained_on
        assert not kept & set(begun.data.relative(train))
    with imagenet_main.increment_graph(begun, now) as net:
        assert ('resnet_old/dense/kernel' in net.variables) == (method in DISTIL)
    weight = events(run.text, 'train')[-1]['lambda']
    assert weight == ('0.6250' if method in DISTIL else '0.0000')


def test_what_bic_adds_to_distill(runs):
    """Until the first correction, network and results are the same.

    joint_last differs from distill only in its last layer.
    """
    distill = runs.by_method['distill']
    for method in ('bic', 'joint_last'):
        other = runs.by_method[method]
        np.testing.assert_equal(other.networks[1], distill.networks[1])
        assert other.rows[1]['top1_before'] == distill.rows[1]['top1_before']
        assert other.rows[1]['top1_nme'] == distill.rows[1]['top1_nme']
    assert distill.rows[1]['top1_before'] == distill.rows[1]['top1']
    num_lines = [len(events(runs.by_method[method].text, 'bias')) for method in METHODS]
    assert num_lines == [0, 0, 1, 0, 0]
    assert [(row['beta'], row['gamma']) for row in distill.rows] == [(1.0, 0.0)] * 2
    assert runs.by_method['bic'].rows[1]['beta'] != 1


def test_the_retrained_last_layer(runs, handful, tmp_path):
    """It is the optimum over all training images of all eight classes, and not over fewer.

    Its loss is the literal one, with weight decay of 1e-4 * 2 / 2. It beats the trained layer.
    """
    run = runs.by_method['joint_last']
    layer = run.corrections[1]
    data = run_at(0, '', handful, tmp_path, *SMALL).data
    labels = np.repeat(np.arange(8), 5)
    paths = data.relative(np.concatenate(data.train))
    features = exported(run, 1, 'features', 'features', contents_of(handful, paths)).astype(float)
    assert features.shape == (40, 64)

    def largest_slope(chosen):
        x = features[chosen]
        logits = x.dot(layer.kernel) + layer.bias
        error = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        error -= np.eye(8)[labels[chosen]]
        kernel_slopes = x.T.dot(error) / len(x) + 1e-4 * layer.kernel
        bias_slopes = error.mean(axis=0) + 1e-4 * layer.bias
        return max(np.abs(kernel_slopes).max(), np.abs(bias_slopes).max())

    assert largest_slope(np.arange(40)) < 1e-5
    for image in range(40):
        assert largest_slope(np.delete(np.arange(40), image)) > 5e-5

    trained = runs.by_method['distill'].networks[1]
    logits = features.dot(trained['dense/kernel']) + trained['dense/bias']
    num_wrong_before = np.sum(logits.argmax(axis=1) != labels)
    logits = features.dot(layer.kernel) + layer.bias
    assert np.sum(logits.argmax(axis=1) != labels) < num_wrong_before
    predictions = table(run, 'predictions', 1)
    assert any(line['before'] != line['after'] for line in predictions)


@pytest.mark.parametrize('k, method', [(0, 'bic'), (1, 'bic'), (1, 'joint_last')])
def test_exported_models_give_the_labels_in_predictions(k, method, runs, handful):
    """They agree image by image, with the bias correction and with the retrained last layer."""
    run = runs.by_method[method]
    lines = table(run, 'predictions', k)
    contents = contents_of(handful, [line['path'] for line in lines])
    classes = exported(run, k, 'serving_default', 'classes', contents)
    names = [entry['name'] for entry in run.states[1].classes]
    predicted = [names.index(row[0].decode()) for row in classes]
    assert predicted == [int(line['after']) for line in lines]


@pytest.mark.parametrize('method', METHODS)
def test_tables_beside_the_log(method, runs):
    """They agree with the rows, with the checkpoint, and with the [confusion] lines."""
    run = runs.by_method[method]
    for k, num_images in enumerate((15, 24)):
        predictions = table(run, 'predictions', k)
        assert len(predictions) == num_images
        for column, key in (('before', 'top1_before'), ('after', 'top1'), ('nme', 'top1_nme')):
            num_right = sum(line[column] == line['class'] for line in predictions)
            assert num_right / num_images == pytest.approx(run.rows[k][key])
        num_right = sum(float(line['top1']) * int(line['images'])
                        for line in table(run, 'classes', k))
        assert num_right / num_images == pytest.approx(run.rows[k]['top1'])
    state = run.states[1]
    names = [line['name'] for line in table(run, 'classes', 1)]
    assert names == [entry['name'] for entry in state.classes]
    assert len(table(run, 'classes')) == 5 + 8
    assert len(table(run, 'predictions')) == 15 + 24
    paths = [line['path'] for line in table(run, 'exemplars', 1)]
    assert paths == sum(state.exemplars, [])
    test_paths = sum([entry['test'] for entry in state.classes], [])
    assert [line['path'] for line in predictions] == test_paths

    expected = []
    for column in ('before', 'after'):
        for is_new in (False, True):  # the classes 0 .. 4, and 5 .. 7
            of_increment = [line for line in predictions if (line['class'] > '4') == is_new]
            num_new = sum(line[column] > '4' for line in of_increment)
            expected.append('%d,%d' % (len(of_increment) - num_new, num_new))
    assert [event['predicted'] for event in events(run.text, 'confusion')[2:]] == expected


def events_of_tensorboard(folder):
    """What TensorBoard's own reader finds.

    Returns:
        curves: dict from tag to list of (step, value).
        pictures: dict from (tag, step) to uint8 array.
        starts: list of int, the steps at which a process began.
    """
    curves = {}
    pictures = {}
    starts = []
    path, = folder.glob('events.out.tfevents.*')
    for event in tf.train.summary_iterator(str(path)):
        if event.session_log.status == tf.SessionLog.START:
            starts.append(event.step)
        for value in event.summary.value:
            png = value.image.encoded_image_string
            if png:
                pictures[value.tag, event.step] = np.array(PIL.Image.open(io.BytesIO(png)))
            else:
                curves.setdefault(value.tag, []).append((event.step, value.simple_value))
    return curves, pictures, starts


def test_curves(runs):
    """TensorBoard's own reader finds the log's numbers. Another run trained the first 11 steps."""
    run = runs.by_method['bic']
    curves, _, starts = events_of_tensorboard(run.tables)
    assert starts == [12]
    steps, losses = zip(*curves['train/loss'])
    assert steps == (12, 13, 15, 17, 19, 21, 23, 24)
    logged = [float(event['loss']) for event in events(run.text, 'train')]
    assert logged == pytest.approx(list(losses), abs=1e-4)
    seen, top1 = zip(*curves['result/top1'])
    assert list(seen) == [row['classes'] for row in run.rows]
    assert list(top1) == pytest.approx([row['top1'] for row in run.rows], abs=1e-6)


def test_pictures(runs, handful):
    """The page of exemplars shows the files; the confusion matrices are of predictions.csv."""
    run = runs.by_method['bic']
    _, pictures, _ = events_of_tensorboard(run.tables)
    names = ('confusion', 'exemplars', 'training_images')
    assert sorted(pictures) == [(name, step) for name in names for step in (5, 8)]

    # One exemplar of each class, resized from 8 to 16 pixels, so that every second one is the
    # file's; no others.
    page = pictures['exemplars', 8]
    assert page.shape == (8 * 16, 8 * 16, 3) and (page[:, 16:] == 255).all()
    for label, (image,) in enumerate(run.states[1].exemplars):
        original = np.array(PIL.Image.open(os.path.join(handful, image)), float)
        shown = page[16 * label:][:16:2, :16:2, 0]
        np.testing.assert_allclose(shown, original, atol=1)

    lines = table(run, 'predictions', 1)
    columns = {}
    for column in ('class', 'before', 'after'):
        columns[column] = np.array([int(line[column]) for line in lines])
    assert (columns['before'] != columns['after']).any()
    classes = [entry['name'] for entry in run.states[1].classes]
    png = io.BytesIO()
    with plot.styled():
        figure = draw.confusion_by_class(
            columns['class'], [columns['before'], columns['after']], classes, [5], 8)
        figure.savefig(png, format='png')
    np.testing.assert_array_equal(pictures['confusion', 8], np.array(PIL.Image.open(png)))


def test_random_exemplars(handful, tmp_path):
    """Of five candidates of each of five classes, SEED draws three, each equally probable."""
    def drawn(seed, label):
        random = exemplar.random_stream(seed, 'exemplars', 0, label)
        return list(exemplar.SELECTIONS['random'](np.zeros((5, 64)), 3, random))

    counts = np.zeros((5, 5))
    for seed in range(200):
        for label in range(5):
            rows = drawn(seed, label)
            assert len(set(rows)) == 3
            counts[label, rows] += 1
    assert np.abs(counts / 200 - 3 / 5).max() < 0.15  # more than four standard deviations

    begun = run_at(0, '', handful, tmp_path, '--EXEMPLAR_SELECTION=random', '--MEMORY_SIZE=24')
    begun.log = Log(None, silent=True)
    now = begun.remaining[0]
    begun.begin(now)
    with imagenet_main.increment_graph(begun, now) as net:
        for seed in (1, 2, 3):
            begun.s.SEED = seed
            memory, class_means = imagenet_main.rebuild_memory(begun, net)
            for label, images in enumerate(begun.data.train[:5]):
                assert list(memory[label]) == list(images[drawn(seed, label)])
                features, _ = imagenet_main.extract_features(begun, net, memory[label])
                mean = exemplar.class_mean(features)
                np.testing.assert_allclose(class_means[label], mean, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_several_runs_are_stopped_and_resumed(runs, handful, tmp_path, capsys):
    """The message names the second of two runs, and only that run is resumed."""
    given = [*SMALL, '--METHOD=distill,joint']
    process = common.started(handful, tmp_path, *given)
    runs_begun = 0
    for line in process.stdout:
        runs_begun += line.startswith('run ')
        if runs_begun == 2 and line.startswith('[train]   increment=1'):
            process.send_signal(signal.SIGTERM)
            break
    _, err = process.communicate()
    assert process.returncode == 75
    assert err.endswith('run 2 of 2, METHOD=joint: stopped; the same command resumes\n')

    rows = imagenet_main.main(arguments(handful, tmp_path, *given))
    assert rows == [runs.by_method['distill'].rows, runs.by_method['joint'].rows]
    out = capsys.readouterr().out
    assert ('\nrun 1 of 2, METHOD=distill: is finished\n\nrun 2 of 2, METHOD=joint: hours left'
            in out)
    resumed, = events(out, 'resume')
    assert resumed['increment'] == '1' and int(resumed['step']) > 0
    assert {event['increment'] for event in events(out, 'train')} == {'1'}


def test_several_runs_that_do_not_begin(handful, tmp_path):
    """A fault of a later run is reported before the first run begins."""
    with pytest.raises(Fault, match='^BATCH_SIZE=500: increment 0 has only 25 training images'):
        imagenet_main.main(arguments(handful, tmp_path, '--BATCH_SIZE=7,500'))
    assert os.listdir(str(tmp_path)) == []


def test_predictions_of_several_runs(runs, handful, capsys):
    """They need no data."""
    image, = runs.by_method['bic'].states[1].exemplars[0]
    path = os.path.join(handful, image)
    imagenet_main.main(arguments(
        'nowhere', runs.folder, '--METHOD=bic,joint', '--PREDICT=' + path))
    lines = capsys.readouterr().out.split('\n')
    models = [line for line in lines if line.startswith('[model]')]
    assert models == ['[model]   dir=%s/increment-1' % runs.by_method[method].model
                      for method in ('bic', 'joint')]
    assert lines.count('[image]   path=%s' % path) == 2


def test_a_memory_of_no_exemplars(handful, tmp_path, monkeypatch):
    """16 / 8 = 2 images of a class are 1 to validate and min(2 - 1, 2 - 1) = 1 exemplar.

    A memory of 15 leaves no exemplar at the end.
    """
    monkeypatch.setattr(export, 'write', lambda *args: None)
    rows, text = run_main(
        handful, tmp_path, '--MEMORY_SIZE=15', '--EPOCHS=1', '--LR_DROP_EPOCHS=')
    assert np.isfinite(rows[0]['top1_nme'])
    assert np.isnan(rows[1]['top1_nme']) and np.isfinite(rows[1]['top1'])
    assert [event['increment'] for event in events(text, 'nme')] == ['0']
    assert newest_state(tmp_path).exemplars == [[]] * 8
