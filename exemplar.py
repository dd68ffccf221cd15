"""The memory: class order, hold-out, quotas, the plan of the increments, herding. NumPy alone.

Throughout, a class's *label* is its position in the class order, and an image is its index in the training (or test) list.
"""
import collections
import fractions
import math

import numpy as np

CLASS_ORDERS = ('random', 'icarl', 'sorted')

Increment = collections.namedtuple('Increment', 'increment num_old num_seen exemplars kept validation train val test')
Increment.__doc__ = """One batch of new classes arriving.

increment: 0-based. num_old, num_seen: classes before it, and with it. exemplars: per old class in the memory before it.
kept: exemplars per seen class in the memory after it. validation: images per seen class that the bias correction is fitted on.
A class with fewer images gives all it has. train, val, test: numbers of images. All int.
"""


def class_order(num_classes, random, kind):
    """The order in which the classes arrive.

    Args:
        num_classes: int.
        random: `np.random.RandomState(1993)`, fresh. `hold_out` draws from it afterwards.
        kind: 'random', one shuffle (authors' imagenet_main.py); 'icarl', the order of iCaRL's CIFAR-100 script, which shuffled
            each class's 500 images first (87 0 52 58 44 ..); or 'sorted', by class id, without drawing.

    Returns:
        int array [num_classes]: the class id at each position.
    """
    if kind == 'icarl':
        for _ in range(num_classes):
            random.shuffle(np.arange(500))
    order = np.arange(num_classes)
    if kind != 'sorted':
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
    return np.split(np.argsort(labels, kind='stable'), np.cumsum(np.bincount(labels, minlength=num_classes))[:-1])


def hold_out(images, memory_size, first_classes, val_fraction, random):
    """Sets validation images aside, once, before anything is trained (section 5.1; authors' `prepare_validation`).

    Class by class in label order, the images are shuffled and the last `int(val_fraction * memory_size / first_classes)` are
    held out: 20 in both ImageNet runs. A small class gives at most `int(val_fraction * its images)`, but at least one.

    Args:
        images: list of int arrays, from `images_by_label`.
        memory_size: int.
        first_classes: int, classes of the first increment.
        val_fraction: float in (0, 1).
        random: the generator that drew the class order.

    Returns:
        train: list of int arrays, by label, the images to train on, in list order.
        held: list of int arrays, by label, the images held out, in the order in which they were drawn.
    """
    fraction = exact(val_fraction)
    count = int(fraction * memory_size / first_classes)
    train, held = [], []
    for of_class in images:
        of_class = of_class.copy()
        random.shuffle(of_class)
        keep = len(of_class) - max(1, min(count, int(fraction * len(of_class))))
        train.append(np.sort(of_class[:keep]))
        held.append(of_class[keep:])
    return train, held


def quota(memory_size, num_old, val_fraction):
    """Divides an old class's share x = memory_size / num_old of the memory (section 5.1; authors' imagenet_main.py).

    Exemplars and validation images together are at most floor(x), so the memory size is never exceeded. The authors
    compute ceil(x) - ceil(f x), which gives all published rows. The limit floor(x) - validation, and the minimum of one
    validation image, change nothing at the published settings.

    Args:
        memory_size: int.
        num_old: int, at least 1.
        val_fraction: float in (0, 1).

    Returns:
        exemplars, validation: int, images per class. exemplars is below 1 where the memory is too small.
    """
    fraction = exact(val_fraction)
    share = fractions.Fraction(memory_size, num_old)
    validation = max(1, math.floor(fraction * share))
    return min(math.ceil(share) - math.ceil(fraction * share), math.floor(share) - validation), validation


def plan(train, held, test, sizes, memory_size, val_fraction, joint=False):
    """Plans what each increment trains, validates and tests on, from the numbers of images alone.

    Args:
        train, held, test: lists of int arrays by label, from `hold_out` and `images_by_label`.
        sizes: list of int, new classes of each increment.
        memory_size: int. val_fraction: float in (0, 1).
        joint: bool. True: all images of the old classes are trained on, not their exemplars alone.

    Returns:
        list of Increment. At increment 0, `val` is the whole hold-out, and nothing is fitted on it. After the last increment the
        memory keeps what a further one would need.
    """
    train, held, test = (np.array([len(images) for images in lists]) for lists in (train, held, test))
    increments, num_old = [], 0
    for k, new in enumerate(sizes):
        num_seen = num_old + new
        exemplars = increments[-1].kept if k else 0
        validation = quota(memory_size, num_old, val_fraction)[1] if k else int(held.max())
        kept = max(0, quota(memory_size, num_seen, val_fraction)[0])
        if k:  # the quota can rise where val_fraction * memory_size / num_seen crosses a whole number; the memory does not grow
            kept = min(kept, exemplars)
        increments.append(Increment(
            k, num_old, num_seen, exemplars, kept, validation,
            train=int(train[num_old:num_seen].sum() + np.minimum(train[:num_old], np.inf if joint else exemplars).sum()),
            val=int(np.minimum(held[:num_seen], validation).sum()), test=int(test[:num_seen].sum())))
        num_old = num_seen
    return increments


def herding(features, count):
    """Chooses the images whose running mean stays closest to the class mean (iCaRL, algorithm 4; authors' selection).

    Choice j minimises || mean - (sum of chosen + f) / j || over the images not yet chosen. The features are not normalised.

    Args:
        features: float array [images, dimensions], all candidates of one class.
        count: int, how many to choose; all are chosen if there are fewer.

    Returns:
        int array [min(count, images)]: row numbers in order of choice. Ties go to the lower number.
    """
    features = np.asarray(features, np.float64)
    mean = features.mean(axis=0)
    squares = np.einsum('nd,nd->n', features, features)
    free = np.ones(len(features), bool)
    chosen, total = [], np.zeros_like(mean)
    for j in range(1, min(count, len(features)) + 1):
        # j^2 || mean - (total + f) / j ||^2 = || r ||^2 - 2 r.f + || f ||^2 with r = j mean - total. einsum sums every row in
        # the same order, unlike a BLAS product, so that equal images tie exactly.
        distances = squares - 2 * np.einsum('nd,d->n', features, j * mean - total)
        best = int(np.argmin(np.where(free, distances, np.inf)))
        chosen.append(best)
        free[best] = False
        total += features[best]
    return np.array(chosen, int)


def class_mean(features):
    """A class as the nearest-mean-of-exemplars classifier sees it (iCaRL, section 3.1): features and mean at unit length.

    Args:
        features: float [images, dimensions], of a class's exemplars.

    Returns:
        float64 [dimensions], of length 1.
    """
    return _unit(_unit(np.asarray(features, np.float64)).mean(axis=0))


def mean_scores(features, means):
    """Cosines of features and class means; at unit length the nearest mean has the greatest.

    Args:
        features: float [images, dimensions]. means: float64 [num_seen, dimensions], from `class_mean`.

    Returns:
        float64 [images, num_seen].
    """
    return _unit(np.asarray(features, np.float64)).dot(np.transpose(means))


def _unit(vectors):
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)


def exact(fraction):
    """Returns 0.1 as 1/10, a fractions.Fraction: with floats, floor and ceil are off by one where a product should be whole."""
    return fractions.Fraction(repr(float(fraction)))
