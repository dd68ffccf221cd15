"""The driver: its formulas by hand, one increment's graph against NumPy, and the real `main()` on a handful of images."""
import glob
import os
import re
import subprocess
import sys
import types

import numpy as np
import published
import pytest
import tensorflow.compat.v1 as tf
from test_exemplar import literal_herding

import bic_layer
import exemplar
import imagenet_main
import resnet_model
from data import Fault, prepare_digits
from logs import checkpoint

SCRIPT = os.path.abspath(imagenet_main.__file__)


# ---- Formulas ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize('rows', [published.IMAGENET100, published.IMAGENET1000])
def test_published_steps(rows):
    s = types.SimpleNamespace(EPOCHS=100, BATCH_SIZE=256)
    assert [imagenet_main.settings.num_steps(s, types.SimpleNamespace(train=n)) for n in rows['train']] == rows['steps']


def test_learning_rate_drops_after_the_boundaries():
    """12,800 images: 1500 3000 4000 4500; 0-based step s has the dropped rate when s > boundary."""
    s = types.SimpleNamespace(LEARNING_RATE=0.1, BATCH_SIZE=256, LR_DROP_EPOCHS=(30, 60, 80, 90), SCALE_BATCH=False)
    for step, rate in [(0, 0.1), (1500, 0.1), (1501, 0.01), (3000, 0.01), (3001, 0.001), (4000, 0.001), (4001, 1e-4),
                       (4500, 1e-4), (4501, 1e-5), (4999, 1e-5)]:
        assert imagenet_main.settings.learning_rate(s, 12800, step) == pytest.approx(rate)
    # 14,417 images: 56.32 batches an epoch, 30 epochs are 1689.49 of them.
    assert imagenet_main.settings.learning_rate(s, 14417, 1689) == pytest.approx(0.1)
    assert imagenet_main.settings.learning_rate(s, 14417, 1690) == pytest.approx(0.01)


# ---- One increment's graph -------------------------------------------------------------------------------------------------
def arguments(handful, folder, *more):
    return ['--DATA_DIR=' + handful, '--MODEL_DIR=%s/model' % folder, '--LOG_DIR=%s/logs' % folder, '--NUM_CLASSES=8',
            '--FIRST_INCREMENT_CLASSES=5', '--CLASSES_PER_INCREMENT=3', '--MEMORY_SIZE=22', '--BATCH_SIZE=7', '--EPOCHS=2',
            '--LR_DROP_EPOCHS=1', '--LEARNING_RATE=0.01', '--IMAGE_SIZE=16', '--RESIZE_SIDE_MIN=16', '--RESIZE_SIDE_MAX=20',
            '--LOG_STEPS=1', '--RESNET_DEPTH=8'] + list(more)


SIZE_33 = ['--IMAGE_SIZE=33', '--RESIZE_SIDE_MIN=33', '--RESIZE_SIDE_MAX=36']   # feature maps of more than one pixel


def log_softmax(logits):
    return logits - np.log(np.sum(np.exp(logits), axis=1, keepdims=True))


