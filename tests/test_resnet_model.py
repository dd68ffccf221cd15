"""Tests the network's size, shapes and initial weights against published numbers.

Batch normalisation and strided convolutions are tested against NumPy.
"""
import types

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from tensorflow.core.protobuf.rewriter_config_pb2 import RewriterConfig

import bic_layer
import resnet_model

HAS_LAYOUT_CONVERSION = hasattr(RewriterConfig, 'NCHW_TO_NHWC')


def build(depth=18, num_classes=100, size=224, training=False, data_format='channels_last',
          batch=7):
    images = tf.placeholder(tf.float32, [batch, size, size, 3])
    with tf.variable_scope('resnet'):
        features, logits = resnet_model.resnet(images, depth, num_classes, training, 0.9,
                                               data_format)
    return images, features, logits


def drawn(seed):
    """A feed for the initialisers."""
    variables = resnet_model.variables('resnet')
    shapes = {name: variable.shape.as_list() for name, variable in variables.items()}
    weights = resnet_model.initial_weights(shapes, seed)
    return {variables[name].initial_value: value for name, value in weights.items()}


def expected_parameters(depth, num_classes):
    """Counts from the architecture alone: convolutions, normalisation and the dense layer."""
    blocks = {
        18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3),
        152: (3, 8, 36, 3), 200: (3, 24, 36, 3),
        8: (1, 1, 1), 20: (3, 3, 3), 32: (5, 5, 5), 56: (9, 9, 9)}[depth]
    channels = 16 if len(blocks) == 3 else 64
    total = 3 * 3 * 3 * 16 if len(blocks) == 3 else 7 * 7 * 3 * 64
    bottleneck = depth in (50, 101, 152, 200)
    for number, filters in zip(blocks, (channels, 2 * channels, 4 * channels, 8 * channels)):
        out = 4 * filters if bottleneck else filters
        for block in range(number):
            total += 2 * channels  # each normalised channel has two parameters
            if block == 0:
                total += channels * out
            if bottleneck:
                total += channels * filters + 2 * filters
                total += 9 * filters * filters + 2 * filters + filters * out
            else:
                total += 9 * channels * filters + 2 * filters + 9 * filters * filters
            channels = out
    return total + 2 * channels + (channels + 1) * num_classes


@pytest.mark.parametrize('depth', [18, 34, 50, 101, 152, 200, 8, 20, 32, 56])
def test_parameters(depth):
    with tf.Graph().as_default():
        build(depth)
        sizes = [np.prod(variable.shape.as_list()) for variable in tf.trainable_variables()]
    count = int(sum(sizes))
    assert count == expected_parameters(depth, 100)
    if depth == 18:
        assert count == 11230116


@pytest.mark.parametrize('depth, sizes, last, stages, width', [
    (18, (224,), 'block2/conv2', [(56, 64), (28, 128), (14, 256), (7, 512)], 512),
    (50, (224,), 'block3/conv3', [(56, 256), (28, 512), (14, 1024), (7, 2048)], 2048),
    (32, (32, 33, 64), 'block5/conv2', [(32, 16), (16, 32), (8, 64)], 64),
    (18, (1, 31, 32, 33, 64, 65), 'block2/conv2', [], 512),
    (50, (97,), 'block3/conv3', [], 2048),
    (8, (1, 2, 9), 'block1/conv2', [], 64)])
def test_shapes(depth, sizes, last, stages, width):
    """Sides and channels of the published stages at 224 or 32 pixels.

    At other sizes, the side of the last feature map.
    """
    for size in sizes:
        shapes = []
        with tf.Graph().as_default() as graph:
            _, features, logits = build(depth, 100, size)
            for layer in range(len(resnet_model.BLOCKS[depth])):
                name = 'resnet/layer%d/%s/Conv2D:0' % (layer + 1, last)
                shapes.append(graph.get_tensor_by_name(name).shape.as_list())
        if stages and size == sizes[0]:
            assert shapes == [[7, side, side, channels] for side, channels in stages]
        assert shapes[-1][1:3] == [resnet_model.last_side(depth, size)] * 2
        assert features.shape.as_list() == [7, width]
        assert logits.shape.as_list() == [7, 100]


@pytest.mark.skipif(not HAS_LAYOUT_CONVERSION,
                    reason='this TensorFlow cannot convert layouts on the CPU')
@pytest.mark.parametrize('depth', [18, 50])
def test_channels_first_gives_the_same_numbers(depth):
    """TensorFlow converts the layout for GPUs back, so that the CPU can run it."""
    image = np.random.RandomState(0).normal(size=(2, 37, 37, 3)).astype(np.float32)
    config = tf.ConfigProto()
    config.graph_options.rewrite_options.cpu_layout_conversion = RewriterConfig.NCHW_TO_NHWC
    results = []
    for data_format in ('channels_last', 'channels_first'):
        with tf.Graph().as_default(), tf.Session(config=config) as session:
            images, features, logits = build(depth, 10, 37, True, data_format, 2)
            session.run(tf.global_variables_initializer(), drawn(1))
            results.append(session.run([features, logits], {images: image}))
    for last, first in zip(*results):
        np.testing.assert_allclose(first, last, rtol=1e-4, atol=1e-4)


