"""Tests accuracies and forgetting by hand, and ranks against a full sort."""
import numpy as np
import pytest

import bic_layer
import exemplar
from logs import results


def test_rank():
    """A tie goes to the lower label, as in a stable sort. Many of the 8 logits are equal."""
    random = np.random.RandomState(0)
    logits, labels = random.randint(0, 5, (200, 8)).astype(np.float32), random.randint(0, 8, 200)
    expected = [list(np.argsort(-row, kind='stable')).index(label) for row, label in zip(logits, labels)]
    assert list(results.rank(logits, labels)) == expected


@pytest.mark.parametrize('matrix, expected', [
    ([[0.9]], np.nan), ([[0.9], [0.7, 0.8]], 0.2), ([[0.9], [0.7, 0.8], [0.8, 0.6, 0.5]], (0.1 + 0.2) / 2),
    ([[0.5], [0.6, 0.5]], -0.1)])  # what was learnt backwards counts
def test_forgetting_by_hand(matrix, expected):
    assert results.forgetting(matrix) == pytest.approx(expected, nan_ok=True)


def test_score_by_hand():
    """Of 2 old classes and 1 new one. The correction moves one image from the new class to its own, old class."""
    now = exemplar.Increment(1, 2, 3, 0, 0, 0, 0, 0, 0)
    plan = [exemplar.Increment(0, 0, 2, 0, 0, 0, 0, 0, 0), now]
    logits, lines = np.array([[2.0, 0, 3], [0, 2, 1], [0, 1, 4], [0, 9, 4]]), []
    # Cosines of the third image and the means: 1, 2 and 2.2 over the root of 5.
    features, means = np.array([[3.0, 0], [0, 2], [1, 2], [0, 1]]), [[1, 0], [0, 1], [0.6, 0.8]]
    scores = results.score(
        lambda tag, **values: lines.append((tag, values)), now, 'test',
        [(features[:3], logits[:3], np.array([0, 1, 2])), (features[3:], logits[3:], np.array([2]))],
        lambda _, logits: bic_layer.corrected_logits(logits, 2, 2.0, -5.0), means, plan)
    before, after = (0.5, 1, [0.5, 0.5], [0, 1, 0.5], [2, 1, 2, 1]), (0.75, 1, [1, 0.5], [1, 1, 0.5], [0, 1, 2, 1])
    np.testing.assert_equal(tuple(scores), ([0, 1, 2, 2], before, after, after))
    assert [(tag, values.get('top1', values.get('top1_by_increment', values.get('predicted')))) for tag, values in lines] == [
        ('eval', 0.5), ('matrix', [0.5, 0.5]), ('confusion', [1, 1]), ('confusion', [1, 1]),
        ('eval', 0.75), ('matrix', [1.0, 0.5]), ('confusion', [2, 0]), ('confusion', [1, 1]), ('nme', 0.75)]