@pytest.mark.parametrize('scale', [True, False])
def test_two_steps_of_the_third_increment(scale, handful, tmp_path, monkeypatch):
    """Losses and momentum steps in NumPy, the network replaced by a linear one on each image's mean colour.

    Four increments of 2 classes: the old network knows 4, its correction applies to the newer 2, weight decay is times 4 / 3.
    """
    networks = []

    def linear(images, depth, num_classes, training, decay, data_format):
        networks.append((tf.get_variable_scope().name, training, images))
        kernel = tf.get_variable('dense/kernel', [3, num_classes], use_resource=True)
        bias = tf.get_variable('dense/bias', [num_classes], use_resource=True)
        features = tf.reduce_mean(images, [1, 2]) / 100
        return features, tf.matmul(features, kernel) + bias

    monkeypatch.setattr(resnet_model, 'resnet', linear)
    s, faults = imagenet_main.settings.read(vars(imagenet_main), imagenet_main.RECIPES, arguments(
        handful, tmp_path, '--FIRST_INCREMENT_CLASSES=2', '--CLASSES_PER_INCREMENT=2', '--WEIGHT_DECAY=0.01',
        '--SCALE_WEIGHT_DECAY=%s' % scale, *SIZE_33))
    data, plan, missing = imagenet_main.protocol.read(s, faults, {})
    assert [now.num_seen for now in plan] == [2, 4, 6, 8]
    fits = [bic_layer.IDENTITY, bic_layer.Fit(0.6, -0.3, 0, 0, False)]
    with tf.Graph().as_default(), tf.Session() as session:
        train = np.concatenate(data.train[:6])
        model = imagenet_main.build(s, plan, plan[2]._replace(train=len(train)), fits)
        assert [network[:2] for network in networks] == [('resnet', True), ('resnet_old', False), ('resnet', False)]
        labels = [op for op in tf.get_default_graph().get_operations() if op.type == 'IteratorGetNext'][0].outputs[1]
        session.run(model.initializer)
        session.run(model.train_batches.initializer, imagenet_main.batches.training_feed(s, model, data, train))
        values, steps = [session.run(model.networks)], []
        for _ in range(2):
            steps.append(session.run([model.losses, networks[0][2], labels, model.train_op], {model.rate: 0.1})[:3])
            values.append(session.run(model.networks))

    weight_decay = 0.01 * (4 / 3 if scale else 1)
    momentum = 0
    for before, (losses, images, labels), after in zip(values, steps, values[1:]):
        kernel, bias = before['resnet']['dense/kernel'].astype(float), before['resnet']['dense/bias']
        features = images.astype(float).mean(axis=(1, 2)) / 100
        logits = (features.dot(kernel) + bias)[:, :6]
        old = (features.dot(before['resnet_old']['dense/kernel']) + before['resnet_old']['dense/bias'])[:, :4]
        old[:, 2:] = 0.6 * old[:, 2:] - 0.3
        targets = np.exp(log_softmax(old / 2))
        loss_distill = -np.mean(np.sum(targets * log_softmax(logits[:, :4] / 2), axis=1))
        loss_class = -np.mean(log_softmax(logits)[np.arange(7), labels])
        loss_l2 = weight_decay * (np.sum(kernel ** 2) + np.sum(bias ** 2)) / 2
        assert losses['loss_distill'] == pytest.approx(loss_distill, rel=1e-4)
        assert losses['loss_class'] == pytest.approx(loss_class, rel=1e-4)
        assert losses['loss_l2'] == pytest.approx(loss_l2, rel=1e-4)
        assert losses['loss'] == pytest.approx(2 / 3 * loss_distill + 1 / 3 * loss_class + loss_l2, rel=1e-4)
        assert losses['top1'] == pytest.approx(np.mean(logits.argmax(axis=1) == labels))

        gradient = np.zeros((7, 8))
        gradient[:, :6] = 1 / 3 * (np.exp(log_softmax(logits)) - np.eye(6)[labels])
        gradient[:, :4] += 2 / 3 * (np.exp(log_softmax(logits[:, :4] / 2)) - targets) / 2
        momentum = 0.9 * momentum + features.T.dot(gradient) / 7 + weight_decay * kernel
        np.testing.assert_allclose(after['resnet']['dense/kernel'], kernel - 0.1 * momentum, rtol=1e-4, atol=1e-5)
        for name in ('dense/kernel', 'dense/bias'):
            np.testing.assert_array_equal(after['resnet_old'][name], before['resnet_old'][name])


@pytest.fixture(name='steps')
def steps_(handful, tmp_path):
    """A function: the losses of three steps of the second increment, and the types of the operations that were built."""
    def run(*more):
        s, faults = imagenet_main.settings.read(vars(imagenet_main), imagenet_main.RECIPES, arguments(handful, tmp_path, *more))
        data, plan, _ = imagenet_main.protocol.read(s, faults, {})
        train = np.concatenate(data.train)[:plan[1].train]
        with tf.Graph().as_default() as graph:
            model = imagenet_main.build(s, plan, plan[1], [bic_layer.IDENTITY])
            with tf.Session(config=imagenet_main.machine.session_config(s)) as session:
                session.run(model.initializer, resnet_model.first_weights(model.networks, None, s.SEED))
                session.run(model.train_batches.initializer, imagenet_main.batches.training_feed(s, model, data, train))
                losses = [session.run([model.losses['loss'], model.train_op], {model.rate: 0.01})[0] for _ in range(3)]
        return s, losses, graph
    return run


def test_bfloat16(steps):
    s, losses, _ = steps('--MIXED_PRECISION=True', *SIZE_33)
    if imagenet_main.machine.precision(s) == 'float32':
        pytest.skip('a processor, or a TensorFlow, without bfloat16')
    exact = steps(*SIZE_33)[1]
    assert losses != exact
    np.testing.assert_allclose(losses, exact, rtol=0.05)


def test_float16_scales_the_loss_and_the_gradients_back(steps, monkeypatch):
    """As on a GPU; the rewriting itself needs one, so that nothing but the scaling, by a power of two, is seen here."""
    exact = steps(*SIZE_33)[1]
    monkeypatch.setattr(imagenet_main.machine, 'precision', lambda s: 'float16')
    try:
        _, losses, graph = steps(*SIZE_33)
    finally:
        tf.train.experimental.disable_mixed_precision_graph_rewrite()
    assert 'IsFinite' in {op.type for op in graph.get_operations()}
    np.testing.assert_allclose(losses, exact, rtol=1e-3)


