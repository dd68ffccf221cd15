"""Tests order and augmentation against a literal NumPy version, with odd sizes and batches of 7."""
import os
import types

import numpy as np
import PIL.Image
import pytest
import tensorflow.compat.v1 as tf

import exemplar
from data import batches, devices, images, settings

MEANS = np.array([123.68, 116.78, 103.94])


def resized(image, side):
    """Resizes bilinearly, without half-pixel shift or antialiasing; the longer side is floored."""
    height, width = image.shape[:2]
    shorter = min(height, width)
    new_height = height * side // shorter
    new_width = width * side // shorter
    out = np.zeros((new_height, new_width, 3))
    for i in range(new_height):
        for j in range(new_width):
            y = i * height / new_height
            x = j * width / new_width
            y0 = int(y)
            x0 = int(x)
            y1 = min(y0 + 1, height - 1)
            x1 = min(x0 + 1, width - 1)
            top = image[y0, x0] + (x - x0) * (image[y0, x1] - image[y0, x0])
            bottom = image[y1, x0] + (x - x0) * (image[y1, x1] - image[y1, x0])
            out[i, j] = top + (y - y0) * (bottom - top)
    return out


def settings_with(**values):
    """Settings with batches of seven, crops of 11 pixels and sides from 20 to 24."""
    s = dict(SEED=1, EPOCHS=3, BATCH_SIZE=7, IMAGE_SIZE=11, RESIZE_SIDE_MIN=20, RESIZE_SIDE_MAX=24,
             PADDING=0, RANDOM_FLIP=True, STANDARDIZE=False, DETERMINISTIC=False)
    return types.SimpleNamespace(**dict(s, **values))


IMAGE = np.random.RandomState(0).randint(0, 256, (21, 21, 3)).astype(np.uint8)


def reader_of(image):
    """Gives an image in memory the interface of `batches.of_file`."""
    def read(window):
        rectangle, extra = window(tf.constant(image.shape[:2]))
        row, column, height, width = tf.unstack(rectangle)
        return tf.constant(image)[row:row + height, column:column + width], extra
    return read


def value_of(build):
    """What build, a function without arguments, returns, as an array."""
    with tf.Graph().as_default(), tf.Session() as session:
        return session.run(build())


def augmented(image, draw, s):
    draw = np.array(draw, np.float64)
    return value_of(lambda: batches.augmented(reader_of(image), tf.constant(draw), s))


def centred(image, s):
    return value_of(lambda: batches.centred(reader_of(image), s))


@pytest.mark.parametrize('shape', [(13, 21), (21, 13), (9, 9), (11, 15), (1, 2)])
@pytest.mark.parametrize('draw', [
    (17, 0.0, 0.999, 0.7), (17, 0.31, 0.52, 0.2), (31, 0.999999999, 0.0, 0.49),
    (11, 0.5, 0.5, 0.5), None])
@pytest.mark.parametrize('flip', [True, False])
def test_augmentation(shape, draw, flip):
    """A draw decides side, crop and flip. Evaluation has none, and crops the centre."""
    image = IMAGE[:shape[0], :shape[1]]
    s = settings_with(RANDOM_FLIP=flip, RESIZE_SIDE_MIN=17)
    expected = resized(image.astype(float), draw[0] if draw else 17)
    height, width = expected.shape[:2]
    if draw:
        actual = augmented(image, draw, s)
        row = int(draw[1] * (height - 11 + 1))
        column = int(draw[2] * (width - 11 + 1))
    else:
        actual = centred(image, s)
        row = (height - 11) // 2
        column = (width - 11) // 2
    expected = expected[row:row + 11, column:column + 11] - MEANS
    if draw and flip and draw[3] < 0.5:
        expected = expected[:, ::-1]
    np.testing.assert_allclose(actual, expected, atol=1e-3)


@pytest.mark.parametrize('flip', [0.2, 0.7])
def test_augmentation_of_cifar(flip):
    """A border of zeros, a random crop and a flip.

    Then each image gets mean 0 and standard deviation 1.
    """
    image = IMAGE[:11, :11]
    s = settings_with(RESIZE_SIDE_MIN=11, PADDING=4, STANDARDIZE=True)
    actual = augmented(image, [11, 0.99, 0.3, flip], s)
    padded = np.zeros((19, 19, 3))
    padded[4:15, 4:15] = image
    expected = padded[8:19, 2:13]  # 9 positions each way: int(0.99 * 9) and int(0.3 * 9)
    expected = (expected - expected.mean()) / expected.std()
    if flip < 0.5:
        expected = expected[:, ::-1]
    np.testing.assert_allclose(actual, expected, atol=1e-4)
    standardized = (image - image.mean()) / image.std()
    np.testing.assert_allclose(centred(image, s), standardized, atol=1e-4)


