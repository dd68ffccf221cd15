"""Batches: listed images to float tensors, with the published augmentation.

All randomness is drawn in NumPy as a function of (seed, increment, epoch) and travels beside each
image's number, so that order and augmentation do not depend on TensorFlow's version, on threads, or
on where a run was resumed.

Of a JPEG, only the rectangle that the crop needs is decoded (with PADDING the whole image), and
only the crop is resized. Apart from rounding, this gives the pixels of the whole image resized and
cropped, for about three quarters of the work. So an image is passed on as a function that reads it:
`read(window)` returns what `of_contents` does.
"""
import numpy as np
import tensorflow.compat.v1 as tf

import exemplar
from data import images, settings

# Red, green, blue of ImageNet, subtracted from 0..255 [authors' vgg_preprocessing].
CHANNEL_MEANS = (123.68, 116.78, 103.94)


class Stream:
    """Batches of those images that it is started with.

    Attributes:
        images: float32 tensor [batch, IMAGE_SIZE, IMAGE_SIZE, 3], of the next batch.
        labels: int32 tensor [batch], of the same batch.
        waited: float64 scalar tensor, seconds that the step waited for this batch. NaN with
            DETERMINISTIC, which forbids clocks.
    """

    def __init__(self, build, s):
        """Builds the stream in the current graph.

        Args:
            build: function from paths, a string tensor [images], and labels, an int32 tensor
                [images], to a tf.data.Dataset of (images, labels).
            s: settings.
        """
        def clock():
            return tf.constant(np.nan, tf.float64) if s.DETERMINISTIC else tf.timestamp()

        with tf.device('/cpu:0'):
            self._paths = tf.placeholder(tf.string, [None])
            self._labels = tf.placeholder(tf.int32, [None])
        self._iterator = tf.data.make_initializable_iterator(build(self._paths, self._labels))
        began = clock()
        with tf.control_dependencies([began]):
            self.images, self.labels = self._iterator.get_next()
        with tf.control_dependencies([self.labels]):
            self.waited = clock() - began

    def start(self, session, data, numbers):
        """Goes back to the first batch.

        Args:
            session: tf.Session of the stream's graph.
            data: dataset.Dataset.
            numbers: int array, its images that the batches are made of.
        """
        self._files = data.paths[numbers]
        chosen = {self._paths: self._files, self._labels: data.labels[numbers]}
        session.run(self._iterator.initializer, chosen)

    def explained(self):
        """A context for session.run: turns errors of reading an image into Faults."""
        return images.explained(self._files)


def training_stream(increment, s, first_step, devices):
    """This process's part of each training batch, shuffled and augmented.

    Batches run across epochs, and the last one may be smaller. The stream is started with the
    increment's num_train images and ends with its last step.

    Args:
        increment: exemplar.Increment.
        s: settings.
        first_step: int, the step that training begins with.
        devices: devices.Devices, which share each batch.

    Returns:
        Stream.
    """
    num_train = increment.num_train
    # Images over all steps. The number of steps alone says whether a smaller last batch is used.
    num_positions = min(s.EPOCHS * num_train, settings.num_steps(s, num_train) * s.BATCH_SIZE)

    def shares():
        position = first_step * s.BATCH_SIZE
        for order, draws in epochs(num_train, increment.index, s, position):
            positions = position + np.arange(len(order))
            mine = devices.mine(positions, num_positions, s.BATCH_SIZE)
            position += len(order)
            yield order[mine], draws[mine]

    def build(paths, labels):
        def load(number, draw):
            return augmented(lambda window: of_file(paths[number], window), draw, s), labels[number]

        chosen = tf.data.Dataset.from_generator(
            shares, (tf.int64, tf.float64), ([None], [None, 4]))
        chosen = chosen.flat_map(lambda *epoch: tf.data.Dataset.from_tensor_slices(epoch))
        return _batched(chosen, load, s, devices)

    return Stream(build, s)


def evaluation_stream(s, devices):
    """Batches of all images in the given order, in this process, not augmented.

    Args:
        s: settings.
        devices: devices.Devices.

    Returns:
        Stream. Its last batch may be smaller.
    """
    def load(path, label):
        return centred(lambda window: of_file(path, window), s), label

    def build(paths, labels):
        return _batched(tf.data.Dataset.from_tensor_slices((paths, labels)), load, s, devices)

    return Stream(build, s)


