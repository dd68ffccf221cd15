"""Tests the network's size, shapes and initial weights against published numbers, and batch normalisation against NumPy."""
import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from tensorflow.core.protobuf.rewriter_config_pb2 import RewriterConfig

import bic_layer
import resnet_model


def made(depth=18, num_classes=100, size=224, training=False, data_format='channels_last', batch=7):
    images = tf.placeholder(tf.float32, [batch, size, size, 3])
    with tf.variable_scope('resnet'):
        features, logits = resnet_model.resnet(images, depth, num_classes, training, 0.9, data_format)
    return images, features, logits


def drawn(seed):
    """A feed for the initialisers."""
    variables = resnet_model.variables('resnet')
    weights = resnet_model.initial_weights({name: v.shape.as_list() for name, v in variables.items()}, seed)
    return {variables[name].initial_value: value for name, value in weights.items()}


def expected_parameters(depth, num_classes):
    """Counts from the architecture alone: convolutions, two numbers per normalised channel, and the dense layer."""
    blocks = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3),
              200: (3, 24, 36, 3), 8: (1, 1, 1), 20: (3, 3, 3), 32: (5, 5, 5), 56: (9, 9, 9)}[depth]
    total, channels = (3 * 3 * 3 * 16, 16) if len(blocks) == 3 else (7 * 7 * 3 * 64, 64)
    bottleneck = depth in (50, 101, 152, 200)
    for number, filters in zip(blocks, (channels, 2 * channels, 4 * channels, 8 * channels)):
        out = 4 * filters if bottleneck else filters
        for block in range(number):
            total += 2 * channels + (channels * out if block == 0 else 0)
            if not bottleneck:
                total += 9 * channels * filters + 2 * filters + 9 * filters * filters
            else:
                total += channels * filters + 2 * filters + 9 * filters * filters + 2 * filters + filters * out
            channels = out
    return total + 2 * channels + (channels + 1) * num_classes


@pytest.mark.parametrize('depth', [18, 34, 50, 101, 152, 200, 8, 20, 32, 56])
def test_parameters(depth):
    with tf.Graph().as_default():
        made(depth)
        count = sum(int(np.prod(v.shape.as_list())) for v in tf.trainable_variables())
    assert count == expected_parameters(depth, 100)
    if depth == 18:
        assert count == 11230116


@pytest.mark.parametrize('depth, sizes, last, stages, width', [
    (18, (224,), 'block2/conv2', [(56, 64), (28, 128), (14, 256), (7, 512)], 512),
    (50, (224,), 'block3/conv3', [(56, 256), (28, 512), (14, 1024), (7, 2048)], 2048),
    (32, (32, 33, 64), 'block5/conv2', [(32, 16), (16, 32), (8, 64)], 64),
    (18, (1, 31, 32, 33, 64, 65), 'block2/conv2', [], 512), (50, (97,), 'block3/conv3', [], 2048),
    (8, (1, 2, 9), 'block1/conv2', [], 64)])
def test_shapes(depth, sizes, last, stages, width):
    """Sides and channels of the published stages at 224 or 32 pixels; the side of the last feature map at other sizes."""
    for size in sizes:
        with tf.Graph().as_default() as graph:
            _, features, logits = made(depth, 100, size)
            shapes = [graph.get_tensor_by_name('resnet/layer%d/%s/Conv2D:0' % (layer + 1, last)).shape.as_list()
                      for layer in range(len(resnet_model.BLOCKS[depth]))]
        if stages and size == sizes[0]:
            assert shapes == [[7, side, side, channels] for side, channels in stages]
        assert shapes[-1][1:3] == [resnet_model.last_side(depth, size)] * 2
        assert features.shape.as_list() == [7, width] and logits.shape.as_list() == [7, 100]


