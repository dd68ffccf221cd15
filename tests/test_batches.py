"""Order and augmentation against a literal NumPy version; odd sizes, batch 7."""
import os
import types

import numpy as np
import PIL.Image
import pytest
import tensorflow.compat.v1 as tf

from data import batches, checks

MEANS = np.array([123.68, 116.78, 103.94])


def resized(image, side):
    """Bilinear without half-pixel shift or antialiasing; the longer side is floored."""
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
    """Batches of seven crops of 11 pixels, sides 20 to 24."""
    return types.SimpleNamespace(**dict(dict(
        SEED=1, EPOCHS=3, BATCH_SIZE=7, IMAGE_SIZE=11, RESIZE_SIDE_MIN=20, RESIZE_SIDE_MAX=24, PADDING=0, RANDOM_FLIP=True,
        STANDARDIZE=False), **values))


def run(tensor):
    with tf.Session() as session:
        return session.run(tensor)


@pytest.mark.parametrize('shape', [(13, 21), (21, 13), (9, 9)])
@pytest.mark.parametrize('draw', [
    (17, 0.0, 0.999, 0.7), (17, 0.31, 0.52, 0.2), (31, 0.999999999, 0.0, 0.49), (11, 0.5, 0.5, 0.5)])
def test_augmentation(shape, draw):
    image = np.random.RandomState(0).randint(0, 256, shape + (3,)).astype(np.uint8)
    with tf.Graph().as_default():
        actual = run(batches.augmented(tf.constant(image), tf.constant(draw, tf.float64), settings()))
    expected = resized(image.astype(float), draw[0])
    row, column = (int(u * (size - 11 + 1)) for u, size in zip(draw[1:3], expected.shape))
    expected = expected[row:row + 11, column:column + 11] - MEANS
    if draw[3] < 0.5:
        expected = expected[:, ::-1]
    np.testing.assert_allclose(actual, expected, atol=1e-3)


@pytest.mark.parametrize('shape', [(13, 21), (21, 13)])
def test_evaluation_crops_the_centre(shape):
    image = np.random.RandomState(0).randint(0, 256, shape + (3,)).astype(np.uint8)
    with tf.Graph().as_default():
        actual = run(batches.centred(tf.constant(image), settings(RESIZE_SIDE_MIN=17)))
    expected = resized(image.astype(float), 17)
    row, column = (expected.shape[0] - 11) // 2, (expected.shape[1] - 11) // 2
    np.testing.assert_allclose(actual, expected[row:row + 11, column:column + 11] - MEANS, atol=1e-3)


@pytest.mark.parametrize('mode, expected', [('CMYK', (10, 200, 90)), ('L', (131, 131, 131))])
def test_jpegs_that_are_not_rgb(mode, expected, tmp_path):
    """As ImageNet has some: four inks, and grey (0.299 * 10 + 0.587 * 200 + 0.114 * 90)."""
    path = str(tmp_path / 'image.JPEG')
    PIL.Image.new('RGB', (30, 40), (10, 200, 90)).convert(mode).save(path, quality=95)
    with open(path, 'rb') as file:
        assert PIL.Image.open(file).mode == mode
    assert checks.unreadable([path.encode()], True) == {}
    with tf.Graph().as_default():
        iterator = tf.data.make_initializable_iterator(batches.evaluation_batches([path], [0], settings()))
        images, _ = iterator.get_next()
        with tf.Session() as session:
            session.run(iterator.initializer)
            np.testing.assert_allclose(session.run(images)[0], np.broadcast_to(expected - MEANS, (11, 11, 3)), atol=3)


def test_without_flip_nothing_is_mirrored():
    image = np.random.RandomState(0).randint(0, 256, (9, 9, 3)).astype(np.uint8)
    with tf.Graph().as_default():
        s = settings(IMAGE_SIZE=9, RANDOM_FLIP=False)
        actual = run(batches.augmented(tf.constant(image), tf.constant([9, 0, 0, 0.1], tf.float64), s))
    np.testing.assert_allclose(actual, image - MEANS, atol=1e-3)


