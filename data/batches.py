"""Batches: listed images to float tensors, the published augmentation, and the random numbers that drive it.

All randomness is drawn in NumPy as a function of (seed, increment, epoch) and travels beside each image's path, so that
order and augmentation depend on neither TensorFlow's version, nor the threads, nor where a run was resumed.
"""
import numpy as np
import tensorflow.compat.v1 as tf

CHANNEL_MEANS = (123.68, 116.78, 103.94)  # red, green, blue; of ImageNet, subtracted from 0..255 [authors' vgg_preprocessing]
_EPOCH = (tf.string, tf.int32, tf.float64)


def epochs(paths, labels, count, seed, increment, side_min, side_max):
    """Generates the epochs of one increment.

    Args:
        paths: object array [images] of bytes. labels: int array [images].
        count: int, number of epochs. seed, increment: int.
        side_min, side_max: int, range of the shorter side in pixels, both included.

    Yields:
        (paths, labels, draws) in the epoch's order: draws is float64 [images, 4], the shorter side in pixels and three
        uniform numbers in [0, 1) for the crop's row, its column and the flip.
    """
    for epoch in range(count):
        random = np.random.RandomState([seed, increment, epoch])
        order = random.permutation(len(labels))
        draws = np.column_stack([random.randint(side_min, side_max + 1, len(labels)), random.random_sample((len(labels), 3))])
        yield paths[order], labels[order], draws


def training_batches(generator, batch_size, image_size, flip):
    """Batches across the borders of epochs; the very last one may be smaller.

    Args:
        generator: function without arguments that returns `epochs(..)`.
        batch_size, image_size: int. flip: bool, whether half of the images are mirrored.

    Returns:
        tf.data.Dataset of (images float32 [batch, image_size, image_size, 3], labels int32 [batch]).
    """
    def load(path, label, draw):
        return augmented(_decoded(path), draw, image_size, flip), label

    dataset = tf.data.Dataset.from_generator(generator, _EPOCH, ([None], [None], [None, 4]))
    dataset = dataset.flat_map(lambda *epoch: tf.data.Dataset.from_tensor_slices(epoch))
    return _batched(dataset.map(load, tf.data.experimental.AUTOTUNE), batch_size)


def evaluation_batches(paths, labels, batch_size, image_size, side):
    """The images in the given order, shorter side `side`, central crop. Arguments and result as above, paths a tensor."""
    def load(path, label):
        return centred(_decoded(path), image_size, side), label

    dataset = tf.data.Dataset.from_tensor_slices((paths, labels))
    return _batched(dataset.map(load, tf.data.experimental.AUTOTUNE), batch_size)


def augmented(image, draw, image_size, flip):
    """Shorter side resized to draw[0], crop at draw[1:3], mirrored where draw[3] < 0.5, channel means subtracted.

    Args:
        image: uint8 tensor [height, width, 3]. draw: float64 tensor [4].
        image_size: int, at most draw[0]. flip: bool.

    Returns:
        float32 tensor [image_size, image_size, 3].
    """
    image = _resized(image, tf.cast(draw[0], tf.int32))
    room = tf.shape(image)[:2] - image_size + 1
    corner = tf.cast(tf.floor(draw[1:3] * tf.cast(room, tf.float64)), tf.int32)
    image = _cropped(image, corner, image_size)
    if flip:
        image = tf.cond(draw[3] < 0.5, lambda: tf.reverse(image, [1]), lambda: image)
    return image


def centred(image, image_size, side):
    """Shorter side resized to `side`, central crop, channel means subtracted: what evaluation and herding see."""
    image = _resized(image, side)
    return _cropped(image, (tf.shape(image)[:2] - image_size) // 2, image_size)


def _decoded(path):
    image = tf.image.decode_image(tf.read_file(path), channels=3, expand_animations=False)
    image.set_shape([None, None, 3])
    return image


def _resized(image, side):
    """Version 1's `resize_images`: bilinear, no half-pixel shift, no antialiasing; the longer side is floored."""
    shape = tf.shape(image)[:2]
    return tf.image.resize_bilinear(image[None], shape * side // tf.reduce_min(shape))[0]


def _cropped(image, corner, image_size):
    image = tf.slice(image, tf.concat([corner, [0]], 0), [image_size, image_size, 3])
    return image - tf.constant(CHANNEL_MEANS)


def _batched(dataset, batch_size):
    return dataset.batch(batch_size).prefetch(tf.data.experimental.AUTOTUNE)
