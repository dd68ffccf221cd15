"""The network: images in, (features, logits) out.

Pre-activation ResNet (version 2: He et al., "Identity Mappings in Deep Residual Networks", 2016), in the form of the
official TensorFlow ResNet that the BiC authors started from. Nothing here knows about losses or sessions.
"""
import numpy as np
import tensorflow.compat.v1 as tf

# Blocks in each layer, by depth. Four layers: the ImageNet form; from depth 50 on, blocks are bottlenecks (1x1, 3x3, and 1x1 with
# four times the filters). Three layers: the CIFAR form.
BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3), 200: (3, 24, 36, 3),
          8: (1, 1, 1), 20: (3, 3, 3), 32: (5, 5, 5), 56: (9, 9, 9)}
STRIDES = (1, 2, 2, 2)
BATCH_NORM_EPSILON = 1e-5
_FORMAT = {'channels_last': 'NHWC', 'channels_first': 'NCHW'}


def resnet(images, depth, num_classes, training, batch_norm_decay, data_format='channels_last'):
    """Builds the network in the current variable scope, which sets the names and whether variables are reused.

    Args:
        images: float32 [batch, height, width, 3], normalised (see data/batches.py).
        depth: 18, 34, 50, 101, 152 or 200, which begin with a 7x7/2 convolution of 64 filters and a 3x3/2 pool; or 8, 20, 32
            or 56, the form for CIFAR, which begins with a 3x3 convolution of 16.
        num_classes: width of the dense layer: all classes of the dataset, seen or not.
        training: Python bool. True normalises with the batch's statistics and adds the updates of the moving averages
            to `tf.GraphKeys.UPDATE_OPS`; False normalises with the moving averages.
        batch_norm_decay: momentum of the moving averages, in (0, 1).
        data_format: 'channels_last', or 'channels_first' (faster on GPUs, convolutions do not run on the CPU).

    Returns:
        features: float32 [batch, 512], with bottlenecks [batch, 2048], in the CIFAR form [batch, 64]: the global average, which
            herding uses.
        logits: float32 [batch, num_classes].
    """
    def conv(x, filters, kernel, stride, name):
        return _convolution(x, filters, kernel, stride, data_format, name)

    def bn_relu(x, name):
        return _batch_norm_relu(x, training, batch_norm_decay, data_format, name)

    x = tf.transpose(images, [0, 3, 1, 2]) if data_format == 'channels_first' else images
    cifar = len(BLOCKS[depth]) == 3
    if cifar:
        x = conv(x, 16, 3, 1, 'conv1')
    else:
        x = conv(x, 64, 7, 2, 'conv1')
        window, strides = ([1, 1, 3, 3], [1, 1, 2, 2]) if data_format == 'channels_first' else ([1, 3, 3, 1], [1, 2, 2, 1])
        x = tf.nn.max_pool(x, window, strides, 'SAME', data_format=_FORMAT[data_format])
    for layer, (blocks, stride) in enumerate(zip(BLOCKS[depth], STRIDES)):
        filters = (16 if cifar else 64) * 2 ** layer
        for block in range(blocks):
            with tf.variable_scope('layer%d/block%d' % (layer + 1, block + 1)):
                x = _block(x, filters, stride if block == 0 else 1, block == 0, depth >= 50 and not cifar, conv, bn_relu)
    x = bn_relu(x, 'bn')
    features = tf.reduce_mean(x, [2, 3] if data_format == 'channels_first' else [1, 2])  # [batch, 512, 2048 or 64]
    with tf.variable_scope('dense'):
        kernel = tf.get_variable('kernel', [features.shape.as_list()[1], num_classes], use_resource=True)
        bias = tf.get_variable('bias', [num_classes], initializer=tf.zeros_initializer(), use_resource=True)
    return features, tf.matmul(features, kernel) + bias


def _block(x, filters, stride, project, bottleneck, conv, bn_relu):
    """One pre-activation block: BN and ReLU, then the branch. The projection has the same input as the branch."""
    shortcut = x
    x = bn_relu(x, 'bn1')
    if project:
        shortcut = conv(x, 4 * filters if bottleneck else filters, 1, stride, 'projection')
    if bottleneck:
        x = bn_relu(conv(x, filters, 1, 1, 'conv1'), 'bn2')
        x = bn_relu(conv(x, filters, 3, stride, 'conv2'), 'bn3')
        return shortcut + conv(x, 4 * filters, 1, 1, 'conv3')
    x = bn_relu(conv(x, filters, 3, stride, 'conv1'), 'bn2')
    return shortcut + conv(x, filters, 3, 1, 'conv2')


def _convolution(x, filters, kernel, stride, data_format, name):
    """Convolution without bias. With a stride, padding is explicit: SAME would pad by the input's size."""
    channels_first = data_format == 'channels_first'
    with tf.variable_scope(name):
        shape = [kernel, kernel, x.shape.as_list()[1 if channels_first else 3], filters]
        weights = tf.get_variable('kernel', shape, use_resource=True)
        if stride > 1:
            before = (kernel - 1) // 2
            pad = [before, kernel - 1 - before]
            x = tf.pad(x, [[0, 0], [0, 0], pad, pad] if channels_first else [[0, 0], pad, pad, [0, 0]])
        strides = [1, 1, stride, stride] if channels_first else [1, stride, stride, 1]
        padding = 'VALID' if stride > 1 else 'SAME'
        return tf.nn.conv2d(x, weights, strides=strides, padding=padding, data_format=_FORMAT[data_format])