def test_the_graph_for_a_gpu(handful, tmp_path, monkeypatch):
    """Built, not run: channels first in every layer, float16 with loss scaling, memory taken as it is needed, compiled."""
    monkeypatch.setattr(imagenet_main.machine, 'num_gpus', lambda: 1)
    s, _ = imagenet_main.settings.read(vars(imagenet_main), imagenet_main.RECIPES,
                                       arguments(handful, tmp_path, '--MIXED_PRECISION=True', '--XLA=True'))
    plan = imagenet_main.protocol.read(s, {}, {})[1]
    assert imagenet_main.machine.precision(s) == 'float16'
    config = imagenet_main.machine.session_config(s)
    assert config.gpu_options.allow_growth
    assert config.graph_options.optimizer_options.global_jit_level == tf.OptimizerOptions.ON_1
    try:
        with tf.Graph().as_default() as graph:
            imagenet_main.build(s, plan, plan[1], [bic_layer.IDENTITY])
    finally:
        tf.train.experimental.disable_mixed_precision_graph_rewrite()
    operations = graph.get_operations()
    formats = {op.get_attr('data_format') for op in operations
               if op.type.startswith(('Conv2D', 'FusedBatchNorm', 'MaxPool'))}
    assert formats == {b'NCHW'} and 'IsFinite' in {op.type for op in operations}


def test_precision_without_units_for_it(handful, tmp_path):
    s, _ = imagenet_main.settings.read(vars(imagenet_main), imagenet_main.RECIPES, arguments(handful, tmp_path))
    assert imagenet_main.machine.precision(s) == 'float32'
    assert 'bfloat16' not in str(imagenet_main.machine.session_config(s))


def test_the_graph_does_not_grow_with_the_classes(handful, tmp_path):
    def operations(classes):
        s, _ = imagenet_main.settings.read(vars(imagenet_main), imagenet_main.RECIPES, [
            '--NUM_CLASSES=%d' % (2 * classes), '--FIRST_INCREMENT_CLASSES=%d' % classes,
            '--CLASSES_PER_INCREMENT=%d' % classes, '--MEMORY_SIZE=%d' % (2 * classes)])
        plan = [exemplar.Increment(0, 0, classes, 0, 1, 1, 1, 1, 1),
                exemplar.Increment(1, classes, 2 * classes, 1, 1, 1, 1, 1, 1)]
        with tf.Graph().as_default() as graph:
            imagenet_main.build(s, plan, plan[1], [bic_layer.IDENTITY])
            return len(graph.get_operations())

    assert operations(5) == operations(5000)


# ---- The whole run ---------------------------------------------------------------------------------------------------------
def run_main(handful, folder, *more):
    rows = imagenet_main.main(arguments(handful, folder, *more))
    path, = glob.glob('%s/logs/log-digits-*' % folder)
    with open(path, encoding='utf-8') as file:
        return rows, file.read()


def stored(folder, *names):
    with np.load(os.path.join(str(folder), 'model', 'digits', *names)) as archive:
        return {name: archive[name] for name in archive.files}


def events(text, tag):
    return [dict(pair.split('=', 1) for pair in line.split()[1:]) for line in text.split('\n') if line.startswith('[%s]' % tag)]


@pytest.fixture(name='run', scope='session')
def run_(handful, tmp_path_factory):
    """One run: rows, log, folder, and what was handed to `train_classifier` and `evaluate` and came from `update_memory`."""
    folder, calls = tmp_path_factory.mktemp('run'), dict(train_classifier=[], evaluate=[], update_memory=[])
    patch = pytest.MonkeyPatch() if hasattr(pytest, 'MonkeyPatch') else None

    def recorded(name, keep):
        original = getattr(imagenet_main.results if name == 'evaluate' else imagenet_main, name)

        def wrapper(*args):
            result = original(*args)
            calls[name].append(keep(args, result))
            return result
        return wrapper

    patch.setattr(imagenet_main, 'train_classifier', recorded('train_classifier', lambda args, _: set(args[5].paths[args[6]])))
    patch.setattr(imagenet_main.results, 'evaluate', recorded('evaluate', lambda args, _: list(args[4].paths[args[5]])))
    patch.setattr(imagenet_main, 'update_memory', recorded('update_memory', lambda args, result: (args[3], result[0])))
    rows, text = run_main(handful, folder)
    patch.undo()
    return types.SimpleNamespace(rows=rows, text=text, folder=str(folder), calls=calls)


def test_sizes(run):
    """By hand. Memory 22 for 5 old classes is 4.4 each: 1 to validate, min(5 - 1, 4 - 1) = 3 to train on."""
    plan = [{key: int(value) for key, value in event.items()} for event in events(run.text, 'plan')]
    assert plan == [
        dict(increment=0, new_classes=5, seen_classes=5, train=25, val=5, test=15, exemplars_per_class=0, steps=8, lr_drops=3),
        dict(increment=1, new_classes=3, seen_classes=8, train=30, val=8, test=24, exemplars_per_class=3, steps=9, lr_drops=4)]
    assert [(row['train'], row['val'], row['test'], row['classes']) for row in run.rows] == [(25, 5, 15, 5), (30, 8, 24, 8)]
    assert [len(events(run.text, 'train')), len(events(run.text, 'bias'))] == [8 + 9, 1]
    assert [int(event['images']) for event in events(run.text, 'eval')] == [15, 15, 8, 8, 24, 24]
    # 22 / 8 = 2.75: min(3 - 1, 2 - 1) = 1 would be kept of each class for a third increment.
    assert [(event['candidates'], event['exemplars']) for event in events(run.text, 'memory')] == [('25', '15'), ('30', '8')]


