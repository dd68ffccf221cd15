"""The memory: class order, hold-out, quotas, the plan of the increments, exemplars. NumPy alone.

Throughout, a class's *label* is its position in the class order, and an image is its index in the
training (or test) list. [P] is the paper, [C] the authors' code.
"""
import fractions
import math
import typing

import numpy as np

CLASS_ORDERS = ('random', 'icarl', 'sorted')


class Increment(typing.NamedTuple):
    """One batch of new classes arriving.

    A class that has fewer images than its number of exemplars or validation images gives all.

    Attributes:
        index: the increment's number, from 0.
        num_old: classes before it.
        num_seen: classes before it and in it.
        exemplars_per_class: exemplars of each old class, in the memory before it; fewer of a class
            that has fewer images.
        kept_per_class: exemplars of each seen class, in the memory after it.
        val_per_class: images of each seen class that the bias correction is fitted on.
        num_train: images to train on.
        num_val: images of the validation split.
        num_test: images to test on.
    """
    index: int
    num_old: int
    num_seen: int
    exemplars_per_class: int
    kept_per_class: int
    val_per_class: int
    num_train: int
    num_val: int
    num_test: int


def random_stream(seed, use, increment=0, number=0):
    """The random numbers of one use that SEED decides.

    No two uses may share a stream. The class order and the hold-out have one of their own, of
    CLASS_ORDER_SEED, see data/dataset.py.

    Args:
        seed: int, 0 to 2**32 - 1.
        use: 'weights', of a network; 'batches', order and augmentation of one epoch; or
            'exemplars', of one class.
        increment: int, for batches and exemplars.
        number: int, the epoch of batches, the label of exemplars.

    Returns:
        np.random.RandomState, fresh.
    """
    # A longer key alone is no other stream: NumPy's generator adds to each number its position, so
    # that [2], [2, 1] and [2, 1, 0] are the same. Hence a number that no increment or label
    # reaches. The first two keys stay as they are: all recorded results have them. With SEED > 1
    # the weights share their stream with epoch SEED - 2 of increment SEED - 1, which does no harm.
    keys = {
        'weights': [seed],
        'batches': [seed, increment, number],
        'exemplars': [seed, increment, number, 2 ** 31],
    }
    return np.random.RandomState(keys[use])


def class_order(num_classes, random, kind):
    """The order in which the classes arrive.

    Args:
        num_classes: int.
        random: `np.random.RandomState(1993)`, fresh. `hold_out` draws from it afterwards.
        kind: 'random', one shuffle [C]; 'icarl', the order of iCaRL's CIFAR-100 script, which
            shuffled each class's 500 images first (87 0 52 58 44 ..); or 'sorted', by class id,
            without drawing.

    Returns:
        int array [num_classes]: the class id at each position.
    """
    order = np.arange(num_classes)
    if kind == 'sorted':
        return order
    if kind == 'icarl':
        for _ in range(num_classes):
            random.shuffle(np.arange(500))
    random.shuffle(order)
    return order


def images_by_label(labels, num_classes):
    """Groups images by label.

    Args:
        labels: int array [images], 0..num_classes-1.
        num_classes: int.

    Returns:
        list of num_classes int arrays: the positions of each label, rising.
    """
    positions = np.argsort(labels, kind='stable')
    ends = np.cumsum(np.bincount(labels, minlength=num_classes))
    return np.split(positions, ends[:-1])


def hold_out(images, memory_size, first_classes, val_fraction, random):
    """Sets validation images aside, once, before anything is trained [P, section 5.1] [C].

    Class by class in label order, the images are shuffled and the last
    `int(val_fraction * memory_size / first_classes)` are held out: 20 in both ImageNet runs. A
    small class gives at most `int(val_fraction * its images)`, but at least one.

    Args:
        images: list of int arrays, from `images_by_label`.
        memory_size: int.
        first_classes: int, classes of the first increment.
        val_fraction: float in (0, 1).
        random: the generator that drew the class order.

    Returns:
        train: list of int arrays, by label, the images to train on, in list order.
        held: list of int arrays, by label, the images held out, in the order of the shuffle.
    """
    fraction = exact(val_fraction)
    most = int(fraction * memory_size / first_classes)
    train = []
    held = []
    for class_images in images:
        shuffled = class_images.copy()
        random.shuffle(shuffled)
        num_held = max(1, min(most, int(fraction * len(shuffled))))
        num_train = len(shuffled) - num_held
        train.append(np.sort(shuffled[:num_train]))
        held.append(shuffled[num_train:])
    return train, held


def quota(memory_size, num_old, val_fraction):
    """Divides an old class's share x = memory_size / num_old of the memory [P, section 5.1] [C].

    [C] computes ceil(x) - ceil(f x) exemplars, which gives all published rows. Ours are at most
    floor(x) less the validation images, so that the memory size is never exceeded. This limit and
    the minimum of one validation image change nothing at the published settings.

    Args:
        memory_size: int.
        num_old: int, at least 1.
        val_fraction: float in (0, 1).

    Returns:
        exemplars_per_class: int, below 1 where the memory is too small.
        val_per_class: int, at least 1.
    """
    fraction = exact(val_fraction)
    share = fractions.Fraction(memory_size, num_old)
    val_per_class = max(1, math.floor(fraction * share))
    published = math.ceil(share) - math.ceil(fraction * share)
    return min(published, math.floor(share) - val_per_class), val_per_class