def test_network_is_the_one_of_the_settings():
    """Depth and momentum are those of the settings. Evaluation shares the variables."""
    s = types.SimpleNamespace(RESNET_DEPTH=8, BATCH_NORM_DECAY=0.75)
    image = np.random.RandomState(0).normal(size=(5, 9, 9, 3)).astype(np.float32)
    with tf.Graph().as_default(), tf.Session() as session:
        images = tf.constant(image)
        features, logits = resnet_model.network('resnet', images, s, 3, training=True)
        assert features.shape.as_list() == [5, 64] and logits.shape.as_list() == [5, 3]
        variables = resnet_model.variables('resnet')
        assert sum(name.endswith('/kernel') for name in variables) == 1 + 3 * 2 + 3 + 1
        updates = tf.get_collection(tf.GraphKeys.UPDATE_OPS)
        tested, _ = resnet_model.network('resnet', images, s, 3, training=False, reuse=True)
        assert resnet_model.variables('resnet') == variables
        assert tf.get_collection(tf.GraphKeys.UPDATE_OPS) == updates
        session.run(tf.global_variables_initializer(), drawn(1))
        outputs = []
        variances = []
        for _ in range(3):
            outputs.append(session.run(tested))
            variances.append(session.run(variables['bn/moving_variance']))
            session.run(updates)
    assert (outputs[0] != outputs[1]).any()
    # Of the distance to the same batch's variance, each step leaves 0.75.
    steps = np.diff(variances, axis=0)
    assert np.abs(steps).min() > 0
    np.testing.assert_allclose(steps[1], 0.75 * steps[0], rtol=1e-3)


@pytest.mark.parametrize('devices', [1, 2])
def test_weight_decay_covers_kernels_and_the_dense_bias(devices):
    """Each variable once, in the order of creation; not those of the old network."""
    s = types.SimpleNamespace(RESNET_DEPTH=8, BATCH_NORM_DECAY=0.75)

    def step():
        images = tf.zeros([5, 9, 9, 3])
        resnet_model.network('resnet', images, s, 3, training=True)
        resnet_model.network('resnet_old', images, s, 3, training=False)
        resnet_model.network('resnet', images, s, 3, training=False, reuse=True)
        return tf.add_n([tf.nn.l2_loss(variable) for variable in resnet_model.decayed('resnet')])

    def on_two_devices():
        strategy = tf.distribute.MirroredStrategy(['/cpu:0', '/cpu:1'])
        with strategy.scope():
            run = getattr(strategy, 'run', None) or strategy.experimental_run_v2
            return strategy.experimental_local_results(run(step))

    config = tf.ConfigProto(device_count={'CPU': devices})
    with tf.Graph().as_default():
        losses = [step()] if devices == 1 else on_two_devices()
        decayed = [variable.op.name for variable in resnet_model.decayed('resnet')]
        old = [variable.op.name for variable in resnet_model.decayed('resnet_old')]
        trained = list(resnet_model.variables('resnet'))
        initializer = tf.global_variables_initializer()
        weights = drawn(1)
        with tf.Session(config=config) as session:
            session.run(initializer, weights)
            losses = session.run(list(losses))
    expected = ['resnet/' + name for name in trained
                if name.endswith('/kernel') or name == 'dense/bias']
    assert decayed == expected and len(expected) == 1 + 3 * 2 + 3 + 2
    assert old == [name.replace('resnet', 'resnet_old') for name in expected]
    l2_loss = sum(np.sum(np.square(value, dtype=np.float64)) / 2 for value in weights.values())
    np.testing.assert_allclose(losses, [l2_loss] * devices, rtol=1e-5)


@pytest.mark.parametrize('num_classes, expected', [(100, 1965), (1000, 2220)])
def test_initial_l2_loss(num_classes, expected):
    """In the authors' log, step 1 has loss 4.36861, cross-entropy 2.40041, weight decay 1e-3.

    Batch normalisation's variables do not count, even if none is 0.
    """
    with tf.Graph().as_default(), tf.Session() as session:
        build(18, num_classes)
        loss = bic_layer.l2_loss(resnet_model.decayed('resnet'))
        feed = drawn(1)
        for name, variable in resnet_model.variables('resnet').items():
            if name.endswith('/beta'):
                feed[variable.initial_value] = np.ones(variable.shape.as_list())
        session.run(tf.global_variables_initializer(), feed)
        assert abs(session.run(loss) - expected) <= 2


