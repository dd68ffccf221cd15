"""Results: logits of images, accuracies from logits, before and after the correction, and the lines that report them."""
import collections
import csv
import itertools
import os

import numpy as np

import exemplar
from data import Fault, checks, protocol
from logs import stop, tables

Score = collections.namedtuple('Score', 'top1 top5 by_increment by_class predicted')
Score.__doc__ = """What a classifier achieves over all classes seen.

top1, top5: float. by_increment: list of float, top-1 on the classes of each increment of the plan. by_class: float array
[num_seen], top-1 on each class; nan for one without images. predicted: int array [images].
"""
UNKNOWN = Score(float('nan'), float('nan'), None, None, None)


def evaluate(s, session, model, now, data, images):
    """Runs the network over images in inference mode, in one pass.

    Args:
        data: namespace from `protocol.read`. images: int array, which of its images.

    Yields:
        (features, logits, labels) per batch: float32 [batch, 512 or 2048], float32 [batch, num_seen], int32 [batch].

    Raises:
        Fault: a logit is not finite; images cannot be read any more. Stopped: as was asked.
    """
    with checks.explained(data.paths[images]):
        session.run(model.evaluation_batches.initializer, {model.paths: data.paths[images], model.labels: data.labels[images]})
        for _ in range(0, len(images), model.devices.part(s.BATCH_SIZE)):
            if stop.asked():
                raise stop.Stopped()
            features, logits, labels_of_batch = session.run(model.evaluated)
            if not np.isfinite(logits).all():
                raise Fault('increment=%d: the trained network gives logits that are not finite; a lower LEARNING_RATE (now %s) '
                            'may help' % (now.increment, s.LEARNING_RATE))
            yield features, logits[:, :now.num_seen], labels_of_batch


def score(write, now, split, outputs, correct, means=None, plan=()):
    """Accuracy over all classes seen; writes [eval] and [nme] lines and, given the plan, [matrix] and [confusion] lines.

    Args:
        now: exemplar.Increment. split: 'val' or 'test'. outputs: iterable like `evaluate`'s.
        correct: function from a batch's features and logits to its corrected logits. means: the classes' means, see
            `exemplar.mean_scores`. plan: the increments to tell apart.

    Returns:
        labels: int array [images].
        scores: dict of Score: 'off' and 'on', before and after the correction; given means, 'nme', nearest mean of exemplars.
    """
    classifiers = dict(off=lambda features, logits: logits, on=correct)
    if means is not None:
        classifiers['nme'] = lambda features, logits: exemplar.mean_scores(features, means)
    labels, ranks, predicted = [], {name: [] for name in classifiers}, {name: [] for name in classifiers}
    for features, logits, of_batch in outputs:
        labels.append(of_batch)
        for name, classify in classifiers.items():
            values = classify(features, logits)
            ranks[name].append(rank(values, of_batch))
            predicted[name].append(values.argmax(axis=1))
    labels, scores = np.concatenate(labels), {}
    ends = [then.num_seen for then in plan[:now.increment + 1]]
    came = np.searchsorted(ends, labels, 'right')  # [images], the increment of the true class
    for name in classifiers:
        of_image, said = np.concatenate(ranks[name]), np.concatenate(predicted[name])
        top1, top5 = np.mean(of_image < 1), np.mean(of_image < 5)
        by_increment = [np.mean(of_image[came == j] < 1) for j in range(len(ends))]
        with np.errstate(invalid='ignore'):
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
    return labels, scores


def record(folder, s, data, now, test, labels, scores, exemplars):
    """Adds an increment to the tables beside the log: classes.csv, predictions.csv and exemplars.csv.

    Args:
        folder: str, which is there. data: from `protocol.read`. now: exemplar.Increment. test: int array, the test images.
        labels, scores: from `score` of these. exemplars: list of int arrays, by label in order of choice.

    Raises:
        Fault: a table cannot be written.
    """
    counts, off, on = np.bincount(labels, minlength=now.num_seen), scores['off'], scores['on']
    written = {
        'classes.csv': (['label', 'name', 'images', 'top1_before', 'top1'],
                        zip(range(now.num_seen), data.names, counts, off.by_class, on.by_class)),
        'predictions.csv': (['path', 'class', 'before', 'after', 'nme'],
                            zip(protocol.relative(s, data, test), labels, off.predicted, on.predicted,
                                scores['nme'].predicted if 'nme' in scores else itertools.repeat(''))),
        'exemplars.csv': (['label', 'position', 'path'],
                          ((label, position, image) for label, of_class in enumerate(exemplars)
                           for position, image in enumerate(protocol.relative(s, data, of_class))))}
    try:
        for name, (header, rows) in written.items():
            with open(os.path.join(folder, name), 'a', newline='', encoding='utf-8', errors='surrogateescape') as file:
                table = csv.writer(file, lineterminator='\n')
                table.writerows([['increment'] + header] if not file.tell() else [])
                table.writerows([now.increment, *row] for row in rows)
    except OSError as error:
        raise Fault('%s: cannot be written (%s); the same command goes on from the last checkpoint, with a new log'
                    % (folder, error.strerror))


def row(now, fit, scores, train, val, test):
    """An increment's row of the closing table, dict. train, val, test: int, its images."""
    off, on, nme = scores['off'], scores['on'], scores.get('nme', UNKNOWN)
    return dict(increment=now.increment, classes=now.num_seen, top1_before=off.top1, top1=on.top1, top5_before=off.top5,
                top5=on.top5, top1_nme=nme.top1, top5_nme=nme.top5, beta=fit.beta, gamma=fit.gamma, train=train, val=val,
                test=test)


def close(s, write, rows, matrix, hours, hours_left):
    """The [result] line, and the authors' three: all increments' beta, gamma and corrected accuracy so far.

    Args:
        rows: list of dict, one per increment. matrix: like `forgetting`'s. hours, hours_left: float.
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
    """The [class] lines and the table, which close the log. by_class: float array, from `score`."""
    for label, top1 in enumerate(by_class):
        write.text('[class]   label=%d images=%d top1=%.4f name=%s' % (label, len(data.test[label]), top1, data.names[label]))
    write.text(tables.table(rows))
    write.close()


def rank(logits, labels):
    """Number of classes that come before the true one, int [images]: 0 is a top-1 hit. Ties go to the lower label."""
    true = logits[np.arange(len(labels)), labels][:, None]
    lower = np.arange(logits.shape[1]) < labels[:, None]
    return np.sum((logits > true) | (logits == true) & lower, axis=1)


def forgetting(matrix):
    """Mean over the earlier increments j < k of max_{l < k} a(l, j) - a(k, j); nan at the first, which has none.

    Args:
        matrix: list of lists of float, a(l, j) for j <= l <= k.
    """
    *earlier, last = matrix
    if not earlier:
        return float('nan')
    return float(np.mean([max(row[j] for row in earlier[j:]) - last[j] for j in range(len(earlier))]))