def test_each_image_is_used_as_the_method_says(run):
    """No image that is validated or tested on is ever trained on; of old classes just the memory is."""
    memory0, test0, val1, memory1, test1 = run.calls['evaluate']    # in the order of the run
    first, second = run.calls['train_classifier']
    assert (len(test0), len(memory0), len(val1), len(test1)) == (15, 25, 8, 24)
    assert not (first | second) & (set(val1) | set(test1) | set(test0))
    assert set(memory0) == first and set(memory1) == second
    (data, kept), _ = run.calls['update_memory']
    exemplars = {path for of_class in kept for path in data.paths[of_class]}
    assert len(exemplars) == 15 and exemplars < first
    assert second & first == exemplars
    assert set(data.labels[np.concatenate(kept)]) == set(range(5))
    assert set(val1) & set(data.paths) == set(val1) and len(set(val1)) == 8


def test_memory_is_herded_with_the_trained_network(run, handful):
    """Features anew from the stored network, one image at a time, and the literal loop of test_exemplar.py."""
    (data, kept), _ = run.calls['update_memory']
    s, _ = imagenet_main.settings.read(vars(imagenet_main), imagenet_main.RECIPES, arguments(handful, run.folder))
    weights = stored(run.folder, 'increment-0', 'network.npz')
    assert all(np.abs(weights[name]).max() > 0 for name in weights if name.endswith('moving_mean'))   # they were updated
    with tf.Graph().as_default(), tf.Session() as session:
        image = tf.placeholder(tf.string, [])
        dataset = imagenet_main.batches.evaluation_batches(image[None], tf.zeros([1], tf.int32), s)
        iterator = tf.data.make_initializable_iterator(dataset)
        with tf.variable_scope('resnet'):
            features, _ = resnet_model.resnet(iterator.get_next()[0], 8, 8, False, 0.9)
        variables = resnet_model.variables('resnet')
        session.run(tf.global_variables_initializer(), {variables[name].initial_value: weights[name] for name in weights})
        for label, of_class in enumerate(kept):
            rows = []
            for path in data.paths[data.train[label]]:
                session.run(iterator.initializer, {image: path})
                rows.append(session.run(features)[0])
            assert list(of_class) == list(data.train[label][literal_herding(rows, 3)])


def test_first_losses_are_the_same_on_both_tensorflows(handful, tmp_path):
    """ResNet-18, whose 21 convolutions, 17 normalisations of 4 variables each, and dense layer a checkpoint has. Weights, order
    and augmentation come from NumPy. The losses are TensorFlow 2.21's, on an AMD processor with AVX-512."""
    _, text = run_main(handful, tmp_path, '--RESNET_DEPTH=18', '--FIRST_INCREMENT_CLASSES=8', '--EPOCHS=1', '--LR_DROP_EPOCHS=')
    losses = [float(event['loss']) for event in events(text, 'train')[:4]]
    np.testing.assert_allclose(losses, [2.6379, 2.8549, 2.0678, 1.0842], atol=1e-3)
    network = stored(tmp_path, 'increment-0', 'network.npz')
    assert len(network) == 21 + 17 * 4 + 2 and network['dense/kernel'].shape == (512, 8)


def test_train_lines_add_up(run):
    for event in events(run.text, 'train'):
        value = {key: float(text) for key, text in event.items()}
        assert value['lambda'] == (0.625 if event['increment'] == '1' else 0)
        expected = (value['lambda'] * value['loss_distill'] + (1 - value['lambda']) * value['loss_class'] + value['loss_l2'])
        assert value['loss'] == pytest.approx(expected, abs=2e-4)
        # Batches of seven: the rate drops after step 25 / 7 = 3.57 (increment 0) and 30 / 7 = 4.29 (increment 1).
        boundary = {'0': 3, '1': 4}[event['increment']]
        assert value['lr'] == pytest.approx(0.01 if value['step'] - 1 <= boundary else 0.001)