def _batch_norm_relu(x, training, decay, data_format, name):
    def variable(name, initial, trainable):
        shape = [x.shape.as_list()[1 if data_format == 'channels_first' else 3]]
        # With several devices each has its own moving averages, of its share of the batch; the network's are their mean.
        own = {} if trainable else dict(synchronization=tf.VariableSynchronization.ON_READ,
                                        aggregation=tf.VariableAggregation.MEAN)
        return tf.get_variable(name, shape, initializer=initial(), trainable=trainable, use_resource=True, **own)

    with tf.variable_scope(name):
        gamma, beta = variable('gamma', tf.ones_initializer, True), variable('beta', tf.zeros_initializer, True)
        mean = variable('moving_mean', tf.zeros_initializer, False)
        variance = variable('moving_variance', tf.ones_initializer, False)
        arguments = dict(epsilon=BATCH_NORM_EPSILON, data_format=_FORMAT[data_format])
        if not training:
            return tf.nn.relu(tf.nn.fused_batch_norm(x, gamma, beta, mean, variance, is_training=False, **arguments)[0])
        x, batch_mean, batch_variance = tf.nn.fused_batch_norm(x, gamma, beta, is_training=True, **arguments)
        for moving, batch in ((mean, batch_mean), (variance, batch_variance)):
            tf.add_to_collection(tf.GraphKeys.UPDATE_OPS, moving.assign_sub((1 - decay) * (moving - batch)))
        return tf.nn.relu(x)


def last_side(depth, image_size):
    """Side of the last feature map in pixels, int. depth, image_size: int."""
    halvings = 5 if len(BLOCKS[depth]) == 4 else 2  # strides of 2: first convolution, pool and layers 2 to 4; layers 2 and 3
    return -(-image_size // 2 ** halvings)


def variables(scope):
    """A network's variables, without those of networks whose scope begins with the same letters.

    Args:
        scope: str, without '/' at its end.

    Returns:
        dict from the name without the scope to the variable, in the order of creation.
    """
    # The '/' matters: get_collection matches prefixes, and 'resnet' is one of 'resnet_old'.
    return {v.op.name[len(scope) + 1:]: v for v in tf.get_collection(tf.GraphKeys.GLOBAL_VARIABLES, scope=scope + '/')}


def initial_weights(shapes, seed):
    """Draws the kernels in NumPy, so that every TensorFlow starts from the same weights.

    Convolutions: truncated normal, redrawn beyond two sigma, stddev sqrt(1 / fan_in) not corrected for the truncation,
    as TensorFlow 1.5 drew them (later `variance_scaling_initializer`s widen by 1 / 0.8796). Dense: Glorot uniform.

    Args:
        shapes: dict from a variable's name to its shape, in the order of `variables`.
        seed: int, 0 to 2**32 - 1.

    Returns:
        dict from name to float32 array, the kernels only. The other variables start from their own initial values: 1 for
        scales and variances of batch normalisation, otherwise 0.
    """
    random = np.random.RandomState([seed])
    weights = {}
    for name, shape in shapes.items():
        if not name.endswith('/kernel'):
            continue
        if len(shape) == 2:
            limit = np.sqrt(6.0 / (shape[0] + shape[1]))
            value = random.uniform(-limit, limit, shape)
        else:
            value = random.standard_normal(shape)
            beyond = np.abs(value) > 2
            while beyond.any():
                value[beyond] = random.standard_normal(beyond.sum())
                beyond = np.abs(value) > 2
            value *= np.sqrt(1.0 / np.prod(shape[:3]))  # fan_in = height * width * channels in
        weights[name] = value.astype(np.float32)
    return weights


def first_weights(networks, weights, seed):
    """Feeds for the initialisers: drawn weights at increment 0, later the previous network's, to student and old network.

    Args:
        networks: dict from scope to `variables`.
        weights: dict from a variable's name to its array, or None at increment 0.
        seed: int.

    Returns:
        dict from initial_value tensor to float32 array.
    """
    if weights is None:
        weights = initial_weights({name: variable.shape.as_list() for name, variable in networks['resnet'].items()}, seed)
        networks = {scope: {name: network[name] for name in weights} for scope, network in networks.items()}
    return {value: array for network in networks.values() for value, array in feeds(network, weights).items()}


def feeds(variables, arrays):
    """What to feed the initialisers of variables with.

    Args:
        variables: dict from name to variable. arrays: dict from name to array, at least of these variables.

    Returns:
        dict from initial_value tensor to array.

    Raises:
        ValueError: an array is missing, or has another shape or kind of number than its variable.
    """
    for name, variable in variables.items():
        expected = tuple(variable.shape.as_list()), np.dtype(variable.dtype.base_dtype.as_numpy_dtype).kind
        if name not in arrays or (arrays[name].shape, arrays[name].dtype.kind) != expected:
            raise ValueError('network.npz has no %s of shape %s' % (name, expected[0]))
    return {variable.initial_value: arrays[name] for name, variable in variables.items()}


def grown(weights, num_classes, seed):
    """Widens a network's dense layer for more classes: the new columns are drawn, everything else stays.

    Args:
        weights: dict from name to array, or None.
        num_classes: int, at least the present number of columns.
        seed: int.

    Returns:
        dict from name to array; None for None.
    """
    if weights is None:
        return None
    features, columns = weights['dense/kernel'].shape
    if num_classes == columns:
        return weights
    kernel = initial_weights({'dense/kernel': (features, num_classes)}, seed)['dense/kernel']
    kernel[:, :columns] = weights['dense/kernel']
    return dict(weights, **{'dense/kernel': kernel, 'dense/bias': np.pad(weights['dense/bias'], (0, num_classes - columns),
                                                                         'constant')})