def plain(path, draw, s):
    """The published way: decode and resize the whole image, then crop and mirror it."""
    image = tf.image.decode_image(tf.read_file(path), 3, expand_animations=False)
    shape = tf.shape(image)[:2]
    new_shape = shape * tf.cast(draw[0], tf.int32) // tf.reduce_min(shape)
    image = tf.image.resize_bilinear(image[None], new_shape)[0]
    room = tf.cast(tf.shape(image)[:2] - s.IMAGE_SIZE + 1, tf.float64)
    corner = tf.cast(tf.floor(draw[1:3] * room), tf.int32)
    image = tf.slice(image, tf.concat([corner, [0]], 0), [s.IMAGE_SIZE, s.IMAGE_SIZE, 3])
    image = tf.cond(draw[3] < 0.5, lambda: tf.reverse(image, [1]), lambda: image)
    return image - tf.constant(batches.CHANNEL_MEANS)


@pytest.mark.parametrize('mode, quality, subsampling', [
    ('RGB', 75, 2), ('RGB', 90, 0), ('RGB', 60, 1), ('L', 75, 0), ('CMYK', 75, 2)])
def test_part_of_a_jpeg_is_as_good_as_all_of_it(mode, quality, subsampling, tmp_path):
    """Smoothed colour noise, so that chroma changes everywhere; the crops reach every border."""
    random = np.random.RandomState(0)
    path = str(tmp_path / 'image.jpg')
    s = settings_with(IMAGE_SIZE=24)
    pixels = random.randint(0, 256, (19, 25, 3)).astype(np.uint8)
    image = PIL.Image.fromarray(pixels).resize((103, 77)).convert(mode)
    image.save(path, quality=quality, subsampling=subsampling)
    with tf.Graph().as_default(), tf.Session() as session:
        draw = tf.placeholder(tf.float64, [4])
        part = batches.augmented(lambda window: batches.of_file(path, window), draw, s)
        both = [part, plain(path, draw, s)]
        for side in (24, 25, 40, 76, 77, 78, 100, 154):
            places = [(0, 0, 0.1), (0.999999, 0.999999, 0.1), (0.999999, 0, 0.9),
                      tuple(random.random_sample(3))]
            for place in places:
                cropped, whole = session.run(both, {draw: (side, *place)})
                difference = np.abs(cropped - whole)
                assert difference.mean() < 1e-3 and difference.max() < 0.05, (side, place)


@pytest.mark.parametrize('mode, expected', [('CMYK', (10, 200, 90)), ('L', (131, 131, 131))])
def test_jpegs_that_are_not_rgb(mode, expected, tmp_path):
    """ImageNet has some in CMYK and in grey.

    Grey is 0.299 * 10 + 0.587 * 200 + 0.114 * 90 here.
    """
    path = str(tmp_path / 'image.JPEG')
    PIL.Image.new('RGB', (30, 40), (10, 200, 90)).convert(mode).save(path, quality=95)
    with open(path, 'rb') as file:
        assert PIL.Image.open(file).mode == mode
    assert images.broken([path.encode()], decode_all=True) == {}
    data = types.SimpleNamespace(paths=np.array([path.encode()], object), labels=np.array([0]))
    with tf.Graph().as_default(), tf.Session() as session:
        stream = batches.evaluation_stream(settings_with(), devices.ONE)
        stream.start(session, data, np.array([0]))
        pixels = session.run(stream.images)
    np.testing.assert_allclose(pixels[0], np.broadcast_to(expected - MEANS, (11, 11, 3)), atol=3)


def epochs(seed=1, increment=0, count=3):
    return list(batches.epochs(10, increment, settings_with(SEED=seed, EPOCHS=count)))


def test_epochs_are_permutations_that_seed_increment_and_epoch_decide():
    first = epochs()
    for order, draws in first:
        assert sorted(order) == list(range(10))
        assert set(draws[:, 0]) <= {20, 21, 22, 23, 24}
        assert ((draws[:, 1:] >= 0) & (draws[:, 1:] < 1)).all()
    for (order, draws), (same_order, same_draws) in zip(first, epochs()):
        assert (order == same_order).all() and (draws == same_draws).all()
    different = first + epochs(seed=2) + epochs(increment=1)
    assert len({tuple(order) for order, _ in different}) == 9
    sides = np.concatenate([draws[:, 0] for _, draws in epochs(count=50)])
    assert set(sides) == {20, 21, 22, 23, 24}


@pytest.fixture(name='data')
def data_(tmp_path):
    """Ten grey images. The grey level tells an image's number; its label is three times that."""
    paths = []
    for i in range(10):
        path = str(tmp_path / ('%d.png' % i))
        PIL.Image.new('RGB', (40, 30), (20 * i,) * 3).save(path)
        paths.append(os.fsencode(path))
    return types.SimpleNamespace(paths=np.array(paths, object), labels=3 * np.arange(10))


def increment_of(num_train):
    return exemplar.Increment(
        index=1, num_old=5, num_seen=8, exemplars_per_class=0, kept_per_class=0, val_per_class=0,
        num_train=num_train, num_val=0, num_test=0)