def test_results_agree_with_each_other(run):
    rows, text = run.rows, run.text
    results, evals, bias = events(text, 'result'), events(text, 'eval'), events(text, 'bias')[0]
    assert [result['seen_classes'] for result in results] == ['5', '8']
    assert (results[1]['top1_before'], results[1]['top1']) == (evals[-2]['top1'], evals[-1]['top1'])
    assert (results[1]['beta'], results[1]['gamma']) == (bias['beta'], bias['gamma'])
    assert float(results[1]['avg_top1']) == pytest.approx((rows[0]['top1'] + rows[1]['top1']) / 2, abs=1e-4)
    assert results[0]['avg_top1_excl_first'] == 'nan' and results[1]['avg_top1_excl_first'] == results[1]['top1']
    assert float(bias['loss_after']) <= float(bias['loss_before'])
    matrix = [[float(x) for x in event['top1_by_increment'].split(',')] for event in events(text, 'matrix')
              if event['correction'] == 'on']
    assert np.dot(matrix[1], [15, 9]) / 24 == pytest.approx(rows[1]['top1'], abs=1e-4)
    assert float(results[1]['forgetting_top1']) == pytest.approx(matrix[0][0] - matrix[1][0], abs=1.1e-4)
    # The authors' closing lines, in their format.
    closing = re.findall(r'^(?:beta    |gamma   |accuracy): .*$', text, re.M)
    assert len(closing) == 6
    beta = re.match(r'beta    :  \[1\.\] \[(\S+)\]$', closing[3]).group(1)
    assert float(beta) == pytest.approx(float(bias['beta']), abs=1e-6)
    assert closing[5] == 'accuracy:  ' + ' '.join(str(np.float32([row['top1']])) for row in rows)


def test_checkpoints(run):
    """One per increment, of the student alone: 10 convolutions, 7 normalisations of 4 variables each, the dense layer."""
    for k in (0, 1):
        path = '%s/model/digits/increment-%d/network.npz' % (run.folder, k)
        assert sorted(os.listdir(os.path.dirname(path))) == ['network.npz', 'state.json']
        with np.load(path) as archive:
            assert len(archive.files) == 10 + 7 * 4 + 2
            assert archive['dense/kernel'].shape == (64, 8)


def test_student_and_old_network_start_from_the_previous_network(run, handful):
    s, faults = imagenet_main.settings.read(vars(imagenet_main), imagenet_main.RECIPES, arguments(handful, run.folder))
    data, plan, missing = imagenet_main.protocol.read(s, faults, {})
    weights = stored(run.folder, 'increment-0', 'network.npz')
    with tf.Graph().as_default(), tf.Session() as session:
        model = imagenet_main.build(s, plan, plan[1], [bic_layer.IDENTITY])
        session.run(model.initializer, resnet_model.first_weights(model.networks, weights, s.SEED))
        for network in session.run(model.networks).values():
            assert sorted(network) == sorted(weights)
            for name in network:
                np.testing.assert_array_equal(network[name], weights[name])


def without_times(text):
    return re.sub(r'(git|images_per_sec|input_wait|seconds|hours_left|hours)=\S+|_DIR=.*|\bdir=\S+', '', text)


def test_a_second_run_gives_the_same_and_another_seed_does_not(run, handful, tmp_path):
    text = run.text
    again = run_main(handful, tmp_path / 'again')[1]
    assert without_times(again) == without_times(text)
    other = run_main(handful, tmp_path / 'other', '--SEED=2')[1]
    assert events(other, 'plan')[1]['train'] == '30'
    assert events(other, 'train')[0]['loss'] != events(text, 'train')[0]['loss']


def test_a_loss_that_is_not_finite_stops_the_run(handful, tmp_path):
    with pytest.raises(Fault, match=r'increment=0 epoch=\d step=\d+: loss=(nan|inf)'):
        run_main(handful, tmp_path, '--LEARNING_RATE=1e30')


def test_a_batch_larger_than_the_data(handful, tmp_path):
    with pytest.raises(Fault, match='BATCH_SIZE=26: increment 0 has only 25 training images'):
        run_main(handful, tmp_path, '--BATCH_SIZE=26')


@pytest.mark.parametrize('epochs', [2, 3])
def test_a_last_batch_too_small_for_batch_normalisation(epochs, handful, tmp_path):
    """25 and 30 images in batches of 8: the last batch of increment 0 has 2 in two epochs, 3 in three."""
    s, faults = imagenet_main.settings.read(vars(imagenet_main), imagenet_main.RECIPES, arguments(
        handful, tmp_path, '--RESNET_DEPTH=18', '--BATCH_SIZE=8', '--EPOCHS=%d' % epochs))
    missing = imagenet_main.protocol.read(s, faults, {})[2]
    assert len([line for line in missing if 'the last batch of increment 0 has %d images' % epochs in line]) == 1
    for name, value in (('IMAGE_SIZE', 33), ('RESNET_DEPTH', 32)):
        other = types.SimpleNamespace(**dict(vars(s), **{name: value}))
        assert imagenet_main.protocol.read(other, faults, {})[2] == []


