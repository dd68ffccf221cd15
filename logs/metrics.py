"""Accuracies, the confusion of increments and forgetting: NumPy in, numbers out."""
from typing import NamedTuple

import numpy as np

_ROWS = 4096  # images at a time: the logits of all test images may not fit into memory


class Score(NamedTuple):
    """What a classifier achieves on images of all classes seen.

    Attributes:
        top1: float, a fraction.
        top5: float, a fraction.
        top1_by_increment: list of float, on the classes of each increment.
        top1_by_class: float array [num_seen].
        predicted: int array [images], labels.
    """
    top1: float
    top5: float
    top1_by_increment: list
    top1_by_class: np.ndarray
    predicted: np.ndarray


class Scores(NamedTuple):
    """Three classifiers on the same images.

    Attributes:
        labels: int array [images].
        before: Score, of the last layer as trained.
        after: Score, of the corrected one.
        nme: Score of the nearest mean of exemplars, or None if the memory keeps no exemplar.
    """
    labels: np.ndarray
    before: Score
    after: Score
    nme: Score


def score(classify, features, labels, ends):
    """Scores a classifier.

    Args:
        classify: function from float array [images, dimensions] to logits, float array
            [images, num_seen].
        features: float array [images, dimensions].
        labels: int array [images], 0 .. num_seen - 1; each class has an image.
        ends: list of int, classes seen after each increment so far.

    Returns:
        Score.
    """
    ranks = []
    predicted = []
    for first in range(0, len(labels), _ROWS):
        logits = classify(features[first:first + _ROWS])
        ranks.append(rank(logits, labels[first:first + _ROWS]))
        predicted.append(logits.argmax(axis=1))
    hits = np.concatenate(ranks) < 1
    increments = np.searchsorted(ends, labels, 'right')
    num_images = np.bincount(labels, minlength=ends[-1])
    return Score(
        top1=float(np.mean(hits)),
        top5=float(np.mean(np.concatenate(ranks) < 5)),
        top1_by_increment=[float(np.mean(hits[increments == j])) for j in range(len(ends))],
        top1_by_class=np.bincount(labels, hits, ends[-1]) / num_images,
        predicted=np.concatenate(predicted))


def rank(logits, labels):
    """Number of classes ranked above the true one: 0 is a top-1 hit.

    Args:
        logits: float array [images, classes]. Among equal ones the lower label is first.
        labels: int array [images].

    Returns:
        int array [images].
    """
    true = logits[np.arange(len(labels)), labels][:, None]
    lower = np.arange(logits.shape[1]) < labels[:, None]
    return np.sum((logits > true) | (logits == true) & lower, axis=1)


def confusion(labels, predicted, ends):
    """Images by increment of the true class (row) and of the predicted one (column).

    Args:
        labels: int array [images].
        predicted: int array [images].
        ends: list of int, classes seen after each increment so far.

    Returns:
        int array [increments, increments].
    """
    counts = np.zeros([len(ends), len(ends)], int)
    true_increments = np.searchsorted(ends, labels, 'right')
    predicted_increments = np.searchsorted(ends, predicted, 'right')
    np.add.at(counts, (true_increments, predicted_increments), 1)
    return counts


def result_row(now, correction, scores):
    """The results of an increment: the one declaration of what is kept and reported of them.

    All of it is stored in checkpoints and written as [result] line, and what is a number goes into
    the closing table.

    Args:
        now: exemplar.Increment.
        correction: bic_layer.Correction.
        scores: Scores of the test.

    Returns:
        dict from key to int, float or list of float.
    """
    nan = float('nan')
    return dict(
        increment=now.index,
        classes=now.num_seen,
        top1_before=scores.before.top1,
        top1=scores.after.top1,
        top5_before=scores.before.top5,
        top5=scores.after.top5,
        top1_nme=scores.nme.top1 if scores.nme else nan,
        top5_nme=scores.nme.top5 if scores.nme else nan,
        beta=correction.beta,
        gamma=correction.gamma,
        train=now.num_train,
        val=now.num_val,
        test=now.num_test,
        top1_by_increment=scores.after.top1_by_increment)


def closing(rows):
    """The closing table, list of dict from key to number: what of each row is a number."""
    numbers = []
    for row in rows:
        numbers.append({key: value for key, value in row.items() if not isinstance(value, list)})
    return numbers


def averages(rows):
    """Means over increments, with and without the first one, dict from key to float.

    Args:
        rows: list of dict from `result_row`.
    """
    means = {}
    for suffix, first in (('', 0), ('_excl_first', 1)):
        for metric in ('top1', 'top5'):
            values = [row[metric] for row in rows[first:]]
            means['avg_%s%s' % (metric, suffix)] = np.mean(values) if values else float('nan')
    return means


def forgetting(rows):
    """Forgetting after the last increment k, float; nan at the first one.

    The mean over the earlier increments j < k of max_{l < k} a(l, j) - a(k, j), where a(l, j) is
    the top-1 accuracy after increment l on the classes of increment j.

    Args:
        rows: list of dict with top1_by_increment: of row l, a(l, j) for j <= l.
    """
    *earlier, last = [row['top1_by_increment'] for row in rows]
    if not earlier:
        return float('nan')
    drops = []
    for j in range(len(earlier)):
        best = max(accuracies[j] for accuracies in earlier[j:])
        drops.append(best - last[j])
    return float(np.mean(drops))
