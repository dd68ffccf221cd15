"""The network: images in, (features, logits) out. Nothing here knows about losses or sessions.

Pre-activation ResNet (version 2: He et al., "Identity Mappings in Deep Residual Networks", 2016),
in the form of the official TensorFlow ResNet that the BiC authors started from.
"""
import numpy as np
import tensorflow.compat.v1 as tf

import exemplar

# Blocks in each layer, by depth. Four layers: the ImageNet form; from depth 50 on, blocks are
# bottlenecks (1x1, 3x3, and 1x1 with four times the filters). Three layers: the CIFAR form.
BLOCKS = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
    200: (3, 24, 36, 3),
    8: (1, 1, 1),
    20: (3, 3, 3),
    32: (5, 5, 5),
    56: (9, 9, 9),
}
STRIDES = (1, 2, 2, 2)  # of each layer's first block
BATCH_NORM_EPSILON = 1e-5

_DECAYED = 'decayed'  # graph collection of the variables that weight decay covers
_FORMAT = {'channels_last': 'NHWC', 'channels_first': 'NCHW'}
_CHANNEL_AXIS = {'channels_last': 3, 'channels_first': 1}
_PIXEL_AXES = {'channels_last': [1, 2], 'channels_first': [2, 3]}


def network(scope, images, s, num_classes, training, data_format='channels_last', reuse=False):
    """Builds the network of a run: `resnet`, in a variable scope of its own.

    Args:
        scope: str, the variables' names begin with it, without '/' at its end.
        images: float32 [batch, height, width, 3], normalised (see data/batches.py).
        s: settings, of which RESNET_DEPTH and BATCH_NORM_DECAY are used.
        num_classes: int, width of the dense layer.
        training: bool, see `resnet`.
        data_format: see `resnet`.
        reuse: bool. True: with the variables of a network that was built in this scope before.

    Returns:
        features, logits: as of `resnet`.
    """
    with tf.variable_scope(scope, reuse=reuse):
        return resnet(images, s.RESNET_DEPTH, num_classes, training, s.BATCH_NORM_DECAY,
                      data_format)


def resnet(images, depth, num_classes, training, batch_norm_decay, data_format='channels_last'):
    """Builds the network in the current variable scope.

    Args:
        images: float32 [batch, height, width, 3], normalised (see data/batches.py).
        depth: 18, 34, 50, 101, 152 or 200, which begin with a 7x7/2 convolution of 64 filters and
            a 3x3/2 pool; or 8, 20, 32 or 56, the form for CIFAR, which begins with a 3x3
            convolution of 16.
        num_classes: width of the dense layer: all classes of the dataset, seen or not.
        training: bool. True normalises with the batch's statistics and adds the updates of the
            moving averages to `tf.GraphKeys.UPDATE_OPS`. False normalises with the averages.
        batch_norm_decay: momentum of the moving averages, in (0, 1).
        data_format: 'channels_last', or 'channels_first' (faster on GPUs, convolutions do not run
            on the CPU).

    Returns:
        features: float32 [batch, 512], with bottlenecks [batch, 2048], in the CIFAR form
            [batch, 64]: the global average, which herding uses.
        logits: float32 [batch, num_classes].
    """
    def conv(x, filters, kernel, stride, name):
        return _convolution(x, filters, kernel, stride, data_format, name)

    def bn_relu(x, name):
        return _batch_norm_relu(x, training, batch_norm_decay, data_format, name)

    x = images
    if data_format == 'channels_first':
        x = tf.transpose(x, [0, 3, 1, 2])
    is_cifar = len(BLOCKS[depth]) == 3
    if is_cifar:
        first_filters = 16
        x = conv(x, first_filters, 3, 1, 'conv1')
    else:
        first_filters = 64
        x = conv(x, first_filters, 7, 2, 'conv1')
        x = _max_pool(x, 3, 2, data_format)
    block = _bottleneck_block if depth >= 50 and not is_cifar else _basic_block
    for layer, num_blocks in enumerate(BLOCKS[depth]):
        filters = first_filters * 2 ** layer
        for index in range(num_blocks):
            is_first = index == 0
            stride = STRIDES[layer] if is_first else 1
            with tf.variable_scope('layer%d/block%d' % (layer + 1, index + 1)):
                x = block(x, filters, stride, is_first, conv, bn_relu)
    x = bn_relu(x, 'bn')
    features = tf.reduce_mean(x, _PIXEL_AXES[data_format])  # [batch, 512, 2048 or 64]
    with tf.variable_scope('dense'):
        kernel = decayed_variable('kernel', [features.shape.as_list()[1], num_classes])
        bias = decayed_variable('bias', [num_classes], tf.zeros_initializer())
    return features, tf.matmul(features, kernel) + bias