@pytest.fixture(name='class_folders')
def class_folders_(handful, tmp_path):
    """A function that makes class folders of nine training and nine test digits each, for names of any kind."""
    def make(digits_of_names):
        for name, digit in digits_of_names.items():
            for part in ('train', 'val'):
                (tmp_path / 'data' / part / name).mkdir(parents=True)
                source = os.path.join(handful, part, str(digit))
                for image in sorted(os.listdir(source))[:9]:
                    os.symlink(os.path.join(source, image), str(tmp_path / 'data' / part / name / image))
        return str(tmp_path / 'data')
    return make


FOLDERS = ['--NUM_CLASSES=0', '--FIRST_INCREMENT_CLASSES=2', '--CLASSES_PER_INCREMENT=2', '--EPOCHS=1', *SIZE_33]


def test_class_folders(class_folders, tmp_path):
    """Four classes with names of any kind; in the plan and in the results they are called by their names."""
    names = ['Apfel', 'zwei Wörter', '"quoted"', '数字']
    rows, text = run_main(class_folders(dict(zip(names, range(4)))), tmp_path, *FOLDERS)
    assert [row['classes'] for row in rows] == [2, 4] and [row['test'] for row in rows] == [18, 36]
    lines = [line for line in text.split('\n') if line.startswith('[class]')]
    assert sorted(line.split(' name=')[1] for line in lines) == sorted(names)
    top1 = [float(re.search(r'top1=(\S+)', line).group(1)) for line in lines]
    assert np.mean(top1) == pytest.approx(rows[-1]['top1'], abs=1e-4)


def test_a_finished_run_goes_on_with_new_class_folders(class_folders, tmp_path, monkeypatch, capsys):
    """Of the old classes all images are deleted but those that the run keeps; whose network, memory and results stay."""
    data = class_folders({'d': 0, 'b': 1, 'e': 2, 'c': 3})
    rows, _ = run_main(data, tmp_path, *FOLDERS)
    state = checkpoint.load(str(tmp_path / 'model' / 'digits'))[1]
    learnt = [of_class['name'] for of_class in state['classes']]
    assert sorted(learnt) == ['b', 'c', 'd', 'e']
    assert [len(of_class) for of_class in state['exemplars']] == [4] * 4      # 22 / 4 = 5.5: min(6 - 1, 5 - 1)
    # The same command does nothing now, and shows the table.
    capsys.readouterr()
    assert imagenet_main.main(arguments(data, tmp_path, *FOLDERS)) == rows
    out = capsys.readouterr().out
    assert 'this run is finished' in out and '| %.4f |' % rows[1]['top1'] in out
    assert len(glob.glob('%s/logs/log-*' % tmp_path)) == 1

    needed = {path for paths in state['exemplars'] for path in paths}
    needed |= {path for of_class in state['classes'] for part in ('held', 'test') for path in of_class[part]}
    for name in learnt:
        for image in os.listdir(os.path.join(data, 'train', name)):
            if os.path.join('train', name, image) not in needed:
                os.remove(os.path.join(data, 'train', name, image))
    class_folders({'a': 4, 'cc': 5, 'f': 6})            # among the old ones in sorted order
    checkpoint.save(str(tmp_path / 'model' / 'digits'), stored(tmp_path, 'increment-1', 'network.npz'), dict(state, hours=5.0))
    os.rename(str(tmp_path / 'logs'), str(tmp_path / 'first-logs'))
    trained, starts = [], []
    train_classifier, first_weights = imagenet_main.train_classifier, resnet_model.first_weights
    monkeypatch.setattr(imagenet_main, 'train_classifier', lambda *args: trained.append(args[4:7]) or train_classifier(*args))
    monkeypatch.setattr(resnet_model, 'first_weights', lambda *args: starts.append(args[1]) or first_weights(*args))
    grown, text = run_main(data, tmp_path, *FOLDERS)
    assert grown[:2] == rows and len(grown) == 3 and grown[2]['classes'] == 7
    assert events(text, 'resume')[0]['increment'] == '2' and 5 <= float(events(text, 'result')[0]['hours']) < 5.1
    assert [(event['increment'], event['train'], event['val'], event['test']) for event in events(text, 'plan')] == [
        ('2', str(4 * 4 + 3 * 8), '7', str(7 * 9))]
    (now, images, train), = trained
    paths, labels = images.paths[train], images.labels[train]
    assert (now.num_old, now.num_seen) == (4, 7)
    assert ({os.path.relpath(os.fsdecode(path), data) for path, label in zip(paths, labels) if label < 4}
            == {path for of_class in state['exemplars'] for path in of_class})
    for path, label in zip(paths, labels):
        name = os.path.basename(os.path.dirname(os.fsdecode(path)))
        assert name == learnt[label] if label < 4 else name in ('a', 'cc', 'f')
    before, after = stored(tmp_path, 'increment-1', 'network.npz'), starts[0]
    for name in before:
        np.testing.assert_array_equal(after[name][..., :4] if name.startswith('dense') else after[name], before[name])
    assert after['dense/kernel'].shape == (64, 7) and np.abs(after['dense/kernel'][:, 4:]).max() > 0.05
    assert stored(tmp_path, 'increment-2', 'network.npz')['dense/bias'].shape == (7,)


