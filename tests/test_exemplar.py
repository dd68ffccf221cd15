"""Class order, hold-out, quotas and plan against published numbers; herding against a literal loop."""
import numpy as np
import published
import pytest

import exemplar


def made_plan(counts, classes_per_increment, memory_size):
    """A plan from class counts, the way imagenet_main.py makes it, with 50 test images a class."""
    num_classes = len(counts)
    random = np.random.RandomState(1993)
    label_of_class = np.argsort(exemplar.class_order(num_classes, random, 'random'))
    images = exemplar.images_by_label(label_of_class[np.repeat(np.arange(num_classes), counts)], num_classes)
    train, held = exemplar.hold_out(images, memory_size, classes_per_increment, 0.1, random)
    test = exemplar.images_by_label(np.repeat(np.arange(num_classes), 50), num_classes)
    sizes = [classes_per_increment] * (num_classes // classes_per_increment)
    return exemplar.plan(train, held, test, sizes, memory_size, 0.1)


@pytest.mark.parametrize('num_classes, first', [(100, [68, 56, 78, 8, 23]), (1000, [54, 7, 894, 512, 126])])
def test_class_order_of_seed_1993(num_classes, first):
    order = exemplar.class_order(num_classes, np.random.RandomState(1993), 'random')
    assert list(order[:5]) == first
    assert sorted(order) == list(range(num_classes))


def test_other_class_orders():
    assert list(exemplar.class_order(100, np.random.RandomState(1993), 'icarl')[:5]) == [87, 0, 52, 58, 44]   # iCaRL's CIFAR-100
    assert list(exemplar.class_order(7, np.random.RandomState(1993), 'sorted')) == [0, 1, 2, 3, 4, 5, 6]


def test_counts_were_typed_in_right():
    assert sum(published.COUNTS) == 1281167
    assert sum(published.COUNTS[:100]) == 129395


@pytest.mark.parametrize('rows, counts, classes_per_increment, memory_size', [
    (published.IMAGENET100, published.COUNTS[:100], 10, 2000),
    (published.IMAGENET1000, published.COUNTS, 100, 20000)])
def test_published_sizes(rows, counts, classes_per_increment, memory_size):
    plan = made_plan(counts, classes_per_increment, memory_size)
    assert [now.train for now in plan] == rows['train']
    assert [now.val for now in plan] == rows['val']
    assert [now.test for now in plan] == rows['test']
    assert [now.exemplars for now in plan[1:]] == [180, 90, 60, 45, 36, 30, 26, 22, 20]


def test_memory_is_never_exceeded():
    for fraction in (0.05, 0.1, 0.2, 0.3, 0.4, 0.9):
        for memory_size in list(range(2, 60)) + [100, 999, 2000, 20000]:
            for num_old in range(1, memory_size // 2 + 1):
                exemplars, validation = exemplar.quota(memory_size, num_old, fraction)
                assert validation >= 1
                assert exemplars >= (fraction <= 0.5), (memory_size, num_old, fraction)
                assert num_old * (exemplars + validation) <= memory_size


@pytest.mark.parametrize('memory_size, num_old, fraction, expected', [
    (2000, 10, 0.1, (180, 20)),   # published
    (2000, 70, 0.1, (26, 2)),     # published: x = 28.57
    (2000, 20, 0.3, (70, 30)),    # 0.3 * 100 is 30 exactly; its float product would be floored to 29 by some roundings
    (100, 8, 0.1, (11, 1)),       # x = 12.5: ceil 13 - ceil 1.25 = 11, floor 12 - 1 = 11
    (20, 9, 0.1, (1, 1)),         # x = 2.22: ceil 3 - ceil 0.22 = 2 would exceed the memory
    (7, 5, 0.1, (0, 1))])         # too small a memory
def test_quota_by_hand(memory_size, num_old, fraction, expected):
    assert exemplar.quota(memory_size, num_old, fraction) == expected


@pytest.mark.parametrize('fraction', [0.1, 0.15, 0.3, 0.4])
def test_the_plan_counts_what_the_memory_keeps(fraction):
    """The quota can rise with the number of classes (quota(55, 8, 0.3) is 4 exemplars, quota(55, 9, 0.3) is 5)."""
    images = [np.arange(20) + 20 * label for label in range(12)]
    train, held = exemplar.hold_out(images, 55, 1, fraction, np.random.RandomState(0))
    plan = exemplar.plan(train, held, images, [1] * 12, 55, fraction)
    kept = []
    for now in plan:
        kept = [of_class[:now.exemplars] for of_class in kept]     # only ever fewer
        assert now.train == sum(len(of_class) for of_class in kept) + len(train[now.increment])
        kept.append(train[now.increment])


def test_the_plan_of_learning_jointly():
    """12, 9, 10 and 11 training images, in two increments: the second has all of them."""
    train = [np.arange(count) for count in (12, 9, 10, 11)]
    images = [np.arange(3)] * 4
    apart, joint = (exemplar.plan(train, images, images, [2, 2], 8, 0.25, joint) for joint in (False, True))
    assert [now.train for now in apart] == [21, 21 + 2 * 3] and [now.train for now in joint] == [21, 42]
    assert [now._replace(train=0) for now in apart] == [now._replace(train=0) for now in joint]


def test_hold_out_is_the_authors_stream():
    """Redone literally: one generator draws the order, then shuffles class after class; the last images are held out."""
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


def test_small_classes_keep_an_image_to_train_on():
    images = [np.arange(2), np.arange(2, 17), np.arange(17, 60)]
    train, held = exemplar.hold_out(images, 30, 1, 0.2, np.random.RandomState(0))
    assert [len(h) for h in held] == [1, 3, 6]   # at least 1; int(0.2 * 15); int(0.2 * 30 / 1)
    for of_class, kept, out in zip(images, train, held):
        assert sorted(np.concatenate([kept, out])) == list(of_class)


def literal_herding(features, count):
    """iCaRL's algorithm 4, as it stands in the paper."""
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
    """Whole numbers and eight images: every distance is exact, and three pairs of images are the same."""
    features = np.random.RandomState(5).randint(0, 4, (5, 3))[[0, 1, 2, 3, 4, 1, 2, 0]]
    assert list(exemplar.herding(features, 8)) == literal_herding(features, 8)


def test_nearest_mean_of_exemplars():
    """Distances between vectors of length 1, in literal loops, give the same order of classes."""
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


def test_herding_takes_what_there_is():
    assert sorted(exemplar.herding(np.eye(3), 7)) == [0, 1, 2]
