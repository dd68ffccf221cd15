"""Tests order and augmentation against a literal NumPy version, with odd sizes and batches of 7."""
import os
import types

import numpy as np
import PIL.Image
import pytest
import tensorflow.compat.v1 as tf

import exemplar
from data import batches, devices, images

MEANS = np.array([123.68, 116.78, 103.94])


def resized(image, side):
    """Resizes bilinearly, without half-pixel shift or antialiasing; the longer side is floored."""
    height, width = image.shape[:2]
    shorter = min(height, width)
    new = (height * side // shorter, width * side // shorter)
    out = np.zeros(new + (3,))
    for i in range(new[0]):
        for j in range(new[1]):
            y, x = i * height / new[0], j * width / new[1]
            y0, x0 = int(y), int(x)
            y1, x1 = min(y0 + 1, height - 1), min(x0 + 1, width - 1)
            top = image[y0, x0] + (x - x0) * (image[y0, x1] - image[y0, x0])
            bottom = image[y1, x0] + (x - x0) * (image[y1, x1] - image[y1, x0])
            out[i, j] = top + (y - y0) * (bottom - top)
    return out


def settings(**values):
    """Settings with batches of seven, crops of 11 pixels and sides from 20 to 24."""
    return types.SimpleNamespace(**dict(dict(
        SEED=1, EPOCHS=3, BATCH_SIZE=7, IMAGE_SIZE=11, RESIZE_SIDE_MIN=20, RESIZE_SIDE_MAX=24, PADDING=0, RANDOM_FLIP=True,
        STANDARDIZE=False), **values))


IMAGE = np.random.RandomState(0).randint(0, 256, (21, 21, 3)).astype(np.uint8)


def whole(image):
    """Gives an image in memory the interface of `batches.of_file`."""
    def of_pixels(window):
        rectangle, more = window(tf.constant(image.shape[:2]))
        row, column, height, width = tf.unstack(rectangle)
        return tf.constant(image)[row:row + height, column:column + width], more
    return of_pixels


def run(build, *arguments):
    with tf.Graph().as_default(), tf.Session() as session:
        return session.run(build(*arguments))


@pytest.mark.parametrize('shape', [(13, 21), (21, 13), (9, 9), (11, 15), (1, 2)])
@pytest.mark.parametrize('draw', [
    (17, 0.0, 0.999, 0.7), (17, 0.31, 0.52, 0.2), (31, 0.999999999, 0.0, 0.49), (11, 0.5, 0.5, 0.5), None])
@pytest.mark.parametrize('flip', [True, False])
def test_augmentation(shape, draw, flip):
    """A draw decides side, crop and flip. Without one, evaluation crops the centre, rounded down."""
    image, s = IMAGE[:shape[0], :shape[1]], settings(RANDOM_FLIP=flip, RESIZE_SIDE_MIN=17)
    expected = resized(image.astype(float), draw[0] if draw else 17)
    if draw:
        actual = run(lambda: batches.augmented(whole(image), tf.constant(draw, tf.float64), s))
        row, column = (int(u * (size - 11 + 1)) for u, size in zip(draw[1:3], expected.shape))
    else:
        actual = run(lambda: batches.centred(whole(image), s))
        row, column = ((size - 11) // 2 for size in expected.shape[:2])
    expected = expected[row:row + 11, column:column + 11] - MEANS
    np.testing.assert_allclose(actual, expected[:, ::-1] if draw and flip and draw[3] < 0.5 else expected, atol=1e-3)


@pytest.mark.parametrize('flip', [0.2, 0.7])
def test_augmentation_of_cifar(flip):
    """A border of zeros, a random crop and a flip; then each image gets mean 0 and standard deviation 1."""
    image, s = IMAGE[:11, :11], settings(RESIZE_SIDE_MIN=11, PADDING=4, STANDARDIZE=True)
    actual = run(lambda: batches.augmented(whole(image), tf.constant([11, 0.99, 0.3, flip], tf.float64), s))
    padded = np.zeros((19, 19, 3))
    padded[4:15, 4:15] = image
    expected = padded[8:19, 2:13]  # 9 positions each way: int(0.99 * 9) and int(0.3 * 9)
    expected = (expected - expected.mean()) / expected.std()
    np.testing.assert_allclose(actual, expected[:, ::-1] if flip < 0.5 else expected, atol=1e-4)
    centre = run(lambda: batches.centred(whole(image), s))
    np.testing.assert_allclose(centre, (image - image.mean()) / image.std(), atol=1e-4)


def plain(path, draw, s):
    """The published way: decode and resize the whole image, then crop and mirror it."""
    image = tf.image.decode_image(tf.read_file(path), 3, expand_animations=False)
    shape = tf.shape(image)[:2]
    image = tf.image.resize_bilinear(image[None], shape * tf.cast(draw[0], tf.int32) // tf.reduce_min(shape))[0]
    room = tf.cast(tf.shape(image)[:2] - s.IMAGE_SIZE + 1, tf.float64)
    image = tf.slice(image, tf.concat([tf.cast(tf.floor(draw[1:3] * room), tf.int32), [0]], 0), [s.IMAGE_SIZE, s.IMAGE_SIZE, 3])
    image = tf.cond(draw[3] < 0.5, lambda: tf.reverse(image, [1]), lambda: image)
    return image - tf.constant(batches.CHANNEL_MEANS)


@pytest.mark.parametrize('mode, quality, subsampling', [
    ('RGB', 75, 2), ('RGB', 90, 0), ('RGB', 60, 1), ('L', 75, 0), ('CMYK', 75, 2)])
def test_part_of_a_jpeg_is_as_good_as_all_of_it(mode, quality, subsampling, tmp_path):
    """Smoothed colour noise, so that chroma changes everywhere; the crops reach every border."""
    random, path, s = np.random.RandomState(0), str(tmp_path / 'image.jpg'), settings(IMAGE_SIZE=24)
    pixels = random.randint(0, 256, (19, 25, 3)).astype(np.uint8)
    PIL.Image.fromarray(pixels).resize((103, 77)).convert(mode).save(path, quality=quality, subsampling=subsampling)
    sides = [24, 25, 40, 76, 77, 78, 100, 154]
    draws = [(side, row, column, flip) for side in sides for row, column, flip in (
        (0, 0, 0.1), (0.999999, 0.999999, 0.1), (0.999999, 0, 0.9), tuple(random.random_sample(3)))]
    with tf.Graph().as_default(), tf.Session() as session:
        draw = tf.placeholder(tf.float64, [4])
        both = batches.augmented(lambda window: batches.of_file(path, window), draw, s), plain(path, draw, s)
        for one in draws:
            part, all_of_it = session.run(both, {draw: one})
            difference = np.abs(part - all_of_it)
            assert difference.mean() < 1e-3 and difference.max() < 0.05, one


@pytest.mark.parametrize('mode, expected', [('CMYK', (10, 200, 90)), ('L', (131, 131, 131))])
def test_jpegs_that_are_not_rgb(mode, expected, tmp_path):
    """ImageNet has some in CMYK and in grey, which is 0.299 * 10 + 0.587 * 200 + 0.114 * 90 here."""
    path = str(tmp_path / 'image.JPEG')
    PIL.Image.new('RGB', (30, 40), (10, 200, 90)).convert(mode).save(path, quality=95)
    with open(path, 'rb') as file:
        assert PIL.Image.open(file).mode == mode
    assert images.broken([path.encode()], decode_all=True) == {}
    pixels, _ = run(lambda: tf.data.make_one_shot_iterator(batches.evaluation_batches([path], [0], settings())).get_next())
    np.testing.assert_allclose(pixels[0], np.broadcast_to(expected - MEANS, (11, 11, 3)), atol=3)


def epochs(seed=1, increment=0, count=3):
    return list(batches.epochs(10, increment, settings(SEED=seed, EPOCHS=count)))


def test_epochs_are_permutations_that_seed_increment_and_epoch_decide():
    first = epochs()
    for order, draws in first:
        assert sorted(order) == list(range(10))
        assert set(draws[:, 0]) <= {20, 21, 22, 23, 24}
        assert ((draws[:, 1:] >= 0) & (draws[:, 1:] < 1)).all()
    for a, b in zip(first, epochs()):
        assert (a[0] == b[0]).all() and (a[1] == b[1]).all()
    orders = [tuple(order) for run in (first, epochs(seed=2), epochs(increment=1)) for order, _ in run]
    assert len(set(orders)) == 9
    assert set(np.concatenate([draws[:, 0] for _, draws in epochs(count=50)])) == {20, 21, 22, 23, 24}


@pytest.fixture(name='data')
def data_(tmp_path):
    """A dataset of ten grey images. The grey level tells an image's number, and its label is three times the number."""
    for i in range(10):
        PIL.Image.new('RGB', (40, 30), (20 * i,) * 3).save(str(tmp_path / ('%d.png' % i)))
    paths = np.array([os.fsencode(str(tmp_path / ('%d.png' % i))) for i in range(10)], object)
    return types.SimpleNamespace(paths=paths, labels=3 * np.arange(10))


@pytest.mark.parametrize('deterministic', [False, True])
@pytest.mark.parametrize('first_step, numbers', [(0, np.arange(10)), (2, np.arange(10)), (0, np.array([8, 3, 4, 6, 0, 9, 1, 5]))])
def test_inputs(first_step, numbers, deterministic, data):
    """Three epochs of ten images in batches of seven are 7 7 7 7 2 images, in the generated order, from the step at which
    training resumes; of eight images 7 7 7 3. Evaluation keeps the given order: 7 3. DETERMINISTIC has no wait."""
    s, count = settings(IMAGE_SIZE=16, DETERMINISTIC=deterministic), len(numbers)
    now = exemplar.Increment(1, 5, 8, 0, 0, 0, train=count, val=0, test=0)
    order = numbers[np.concatenate([order for order, _ in batches.epochs(count, 1, s)])]
    with tf.Graph().as_default(), tf.Session() as session:
        model = batches.inputs(now, s, first_step, devices.ONE)
        for iterator, fetched, expected in ((model.train_batches, model.train_batch, order[7 * first_step:]),
                                            (model.evaluation_batches, model.evaluation_batch, numbers)):
            session.run(iterator.initializer, batches.feed(model, data, numbers))
            for begin in range(0, len(expected), 7):
                if iterator is model.train_batches:
                    (pixels, labels), waited = session.run((fetched, model.waited))
                    assert np.isnan(waited) if deterministic else 0 <= waited < 3600
                else:
                    pixels, labels = session.run(fetched)
                of_batch = expected[begin:begin + 7]
                assert list(labels) == list(3 * of_batch) and pixels.shape == (len(of_batch), 16, 16, 3)
                levels = 20.0 * of_batch[:, None, None, None] - MEANS
                np.testing.assert_allclose(pixels, np.broadcast_to(levels, pixels.shape), atol=1e-3)
            with pytest.raises(tf.errors.OutOfRangeError):
                session.run(fetched)
