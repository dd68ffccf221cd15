"""Tests class order, hold-out, quotas and plan against published numbers, and herding against a literal loop."""
import os

import numpy as np
import published
import pytest
from common import events

import exemplar
import imagenet_main
from data import Fault


@pytest.mark.parametrize('way, num_classes, first', [
    ('random', 100, [68, 56, 78, 8, 23]), ('random', 1000, [54, 7, 894, 512, 126]), ('sorted', 7, [0, 1, 2, 3, 4]),
    ('icarl', 100, [87, 0, 52, 58, 44])])  # iCaRL's CIFAR-100
def test_class_orders_of_seed_1993(way, num_classes, first):
    order = exemplar.class_order(num_classes, np.random.RandomState(1993), way)
    assert list(order[:5]) == first and sorted(order) == list(range(num_classes))


@pytest.mark.parametrize('rows, counts, dataset, first', [
    (published.IMAGENET100, published.COUNTS[:100], 'imagenet100', 'c68'),
    pytest.param(published.IMAGENET1000, published.COUNTS, 'imagenet1000', 'c54', marks=pytest.mark.slow)])
def test_the_plan_from_lists_alone_is_the_published_one(rows, counts, dataset, first, tmp_path, capsys):
    """Sixty sizes, twenty step counts and the exemplars are printed before images are missed. Nothing is written."""
    for part, of_class in (('train', counts), ('val', [50] * len(counts))):
        (tmp_path / (part + '.txt')).write_text(''.join(
            '%s/c%d/%d.JPEG %d\n' % (part, label, i, label) for label, count in enumerate(of_class) for i in range(count)))
    with pytest.raises(Fault, match='train/c0: no such folder; .*train.txt has 1300 of its images there'):
        imagenet_main.main(['--PLAN_ONLY=True', '--DATASET=' + dataset, '--DATA_DIR=%s' % tmp_path,
                            '--LOG_DIR=%s/logs' % tmp_path, '--MODEL_DIR=%s/model' % tmp_path])
    out = capsys.readouterr().out
    assert {key: [int(event[key]) for event in events(out, 'plan')] for key in rows} == rows
    assert [event['exemplars_per_class'] for event in events(out, 'plan')] == '0 180 90 60 45 36 30 26 22 20'.split()
    assert events(out, 'class')[0]['name'] == first and sorted(os.listdir(str(tmp_path))) == ['train.txt', 'val.txt']


def test_memory_is_never_exceeded():
    assert exemplar.quota(2000, 20, 0.3) == (70, 30)  # 0.3 * 100 is 30; some roundings of its float product would give 29
    for fraction in (0.05, 0.1, 0.2, 0.3, 0.4, 0.9):
        for memory_size in list(range(2, 60)) + [100, 999, 2000, 20000]:
            for num_old in range(1, memory_size // 2 + 1):
                exemplars, validation = exemplar.quota(memory_size, num_old, fraction)
                assert validation >= 1
                assert exemplars >= (fraction <= 0.5), (memory_size, num_old, fraction)
                assert num_old * (exemplars + validation) <= memory_size


@pytest.mark.parametrize('fraction', [0.1, 0.15, 0.3, 0.4])
def test_the_plan_counts_what_the_memory_keeps(fraction):
    """The quota can rise with the number of classes: quota(55, 8, 0.3) has 4 exemplars, quota(55, 9, 0.3) has 5."""
    images = [np.arange(20) + 20 * label for label in range(12)]
    train, held = exemplar.hold_out(images, 55, 1, fraction, np.random.RandomState(0))
    plan = exemplar.plan(train, held, images, [1] * 12, 55, fraction)
    kept = []
    for now in plan:
        kept = [of_class[:now.exemplars] for of_class in kept]     # only ever fewer
        assert now.train == sum(len(of_class) for of_class in kept) + len(train[now.increment])
        kept.append(train[now.increment])


def test_hold_out_is_the_authors_stream():
    """Literally: one generator draws the order, then shuffles class after class, and the last images are held out."""
    classes = np.random.RandomState(3).permutation(np.repeat(np.arange(8), 25))
    random = np.random.RandomState(1993)
    label_of_class = np.argsort(exemplar.class_order(8, random, 'random'))
    images = exemplar.images_by_label(label_of_class[classes], 8)
    train, held = exemplar.hold_out(images, 80, 5, 0.2, random)

    np.random.seed(1993)
    order = np.arange(8)
    np.random.shuffle(order)
    for label, class_id in enumerate(order):
        of_class = np.where(classes == class_id)[0]
        np.random.shuffle(of_class)
        assert list(train[label]) == sorted(of_class[:-3])   # int(0.2 * 80 / 5) = 3
        assert list(held[label]) == list(of_class[-3:])


def literal_herding(features, count):
    """iCaRL's algorithm 4, as the paper has it."""
    features = np.asarray(features, np.float64)
    mean = sum(features) / len(features)
    chosen = []
    while len(chosen) < count:
        best, best_distance = None, np.inf
        for i in range(len(features)):
            if i not in chosen:
                total = sum((features[j] for j in chosen), features[i])
                distance = np.sqrt(np.sum((mean - total / (len(chosen) + 1)) ** 2))
                if distance < best_distance:
                    best, best_distance = i, distance
        chosen.append(best)
    return chosen


@pytest.mark.parametrize('images, dimensions, count', [(37, 5, 11), (23, 64, 23), (5, 512, 3), (1, 3, 1)])
def test_herding_is_the_literal_loop(images, dimensions, count):
    features = np.random.RandomState(images).gamma(1.0, size=(images, dimensions)).astype(np.float32)
    assert list(exemplar.herding(features, count)) == literal_herding(features, count)


def test_herding_ties_go_to_the_lower_index():
    """With whole numbers and eight images, distances are exact, and three pairs of images are equal. No ninth exists."""
    features = np.random.RandomState(5).randint(0, 4, (5, 3))[[0, 1, 2, 3, 4, 1, 2, 0]]
    assert list(exemplar.herding(features, 8)) == list(exemplar.herding(features, 9)) == literal_herding(features, 8)


def test_nearest_mean_of_exemplars():
    """Distances between vectors of length 1, in literal loops, order the classes in the same way."""
    random = np.random.RandomState(2)
    exemplars = [random.normal(size=(count, 5)) + 1 for count in (4, 1, 7)]
    images = random.normal(size=(9, 5)) + 1
    means = [exemplar.class_mean(of_class) for of_class in exemplars]
    for image, scores in zip(images, exemplar.mean_scores(images, means)):
        distances = []
        for of_class in exemplars:
            mean = sum(feature / np.sqrt(np.sum(feature ** 2)) for feature in of_class) / len(of_class)
            mean = mean / np.sqrt(np.sum(mean ** 2))
            distances.append(np.sqrt(np.sum((image / np.sqrt(np.sum(image ** 2)) - mean) ** 2)))
        assert list(np.argsort(-scores)) == list(np.argsort(distances))
    assert np.isfinite(exemplar.mean_scores(np.zeros([1, 5]), [exemplar.class_mean(np.zeros([2, 5]))])).all()   # dead features
