"""Tests accuracies, confusion and forgetting by hand, and ranks against a full sort."""
import numpy as np
import pytest

from logs import metrics


def test_rank():
    """A tie goes to the lower label, as in a stable sort. Many of the 8 logits are equal."""
    random = np.random.RandomState(0)
    logits = random.randint(0, 5, (200, 8)).astype(np.float32)
    labels = random.randint(0, 8, 200)
    expected = []
    for row, label in zip(logits, labels):
        expected.append(list(np.argsort(-row, kind='stable')).index(label))
    assert list(metrics.rank(logits, labels)) == expected


@pytest.mark.parametrize('matrix, expected', [
    ([[0.9]], np.nan),
    ([[0.9], [0.7, 0.8]], 0.2),
    ([[0.9], [0.7, 0.8], [0.8, 0.6, 0.5]], (0.1 + 0.2) / 2),
    ([[0.5], [0.6, 0.5]], -0.1)])  # what was learnt backwards counts
def test_forgetting_by_hand(matrix, expected):
    rows = [dict(top1_by_increment=accuracies) for accuracies in matrix]
    assert metrics.forgetting(rows) == pytest.approx(expected, nan_ok=True)


def test_score_by_hand():
    """Four images of 2 old classes and 1 new one, scored in one chunk and in two."""
    labels = np.array([0, 1, 2, 2])
    logits = np.array([[2.0, 0, 3], [0, 2, 1], [0, 1, 4], [0, 9, 4]])
    for rows in (4096, 3):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(metrics, '_ROWS', rows)
            score = metrics.score(lambda features: features, logits, labels, [2, 3])
        np.testing.assert_equal(tuple(score), (0.5, 1, [0.5, 0.5], [0, 1, 0.5], [2, 1, 2, 1]))
    counts = metrics.confusion(labels, score.predicted, [2, 3])
    assert counts.tolist() == [[1, 1], [1, 1]]


def test_averages_by_hand():
    rows = [dict(top1=0.9, top5=1.0), dict(top1=0.7, top5=0.8), dict(top1=0.5, top5=0.9)]
    assert metrics.averages(rows) == pytest.approx(dict(
        avg_top1=0.7, avg_top5=0.9, avg_top1_excl_first=0.6, avg_top5_excl_first=0.85))
    assert np.isnan(metrics.averages(rows[:1])['avg_top1_excl_first'])