@pytest.mark.skipif(not hasattr(RewriterConfig, 'NCHW_TO_NHWC'), reason='this TensorFlow cannot convert layouts on the CPU')
@pytest.mark.parametrize('depth', [18, 50])
def test_channels_first_gives_the_same_numbers(depth):
    """TensorFlow converts the layout for GPUs back, so that the CPU can run it."""
    image = np.random.RandomState(0).normal(size=(2, 37, 37, 3)).astype(np.float32)
    config = tf.ConfigProto()
    config.graph_options.rewrite_options.cpu_layout_conversion = RewriterConfig.NCHW_TO_NHWC
    results = []
    for data_format in ('channels_last', 'channels_first'):
        with tf.Graph().as_default(), tf.Session(config=config) as session:
            images, features, logits = made(depth, 10, 37, True, data_format, 2)
            session.run(tf.global_variables_initializer(), drawn(1))
            results.append(session.run([features, logits], {images: image}))
    for last, first in zip(*results):
        np.testing.assert_allclose(first, last, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('num_classes, expected', [(100, 1965), (1000, 2220)])
def test_initial_l2_loss(num_classes, expected):
    """In the authors' log, step 1 has loss 4.36861 and cross-entropy 2.40041 at weight decay 1e-3. Batch normalisation's
    variables do not count, even if none is 0."""
    with tf.Graph().as_default(), tf.Session() as session:
        made(18, num_classes)
        loss, feed = bic_layer.l2_loss(tf.trainable_variables()), drawn(1)
        for name, variable in resnet_model.variables('resnet').items():
            if name.endswith('/beta'):
                feed[variable.initial_value] = np.ones(variable.shape.as_list())
        session.run(tf.global_variables_initializer(), feed)
        assert abs(session.run(loss) - expected) <= 2


def test_initial_weights():
    with tf.Graph().as_default(), tf.Session() as session:
        made(18, 10)
        feed, other = drawn(1), drawn(2)
        session.run(tf.global_variables_initializer(), feed)
        values = {v.op.name: session.run(v) for v in tf.global_variables()}
    kernel = values['resnet/layer3/block1/conv1/kernel']      # fan-in 3 * 3 * 128
    sigma = np.sqrt(1 / 1152)
    assert np.abs(kernel).max() <= 2 * sigma
    assert np.std(kernel) == pytest.approx(0.8796 * sigma, rel=0.01)   # of a normal truncated at two sigma
    dense = values['resnet/dense/kernel']
    assert np.abs(dense).max() <= np.sqrt(6 / 522) and np.std(dense) == pytest.approx(np.sqrt(2 / 522), rel=0.05)
    assert not values['resnet/dense/bias'].any()
    assert (values['resnet/bn/gamma'] == 1).all() and (values['resnet/bn/moving_variance'] == 1).all()
    assert all((feed[tensor] != other[tensor]).any() for tensor in feed)


def test_strided_convolution_pads_by_the_kernel():
    """A 3x3 kernel pads one pixel before and one after, whatever the input's size. SAME would pad only after."""
    image = np.random.RandomState(0).normal(size=(1, 6, 6, 2)).astype(np.float32)
    with tf.Graph().as_default(), tf.Session() as session:
        with tf.variable_scope('test'):
            out = resnet_model._convolution(tf.constant(image), 5, 3, 2, 'channels_last', 'conv')
        session.run(tf.global_variables_initializer())
        kernel, out = session.run([tf.global_variables()[0], out])
    padded = np.pad(image[0], [(1, 1), (1, 1), (0, 0)], 'constant')
    expected = [[np.einsum('abc,abcd->d', padded[2 * i:2 * i + 3, 2 * j:2 * j + 3], kernel) for j in range(3)] for i in range(3)]
    np.testing.assert_allclose(out[0], expected, rtol=1e-4, atol=1e-5)


def test_batch_normalisation():
    """Training normalises with the batch and moves the averages. Inference normalises with the averages."""
    x = np.random.RandomState(0).normal(3, 2, (7, 4, 4, 5)).astype(np.float32)
    with tf.Graph().as_default(), tf.Session() as session:
        trained = resnet_model._batch_norm_relu(tf.constant(x), True, 0.9, 'channels_last', 'bn')
        updates = tf.get_collection(tf.GraphKeys.UPDATE_OPS)
        with tf.variable_scope('', reuse=True):
            inferred = resnet_model._batch_norm_relu(tf.constant(x), False, 0.9, 'channels_last', 'bn')
        assert updates == tf.get_collection(tf.GraphKeys.UPDATE_OPS)
        session.run(tf.global_variables_initializer())
        trained, _ = session.run([trained, updates])
        inferred, averages = session.run([inferred, {v.op.name: v for v in tf.global_variables()}])
    mean, variance = x.mean(axis=(0, 1, 2)), x.var(axis=(0, 1, 2))
    np.testing.assert_allclose(trained, np.maximum(0, (x - mean) / np.sqrt(variance + 1e-5)), rtol=1e-3, atol=1e-4)
    pixels = 7 * 4 * 4
    np.testing.assert_allclose(averages['bn/moving_mean'], 0.1 * mean, rtol=1e-4)
    np.testing.assert_allclose(averages['bn/moving_variance'], 0.9 + 0.1 * variance * pixels / (pixels - 1), rtol=1e-4)
    expected = (x - averages['bn/moving_mean']) / np.sqrt(averages['bn/moving_variance'] + 1e-5)
    np.testing.assert_allclose(inferred, np.maximum(0, expected), rtol=1e-3, atol=1e-4)