def plan(train, held, test, sizes, memory_size, val_fraction, joint=False):
    """Plans the increments from the numbers of images alone.

    Args:
        train: list of int arrays, by label, from `hold_out`.
        held: list of int arrays, by label, from `hold_out`.
        test: list of int arrays, by label, from `images_by_label`.
        sizes: list of int, new classes of each increment.
        memory_size: int.
        val_fraction: float in (0, 1).
        joint: bool. True: all images of the old classes are trained on, not their exemplars alone.

    Returns:
        list of Increment. At increment 0 the validation split is the whole hold-out, and nothing
        is fitted on it. After the last one the memory keeps what a further one would need.
    """
    train_counts = np.array([len(images) for images in train])
    held_counts = np.array([len(images) for images in held])
    test_counts = np.array([len(images) for images in test])
    increments = []
    num_old = 0
    exemplars_per_class = 0
    val_per_class = int(held_counts.max())
    for index, num_new in enumerate(sizes):
        num_seen = num_old + num_new
        next_quota, next_val_per_class = quota(memory_size, num_seen, val_fraction)
        kept_per_class = max(0, next_quota)
        if index > 0:
            # The quota can rise where val_fraction * memory_size / num_seen crosses a whole
            # number. The memory does not grow.
            kept_per_class = min(kept_per_class, exemplars_per_class)
        old_counts = train_counts[:num_old]
        if not joint:
            old_counts = np.minimum(old_counts, exemplars_per_class)
        largest_old = int(max(train_counts[:num_old], default=0))
        new_counts = train_counts[num_old:num_seen]
        val_counts = np.minimum(held_counts[:num_seen], val_per_class)
        increments.append(Increment(
            index=index,
            num_old=num_old,
            num_seen=num_seen,
            exemplars_per_class=min(exemplars_per_class, largest_old),
            kept_per_class=kept_per_class,
            val_per_class=val_per_class,
            num_train=int(old_counts.sum() + new_counts.sum()),
            num_val=int(val_counts.sum()),
            num_test=int(test_counts[:num_seen].sum())))
        num_old = num_seen
        exemplars_per_class = kept_per_class
        val_per_class = next_val_per_class
    return increments


def herding(features, count):
    """Chooses the images whose running mean stays closest to the class mean.

    iCaRL, algorithm 4, as in [C]: choice j minimises || mean - (sum of chosen + f) / j || over the
    images not yet chosen. The features are not normalised.

    Args:
        features: float array [images, dimensions], all candidates of one class.
        count: int, how many to choose; all are chosen if there are fewer.

    Returns:
        int array [min(count, images)]: row numbers in order of choice. Ties go to the lower one.
    """
    features = np.asarray(features, np.float64)
    mean = features.mean(axis=0)
    squares = np.einsum('nd,nd->n', features, features)
    is_free = np.ones(len(features), bool)
    total = np.zeros_like(mean)
    chosen = []
    for j in range(1, min(count, len(features)) + 1):
        # j^2 || mean - (total + f) / j ||^2 = || r ||^2 - 2 r.f + || f ||^2, r the residual. einsum
        # sums every row in the same order, unlike a BLAS product: equal images tie exactly.
        residual = j * mean - total
        distances = squares - 2 * np.einsum('nd,d->n', features, residual)
        best = int(np.argmin(np.where(is_free, distances, np.inf)))
        chosen.append(best)
        is_free[best] = False
        total += features[best]
    return np.array(chosen, int)


# How the memory chooses a class's exemplars: functions of features, float [images, dimensions];
# count, int; and random, the class's `random_stream`. They return row numbers in order of choice,
# int array [min(count, images)].
SELECTIONS = {
    'herding': lambda features, count, random: herding(features, count),
    'random': lambda features, count, random: random.permutation(len(features))[:count],
}


def class_mean(features):
    """A class as the nearest-mean-of-exemplars classifier sees it (iCaRL, section 3.1).

    Args:
        features: float [images, dimensions], of a class's exemplars.

    Returns:
        float64 [dimensions], of length 1: the mean of the features, each at length 1 before.
    """
    return _unit(_unit(np.asarray(features, np.float64)).mean(axis=0))


def mean_scores(features, means):
    """Cosines of features and class means. At length 1 the nearest mean has the greatest.

    Args:
        features: float [images, dimensions].
        means: float64 [num_seen, dimensions], from `class_mean`.

    Returns:
        float64 [images, num_seen].
    """
    return _unit(np.asarray(features, np.float64)).dot(np.transpose(means))


def _unit(vectors):
    """Vectors at length 1; zeros stay zeros."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)


def exact(fraction):
    """A float as people write it: 0.1 as 1/10, a fractions.Fraction.

    With floats, floor and ceil are off by one where a product should be a whole number.
    """
    return fractions.Fraction(repr(float(fraction)))