def _basic_block(x, filters, stride, project, conv, bn_relu):
    """A block of two 3x3 convolutions. The projection has the same input as the branch."""
    shortcut = x
    x = bn_relu(x, 'bn1')
    if project:
        shortcut = conv(x, filters, 1, stride, 'projection')
    x = conv(x, filters, 3, stride, 'conv1')
    x = bn_relu(x, 'bn2')
    x = conv(x, filters, 3, 1, 'conv2')
    return shortcut + x


def _bottleneck_block(x, filters, stride, project, conv, bn_relu):
    """A block of 1x1, 3x3 and 1x1 convolutions, the last with four times the filters."""
    shortcut = x
    x = bn_relu(x, 'bn1')
    if project:
        shortcut = conv(x, 4 * filters, 1, stride, 'projection')
    x = conv(x, filters, 1, 1, 'conv1')
    x = bn_relu(x, 'bn2')
    x = conv(x, filters, 3, stride, 'conv2')
    x = bn_relu(x, 'bn3')
    x = conv(x, 4 * filters, 1, 1, 'conv3')
    return shortcut + x


def _convolution(x, filters, kernel, stride, data_format, name):
    """Convolution without bias. A strided one pads by the kernel: SAME pads by the input's size."""
    channels = x.shape.as_list()[_CHANNEL_AXIS[data_format]]
    with tf.variable_scope(name):
        weights = decayed_variable('kernel', [kernel, kernel, channels, filters])
        padding = 'SAME'
        if stride > 1:
            before = (kernel - 1) // 2
            after = kernel - 1 - before
            pixels = [before, after]
            x = tf.pad(x, _by_axis([0, 0], pixels, [0, 0], data_format))
            padding = 'VALID'
        strides = _by_axis(1, stride, 1, data_format)
        return tf.nn.conv2d(x, weights, strides=strides, padding=padding,
                            data_format=_FORMAT[data_format])


def _max_pool(x, window, stride, data_format):
    windows = _by_axis(1, window, 1, data_format)
    strides = _by_axis(1, stride, 1, data_format)
    return tf.nn.max_pool(x, windows, strides, 'SAME', data_format=_FORMAT[data_format])


def _by_axis(batch, pixels, channels, data_format):
    """A list of one value per axis; rows and columns have the same."""
    if data_format == 'channels_first':
        return [batch, channels, pixels, pixels]
    return [batch, pixels, pixels, channels]


def _batch_norm_relu(x, training, decay, data_format, name):
    """Batch normalisation with scale and offset, then ReLU."""
    shape = [x.shape.as_list()[_CHANNEL_AXIS[data_format]]]
    options = dict(epsilon=BATCH_NORM_EPSILON, data_format=_FORMAT[data_format])
    with tf.variable_scope(name):
        gamma = tf.get_variable('gamma', shape, initializer=tf.ones_initializer(),
                                use_resource=True)
        beta = tf.get_variable('beta', shape, initializer=tf.zeros_initializer(),
                               use_resource=True)
        mean = _moving_average('moving_mean', shape, tf.zeros_initializer())
        variance = _moving_average('moving_variance', shape, tf.ones_initializer())
        if not training:
            x, _, _ = tf.nn.fused_batch_norm(x, gamma, beta, mean, variance, is_training=False,
                                             **options)
            return tf.nn.relu(x)
        x, batch_mean, batch_variance = tf.nn.fused_batch_norm(x, gamma, beta, is_training=True,
                                                               **options)
        for average, batch_value in ((mean, batch_mean), (variance, batch_variance)):
            update = average.assign_sub((1 - decay) * (average - batch_value))
            tf.add_to_collection(tf.GraphKeys.UPDATE_OPS, update)
        return tf.nn.relu(x)


def _moving_average(name, shape, initializer):
    """A variable that is not trained.

    With several devices each has its own average, of its share of the batch. The network's is
    their mean.
    """
    return tf.get_variable(name, shape, initializer=initializer, trainable=False,
                           use_resource=True,
                           synchronization=tf.VariableSynchronization.ON_READ,
                           aggregation=tf.VariableAggregation.MEAN)


def decayed_variable(name, shape, initializer=None):
    """A trained variable that weight decay covers: every kernel and the dense bias [C].

    Args:
        name: str, in the current variable scope.
        shape: list of int.
        initializer: of `tf.get_variable`. Kernels need none, see `initial_weights`.
    """
    # get_variable fills these collections only when it makes the variable: not when evaluation
    # reuses it, and with several devices once for all of them.
    collections = [tf.GraphKeys.GLOBAL_VARIABLES, _DECAYED]
    return tf.get_variable(name, shape, initializer=initializer, collections=collections,
                           use_resource=True)


