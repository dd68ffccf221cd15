"""Tests the driver: one increment's graph against NumPy, whole small runs, the demonstration."""
import dataclasses
import os
import re
import shutil
import signal
import subprocess
import sys
import types

import common
import numpy as np
import PIL.Image
import pytest
import tensorflow.compat.v1 as tf
from common import FOLDERS, SIZE_33, arguments, events, run_at, run_main, settings_of, stored

import bic_layer
import exemplar
import imagenet_main
import resnet_model
from data import Fault, batches, devices, numerics, prepare_digits, settings
from logs import checkpoint, needed

THREE = ['--FIRST_INCREMENT_CLASSES=3', '--CLASSES_PER_INCREMENT=2,3']
NUM_OLD = 5  # classes before its third increment, of 8


def test_learning_rate_drops_after_the_boundaries():
    """It drops where the 0-based step exceeds 1500, 3000, 4000, 4500.

    With 14,417 images the first one is 1689.49, 30 epochs.
    """
    s = types.SimpleNamespace(LEARNING_RATE=0.1, BATCH_SIZE=256, LR_DROP_EPOCHS=(30, 60, 80, 90))
    steps = [0, 1500, 1501, 3000, 3001, 4000, 4001, 4500, 4501, 4999]
    rates = [settings.learning_rate(s, 12800, step) for step in steps]
    assert rates == pytest.approx(np.repeat(0.1 ** np.arange(1, 6), 2))
    assert settings.learning_rate(s, 14417, 1689) == pytest.approx(0.1)
    assert settings.learning_rate(s, 14417, 1690) == pytest.approx(0.01)


# ---- One increment's graph ----------------------------------------------------------------------
def log_softmax(logits):
    return logits - np.log(np.sum(np.exp(logits), axis=1, keepdims=True))


def literal_losses(logits, old_logits, labels, loss_l2):
    """Equations 1 to 3 at T = 2, and the accuracy. logits of 2 m classes, old ones of the first."""
    num_old = old_logits.shape[1]
    num_seen = logits.shape[1]
    targets = np.exp(log_softmax(old_logits / 2))  # over classes, not over the batch
    student = log_softmax(logits[:, :num_old] / 2)
    loss_distill = -np.mean(np.sum(targets * student, axis=1))  # without a factor T * T
    loss_class = -np.mean(log_softmax(logits)[np.arange(len(labels)), labels])
    weight = num_old / num_seen
    return dict(
        loss=weight * loss_distill + (1 - weight) * loss_class + loss_l2,
        loss_class=loss_class,
        loss_distill=loss_distill,
        loss_l2=loss_l2,
        top1=np.mean(logits.argmax(axis=1) == labels))