def test_what_a_run_needs_to_go_on(class_folders, tmp_path):
    data = class_folders({'d': 0, 'b': 1, 'e': 2, 'c': 3})
    run_main(data, tmp_path, *FOLDERS)
    state = checkpoint.load(str(tmp_path / 'model' / 'digits'))[1]
    class_folders({'a': 4})
    with pytest.raises(Fault, match='SEED=2: .*increment-1 has 1; another MODEL_DIR begins a new run'):
        run_main(data, tmp_path, *FOLDERS, '--SEED=2')
    for path in (state['exemplars'][1][0], state['classes'][2]['held'][0], state['classes'][3]['test'][0]):
        moved = os.path.join(data, path + '.txt')
        os.rename(os.path.join(data, path), moved)
        with pytest.raises(Fault) as fault:
            run_main(data, tmp_path, *FOLDERS)
        assert str(fault.value).startswith('%s: this run needs it, an exemplar, a validation or a test image of class '
                                           % os.path.join(data, path))
        os.rename(moved, os.path.join(data, path))
    for part in ('train', 'val'):
        os.rename(os.path.join(data, part, 'd'), os.path.join(data, part, 'D'))
    with pytest.raises(Fault, match='there is no class d any more, and this run began with it; put it back, or begin a new run'):
        run_main(data, tmp_path, *FOLDERS)


def test_a_run_stopped_between_two_increments_goes_on(run, handful, tmp_path, monkeypatch):
    """Killed after the first increment; the second start gives the weights, to the bit, and the lines of the run without."""
    save = checkpoint.save
    monkeypatch.setattr(checkpoint, 'save', lambda *args: args[2]['step'] and save(*args) or sys.exit('killed' + save(*args)))
    with pytest.raises(SystemExit, match='killed'):
        run_main(handful, tmp_path)
    monkeypatch.undo()
    os.rename(str(tmp_path / 'logs'), str(tmp_path / 'first-logs'))
    rows, text = run_main(handful, tmp_path)
    assert rows == run.rows
    assert events(text, 'resume')[0]['increment'] == '1'
    expected = without_times(run.text)
    assert without_times(text[text.index('[train]'):]) == expected[expected.index('[train]   increment=1'):]
    for k in (0, 1):
        ours, theirs = stored(tmp_path, 'increment-%d' % k, 'network.npz'), stored(run.folder, 'increment-%d' % k, 'network.npz')
        assert sorted(ours) == sorted(theirs)
        for name in ours:
            np.testing.assert_array_equal(ours[name], theirs[name])
    ours, theirs = (checkpoint.load(os.path.join(folder, 'model', 'digits'))[1] for folder in (str(tmp_path), run.folder))
    assert {key: ours[key] for key in ours if key != 'hours'} == {key: theirs[key] for key in theirs if key != 'hours'}


def test_class_order_from_a_file(class_folders, tmp_path):
    data = class_folders({'d': 0, 'zwei Wörter': 1, 'e': 2, 'c': 3})
    order = tmp_path / 'order.txt'
    order.write_text('e\nzwei Wörter\n\nc\nd\n', encoding='utf-8')

    def read(path):
        s, faults = imagenet_main.settings.read(vars(imagenet_main), imagenet_main.RECIPES,
                                                arguments(data, tmp_path, *FOLDERS, '--CLASS_ORDER=%s' % path))
        return imagenet_main.protocol.read(s, faults, {})[0].names

    assert read(order) == ['e', 'zwei Wörter', 'c', 'd']
    order.write_text('e\nx\nc\ne\n', encoding='utf-8')
    with pytest.raises(Fault) as fault:
        read(order)
    assert str(fault.value).replace(str(order), 'F').split('\n') == [
        'F: there is no class x', 'F: class d is missing', 'F: class zwei Wörter is missing', 'F: class e stands there 2 times']
    order.write_bytes(b'\xff')
    with pytest.raises(Fault, match='cannot be read as a list of class names'):
        read(order)
    with pytest.raises(Fault, match='CLASS_ORDER=shuffled: is neither one of random icarl sorted nor a file of class names'):
        read('shuffled')


def test_broken_images_are_refused_or_left_out(handful, tmp_path):
    (tmp_path / 'train').mkdir()
    (tmp_path / 'train' / 'broken.png').write_bytes(b'')
    (tmp_path / 'val.txt').write_text(open(os.path.join(handful, 'val.txt')).read().replace('val/', handful + '/val/'))
    (tmp_path / 'train.txt').write_text(open(os.path.join(handful, 'train.txt')).read().replace('train/', handful + '/train/')
                                        + 'train/broken.png 5\n')
    broken = '%s: is empty' % (tmp_path / 'train' / 'broken.png')
    for more, expected_missing, expected_left_out in (
            ([], [broken + '; mend or remove it, or do without with LEAVE_OUT_BROKEN=True'], []),
            (['--LEAVE_OUT_BROKEN=True'], [], [broken])):
        s, faults = imagenet_main.settings.read(vars(imagenet_main), imagenet_main.RECIPES,
                                                arguments(str(tmp_path), tmp_path, *SIZE_33, *more))
        data, plan, missing = imagenet_main.protocol.read(s, faults, {})
        assert missing == expected_missing and data.left_out == expected_left_out
    assert sum(map(len, data.train)) + sum(map(len, data.held)) == 48    # as without the broken one


