"""Tests class order, hold-out, quotas and plan against published numbers.

Herding is tested against a literal loop.
"""
import os

import numpy as np
import published
import pytest
from common import events

import exemplar
import imagenet_main
from data import Fault


@pytest.mark.parametrize('kind, num_classes, first', [
    ('random', 100, [68, 56, 78, 8, 23]),
    ('random', 1000, [54, 7, 894, 512, 126]),
    ('sorted', 7, [0, 1, 2, 3, 4]),
    ('icarl', 100, [87, 0, 52, 58, 44])])  # iCaRL's CIFAR-100
def test_class_orders_of_seed_1993(kind, num_classes, first):
    order = exemplar.class_order(num_classes, np.random.RandomState(1993), kind)
    assert list(order[:5]) == first
    assert sorted(order) == list(range(num_classes))


def write_list(path, counts):
    """A list file of so many images of each class."""
    lines = []
    for label, count in enumerate(counts):
        lines += ['%s/c%d/%d.JPEG %d\n' % (path.stem, label, i, label) for i in range(count)]
    path.write_text(''.join(lines))


@pytest.mark.parametrize('rows, counts, dataset, first', [
    (published.IMAGENET100, published.COUNTS[:100], 'imagenet100', 'c68'),
    pytest.param(published.IMAGENET1000, published.COUNTS, 'imagenet1000', 'c54',
                 marks=pytest.mark.slow)])
def test_the_plan_from_lists_alone_is_the_published_one(rows, counts, dataset, first, tmp_path,
                                                        capsys):
    """Sizes, step counts and exemplars are printed before images are missed.

    Nothing is written.
    """
    write_list(tmp_path / 'train.txt', counts)
    write_list(tmp_path / 'val.txt', [50] * len(counts))
    missing = 'train/c0: no such folder; .*train.txt has 1300 of its images there'
    with pytest.raises(Fault, match=missing):
        imagenet_main.main([
            '--PLAN_ONLY=True', '--DATASET=' + dataset, '--DATA_DIR=%s' % tmp_path,
            '--LOG_DIR=%s/logs' % tmp_path, '--MODEL_DIR=%s/model' % tmp_path])
    out = capsys.readouterr().out
    plan = events(out, 'plan')
    for key, row in rows.items():
        assert [int(event[key]) for event in plan] == row
    exemplars = [int(event['exemplars_per_class']) for event in plan]
    assert exemplars == [0, 180, 90, 60, 45, 36, 30, 26, 22, 20]
    assert events(out, 'class')[0]['name'] == first
    assert sorted(os.listdir(str(tmp_path))) == ['train.txt', 'val.txt']


