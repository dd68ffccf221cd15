"""Results: logits of images, accuracies from logits, before and after the correction, and the lines that report them."""
import collections
import csv
import itertools
import os

import numpy as np

import exemplar
from data import Fault, batches, images
from logs import tables

Score = collections.namedtuple('Score', 'top1 top5 by_increment by_class predicted')
Score.__doc__ = """What a classifier achieves over all classes seen.

top1, top5: float. by_increment: list of float, top-1 on the classes of each increment of the plan. by_class: float array
[num_seen], top-1 on each class. predicted: int array [images].
"""
UNKNOWN = Score(float('nan'), float('nan'), None, None, None)

Scores = collections.namedtuple('Scores', 'labels off on nme')
Scores.__doc__ = """Classifiers on the same images.

labels: int array [images]. off, on, nme: a Score each, before the correction, after it, and of the nearest mean of exemplars
(UNKNOWN without means).
"""


def evaluate(session, model, now, data, numbers):
    """Runs the network over images in inference mode, in one pass. Raises a Fault if a logit is not finite.

    Args: session, model: of this increment. numbers: int array, images of data.

    Yields: per batch: features, float32 [batch, 512, 2048 or 64]; logits, float32 [batch, num_seen]; labels, int32 [batch].
    """
    with images.explained(data.paths[numbers]):
        session.run(model.evaluation_batches.initializer, batches.feed(model, data, numbers))
        for _ in range(0, len(numbers), model.evaluation_size):
            features, logits, labels = session.run(model.evaluated)
            if not np.isfinite(logits).all():
                raise Fault('increment=%d: the trained network gives logits that are not finite; try a lower LEARNING_RATE with '
                            'another MODEL_DIR' % now.increment)
            yield features, logits[:, :now.num_seen], labels


def score(write, now, split, outputs, correct, means=None, plan=()):
    """Computes accuracy over all classes seen, Scores, and writes [eval] and [nme] lines.

    Args:
        write: log.Log. split: 'val' or 'test'. outputs: iterable of (features, logits, labels), as `evaluate` yields them.
        correct: function from a batch's features and logits to its corrected logits.
        means: the classes' means, see `exemplar.mean_scores`, or None.
        plan: list of exemplar.Increment; if given, [matrix] and [confusion] lines are written, too.
    """
    classifiers = dict(off=lambda features, logits: logits, on=correct)
    if means is not None:
        classifiers['nme'] = lambda features, logits: exemplar.mean_scores(features, means)
    labels, ranks, predicted = [], collections.defaultdict(list), collections.defaultdict(list)
    for features, logits, of_batch in outputs:
        labels.append(of_batch)
        for name, classify in classifiers.items():
            values = classify(features, logits)
            ranks[name].append(rank(values, of_batch))
            predicted[name].append(values.argmax(axis=1))
    labels, scores = np.concatenate(labels), dict(nme=UNKNOWN)
    ends = [then.num_seen for then in plan[:now.increment + 1]]
    came = np.searchsorted(ends, labels, 'right')  # [images], the increment of the true class
    for name in classifiers:
        of_image, said = np.concatenate(ranks[name]), np.concatenate(predicted[name])
        top1, top5 = np.mean(of_image < 1), np.mean(of_image < 5)
        by_increment = [np.mean(of_image[came == j] < 1) for j in range(len(ends))]
        by_class = np.bincount(labels, of_image < 1, now.num_seen) / np.bincount(labels, minlength=now.num_seen)
        scores[name] = Score(top1, top5, by_increment, by_class, said)
        if name == 'nme':
            write('nme', increment=now.increment, images=len(labels), top1=top1, top5=top5)
            continue
        write('eval', increment=now.increment, split=split, correction=name, images=len(labels), top1=top1, top5=top5)
        if plan:
            write('matrix', increment=now.increment, correction=name, top1_by_increment=by_increment)
        for j in range(len(ends)):
            counts = np.bincount(np.searchsorted(ends, said[came == j], 'right'), minlength=len(ends))
            write('confusion', increment=now.increment, correction=name, true=j, predicted=list(counts))
    return Scores(labels, **scores)