def test_initial_weights():
    with tf.Graph().as_default(), tf.Session() as session:
        build(18, 10)
        feed = drawn(1)
        other = drawn(2)
        session.run(tf.global_variables_initializer(), feed)
        values = {v.op.name: session.run(v) for v in tf.global_variables()}
    kernel = values['resnet/layer3/block1/conv1/kernel']
    sigma = np.sqrt(1 / 1152)  # fan-in 3 * 3 * 128
    assert np.abs(kernel).max() <= 2 * sigma
    # The deviation of a normal distribution that is truncated at two sigma.
    assert np.std(kernel) == pytest.approx(0.8796 * sigma, rel=0.01)
    dense = values['resnet/dense/kernel']
    assert np.abs(dense).max() <= np.sqrt(6 / 522)
    assert np.std(dense) == pytest.approx(np.sqrt(2 / 522), rel=0.05)
    assert not values['resnet/dense/bias'].any()
    assert (values['resnet/bn/gamma'] == 1).all()
    assert (values['resnet/bn/moving_variance'] == 1).all()
    assert all((feed[tensor] != other[tensor]).any() for tensor in feed)


def test_grown_weights():
    """Old columns stay, new ones are drawn and have no bias, and all other weights stay."""
    random = np.random.RandomState(0)
    weights = {'dense/kernel': random.normal(size=(64, 5)), 'dense/bias': random.normal(size=5),
               'conv1/kernel': random.normal(size=(3, 3, 3, 16))}
    grown = resnet_model.grown(weights, 8, 1)
    kernel = grown['dense/kernel']
    np.testing.assert_allclose(kernel[:, :5], weights['dense/kernel'], rtol=1e-6)
    limit = np.sqrt(6 / (64 + 8))  # Glorot
    assert kernel.shape == (64, 8) and np.abs(kernel[:, 5:]).max() <= limit
    assert np.std(kernel[:, 5:]) == pytest.approx(limit / np.sqrt(3), rel=0.1)
    assert list(grown['dense/bias']) == [*weights['dense/bias'], 0, 0, 0]
    assert (grown['conv1/kernel'] == weights['conv1/kernel']).all()
    assert (resnet_model.grown(weights, 8, 2)['dense/kernel'][:, 5:] != kernel[:, 5:]).any()
    assert resnet_model.grown(weights, 5, 1) == weights
    assert resnet_model.grown(None, 8, 1) is None


def test_strided_convolution_pads_by_the_kernel():
    """A 3x3 kernel pads one pixel before and one after, whatever the input's size.

    SAME would pad only after.
    """
    image = np.random.RandomState(0).normal(size=(1, 6, 6, 2)).astype(np.float32)
    with tf.Graph().as_default(), tf.Session() as session:
        with tf.variable_scope('test'):
            out = resnet_model._convolution(tf.constant(image), 5, 3, 2, 'channels_last', 'conv')
        session.run(tf.global_variables_initializer())
        kernel, out = session.run([tf.global_variables()[0], out])
    padded = np.pad(image[0], [(1, 1), (1, 1), (0, 0)], 'constant')
    expected = np.zeros((3, 3, 5))
    for i in range(3):
        for j in range(3):
            window = padded[2 * i:2 * i + 3, 2 * j:2 * j + 3]
            expected[i, j] = np.einsum('abc,abcd->d', window, kernel)
    np.testing.assert_allclose(out[0], expected, rtol=1e-4, atol=1e-5)


def test_batch_normalisation():
    """Training normalises with the batch and moves the averages. Inference uses the averages."""
    x = np.random.RandomState(0).normal(3, 2, (7, 4, 4, 5)).astype(np.float32)

    def normalised(training):
        return resnet_model._batch_norm_relu(tf.constant(x), training, 0.9, 'channels_last', 'bn')

    with tf.Graph().as_default(), tf.Session() as session:
        trained = normalised(True)
        updates = tf.get_collection(tf.GraphKeys.UPDATE_OPS)
        with tf.variable_scope('', reuse=True):
            inferred = normalised(False)
        assert updates == tf.get_collection(tf.GraphKeys.UPDATE_OPS)
        session.run(tf.global_variables_initializer())
        trained, _ = session.run([trained, updates])
        variables = {v.op.name: v for v in tf.global_variables()}
        inferred, averages = session.run([inferred, variables])
    mean = x.mean(axis=(0, 1, 2))
    variance = x.var(axis=(0, 1, 2))
    expected = np.maximum(0, (x - mean) / np.sqrt(variance + 1e-5))
    np.testing.assert_allclose(trained, expected, rtol=1e-3, atol=1e-4)
    moving_mean = averages['bn/moving_mean']
    moving_variance = averages['bn/moving_variance']
    pixels = 7 * 4 * 4
    unbiased = variance * pixels / (pixels - 1)
    np.testing.assert_allclose(moving_mean, 0.1 * mean, rtol=1e-4)
    np.testing.assert_allclose(moving_variance, 0.9 + 0.1 * unbiased, rtol=1e-4)
    expected = np.maximum(0, (x - moving_mean) / np.sqrt(moving_variance + 1e-5))
    np.testing.assert_allclose(inferred, expected, rtol=1e-3, atol=1e-4)