@pytest.mark.parametrize('scale', [True, False])
def test_two_steps_of_the_third_increment(scale, handful, tmp_path, monkeypatch):
    """Redoes losses and momentum steps in NumPy, with a linear network of the mean colour.

    Of four increments of 2 classes, the old network knows 4 classes. It ends in its corrected last
    layer, where beta and gamma change the newer 2, and does not change. Weight decay is multiplied
    by 4 / 3.
    """
    monkeypatch.setattr(resnet_model, 'resnet', common.linear)
    run = run_at(0, '', handful, tmp_path, '--FIRST_INCREMENT_CLASSES=2',
                 '--CLASSES_PER_INCREMENT=2', '--WEIGHT_DECAY=0.01',
                 '--SCALE_WEIGHT_DECAY=%s' % scale, *SIZE_33)
    random = np.random.RandomState(0)
    networks = {}
    for scope in ('resnet/', 'resnet_old/'):
        networks[scope + 'dense/kernel'] = random.normal(size=(3, 8)).astype(np.float32)
        networks[scope + 'dense/bias'] = random.normal(size=8).astype(np.float32)
    old_kernel = networks['resnet_old/dense/kernel'].astype(float)
    old_bias = networks['resnet_old/dense/bias'].astype(float)
    correction = bic_layer.corrected(old_kernel[:, :4], old_bias[:4], 2, 0.6, -0.3)
    corrected = resnet_model.with_last_layer({}, correction.kernel, correction.bias, 8)
    networks.update({'resnet_old/' + name: array for name, array in corrected.items()})

    train = np.concatenate(run.data.train[:6])
    now = run.remaining[2]._replace(num_train=len(train))
    values = [networks]
    steps = []
    with devices.ONE.graph():
        net = imagenet_main.build(run.s, now, run.ends)
        with devices.ONE.session(run.s) as session:
            devices.ONE.initialize(session, net, networks)
            net.training.start(session, run.data, train)
            batch = [net.training.images, net.training.labels]
            for _ in range(2):
                steps.append(session.run([net.train_step, *batch], {net.rate: 0.1, net.count: 7}))
                values.append(session.run(net.values))

    weight_decay = 0.01 * (4 / 3 if scale else 1)
    kernel_momentum = 0
    bias_momentum = 0
    for before, (losses, images, labels), after in zip(values, steps, values[1:]):
        kernel = before['resnet/dense/kernel'].astype(float)
        bias = before['resnet/dense/bias'].astype(float)
        features = images.astype(float).mean(axis=(1, 2)) / 100
        logits = (features.dot(kernel) + bias)[:, :6]
        old_logits = (features.dot(old_kernel) + old_bias)[:, :4]
        old_logits[:, 2:] = 0.6 * old_logits[:, 2:] - 0.3
        loss_l2 = weight_decay * (np.sum(kernel ** 2) + np.sum(bias ** 2)) / 2
        expected = literal_losses(logits, old_logits, labels, loss_l2)
        assert losses == pytest.approx(expected, rel=1e-4)

        gradient = np.zeros((7, 8))
        gradient[:, :6] = 1 / 3 * (np.exp(log_softmax(logits)) - np.eye(6)[labels])
        targets = np.exp(log_softmax(old_logits / 2))
        gradient[:, :4] += 2 / 3 * (np.exp(log_softmax(logits[:, :4] / 2)) - targets) / 2
        kernel_gradient = features.T.dot(gradient) / 7 + weight_decay * kernel
        bias_gradient = gradient.mean(axis=0) + weight_decay * bias
        kernel_momentum = 0.9 * kernel_momentum + kernel_gradient
        bias_momentum = 0.9 * bias_momentum + bias_gradient
        np.testing.assert_allclose(after['resnet/dense/kernel'], kernel - 0.1 * kernel_momentum,
                                   rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(after['resnet/dense/bias'], bias - 0.1 * bias_momentum,
                                   rtol=1e-4, atol=1e-5)
        assert np.abs(after['resnet/dense/kernel'] - kernel).max() > 1e-3
        for name in corrected:
            np.testing.assert_array_equal(after['resnet_old/' + name], corrected[name])


def three_steps(handful, folder, *more):
    """The losses of three steps of the second increment, and the types of its operations."""
    run = run_at(0, '', handful, folder, *SIZE_33, *more)
    now = run.remaining[1]
    with devices.ONE.graph():
        net = imagenet_main.build(run.s, now, run.ends)
        types_built = {operation.type for operation in tf.get_default_graph().get_operations()}
        variables = resnet_model.variables('resnet')
        shapes = {name: variable.shape.as_list() for name, variable in variables.items()}
        arrays = {}
        for name, array in resnet_model.initial_weights(shapes, run.s.SEED).items():
            arrays['resnet/' + name] = array
            arrays['resnet_old/' + name] = array
        with devices.ONE.session(run.s) as session:
            devices.ONE.initialize(session, net, arrays)
            train = np.concatenate(run.data.train)[:now.num_train]
            net.training.start(session, run.data, train)
            losses = [session.run(net.train_step['loss'], {net.rate: 0.01}) for _ in range(3)]
    return losses, types_built


def test_mixed_precision(handful, tmp_path, monkeypatch):
    """bfloat16 where the processor has it.

    Of float16, only the scaling is tested: its rewriting needs a GPU.
    """
    exact, types_built = three_steps(handful, tmp_path)
    rounded, _ = three_steps(handful, tmp_path, '--MIXED_PRECISION=True')
    precision = numerics.precision(types.SimpleNamespace(MIXED_PRECISION=True))
    assert (rounded == exact) == (precision == 'float32')
    np.testing.assert_allclose(rounded, exact, rtol=0.05)

    monkeypatch.setattr(numerics, 'precision', lambda s: 'float16')
    scaled, types_scaled = three_steps(handful, tmp_path)
    tf.train.experimental.disable_mixed_precision_graph_rewrite()
    assert 'IsFinite' in types_scaled - types_built
    np.testing.assert_allclose(scaled, exact, rtol=1e-3)


def test_the_graph_for_a_gpu(monkeypatch):
    """The graph is built, not run. Every layer is channels-first.

    The number of classes does not change the operations, except initialisers: TensorFlow makes
    large zeros in another way than small ones.
    """
    monkeypatch.setattr(numerics, 'num_gpus', lambda: 1)
    s = settings_of(['--XLA=True'])
    config = numerics.session_config(s)
    assert config.gpu_options.allow_growth
    optimizer_options = config.graph_options.optimizer_options
    assert optimizer_options.global_jit_level == tf.OptimizerOptions.ON_1
    assert numerics.precision(types.SimpleNamespace(MIXED_PRECISION=True)) == 'float16'
    names = []
    for num_classes in (5, 5000):
        now = exemplar.Increment(1, num_classes, 2 * num_classes, 1, 1, 1, 1, 1, 1)
        with tf.Graph().as_default() as graph:
            imagenet_main.build(s, now, [num_classes, 2 * num_classes])
        operations = graph.get_operations()
        names.append([op.name for op in operations if '/Initializer/' not in op.name])
        layer_types = ('Conv2D', 'FusedBatchNorm', 'MaxPool')
        layers = [op for op in operations if op.type.startswith(layer_types)]
        assert {layer.get_attr('data_format') for layer in layers} == {b'NCHW'}
    assert names[0] == names[1]


# ---- The whole run ------------------------------------------------------------------------------
@pytest.fixture(name='run', scope='module')
def run_(handful, tmp_path_factory):
    """One run of three increments: its rows, its log, its folder and its checkpoints."""
    folder = tmp_path_factory.mktemp('run')
    rows, text = run_main(handful, folder, *THREE)
    saved = [stored(folder, 'increment-%d' % k) for k in range(3)]
    return types.SimpleNamespace(
        rows=rows, text=text, folder=str(folder), model='%s/model/digits' % folder,
        networks=[checkpoint.split(arrays)[0] for arrays, _ in saved],
        corrections=[checkpoint.split(arrays)[1] for arrays, _ in saved],
        states=[state for _, state in saved])


def memory_of(data, state):
    """The exemplars of a checkpoint, list by label of lists of images."""
    memory = []
    for label, paths in enumerate(state.exemplars):
        numbers, gone = data.find(paths, label)
        assert not gone
        memory.append(list(numbers))
    return memory


def test_sizes(run):
    """By hand. A class has five images to train on, one held out, three to test on.

    A memory of 22 gives 22 / 3 = 7.3: one to validate and min(8 - 1, 7 - 1) = 6 to train on, of
    which 5 exist; 22 / 5 = 4.4: min(5 - 1, 4 - 1) = 3; and for a fourth increment 22 / 8 = 2.75:
    min(3 - 1, 2 - 1) = 1. The steps are those of 30, 50 and 60 images in batches of 7:
    rests of 2 and 1 are left out.
    """
    keys = ('new_classes', 'seen_classes', 'train', 'val', 'test', 'exemplars_per_class', 'steps',
            'lr_drops')
    plan = []
    for event in events(run.text, 'plan'):
        plan.append([int(event[key]) for key in keys])
    assert plan == [[3, 3, 15, 3, 9, 0, 4, 2], [2, 5, 25, 5, 15, 5, 7, 3],
                    [3, 8, 30, 8, 24, 3, 9, 4]]
    for row, planned in zip(run.rows, plan):
        assert [row[key] for key in ('classes', 'train', 'val', 'test')] == planned[1:5]
    assert len(events(run.text, 'train')) == 4 + 7 + 9
    assert [event['increment'] for event in events(run.text, 'bias')] == ['1', '2']
    splits = [(event['increment'], event['split']) for event in events(run.text, 'eval')[::2]]
    assert splits == [('0', 'test'), ('1', 'val'), ('1', 'test'), ('2', 'val'), ('2', 'test')]
    assert [event['exemplars'] for event in events(run.text, 'memory')] == ['15', '15', '8']


def test_each_image_is_used_as_the_method_says(run, handful, tmp_path):
    """Validation and test images are never trained on. Of old classes, only exemplars are."""
    train = []
    val = []
    test = []
    for k in range(3):
        begun = run_at(k, run.model, handful, tmp_path / str(k), *THREE)
        data = begun.data
        splits = begun.begin(begun.remaining[0])
        for numbers, size in zip(splits, ([15, 3, 9], [25, 5, 15], [30, 8, 24])[k]):
            assert (len(numbers), len(set(numbers))) == (size, size)
            assert len(set(data.labels[numbers])) == [3, 5, 8][k]
        assert data.digest(splits[0]) == run.states[k].trained_on
        train.append(set(splits[0]))
        val.append(set(splits[1]))
        test.append(set(splits[2]))
    trained_on = set.union(*train)
    assert not trained_on & set.union(*val, *test)
    assert test[0] < test[1] < test[2] and val[0] < val[1] < val[2]
    assert not val[2] & test[2]

    memories = [memory_of(data, state) for state in run.states]
    for k in (0, 1):
        kept = np.concatenate(memories[k])
        assert len(kept) == 15 and set(kept) == train[k] & train[k + 1]
    assert [len(images) for images in memories[2]] == [1] * 8
    assert set(np.concatenate(memories[2])) < train[2]
    candidates = [int(event['candidates']) for event in events(run.text, 'memory')]
    assert candidates == [15, 25, 30]  # all that was trained on


def logits_of(network, images, s, training):
    """What a network gives, in a graph of its own. network: dict from name to array."""
    with tf.Graph().as_default(), tf.Session() as session:
        _, logits = resnet_model.network('resnet', tf.constant(images), s, 8, training)
        variables = resnet_model.variables('resnet')
        feed = numerics.initial_values(variables, network)
        session.run([variable.initializer for variable in variables.values()], feed)
        return session.run(logits).astype(float)


def first_batch(run, now, train):
    """Images and labels of an increment's first training batch."""
    with tf.Graph().as_default(), tf.Session() as session:
        stream = batches.training_stream(now, run.s, 0, devices.ONE)
        stream.start(session, run.data, train)
        return session.run([stream.images, stream.labels])


def test_the_third_increment_begins_with_the_second_network_and_its_memory(run, handful, tmp_path):
    """Student and old network begin as the second network, the old one with its correction.

    The first losses are those of a student in training mode and of an old network in inference
    mode, corrected by the log's beta and gamma.
    """
    network = run.networks[1]
    # Convolutions, variables of normalisations, dense layer: the student alone.
    assert len(network) == 10 + 7 * 4 + 2
    for name in network:
        if name.endswith('moving_mean'):
            assert np.abs(network[name]).max() > 0  # it was updated
    begun = run_at(2, run.model, handful, tmp_path, *THREE)
    now = begun.remaining[0]
    train, _, _ = begun.begin(now)
    with imagenet_main.increment_graph(begun, now) as net:
        values = net.session.run(net.values)
    for name in network:
        np.testing.assert_array_equal(values['resnet/' + name], network[name])
        if not name.startswith('dense/'):
            np.testing.assert_array_equal(values['resnet_old/' + name], network[name])

    images, labels = first_batch(begun, now, train)
    logits = logits_of(network, images, begun.s, training=True)
    old_logits = logits_of(network, images, begun.s, training=False)[:, :NUM_OLD]
    row = run.rows[1]
    assert row['beta'] != 1 and row['gamma'] != 0
    old_logits[:, 3:] = row['beta'] * old_logits[:, 3:] + row['gamma']
    decayed = [array for name, array in network.items()
               if name.endswith('kernel') or name == 'dense/bias']
    loss_l2 = 1e-4 * 3 / 3 * sum(np.sum(array.astype(float) ** 2) for array in decayed) / 2
    expected = literal_losses(logits, old_logits, labels, loss_l2)
    line = events(run.text, 'train')[4 + 7]
    assert {key: float(line[key]) for key in expected} == pytest.approx(expected, abs=1e-4)


def test_the_old_network_of_joint_last_ends_in_its_layer_as_trained(run, handful, tmp_path):
    """Its last layer only measures. The checkpoint is one of bic, with another METHOD."""
    model = str(tmp_path / 'model' / 'digits')
    for k in (0, 1):
        arrays, state = stored(run.folder, 'increment-%d' % k)
        state.settings['METHOD'] = 'joint_last'
        checkpoint.write(model, arrays, state)
    begun = run_at(2, model, handful, tmp_path / 'copy', *THREE, '--METHOD=joint_last')
    with imagenet_main.increment_graph(begun, begun.remaining[0]) as net:
        values = net.session.run(net.values)
    for name, array in run.networks[1].items():
        np.testing.assert_array_equal(values['resnet_old/' + name], array)
    corrected_kernel = run.corrections[1].kernel
    assert np.abs(corrected_kernel - run.networks[1]['dense/kernel'][:, :NUM_OLD]).max() > 1e-3


def test_the_third_increment_is_trained_on_its_images(run, handful, tmp_path):
    """Its steps are made again, one by one, and end in the same network."""
    begun = run_at(2, run.model, handful, tmp_path, *THREE)
    now = begun.remaining[0]
    train, _, _ = begun.begin(now)
    lines = events(run.text, 'train')[4 + 7:]
    with imagenet_main.increment_graph(begun, now) as net:
        net.training.start(net.session, begun.data, train)
        for step, line in enumerate(lines):
            rate = 0.01 if step <= 4 else 0.001
            losses, _ = imagenet_main.train_step(begun, net, step, rate)
            assert losses == pytest.approx({key: float(line[key]) for key in losses}, abs=1e-4)
        trained = begun.read_network(net)
    assert sorted(trained) == sorted(run.networks[2])
    for name in trained:
        np.testing.assert_allclose(trained[name], run.networks[2][name], rtol=1e-4, atol=1e-6)


def test_what_follows_the_second_training(run, handful, tmp_path):
    """Fit and herding are redone with the second network, one image at a time.

    The correction is fitted on held-out images. An old class is chosen from its exemplars, a new
    one from its training images. The corrected layer is what beta and gamma say.
    """
    begun = run_at(2, run.model, handful, tmp_path, *THREE)
    data = begun.data
    held_out = np.concatenate([images[:1] for images in data.held[:NUM_OLD]])
    candidates = memory_of(data, run.states[0]) + [list(images) for images in data.train[3:5]]
    with imagenet_main.increment_graph(begun, begun.remaining[0]) as net:
        def features_of(images):
            features = [imagenet_main.extract_features(begun, net, [image])[0][0]
                        for image in images]
            return np.array(features)

        for images, chosen in zip(candidates, memory_of(data, run.states[1])):
            rows = exemplar.herding(features_of(images), 3)
            assert chosen == [images[row] for row in rows]
        val_features = features_of(held_out)

    kernel = run.networks[1]['dense/kernel'][:, :NUM_OLD]
    bias = run.networks[1]['dense/bias'][:NUM_OLD]
    fit = bic_layer.fit_bias(
        val_features.dot(kernel) + bias, data.labels[held_out], 3, (0.1, 2.0), 0.1)
    row = run.rows[1]
    assert (fit.beta, fit.gamma) == pytest.approx((row['beta'], row['gamma']), abs=1e-3)
    correction = run.corrections[1]
    kernel[:, 3:] *= row['beta']
    bias[3:] = row['beta'] * bias[3:] + row['gamma']
    np.testing.assert_allclose(correction.kernel, kernel, rtol=1e-5)
    np.testing.assert_allclose(correction.bias, bias, rtol=1e-5)


def test_train_lines_agree_with_each_other(run):
    lines = events(common.without_times(run.text), 'train')
    assert len(lines) == 20
    for line in lines:
        k = int(line['increment'])
        value = {key: float(text) for key, text in line.items()}
        weight = [0, 0.6, 0.625][k]
        assert value['lambda'] == weight
        loss = weight * value['loss_distill'] + (1 - weight) * value['loss_class']
        assert value['loss'] == pytest.approx(loss + value['loss_l2'], abs=2e-4)
        is_before_drop = value['step'] - 1 <= [2, 3, 4][k]
        assert value['lr'] == pytest.approx(0.01 if is_before_drop else 0.001)


def test_results_agree_with_other_lines(run):
    rows = run.rows
    evals = events(run.text, 'eval')
    bias = events(run.text, 'bias')[-1]
    result = events(run.text, 'result')[-1]
    assert (result['top1_before'], result['top1']) == (evals[-2]['top1'], evals[-1]['top1'])
    assert (result['beta'], result['gamma']) == (bias['beta'], bias['gamma'])
    for key, averaged in (('avg_top1', rows), ('avg_top1_excl_first', rows[1:])):
        mean = np.mean([row['top1'] for row in averaged])
        assert float(result[key]) == pytest.approx(mean, abs=1e-4)
    matrix = []
    for event in events(run.text, 'matrix')[1::2]:
        matrix.append([float(text) for text in event['top1_by_increment'].split(',')])
    drops = [max(matrix[0][0], matrix[1][0]) - matrix[2][0], matrix[1][1] - matrix[2][1]]
    assert float(result['forgetting_top1']) == pytest.approx(np.mean(drops), abs=1.1e-4)


def test_the_closing_lines_have_the_authors_format(run):
    closing = re.findall(r'^(?:beta    |gamma   |accuracy): .*$', run.text, re.M)
    assert len(closing) == 9
    first_accuracy = closing[2][len('accuracy:  '):]
    for line, start, key in ((closing[6], 'beta    :  [1.] ', 'beta'),
                             (closing[7], 'gamma   :  [0.] ', 'gamma'),
                             (closing[8], 'accuracy:  %s ' % first_accuracy, 'top1')):
        values = [str(np.float32([row[key]])) for row in run.rows[1:]]
        assert line == start + ' '.join(values)


def test_first_losses_are_the_same_on_both_tensorflows(handful, tmp_path):
    """NumPy draws weights, order and augmentation.

    TensorFlow 2.21 gave these losses of ResNet-18 on an AMD processor.
    """
    _, text = run_main(handful, tmp_path, '--RESNET_DEPTH=18', '--FIRST_INCREMENT_CLASSES=8',
                       '--EPOCHS=1', '--LR_DROP_EPOCHS=')
    losses = [float(event['loss']) for event in events(text, 'train')]
    assert losses[:4] == pytest.approx([2.6379, 2.8549, 2.0678, 1.0842], abs=1e-3)


@pytest.mark.slow
def test_a_run_resumes_between_two_increments(run, handful, tmp_path):
    """It trains the third increment alone, and ends with the same rows and the same bits."""
    shutil.copytree(run.folder + '/model', str(tmp_path / 'model'),
                    ignore=shutil.ignore_patterns('increment-2*'))
    rows, text = run_main(handful, tmp_path, *THREE)
    assert rows == run.rows
    assert {event['increment'] for event in events(text, 'train')} == {'2'}
    common.assert_same_end(tmp_path, run.folder, 3)


def test_a_loss_that_is_not_finite_ends_the_run(handful, tmp_path):
    with pytest.raises(Fault, match=r'increment=0 epoch=\d step=\d+: loss=(nan|inf)'):
        run_main(handful, tmp_path, '--LEARNING_RATE=1e30')


def delete_what_is_not_needed(data, model):
    """Deletes the training images of a finished run but for those that it needs."""
    state = checkpoint.newest(model).state
    expected = sum(state.exemplars, [])
    for entry in state.classes:
        expected += entry['held'] + entry['test']
    needed_paths = needed.needed(model)
    assert sorted(needed_paths) == sorted(expected)
    for entry in state.classes:
        for image in os.listdir('%s/train/%s' % (data, entry['name'])):
            path = 'train/%s/%s' % (entry['name'], image)
            if path not in needed_paths:
                os.remove(os.path.join(data, path))


def test_a_finished_run_continues_with_new_class_folders(handful, tmp_path, capsys):
    """All images of old classes are deleted, except those that the run needs.

    Network, memory, results and log stay.
    """
    model = str(tmp_path / 'model' / 'digits')
    data = common.class_folders(
        handful, tmp_path, {'Apfel': 0, 'zwei Wörter': 1, '"quoted"': 2, '数字': 3})
    rows, text = run_main(data, tmp_path, *FOLDERS)
    arrays, state = stored(tmp_path, 'increment-1')
    learnt = [entry['name'] for entry in state.classes]
    assert re.findall(r'^\[class\] .* name=(.*)$', text, re.M) == learnt
    assert imagenet_main.main(arguments(data, tmp_path, *FOLDERS)) == rows  # nothing is left to do
    _, shown_after = capsys.readouterr().out.split('this run is finished')
    assert '| %.4f |' % rows[1]['top1'] in shown_after

    delete_what_is_not_needed(data, model)
    # They are among the old ones in sorted order.
    common.class_folders(handful, tmp_path, {'a': 4, 'cc': 5, 'f': 6})
    with pytest.raises(Fault, match='SEED=2: .*increment-1 has 1; another MODEL_DIR begins a new'):
        run_main(data, tmp_path, *FOLDERS, '--SEED=2')

    begun = run_at(2, model, data, tmp_path / 'copy', *FOLDERS)
    memory = [begun.data.relative(images) for images in begun.memory]
    assert memory == state.exemplars
    begun.begin(begun.remaining[0])
    with imagenet_main.increment_graph(begun, begun.remaining[0]) as net:
        values = net.session.run(net.values)
    network, _ = checkpoint.split(arrays)
    for name in network:
        value = values['resnet/' + name]
        if name.startswith('dense/'):
            value = value[..., :4]
        np.testing.assert_array_equal(value, network[name])
    new_columns = values['resnet/dense/kernel'][:, 4:]
    assert new_columns.shape == (64, 3) and np.abs(new_columns).max() > 0.05

    checkpoint.write(model, arrays, dataclasses.replace(state, hours=5.0))
    longer_rows, longer_text = run_main(data, tmp_path, *FOLDERS)
    assert longer_rows[:2] == rows and len(longer_rows) == 3
    last = longer_rows[2]
    assert (last['classes'], last['train'], last['val'], last['test']) == (
        7, 4 * 4 + 3 * 8, 7, 7 * 9)
    assert longer_text.startswith(text)
    more = longer_text[len(text):]
    assert events(more, 'resume')[0]['increment'] == '2'
    assert 5 <= float(events(more, 'result')[0]['hours']) < 5.1
    last_arrays, last_state = stored(tmp_path, 'increment-2')
    assert last_arrays['dense/bias'].shape == (7,)
    for paths, paths_before in zip(last_state.exemplars, state.exemplars):
        assert set(paths) <= set(paths_before)


def test_the_program_ends_with_the_message_alone(tmp_path, capsys):
    """The exit status is not 0; there is one line per fault, no traceback, and no file.

    --help shows overridden values.
    """
    ended = subprocess.run([sys.executable, common.SCRIPT, '--EPOCH=3', '--SEED=x'],
                           cwd=str(tmp_path), capture_output=True)
    assert (ended.returncode, ended.stdout, os.listdir(str(tmp_path))) == (1, b'', [])
    assert b'Traceback' not in ended.stderr
    assert (b'--EPOCH: no such setting; near it: EPOCHS\nSEED=x: must be a whole number'
            in ended.stderr)
    assert imagenet_main.main(['--help', '--EPOCHS=3']) == []
    help_text = capsys.readouterr().out
    assert "\n--EPOCHS=3\n    passes over an increment's training set\n" in help_text


def test_any_standard_output(digits, tmp_path):
    """A terminal that knows ASCII alone; none at all."""
    data = common.class_folders(digits, tmp_path, {'\u00e9': 0, 'b': 1})
    given = FOLDERS + ['--CLASSES_PER_INCREMENT=0', '--CLASS_ORDER=sorted', '--PLAN_ONLY=True']
    environment = dict(os.environ, PYTHONIOENCODING='ascii')
    with_ascii = common.started(data, tmp_path, *given, env=environment)
    out, _ = with_ascii.communicate()
    assert 'test=9 name=\\xe9\n' in out and with_ascii.returncode == 0
    without = common.started(data, tmp_path, *given, preexec_fn=lambda: os.close(1))
    out, _ = without.communicate()
    assert out == '' and without.returncode == 0


@pytest.mark.parametrize('fails, status, message', [
    ("raise ImportError('Traceback:\\nImportError: lib.so: no such file\\nSee https://..')", 1,
     'lib.so: no such file'),
    ('raise MemoryError', 1, 'out of memory'),
    ('import os; os.kill(os.getpid(), 2)', -signal.SIGINT, None)])
def test_tensorflow_cannot_be_loaded(fails, status, message, tmp_path):
    """The program prints one line, or none after Ctrl-C, and no traceback."""
    (tmp_path / 'tensorflow').mkdir()
    (tmp_path / 'tensorflow' / '__init__.py').write_text(fails)
    ended = subprocess.run(
        [sys.executable, common.SCRIPT], env=dict(os.environ, PYTHONPATH=str(tmp_path)),
        capture_output=True, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    expected = ''
    if message:
        expected = ('TensorFlow and NumPy cannot be loaded (%s); README says how to install them\n'
                    % message)
    assert (ended.returncode, ended.stdout, ended.stderr) == (status, '', expected)


# ---- The demonstration --------------------------------------------------------------------------
def test_digits_are_written_once(digits):
    """There are 1,797 images with scikit-learn's pixels; every fifth of a class is to test on."""
    from sklearn.datasets import load_digits
    truth = load_digits()
    seen = []
    for part in ('train', 'val'):
        with open('%s/%s.txt' % (digits, part)) as file:
            lines = file.read().splitlines()
        for line in lines:
            name, label = line.split()
            number = int(os.path.basename(name)[:-len('.png')])
            same_class = list(np.flatnonzero(truth.target == int(label)))
            is_test = same_class.index(number) % 5 == 4
            assert is_test == (part == 'val')
            seen.append(number)
        pixels = PIL.Image.open(os.path.join(digits, name))  # the part's last image
        np.testing.assert_allclose(pixels, truth.images[number] * 255 / 16, atol=0.5)
    assert sorted(seen) == list(range(1797))
    with pytest.raises(Fault, match='exists already'):
        prepare_digits.prepare(digits)


@pytest.mark.slow
def test_the_correction_helps_in_the_demonstration(digits, tmp_path):
    """The default job, some five minutes: the correction raises the accuracy, far above chance.

    Chance is 0.1. The median over seeds counts: rounding acts like another seed. TensorFlow 1.15,
    which is slower, gets one seed.
    """
    seeds = '1,2,3' if tf.__version__[0] == '2' else '1'
    rows = imagenet_main.main([
        '--DATA_DIR=%s' % digits, '--MODEL_DIR=%s/model' % tmp_path,
        '--LOG_DIR=%s/logs' % tmp_path, '--SEED=' + seeds])
    rows_of_runs = rows if isinstance(rows[0], list) else [rows]
    last_rows = [rows_of_run[-1] for rows_of_run in rows_of_runs]
    assert [row['classes'] for row in last_rows] == [10] * len(last_rows)
    before = np.median([row['top1_before'] for row in last_rows])
    after = np.median([row['top1'] for row in last_rows])
    assert after > max(before, 0.7)