def record(folder, data, now, scores, exemplars):
    """Adds an increment to the tables beside the log: classes.csv, predictions.csv and exemplars.csv.

    Lines of this increment from an interrupted run are replaced.

    Args: folder: str, must exist. scores: Scores of the test. exemplars: list of int arrays, by label in order of choice.
    """
    counts, test = np.bincount(scores.labels, minlength=now.num_seen), np.concatenate(data.test[:now.num_seen])
    nme = itertools.repeat('') if scores.nme.predicted is None else scores.nme.predicted
    written = {
        'classes.csv': (['label', 'name', 'images', 'top1_before', 'top1'],
                        zip(range(now.num_seen), data.names, counts, scores.off.by_class, scores.on.by_class)),
        'predictions.csv': (['path', 'class', 'before', 'after', 'nme'],
                            zip(data.relative(test), scores.labels, scores.off.predicted, scores.on.predicted, nme)),
        'exemplars.csv': (['label', 'position', 'path'],
                          ((label, position, image) for label, of_class in enumerate(exemplars)
                           for position, image in enumerate(data.relative(of_class))))}
    try:
        for name, (header, rows) in written.items():
            _replace_from(os.path.join(folder, name), now.increment, ['increment'] + header, rows)
    except OSError as error:
        raise Fault('%s: cannot be written (%s); the same command resumes from the last checkpoint' % (folder, error.strerror))


def _replace_from(path, increment, header, rows):
    """Writes a table: the old rows of earlier increments, then the new rows of this one."""
    kept = []
    if os.path.exists(path):
        with open(path, newline='', encoding='utf-8', errors='surrogateescape') as file:
            kept = [row for row in csv.reader(file) if row and row[0].isdigit() and int(row[0]) < increment]
    with open(path + '.partial', 'w', newline='', encoding='utf-8', errors='surrogateescape') as file:
        table = csv.writer(file, lineterminator='\n')
        table.writerow(header)
        table.writerows(kept)
        table.writerows([increment, *row] for row in rows)
    os.replace(path + '.partial', path)


def row(now, fit, scores):
    """An increment's row of the closing table, dict. fit: bic_layer.Fit. scores: Scores of the test."""
    return dict(increment=now.increment, classes=now.num_seen, top1_before=scores.off.top1, top1=scores.on.top1,
                top5_before=scores.off.top5, top5=scores.on.top5, top1_nme=scores.nme.top1, top5_nme=scores.nme.top5,
                beta=fit.beta, gamma=fit.gamma, train=now.train, val=now.val, test=now.test)


def close(s, write, rows, matrix, hours, hours_left):
    """Writes the [result] line and the authors' three lines: beta, gamma and corrected accuracy of all increments so far.

    Args: rows: list of dict, one per increment. matrix: as in `forgetting`. hours, hours_left: float.
    """
    last = rows[-1]
    averages = {'avg_%s%s' % (metric, suffix): np.mean([row[metric] for row in rows[first:]])
                if rows[first:] else float('nan')
                for suffix, first in (('', 0), ('_excl_first', 1)) for metric in ('top1', 'top5')}
    write('result', increment=last['increment'], seen_classes=last['classes'],
          **{key: last[key] for key in ('top1', 'top5', 'top1_before', 'top5_before', 'top1_nme', 'top5_nme', 'beta', 'gamma')},
          **averages, forgetting_top1=forgetting(matrix), hours=hours, hours_left=hours_left)
    for title, key in (('beta    : ', 'beta'), ('gamma   : ', 'gamma'), ('accuracy: ', s.HEADLINE)):
        write.text(' '.join([title] + [str(np.array([row[key]], np.float32)) for row in rows]))


def finish(write, data, rows, by_class):
    """Writes the end of the log: the [class] lines and the table. by_class: float array, of a Score."""
    for label, top1 in enumerate(by_class):
        write.text('[class]   label=%d images=%d top1=%.4f name=%s' % (label, len(data.test[label]), top1, data.names[label]))
    write.text(tables.table(rows))


def rank(logits, labels):
    """Number of classes ranked above the true one, int [images]: 0 is a top-1 hit. In a tie the lower label is first."""
    true = logits[np.arange(len(labels)), labels][:, None]
    lower = np.arange(logits.shape[1]) < labels[:, None]
    return np.sum((logits > true) | (logits == true) & lower, axis=1)


def forgetting(matrix):
    """Mean over the earlier increments j < k of max_{l < k} a(l, j) - a(k, j), float; nan at the first increment.

    Args: matrix: list of lists of float, a(l, j) for j <= l <= k.
    """
    *earlier, last = matrix
    if not earlier:
        return float('nan')
    return float(np.mean([max(row[j] for row in earlier[j:]) - last[j] for j in range(len(earlier))]))