@pytest.mark.parametrize('flip', [0.2, 0.7])
def test_augmentation_of_cifar(flip):
    """A border of zeros, a crop, a flip; then each image to mean 0 and standard deviation 1 over all its values."""
    image = np.random.RandomState(0).randint(0, 256, (11, 11, 3)).astype(np.uint8)
    with tf.Graph().as_default():
        draw = tf.constant([11, 0.99, 0.3, flip], tf.float64)
        actual = run(batches.augmented(tf.constant(image), draw, settings(PADDING=4, STANDARDIZE=True)))
        centre = run(batches.centred(tf.constant(image), settings(RESIZE_SIDE_MIN=11, PADDING=4, STANDARDIZE=True)))
    padded = np.zeros((19, 19, 3))
    padded[4:15, 4:15] = image
    expected = padded[8:19, 2:13]   # 9 positions each way: int(0.99 * 9) and int(0.3 * 9)
    expected = (expected - expected.mean()) / expected.std()
    np.testing.assert_allclose(actual, expected[:, ::-1] if flip < 0.5 else expected, atol=1e-4)
    np.testing.assert_allclose(centre, (image - image.mean()) / image.std(), atol=1e-4)


def epochs(seed=1, increment=0, count=3):
    paths = np.array([b'%d' % i for i in range(10)], object)
    return list(batches.epochs(paths, np.arange(10), increment, settings(SEED=seed, EPOCHS=count)))


def test_epochs_are_permutations_that_seed_increment_and_epoch_decide():
    first = epochs()
    for paths, labels, draws in first:
        assert sorted(labels) == list(range(10))
        assert [int(path) for path in paths] == list(labels)
        assert set(draws[:, 0]) <= {20, 21, 22, 23, 24}
        assert ((draws[:, 1:] >= 0) & (draws[:, 1:] < 1)).all()
    for a, b in zip(first, epochs()):
        assert (a[1] == b[1]).all() and (a[2] == b[2]).all()
    orders = [tuple(labels) for run in (first, epochs(seed=2), epochs(increment=1)) for _, labels, _ in run]
    assert len(set(orders)) == 9


def test_both_ends_of_the_range_of_sides_are_drawn():
    sides = np.concatenate([draws[:, 0] for _, _, draws in epochs(count=50)])
    assert set(sides) == {20, 21, 22, 23, 24}


@pytest.fixture(name='images')
def images_(tmp_path):
    """Ten grey images whose level tells their number."""
    with tf.Graph().as_default(), tf.Session() as session:
        for i in range(10):
            path = os.path.join(str(tmp_path), '%d.png' % i)
            with open(path, 'wb') as file:
                file.write(session.run(tf.image.encode_png(tf.fill([30, 40, 3], tf.constant(20 * i, tf.uint8)))))
    return np.array([os.fsencode(os.path.join(str(tmp_path), '%d.png' % i)) for i in range(10)], object)


def test_training_batches_run_across_epochs(images):
    """Three epochs of ten images in batches of seven: 7 7 7 7 2, in the generated order, and pixels follow labels."""
    s = settings(IMAGE_SIZE=16)
    order = np.concatenate([labels for _, labels, _ in batches.epochs(images, np.arange(10), 0, s)])
    with tf.Graph().as_default(), tf.Session() as session:
        iterator = tf.data.make_initializable_iterator(batches.training_batches(images, np.arange(10), 0, s))
        next_batch = iterator.get_next()
        session.run(iterator.initializer)
        got = [session.run(next_batch) for _ in range(5)]
        with pytest.raises(tf.errors.OutOfRangeError):
            session.run(next_batch)
    assert [len(labels) for _, labels in got] == [7, 7, 7, 7, 2]
    assert (np.concatenate([labels for _, labels in got]) == order).all()
    for pixels, labels in got:
        assert pixels.shape[1:] == (16, 16, 3)
        np.testing.assert_allclose(pixels, 20.0 * labels[:, None, None, None] - MEANS + np.zeros((1, 16, 16, 1)), atol=1e-3)


def test_evaluation_batches_keep_the_order(images):
    with tf.Graph().as_default(), tf.Session() as session:
        dataset = batches.evaluation_batches(tf.constant(list(images)), tf.range(10), settings(IMAGE_SIZE=16))
        next_batch = tf.data.make_one_shot_iterator(dataset).get_next()
        got = [session.run(next_batch) for _ in range(2)]
    assert [list(labels) for _, labels in got] == [[0, 1, 2, 3, 4, 5, 6], [7, 8, 9]]
    for pixels, labels in got:
        np.testing.assert_allclose(pixels[:, 8, 8], 20.0 * labels[:, None] - MEANS, atol=1e-3)