@pytest.mark.parametrize('rows, counts, dataset', [
    (published.IMAGENET100, published.COUNTS[:100], 'imagenet100'), (published.IMAGENET1000, published.COUNTS, 'imagenet1000')])
def test_the_plan_from_lists_alone_is_the_published_one(rows, counts, dataset, tmp_path, capsys):
    """All sixty sizes and twenty step counts, without any image; then what is missing, and nothing is written."""
    for part, of_class in (('train', counts), ('val', [50] * len(counts))):
        (tmp_path / (part + '.txt')).write_text(''.join(
            '%s/c%d/%d.JPEG %d\n' % (part, label, i, label) for label, count in enumerate(of_class) for i in range(count)))
    with pytest.raises(Fault, match='train/c0: no such folder; .*train.txt lists 1300 images in it'):
        imagenet_main.main(['--PLAN_ONLY=True', '--DATASET=' + dataset, '--DATA_DIR=%s' % tmp_path,
                            '--LOG_DIR=%s/logs' % tmp_path, '--MODEL_DIR=%s/model' % tmp_path])
    out = capsys.readouterr().out
    plan = events(out, 'plan')
    for key, values in rows.items():
        assert [int(event[key]) for event in plan] == values
    estimate, = events(out, 'estimate')
    # Twenty-nine networks of 11.2 or 11.7 million numbers, nine of them within an increment; five times 4 bytes of these, and
    # 1.5 times 4.6 million of each of 256 images.
    assert (estimate['network_gb'], estimate['disk_gb']) == (('7.28', '1.30') if dataset == 'imagenet100' else ('7.29', '1.36'))
    if dataset == 'imagenet100':
        assert plan[0]['lr_drops'] == '1500,3000,4000,4500'
    first = events(out, 'class')[0]
    assert first['name'] == ('c68' if dataset == 'imagenet100' else 'c54')
    assert sorted(os.listdir(str(tmp_path))) == ['train.txt', 'val.txt']


@pytest.mark.parametrize('name', ['LOG_DIR', 'MODEL_DIR'])
def test_output_folders_are_tried_first(name, handful, tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(Fault, match='%s=.*file/x: .*file is no folder that can be written to' % name):
        run_main(handful, tmp_path, '--%s=%s' % (name, tmp_path / 'file' / 'x'))


def test_only_the_recipes_own_folder_is_written(tmp_path):
    """A mistyped folder is a fault, not a place for digits."""
    with pytest.raises(Fault, match='mistyped: no such folder; data/README.md says'):
        imagenet_main.main(['--DATA_DIR=%s' % (tmp_path / 'mistyped'), '--MODEL_DIR=%s' % tmp_path, '--LOG_DIR=%s' % tmp_path])
    assert os.listdir(str(tmp_path)) == []


def test_the_program_ends_with_the_message_alone(tmp_path):
    """As typed: non-zero status, one line per fault, no traceback, nothing written."""
    done = subprocess.run([sys.executable, SCRIPT, '--EPOCH=3', '--SEED=x'], cwd=str(tmp_path), capture_output=True, text=True)
    assert done.returncode == 1
    assert '--EPOCH: no such setting; near it: EPOCHS\nSEED=x: must be a whole number' in done.stderr
    assert 'Traceback' not in done.stderr and done.stdout == ''
    assert os.listdir(str(tmp_path)) == []


def test_digits_are_written_once(digits):
    """1,797 images, a fifth of each class to test on, and pixels that are scikit-learn's."""
    from sklearn.datasets import load_digits
    with open(os.path.join(digits, 'train.txt')) as train, open(os.path.join(digits, 'val.txt')) as val:
        lines = train.read().split('\n')[:-1], val.read().split('\n')[:-1]
    assert len(lines[0]) + len(lines[1]) == 1797
    assert 350 <= len(lines[1]) <= 360
    name, label = lines[0][100].split()
    number = int(os.path.basename(name)[:-4])
    assert load_digits().target[number] == int(label)
    with tf.Graph().as_default(), tf.Session() as session:
        pixels = session.run(tf.image.decode_png(tf.read_file(os.path.join(digits, name))))
    np.testing.assert_allclose(pixels[:, :, 0], load_digits().images[number] * 255 / 16, atol=0.5)
    with pytest.raises(Fault, match='exists already'):
        prepare_digits.prepare(digits)