def _batched(elements, load, s, devices):
    """Batches of what load makes of each element, a tf.data.Dataset."""
    autotune = tf.data.experimental.AUTOTUNE
    # Converting takes a quarter of the time to build a graph.
    load = tf.autograph.experimental.do_not_convert(load)
    batches = elements.map(load, autotune).batch(devices.part(s.BATCH_SIZE))
    return batches.prefetch(autotune)


def epochs(num_images, index, s, first=0):
    """Generates the random numbers of one increment, epoch by epoch.

    Args:
        num_images: int.
        index: int, the increment's.
        s: settings.
        first: int, images over all epochs that were used before a resume; they are skipped.

    Yields:
        order: int64 [num_images], the images' numbers.
        draws: float64 [num_images, 4], the shorter side in pixels and three uniform numbers in
            [0, 1) for the crop's row, its column and the flip.
    """
    for epoch in range(first // num_images, s.EPOCHS):
        random = exemplar.random_stream(s.SEED, 'batches', index, epoch)
        order = random.permutation(num_images)
        sides = random.randint(s.RESIZE_SIDE_MIN, s.RESIZE_SIDE_MAX + 1, num_images)
        draws = np.column_stack([sides, random.random_sample((num_images, 3))])
        num_used = max(0, first - epoch * num_images)
        yield order[num_used:], draws[num_used:]


def of_contents(contents, window):
    """Decodes a rectangle of an image.

    Args:
        contents: string tensor, the bytes of an image file.
        window: function from the image's height and width, an int32 tensor [2]. Returns
            (rectangle, extra): the first row, first column, height and width, an int32 tensor [4];
            extra is passed through.

    Returns:
        pixels: uint8 tensor [rows, columns, 3].
        extra: the second result of window.
    """
    is_jpeg = tf.image.is_jpeg(contents)

    def decoded():
        pixels = tf.image.decode_image(contents, channels=3, expand_animations=False)
        return tf.ensure_shape(pixels, [None, None, 3])

    # The header of a JPEG has the image's shape; of other formats the whole image is decoded.
    pixels = tf.cond(is_jpeg, lambda: tf.zeros([0, 0, 3], tf.uint8), decoded)
    shape = tf.cond(is_jpeg, lambda: tf.image.extract_jpeg_shape(contents),
                    lambda: tf.shape(pixels))
    rectangle, extra = window(shape[:2])
    row, column, height, width = tf.unstack(rectangle)
    part = tf.cond(is_jpeg,
                   lambda: tf.image.decode_and_crop_jpeg(contents, rectangle, channels=3),
                   lambda: pixels[row:row + height, column:column + width])
    return part, extra


def of_file(path, window):
    """`of_contents` of the file at path, a string tensor."""
    return of_contents(tf.read_file(path), window)


def augmented(read, draw, s):
    """An image as training sees it.

    The shorter side is resized to draw[0], zeros are added around it, the crop lies at draw[1:3],
    and it is mirrored where draw[3] < 0.5.

    Args:
        read: function from a window to the results of `of_contents`.
        draw: float64 tensor [4], from `epochs`.
        s: settings.

    Returns:
        float32 tensor [IMAGE_SIZE, IMAGE_SIZE, 3], normalised.
    """
    side = tf.cast(draw[0], tf.int32)
    mirrored = tf.logical_and(s.RANDOM_FLIP, draw[3] < 0.5)

    def corner(room):
        return tf.cast(tf.floor(draw[1:3] * tf.cast(room + 1, tf.float64)), tf.int32)

    crop = _padded_crop if s.PADDING else _crop
    return _normalised(crop(read, side, corner, mirrored, s), s)


def centred(read, s):
    """An image as evaluation and herding see it: shorter side RESIZE_SIDE_MIN, central crop.

    Arguments and result as of `augmented`.
    """
    def corner(room):
        return room // 2

    return _normalised(_crop(read, s.RESIZE_SIDE_MIN, corner, tf.constant(False), s), s)


def _padded_crop(read, side, corner, mirrored, s):
    """`_crop` with a border of PADDING zeros. For small images, as CIFAR's: resizes all of it."""
    def whole(shape):
        return tf.concat([[0, 0], shape], 0), shape

    pixels, shape = read(whole)
    new_shape = shape * side // tf.reduce_min(shape)
    pixels = tf.image.resize_bilinear(pixels[None], new_shape)[0]
    border = [s.PADDING, s.PADDING]
    pixels = tf.pad(pixels, [border, border, [0, 0]])
    room = tf.shape(pixels)[:2] - s.IMAGE_SIZE
    begin = tf.concat([corner(room), [0]], 0)
    crop = tf.slice(pixels, begin, [s.IMAGE_SIZE, s.IMAGE_SIZE, 3])
    return tf.cond(mirrored, lambda: tf.reverse(crop, [1]), lambda: crop)


def _crop(read, side, corner, mirrored, s):
    """Crops the resized image, and decodes only the part that the crop shows.

    Resizing is version 1's `resize_images`: bilinear, no half-pixel shift, no antialiasing; the
    longer side is floored. So row i of the crop is the image's row (corner + i) * scale, and beyond
    row h - 1 it is row h - 1.

    Args:
        read: function from a window to the results of `of_contents`.
        side: int or int32 scalar tensor, the shorter side after resizing.
        corner: function from the resized shape minus IMAGE_SIZE to the crop's first row and
            column; int32 tensors [2].
        mirrored: bool scalar tensor.
        s: settings.

    Returns:
        float32 tensor [IMAGE_SIZE, IMAGE_SIZE, 3], 0..255.
    """
    def window(shape):
        new_shape = shape * side // tf.reduce_min(shape)
        scale = tf.cast(shape, tf.float64) / tf.cast(new_shape, tf.float64)
        begin = tf.cast(corner(new_shape - s.IMAGE_SIZE), tf.float64) * scale
        end = begin + (s.IMAGE_SIZE - 1) * scale
        # One pixel more on each side: chroma is interpolated, and the decoder guesses it at the
        # border of what it decodes.
        first = tf.maximum(tf.cast(begin, tf.int32) - 1, 0)
        count = tf.minimum(tf.cast(end, tf.int32) + 3, shape) - first
        corners = tf.stack([begin, end]) - tf.cast(first, tf.float64)
        return tf.concat([first, count], 0), corners

    # corners: float64 [2, 2], where the crop's first and last row and column lie in the pixels.
    pixels, corners = read(window)
    # At the image's edges its outer rows and columns are doubled, so that rounding never asks for
    # a pixel outside.
    last_inside = tf.cast(tf.shape(pixels)[:2], tf.float64) - 1.5
    at_edge = tf.reduce_any((corners < 0.5) | (corners > last_inside))
    pixels = tf.cond(at_edge, lambda: _doubled(_doubled(pixels, 0), 1), lambda: pixels)
    corners = corners + tf.cast(at_edge, tf.float64)
    corners = corners / tf.cast(tf.shape(pixels)[:2] - 1, tf.float64)
    box = tf.reshape(tf.cast(corners, tf.float32), [1, 4])
    box = tf.where(mirrored, tf.gather(box, [0, 3, 2, 1], axis=1), box)
    return tf.image.crop_and_resize(pixels[None], box, [0], [s.IMAGE_SIZE, s.IMAGE_SIZE])[0]


def _doubled(pixels, axis):
    """Pixels with the first and last row (axis 0) or column (axis 1) twice."""
    ends = tf.gather(pixels, [0, tf.shape(pixels)[axis] - 1], axis=axis)
    first, last = tf.split(ends, 2, axis)
    return tf.concat([first, pixels, last], axis)  # ten times as fast as tf.pad's SYMMETRIC


def _normalised(image, s):
    """The image with mean 0 and standard deviation 1, or with the channel means subtracted."""
    shape = [s.IMAGE_SIZE, s.IMAGE_SIZE, 3]
    if s.STANDARDIZE:
        return tf.image.per_image_standardization(tf.ensure_shape(image, shape))
    # Long rows are fast.
    rows = tf.reshape(image, [s.IMAGE_SIZE, 3 * s.IMAGE_SIZE])
    rows = rows - tf.constant(CHANNEL_MEANS * s.IMAGE_SIZE)
    return tf.reshape(rows, shape)


def denormalised(image, s):
    """A normalised image for display, float32, about 0..255.

    With STANDARDIZE its own mean and deviation are lost.
    """
    return 64 * image + 128 if s.STANDARDIZE else image + tf.constant(CHANNEL_MEANS)