def test_memory_is_never_exceeded():
    # 0.3 * 100 is 30; some roundings of its float product would give 29.
    assert exemplar.quota(2000, 20, 0.3) == (70, 30)
    for fraction in (0.05, 0.1, 0.2, 0.3, 0.4, 0.9):
        for memory_size in list(range(2, 60)) + [100, 999, 2000, 20000]:
            for num_old in range(1, memory_size // 2 + 1):
                exemplars, validation = exemplar.quota(memory_size, num_old, fraction)
                assert validation >= 1
                assert exemplars >= (fraction <= 0.5), (memory_size, num_old, fraction)
                assert num_old * (exemplars + validation) <= memory_size


@pytest.mark.parametrize('fraction', [0.1, 0.15, 0.3, 0.4])
def test_the_plan_counts_what_the_memory_keeps(fraction):
    """The quota can rise with the number of classes; the memory does not grow.

    quota(55, 8, 0.3) has 4 exemplars, quota(55, 9, 0.3) has 5.
    """
    images = [np.arange(20) + 20 * label for label in range(12)]
    train, held = exemplar.hold_out(images, 55, 1, fraction, np.random.RandomState(0))
    memory = []
    for increment in exemplar.plan(train, held, images, [1] * 12, 55, fraction):
        num_before = len(memory)
        memory = [kept[:increment.exemplars_per_class] for kept in memory]  # only ever fewer
        num_exemplars = sum(len(kept) for kept in memory)
        new = train[increment.index]
        assert (increment.num_old, increment.num_seen) == (num_before, num_before + 1)
        assert increment.num_train == num_exemplars + len(new)
        memory.append(new)


def test_the_plan_of_the_upper_bound_has_all_old_images():
    """Of classes of 5, 9, 4 and 30 images. Hold-out: int(0.2 * images), at least 1, at most 6."""
    images = np.split(np.arange(48), [5, 14, 18])
    train, held = exemplar.hold_out(images, 60, 2, 0.2, np.random.RandomState(0))
    assert [len(numbers) for numbers in held] == [1, 1, 1, 6]
    plan = exemplar.plan(train, held, images, [2, 1, 1], 60, 0.2, joint=True)
    assert [increment.num_train for increment in plan] == [12, 15, 39]
    assert [increment.num_val for increment in plan] == [2, 3, 3 + 4]  # floor(0.2 * 60 / 3) = 4
    assert [increment.num_test for increment in plan] == [14, 18, 48]


def test_hold_out_is_the_authors_stream():
    """Literally: one generator draws the order, then shuffles class after class.

    The last images are held out.
    """
    classes = np.random.RandomState(3).permutation(np.repeat(np.arange(8), 25))
    random = np.random.RandomState(1993)
    label_of_class = np.argsort(exemplar.class_order(8, random, 'random'))
    images = exemplar.images_by_label(label_of_class[classes], 8)
    train, held = exemplar.hold_out(images, 80, 5, 0.2, random)

    np.random.seed(1993)
    order = np.arange(8)
    np.random.shuffle(order)
    for label, class_id in enumerate(order):
        shuffled = np.where(classes == class_id)[0]
        np.random.shuffle(shuffled)
        assert list(train[label]) == sorted(shuffled[:-3])  # int(0.2 * 80 / 5) = 3
        assert list(held[label]) == list(shuffled[-3:])


def literal_herding(features, count):
    """iCaRL's algorithm 4, as the paper has it."""
    features = np.asarray(features, np.float64)
    mean = sum(features) / len(features)
    chosen = []
    while len(chosen) < count:
        best = None
        best_distance = np.inf
        for i in range(len(features)):
            if i not in chosen:
                total = sum([features[j] for j in chosen], features[i])
                distance = np.sqrt(np.sum((mean - total / (len(chosen) + 1)) ** 2))
                if distance < best_distance:
                    best = i
                    best_distance = distance
        chosen.append(best)
    return chosen


@pytest.mark.parametrize('images, dimensions, count', [
    (37, 5, 11), (23, 64, 23), (5, 512, 3), (1, 3, 1)])
def test_herding_is_the_literal_loop(images, dimensions, count):
    random = np.random.RandomState(images)
    features = random.gamma(1.0, size=(images, dimensions)).astype(np.float32)
    expected = literal_herding(features, count)
    assert list(exemplar.herding(features, count)) == expected
    assert list(exemplar.SELECTIONS['herding'](features, count, random)) == expected


def test_herding_ties_go_to_the_lower_index():
    """With whole numbers and eight images, distances are exact. Three pairs of images are equal.

    No ninth image exists.
    """
    features = np.random.RandomState(5).randint(0, 4, (5, 3))[[0, 1, 2, 3, 4, 1, 2, 0]]
    expected = literal_herding(features, 8)
    assert list(exemplar.herding(features, 8)) == expected
    assert list(exemplar.herding(features, 9)) == expected


def test_random_exemplars():
    """Of seven images three are drawn, all with the same probability, whatever the features are.

    Of two, both are. Another seed, increment or label draws others.
    """
    features = np.random.RandomState(0).gamma(1.0, size=(7, 4))
    counts = np.zeros(7)
    drawn = []
    for seed in range(10):
        for increment in range(10):
            for label in range(10):
                random = exemplar.random_stream(seed, 'exemplars', increment, label)
                rows = exemplar.SELECTIONS['random'](features, 3, random)
                assert len(set(rows)) == 3
                counts[rows] += 1
                drawn.append(tuple(rows))
    assert counts.sum() == 3000
    assert np.abs(counts / 1000 - 3 / 7).max() < 0.08  # five standard deviations
    assert len(set(drawn)) > 200  # of 7 * 6 * 5 = 210 ways
    drawn = np.reshape(drawn, [10, 10, 10, 3])
    for axis in range(3):
        assert (np.diff(drawn, axis=axis) != 0).any()
    random = exemplar.random_stream(1, 'exemplars', 2, 3)
    assert sorted(exemplar.SELECTIONS['random'](features[:2], 3, random)) == [0, 1]


def test_random_exemplars_share_no_stream():
    """Seed, increment, epoch and label may have the same numbers, and so has CLASS_ORDER_SEED."""
    numbers = range(5)
    exemplars = []
    others = [np.random.RandomState(number) for number in numbers]  # class orders
    for seed in numbers:
        others.append(exemplar.random_stream(seed, 'weights'))
        for first in numbers:
            others.append(np.random.RandomState([seed, first]))  # orders of classes that are added
            for second in numbers:
                others.append(exemplar.random_stream(seed, 'batches', first, second))
                exemplars.append(exemplar.random_stream(seed, 'exemplars', first, second))
    draws = {stream.random_sample() for stream in exemplars}
    assert len(draws) == len(exemplars) == 125
    assert draws.isdisjoint(stream.random_sample() for stream in others)


def at_length_1(vector):
    return vector / np.sqrt(np.sum(vector ** 2))


def test_nearest_mean_of_exemplars():
    """Distances between vectors of length 1, in literal loops, order the classes as the scores."""
    random = np.random.RandomState(2)
    exemplars = [random.normal(size=(count, 5)) + 1 for count in (4, 1, 7)]
    images = random.normal(size=(9, 5)) + 1
    means = [exemplar.class_mean(features) for features in exemplars]
    for image, scores in zip(images, exemplar.mean_scores(images, means)):
        distances = []
        for features in exemplars:
            mean = sum(at_length_1(feature) for feature in features) / len(features)
            difference = at_length_1(image) - at_length_1(mean)
            distances.append(np.sqrt(np.sum(difference ** 2)))
        assert list(np.argsort(-scores)) == list(np.argsort(distances))
    dead = exemplar.mean_scores(np.zeros([1, 5]), [exemplar.class_mean(np.zeros([2, 5]))])
    assert np.isfinite(dead).all()
