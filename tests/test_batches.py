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


def whole(image):
    return lambda window: batches.of_pixels(tf.constant(image), window)


def run(tensor):
    with tf.Session() as session:
        return session.run(tensor)


@pytest.mark.parametrize('shape', [(13, 21), (21, 13), (9, 9), (11, 15), (1, 2)])
@pytest.mark.parametrize('draw', [
    (17, 0.0, 0.999, 0.7), (17, 0.31, 0.52, 0.2), (31, 0.999999999, 0.0, 0.49), (11, 0.5, 0.5, 0.5)])
def test_augmentation(shape, draw):
    image = np.random.RandomState(0).randint(0, 256, shape + (3,)).astype(np.uint8)
    with tf.Graph().as_default():
        actual = run(batches.augmented(whole(image), tf.constant(draw, tf.float64), settings()))
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
        actual = run(batches.centred(whole(image), settings(RESIZE_SIDE_MIN=17)))
    expected = resized(image.astype(float), 17)
    row, column = (expected.shape[0] - 11) // 2, (expected.shape[1] - 11) // 2
    np.testing.assert_allclose(actual, expected[row:row + 11, column:column + 11] - MEANS, atol=1e-3)


def plain(path, draw, s):
    """The published way: all of the image decoded and resized, then cropped and mirrored."""
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
    """Coloured noise, smoothed a little, so that chroma changes everywhere; sides and crops up to all borders."""
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
        actual = run(batches.augmented(whole(image), tf.constant([9, 0, 0, 0.1], tf.float64), s))
    np.testing.assert_allclose(actual, image - MEANS, atol=1e-3)


@pytest.mark.parametrize('flip', [0.2, 0.7])
def test_augmentation_of_cifar(flip):
    """A border of zeros, a crop, a flip; then each image to mean 0 and standard deviation 1 over all its values."""
    image = np.random.RandomState(0).randint(0, 256, (11, 11, 3)).astype(np.uint8)
    with tf.Graph().as_default():
        draw = tf.constant([11, 0.99, 0.3, flip], tf.float64)
        actual = run(batches.augmented(whole(image), draw, settings(PADDING=4, STANDARDIZE=True)))
        centre = run(batches.centred(whole(image), settings(RESIZE_SIDE_MIN=11, PADDING=4, STANDARDIZE=True)))
    padded = np.zeros((19, 19, 3))
    padded[4:15, 4:15] = image
    expected = padded[8:19, 2:13]   # 9 positions each way: int(0.99 * 9) and int(0.3 * 9)
    expected = (expected - expected.mean()) / expected.std()
    np.testing.assert_allclose(actual, expected[:, ::-1] if flip < 0.5 else expected, atol=1e-4)
    np.testing.assert_allclose(centre, (image - image.mean()) / image.std(), atol=1e-4)


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


def test_both_ends_of_the_range_of_sides_are_drawn():
    sides = np.concatenate([draws[:, 0] for _, draws in epochs(count=50)])
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


@pytest.mark.parametrize('gigabytes, kept', [(0, 0), (4 * 30 * 40 * 3 / 1e9, 4), (1, 10)])
def test_training_batches_run_across_epochs(gigabytes, kept, images):
    """Three epochs of ten images in batches of seven: 7 7 7 7 2, in the generated order, kept in memory or not."""
    s = settings(IMAGE_SIZE=16)
    order = 3 * np.concatenate([order for order, _ in batches.epochs(10, 0, s)])
    arrays = batches.keep(images, gigabytes)
    assert len(arrays.shapes) == kept
    with tf.Graph().as_default(), tf.Session() as session:
        tensors = batches.Kept(*(tf.constant(array) for array in arrays))
        iterator = tf.data.make_initializable_iterator(batches.training_batches(
            tf.constant(list(images)), 3 * tf.range(10), tensors, 10, 0, s))
        next_batch = iterator.get_next()
        session.run(iterator.initializer)
        got = [session.run(next_batch) for _ in range(5)]
        with pytest.raises(tf.errors.OutOfRangeError):
            session.run(next_batch)
    assert [len(labels) for _, labels in got] == [7, 7, 7, 7, 2]
    assert (np.concatenate([labels for _, labels in got]) == order).all()
    for pixels, labels in got:
        assert pixels.shape[1:] == (16, 16, 3)
        np.testing.assert_allclose(pixels, 20.0 / 3 * labels[:, None, None, None] - MEANS + np.zeros((1, 16, 16, 1)), atol=1e-3)


def test_evaluation_batches_keep_the_order(images):
    with tf.Graph().as_default(), tf.Session() as session:
        dataset = batches.evaluation_batches(tf.constant(list(images)), tf.range(10), settings(IMAGE_SIZE=16))
        next_batch = tf.data.make_one_shot_iterator(dataset).get_next()
        got = [session.run(next_batch) for _ in range(2)]
    assert [list(labels) for _, labels in got] == [[0, 1, 2, 3, 4, 5, 6], [7, 8, 9]]
    for pixels, labels in got:
        np.testing.assert_allclose(pixels[:, 8, 8], 20.0 * labels[:, None] - MEANS, atol=1e-3)
