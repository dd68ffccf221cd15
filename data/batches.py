"""Batches: listed images to float tensors, the published augmentation, and the random numbers that drive it.

All randomness is drawn in NumPy as a function of (seed, increment, epoch) and travels beside each image's path, so that
order and augmentation depend on neither TensorFlow's version, nor the threads, nor where a run was resumed.
"""
import numpy as np
import tensorflow.compat.v1 as tf

CHANNEL_MEANS = (123.68, 116.78, 103.94)  # red, green, blue; of ImageNet, subtracted from 0..255 [authors' vgg_preprocessing]
_EPOCH = (tf.string, tf.int32, tf.float64)


def epochs(paths, labels, increment, s):
    """Generates the epochs of one increment.

    Args:
        paths: object array [images] of bytes. labels: int array [images]. increment: int.
        s: settings; EPOCHS, SEED, RESIZE_SIDE_MIN and RESIZE_SIDE_MAX are used.

    Yields:
        (paths, labels, draws) in the epoch's order: draws is float64 [images, 4], the shorter side in pixels and three
        uniform numbers in [0, 1) for the crop's row, its column and the flip.
    """
    count = len(labels)
    for epoch in range(s.EPOCHS):
        random = np.random.RandomState([s.SEED, increment, epoch])
        order = random.permutation(count)
        sides = random.randint(s.RESIZE_SIDE_MIN, s.RESIZE_SIDE_MAX + 1, count)
        yield paths[order], labels[order], np.column_stack([sides, random.random_sample((count, 3))])


def training_batches(paths, labels, increment, s):
    """Batches across the borders of `epochs`, whose arguments these are; the very last batch may be smaller.

    Returns:
        tf.data.Dataset of (images float32 [batch, IMAGE_SIZE, IMAGE_SIZE, 3], labels int32 [batch]).
    """
    dataset = tf.data.Dataset.from_generator(lambda: epochs(paths, labels, increment, s), _EPOCH, ([None], [None], [None, 4]))
    dataset = dataset.flat_map(lambda *epoch: tf.data.Dataset.from_tensor_slices(epoch))
    return _batched(dataset, lambda path, label, draw: (augmented(_decoded(path), draw, s), label), s)


def evaluation_batches(paths, labels, s):
    """The images in the given order, not augmented. paths, labels: tensors; the rest, and the result, as above."""
    dataset = tf.data.Dataset.from_tensor_slices((paths, labels))
    return _batched(dataset, lambda path, label: (centred(_decoded(path), s), label), s)


def augmented(image, draw, s):
    """Shorter side resized to draw[0], zero padding, crop at draw[1:3], mirrored where draw[3] < 0.5, normalised.

    Args:
        image: uint8 tensor [height, width, 3]. draw: float64 tensor [4].
        s: settings; IMAGE_SIZE, PADDING, RANDOM_FLIP and STANDARDIZE are used.

    Returns:
        float32 tensor [IMAGE_SIZE, IMAGE_SIZE, 3].
    """
    image = _resized(image, tf.cast(draw[0], tf.int32))
    image = tf.pad(image, [[s.PADDING, s.PADDING], [s.PADDING, s.PADDING], [0, 0]])
    room = tf.shape(image)[:2] - s.IMAGE_SIZE + 1
    image = _cropped(image, tf.cast(tf.floor(draw[1:3] * tf.cast(room, tf.float64)), tf.int32), s)
    if s.RANDOM_FLIP:
        image = tf.cond(draw[3] < 0.5, lambda: tf.reverse(image, [1]), lambda: image)
    return image


def centred(image, s):
    """Shorter side resized to RESIZE_SIDE_MIN, central crop, normalised: what evaluation and herding see."""
    image = _resized(image, s.RESIZE_SIDE_MIN)
    return _cropped(image, (tf.shape(image)[:2] - s.IMAGE_SIZE) // 2, s)


def _decoded(path):
    image = tf.image.decode_image(tf.read_file(path), channels=3, expand_animations=False)
    image.set_shape([None, None, 3])
    return image


def _resized(image, side):
    """Version 1's `resize_images`: bilinear, no half-pixel shift, no antialiasing; the longer side is floored."""
    shape = tf.shape(image)[:2]
    return tf.image.resize_bilinear(image[None], shape * side // tf.reduce_min(shape))[0]


def _cropped(image, corner, s):
    """The crop, normalised: by itself (mean 0 and standard deviation 1 over its values), or the channel means subtracted."""
    image = tf.slice(image, tf.concat([corner, [0]], 0), [s.IMAGE_SIZE, s.IMAGE_SIZE, 3])
    return tf.image.per_image_standardization(image) if s.STANDARDIZE else image - tf.constant(CHANNEL_MEANS)


def _batched(dataset, load, s):
    threads = tf.data.experimental.AUTOTUNE
    return dataset.map(load, threads).batch(s.BATCH_SIZE).prefetch(threads)
