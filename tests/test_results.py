"""Accuracies and forgetting by hand, and against argmax and a full sort."""
import numpy as np
import pytest

import bic_layer
import exemplar
from logs import results


def test_rank():
    logits = np.array([[3.0, 1, 2], [3, 1, 2], [3, 1, 2], [5, 5, 5], [5, 5, 5], [5, 5, 5]])
    assert list(results.rank(logits, np.array([0, 1, 2, 0, 1, 2]))) == [0, 2, 1, 0, 1, 2]


def test_rank_agrees_with_argmax_and_top_k():
    random = np.random.RandomState(0)
    logits, labels = random.randint(0, 5, (200, 8)).astype(np.float32), random.randint(0, 8, 200)
    ranks = results.rank(logits, labels)
    assert ((ranks == 0) == (logits.argmax(axis=1) == labels)).all()
    assert list(ranks < 5) == [label in np.argsort(-row, kind='stable')[:5] for row, label in zip(logits, labels)]


def test_forgetting_by_hand():
    matrix = [[0.9], [0.7, 0.8], [0.8, 0.6, 0.5]]
    assert np.isnan(results.forgetting(matrix[:1]))
    assert results.forgetting(matrix[:2]) == pytest.approx(0.2)
    assert results.forgetting(matrix) == pytest.approx((0.1 + 0.2) / 2)
    assert results.forgetting([[0.5], [0.6, 0.5]]) == pytest.approx(-0.1)   # what was learnt backwards counts


def test_score_by_hand():
    """2 old and 1 new class; the correction turns one image from the new class to its own, old one."""
    now = exemplar.Increment(1, 2, 3, 0, 0, 0, 0, 0, 0)
    plan = [exemplar.Increment(0, 0, 2, 0, 0, 0, 0, 0, 0), now]
    logits = np.array([[2.0, 0, 3], [0, 2, 1], [0, 1, 4], [0, 9, 4]])
    lines = []
    features, means = np.array([[3.0, 0], [0, 2], [1, 2], [0, 1]]), [[1, 0], [0, 1], [0.6, 0.8]]
    labels, scores = results.score(
        lambda tag, **values: lines.append((tag, values)), now, 'test',
        [(features[:3], logits[:3], np.array([0, 1, 2])), (features[3:], logits[3:], np.array([2]))],
        lambda _, logits: bic_layer.corrected_logits(logits, 2, 0.5, 0.0), means, plan)
    assert list(labels) == [0, 1, 2, 2]
    assert {name: (score.top1, score.top5) for name, score in scores.items()} == dict(
        off=(0.5, 1.0), on=(0.75, 1.0), nme=(0.75, 1.0))
    assert [scores[name].by_increment for name in ('off', 'on')] == [[0.5, 0.5], [1.0, 0.5]]
    assert list(scores['on'].by_class) == [1.0, 1.0, 0.5]
    # Cosines of the third image: 1, 2 and 2.2 over the root of 5.
    assert [list(scores[name].predicted) for name in ('off', 'on', 'nme')] == [[2, 1, 2, 1], [0, 1, 2, 1], [0, 1, 2, 1]]
    assert [(tag, values.get('top1', values.get('top1_by_increment', values.get('predicted')))) for tag, values in lines] == [
        ('eval', 0.5), ('matrix', [0.5, 0.5]), ('confusion', [1, 1]), ('confusion', [1, 1]),
        ('eval', 0.75), ('matrix', [1.0, 0.5]), ('confusion', [2, 0]), ('confusion', [1, 1]), ('nme', 0.75)]
