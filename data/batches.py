"""Batches: listed images to float tensors, the published augmentation, and the random numbers that drive it.

All randomness is drawn in NumPy as a function of (seed, increment, epoch) and travels beside each image's number, so that
order and augmentation do not depend on TensorFlow's version, on threads, or on where a run was resumed.

Of a JPEG, only the rectangle that the crop needs is decoded (with PADDING the whole image), and only the crop is resized. Apart
from rounding, this gives the pixels of the whole image resized and cropped, for about three quarters of the work.
"""
import types

import numpy as np
import tensorflow.compat.v1 as tf

from data.devices import ONE

CHANNEL_MEANS = (123.68, 116.78, 103.94)  # red, green, blue; of ImageNet, subtracted from 0..255 [authors' vgg_preprocessing]


def host_session():
    """A session that uses no GPU: the first session of a process fixes how all of them take GPU memory."""
    return tf.Session(config=tf.ConfigProto(device_count={'GPU': 0}))


def epochs(count, increment, s, first=0):
    """Generates the random numbers of one increment, epoch by epoch.

    Args: count: int, number of images. first: int, images over all epochs that were used before a resume; they are skipped.

    Yields:
        (order, draws): order is int64 [count], the images' numbers; draws is float64 [count, 4], the shorter side in pixels and
        three uniform numbers in [0, 1) for the crop's row, its column and the flip.
    """
    for epoch in range(first // count, s.EPOCHS):
        random = np.random.RandomState([s.SEED, increment, epoch])
        order = random.permutation(count)
        sides = random.randint(s.RESIZE_SIDE_MIN, s.RESIZE_SIDE_MAX + 1, count)
        draws = np.column_stack([sides, random.random_sample((count, 3))])
        used = max(0, first - epoch * count)
        yield order[used:], draws[used:]


def inputs(now, s, first_step, devices):
    """Builds the inputs of an increment's graph. first_step: int, the step that training begins with.

    Returns:
        namespace:
            paths, labels: placeholders, the images to train on or to evaluate.
            train_batches, evaluation_batches: iterators, initialised with what `feed` returns.
            train_batch, evaluation_batch: images float32 [batch, IMAGE_SIZE, IMAGE_SIZE, 3] and labels int32 [batch].
            waited: float64 scalar, seconds that a training step waited for its batch; NaN with DETERMINISTIC.
    """
    made = types.SimpleNamespace()
    with tf.device('/cpu:0'):
        made.paths, made.labels = tf.placeholder(tf.string, [None]), tf.placeholder(tf.int32, [None])
    made.train_batches = tf.data.make_initializable_iterator(training_batches(
        made.paths, made.labels, now, s, first_step * s.BATCH_SIZE, devices))
    made.evaluation_batches = tf.data.make_initializable_iterator(evaluation_batches(made.paths, made.labels, s, devices))
    clock = (lambda: tf.constant(np.nan, tf.float64)) if s.DETERMINISTIC else tf.timestamp  # it forbids clocks
    began = clock()
    with tf.control_dependencies([began]):
        made.train_batch = made.train_batches.get_next()
    with tf.control_dependencies([made.train_batch[1]]):
        made.waited = clock() - began
    made.evaluation_batch = made.evaluation_batches.get_next()
    return made


def feed(model, data, numbers):
    """Feeds for an iterator's initialiser, dict. model: from `inputs`. data: dataset.Dataset. numbers: int array, its images."""
    return {model.paths: data.paths[numbers], model.labels: data.labels[numbers]}


def training_batches(paths, labels, now, s, first=0, devices=ONE):
    """This process's part of each training batch. Batches run across epochs; the last one may be smaller.

    Args: paths: string tensor [images]. labels: int32 tensor [images]. first: int, images over all epochs that were used before.

    Returns: tf.data.Dataset of (images float32 [batch, IMAGE_SIZE, IMAGE_SIZE, 3], labels int32 [batch]).
    """
    def load(number, draw):
        return augmented(lambda window: of_file(paths[number], window), draw, s), labels[number]

    def shares():
        position = first
        for order, draws in epochs(now.train, now.increment, s, first):
            use = devices.mine(position + np.arange(len(order)), s.EPOCHS * now.train, s.BATCH_SIZE)
            position += len(order)
            yield order[use], draws[use]

    dataset = tf.data.Dataset.from_generator(shares, (tf.int64, tf.float64), ([None], [None, 4]))
    dataset = dataset.flat_map(lambda *epoch: tf.data.Dataset.from_tensor_slices(epoch))
    return _batched(dataset, load, s, devices)


def evaluation_batches(paths, labels, s, devices=ONE):
    """Batches of all images in the given order, in this process, not augmented. Arguments and result as in `training_batches`."""
    dataset = tf.data.Dataset.from_tensor_slices((paths, labels))
    return _batched(dataset, lambda path, label: (centred(lambda window: of_file(path, window), s), label), s, devices)


def augmented(image, draw, s):
    """Resizes the shorter side to draw[0], pads with zeros, crops at draw[1:3], mirrors where draw[3] < 0.5, and normalises.

    Args: image: function from a window to the results of `of_file`. draw: float64 tensor [4], from `epochs`.

    Returns: float32 tensor [IMAGE_SIZE, IMAGE_SIZE, 3].
    """
    side, mirrored = tf.cast(draw[0], tf.int32), tf.logical_and(s.RANDOM_FLIP, draw[3] < 0.5)

    def corner(room):
        return tf.cast(tf.floor(draw[1:3] * tf.cast(room + 1, tf.float64)), tf.int32)

    if not s.PADDING:
        return _normalised(_crop(image, side, corner, mirrored, s), s)
    pixels, shape = image(lambda shape: (tf.concat([[0, 0], shape], 0), shape))  # small images, as CIFAR's
    pixels = tf.image.resize_bilinear(pixels[None], shape * side // tf.reduce_min(shape))[0]
    pixels = tf.pad(pixels, [[s.PADDING, s.PADDING], [s.PADDING, s.PADDING], [0, 0]])
    pixels = tf.slice(pixels, tf.concat([corner(tf.shape(pixels)[:2] - s.IMAGE_SIZE), [0]], 0), [s.IMAGE_SIZE, s.IMAGE_SIZE, 3])
    return _normalised(tf.cond(mirrored, lambda: tf.reverse(pixels, [1]), lambda: pixels), s)


def centred(image, s):
    """For evaluation and herding: shorter side resized to RESIZE_SIDE_MIN, central crop, normalised. image: as in `augmented`."""
    return _normalised(_crop(image, s.RESIZE_SIDE_MIN, lambda room: room // 2, tf.constant(False), s), s)


def of_contents(contents, window):
    """Decodes a rectangle of an image.

    Args:
        contents: string tensor, the bytes of an image file.
        window: function from the image's height and width, an int32 tensor [2], to the rectangle's first row, first column,
            height and width, an int32 tensor [4]; and to anything else that depends on the shape.

    Returns: uint8 tensor [rows, columns, 3], and the second result of window.
    """
    is_jpeg = tf.image.is_jpeg(contents)
    # The header of a JPEG has the image's shape; of other formats the whole image is decoded.
    pixels = tf.cond(is_jpeg, lambda: tf.zeros([0, 0, 3], tf.uint8), lambda: tf.ensure_shape(
        tf.image.decode_image(contents, channels=3, expand_animations=False), [None, None, 3]))
    shape = tf.cond(is_jpeg, lambda: tf.image.extract_jpeg_shape(contents), lambda: tf.shape(pixels))
    rectangle, more = window(shape[:2])
    row, column, height, width = tf.unstack(rectangle)
    return tf.cond(is_jpeg, lambda: tf.image.decode_and_crop_jpeg(contents, rectangle, channels=3),
                   lambda: pixels[row:row + height, column:column + width]), more


def of_file(path, window):
    """`of_contents` of the file at path, a string tensor."""
    return of_contents(tf.read_file(path), window)


def _crop(image, side, corner, mirrored, s):
    """Crops the resized image, and decodes only the part that the crop shows. mirrored: bool tensor.

    corner: function from the resized shape minus IMAGE_SIZE to the crop's first row and column; int32 tensors [2].
    """
    # Resizing is version 1's `resize_images`: bilinear, no half-pixel shift, no antialiasing; the longer side is floored. So
    # row i of the crop is the image's row (corner + i) * scale, and beyond row h - 1 it is row h - 1.
    def window(shape):
        new = shape * side // tf.reduce_min(shape)
        scale = tf.cast(shape, tf.float64) / tf.cast(new, tf.float64)
        begin = tf.cast(corner(new - s.IMAGE_SIZE), tf.float64) * scale
        end = begin + (s.IMAGE_SIZE - 1) * scale
        # One pixel more on each side: chroma is interpolated, and the decoder guesses it at the border of what it decodes.
        first = tf.maximum(tf.cast(begin, tf.int32) - 1, 0)
        count = tf.minimum(tf.cast(end, tf.int32) + 3, shape) - first
        return tf.concat([first, count], 0), tf.stack([begin, end]) - tf.cast(first, tf.float64)

    pixels, ends = image(window)  # ends: float64 [2, 2], where the crop's first and last row and column lie in the pixels
    # At the image's edges double its outer rows and columns, so that rounding never asks for a pixel outside.
    edge = tf.reduce_any((ends < 0.5) | (ends > tf.cast(tf.shape(pixels)[:2], tf.float64) - 1.5))
    pixels = tf.cond(edge, lambda: _doubled(_doubled(pixels, 0), 1), lambda: pixels)
    ends = (ends + tf.cast(edge, tf.float64)) / tf.cast(tf.shape(pixels)[:2] - 1, tf.float64)
    box = tf.reshape(tf.cast(ends, tf.float32), [1, 4])
    box = tf.where(mirrored, tf.gather(box, [0, 3, 2, 1], axis=1), box)
    return tf.image.crop_and_resize(pixels[None], box, [0], [s.IMAGE_SIZE, s.IMAGE_SIZE])[0]


def _doubled(pixels, axis):
    first, last = tf.split(tf.gather(pixels, [0, tf.shape(pixels)[axis] - 1], axis=axis), 2, axis)
    return tf.concat([first, pixels, last], axis)  # ten times as fast as tf.pad's SYMMETRIC


def _normalised(image, s):
    """Each image to mean 0 and standard deviation 1 over its values, or with the channel means subtracted."""
    if s.STANDARDIZE:
        return tf.image.per_image_standardization(tf.ensure_shape(image, [s.IMAGE_SIZE, s.IMAGE_SIZE, 3]))
    rows = tf.reshape(image, [s.IMAGE_SIZE, 3 * s.IMAGE_SIZE]) - tf.constant(CHANNEL_MEANS * s.IMAGE_SIZE)  # long rows are fast
    return tf.reshape(rows, [s.IMAGE_SIZE, s.IMAGE_SIZE, 3])


def denormalised(image, s):
    """A normalised image for display, float32, about 0..255. With STANDARDIZE its own mean and deviation are lost."""
    return 64 * image + 128 if s.STANDARDIZE else image + tf.constant(CHANNEL_MEANS)


def _batched(dataset, load, s, devices):
    threads = tf.data.experimental.AUTOTUNE
    load = tf.autograph.experimental.do_not_convert(load)  # converting takes a quarter of the time to build a graph
    return dataset.map(load, threads).batch(devices.part(s.BATCH_SIZE)).prefetch(threads)