def decayed(scope):
    """The variables of a network that weight decay covers, list in the order of creation.

    scope: str, as of `variables`.
    """
    return tf.get_collection(_DECAYED, scope=scope + '/')


def variables(scope):
    """A network's variables.

    Args:
        scope: str, without '/' at its end.

    Returns:
        dict from the name without the scope to the variable, in the order of creation.
    """
    # The '/' matters: get_collection matches prefixes, and 'resnet' is one of 'resnet_old'.
    prefix = scope + '/'
    in_scope = tf.get_collection(tf.GraphKeys.GLOBAL_VARIABLES, scope=prefix)
    return {variable.op.name[len(prefix):]: variable for variable in in_scope}


def last_side(depth, image_size):
    """Side of the last feature map in pixels, int. depth, image_size: int."""
    is_cifar = len(BLOCKS[depth]) == 3
    # Strides of 2: first convolution, pool and layers 2 to 4; in the CIFAR form layers 2 and 3.
    halvings = 2 if is_cifar else 5
    return -(-image_size // 2 ** halvings)


def initial_weights(shapes, seed):
    """Draws the kernels in NumPy, so that every TensorFlow starts from the same weights.

    Args:
        shapes: dict from a variable's name to its shape, in the order of `variables`.
        seed: int, 0 to 2**32 - 1.

    Returns:
        dict from name to float32 array, the kernels only. The other variables start from their own
        initial values: 1 for scales and variances of batch normalisation, otherwise 0.
    """
    random = exemplar.random_stream(seed, 'weights')
    weights = {}
    for name, shape in shapes.items():
        if name.endswith('/kernel'):
            draw = _glorot_uniform if len(shape) == 2 else _truncated_normal
            weights[name] = draw(random, shape).astype(np.float32)
    return weights


def _glorot_uniform(random, shape):
    """A dense kernel. shape: inputs, outputs."""
    limit = np.sqrt(6.0 / (shape[0] + shape[1]))
    return random.uniform(-limit, limit, shape)


def _truncated_normal(random, shape):
    """A convolution's kernel: normal, redrawn beyond two sigma. shape: height, width, in, out.

    The standard deviation sqrt(1 / fan_in) is not corrected for the truncation, as TensorFlow 1.5
    drew it. Later `variance_scaling_initializer`s widen by 1 / 0.8796.
    """
    value = random.standard_normal(shape)
    beyond = np.abs(value) > 2
    while beyond.any():
        value[beyond] = random.standard_normal(beyond.sum())
        beyond = np.abs(value) > 2
    fan_in = np.prod(shape[:3])
    return value * np.sqrt(1.0 / fan_in)


def last_layer(network, num_seen=None):
    """The last layer of a network, as far as it is used.

    Args:
        network: dict from a variable's name to its array.
        num_seen: int, the classes seen. None: all.

    Returns:
        kernel: float32 array [features, num_seen].
        bias: float32 array [num_seen].
    """
    return network['dense/kernel'][:, :num_seen], network['dense/bias'][:num_seen]


def with_last_layer(network, kernel, bias, num_classes=None):
    """A network with another last layer.

    Args:
        network: dict from a variable's name to its array.
        kernel: float32 array [features, num_seen].
        bias: float32 array [num_seen].
        num_classes: int, columns of the new layer: those from num_seen on are 0. None: num_seen.

    Returns:
        dict from name to array.
    """
    more = (num_classes or len(bias)) - len(bias)
    layer = {
        'dense/kernel': np.pad(kernel, [(0, 0), (0, more)], 'constant'),
        'dense/bias': np.pad(bias, (0, more), 'constant'),
    }
    return dict(network, **layer)


def grown(weights, num_classes, seed):
    """Widens a network's dense layer for more classes: new columns are drawn, the rest stays.

    Args:
        weights: dict from name to array, or None.
        num_classes: int, at least the present number of columns.
        seed: int.

    Returns:
        dict from name to array; None for None.
    """
    if weights is None:
        return None
    num_features, num_columns = weights['dense/kernel'].shape
    if num_classes == num_columns:
        return weights
    kernel = initial_weights({'dense/kernel': (num_features, num_classes)}, seed)['dense/kernel']
    kernel[:, :num_columns] = weights['dense/kernel']
    bias = np.pad(weights['dense/bias'], (0, num_classes - num_columns), 'constant')
    return dict(weights, **{'dense/kernel': kernel, 'dense/bias': bias})