def training_order(numbers, s):
    """The images of all epochs in the order in which they are trained on."""
    orders = [order for order, _ in batches.epochs(len(numbers), 1, s)]
    return numbers[np.concatenate(orders)]


def check_batch(pixels, labels, numbers):
    """Asserts that a batch is made of these images."""
    assert list(labels) == list(3 * numbers)
    assert pixels.shape == (len(numbers), 16, 16, 3)
    levels = 20.0 * numbers[:, None, None, None] - MEANS
    np.testing.assert_allclose(pixels, np.broadcast_to(levels, pixels.shape), atol=1e-3)


@pytest.mark.parametrize('deterministic', [False, True])
@pytest.mark.parametrize('first_step, numbers', [
    (0, np.arange(10)), (2, np.arange(10)), (0, np.array([8, 3, 4, 6, 0, 9]))])
def test_training_stream(first_step, numbers, deterministic, data):
    """Three epochs of ten images in batches of seven are 7 7 7 7 images; of six 7 7 4.

    A last batch of two is left out. They come in the generated order, from the step at which
    training resumes. With DETERMINISTIC there is no waiting time. An evaluation in between changes
    nothing.
    """
    s = settings_with(IMAGE_SIZE=16, DETERMINISTIC=deterministic)
    increment = increment_of(len(numbers))
    order = training_order(numbers, s)[:28 if len(numbers) == 10 else 18]
    num_batches = 0
    with tf.Graph().as_default(), tf.Session() as session:
        stream = batches.training_stream(increment, s, first_step, devices.ONE)
        evaluation = batches.evaluation_stream(s, devices.ONE)
        for _ in range(2):  # starting again begins with the first batch
            stream.start(session, data, numbers)
            num_batches = 0
            for begin in range(7 * first_step, len(order), 7):
                pixels, labels, waited = session.run(
                    [stream.images, stream.labels, stream.waited])
                check_batch(pixels, labels, order[begin:begin + 7])
                assert np.isnan(waited) if deterministic else 0 <= waited < 3600
                evaluation.start(session, data, np.array([2, 7]))
                check_batch(*session.run([evaluation.images, evaluation.labels]), np.array([2, 7]))
                num_batches += 1
            with pytest.raises(tf.errors.OutOfRangeError):
                session.run(stream.images)
    assert num_batches == settings.num_steps(s, increment.num_train) - first_step


def test_training_stream_of_several_processes(data):
    """A process gets its images of each batch, also after a resume and across epochs."""
    class OddPositions:
        """Two processes: this one has every second image of all epochs."""

        def part(self, batch_size):
            return batch_size // 2

        def mine(self, positions, total_images, batch_size):
            assert (total_images, batch_size) == (30, 6)
            return positions % 2 == 1

    s = settings_with(IMAGE_SIZE=16, BATCH_SIZE=6)
    mine = training_order(np.arange(10), s)[6 * 2:][1::2]
    with tf.Graph().as_default(), tf.Session() as session:
        stream = batches.training_stream(increment_of(10), s, 2, OddPositions())
        stream.start(session, data, np.arange(10))
        for begin in range(0, len(mine), 3):
            pixels, labels = session.run([stream.images, stream.labels])
            check_batch(pixels, labels, mine[begin:begin + 3])
        with pytest.raises(tf.errors.OutOfRangeError):
            session.run(stream.images)


@pytest.mark.parametrize('numbers', [np.arange(10), np.array([8, 3, 4, 6, 0, 9, 1, 5])])
def test_evaluation_stream(numbers, data):
    """Evaluation keeps the given order: of ten images 7 3, of eight 7 1."""
    s = settings_with(IMAGE_SIZE=16)
    with tf.Graph().as_default(), tf.Session() as session:
        stream = batches.evaluation_stream(s, devices.ONE)
        stream.start(session, data, numbers)
        for begin in range(0, len(numbers), 7):
            pixels, labels = session.run([stream.images, stream.labels])
            check_batch(pixels, labels, numbers[begin:begin + 7])
        with pytest.raises(tf.errors.OutOfRangeError):
            session.run(stream.images)


def test_denormalised_image_is_the_original():
    """The channel means are added again. With STANDARDIZE values lie around grey."""
    s = settings_with(RESIZE_SIDE_MIN=21, IMAGE_SIZE=21)
    shown = value_of(lambda: batches.denormalised(batches.centred(reader_of(IMAGE), s), s))
    np.testing.assert_allclose(shown, IMAGE, atol=1e-3)
    s.STANDARDIZE = True
    shown = value_of(lambda: batches.denormalised(batches.centred(reader_of(IMAGE), s), s))
    standardized = (IMAGE - IMAGE.mean()) / IMAGE.std()
    np.testing.assert_allclose(shown, 128 + 64 * standardized, atol=1e-2)
