"""Results: accuracies from logits, before and after the correction, and the lines that report them."""
import numpy as np

import bic_layer
from logs import tables


def score(write, now, fit, split, outputs, plan=()):
    """Accuracy over all classes seen, without and with the correction; writes [eval] and, given the plan, [matrix] lines.

    Args:
        fit: bic_layer.Fit. split: 'val' or 'test'. outputs: iterable like `evaluate`'s. plan: the increments to tell apart.

    Returns:
        accuracy: dict from correction, 'off' or 'on', to (top1, top5).
        by_increment: dict from correction to list of float, top-1 on the classes of each increment of the plan up to now.
        by_class: float array [num_seen], corrected top-1 on each class; nan for one without images in the split.
    """
    ranks, labels = {'off': [], 'on': []}, []
    for _, logits, of_batch in outputs:
        labels.append(of_batch)
        ranks['off'].append(rank(logits, of_batch))
        ranks['on'].append(rank(bic_layer.corrected_logits(logits, now.num_old, fit.beta, fit.gamma), of_batch))
    labels = np.concatenate(labels)
    accuracy, by_increment = {}, {}
    for correction in ('off', 'on'):
        of_image = np.concatenate(ranks[correction])
        top1, top5 = np.mean(of_image < 1), np.mean(of_image < 5)
        write('eval', increment=now.increment, split=split, correction=correction, images=len(labels), top1=top1, top5=top5)
        accuracy[correction] = top1, top5
        by_increment[correction] = [np.mean(of_image[(labels >= then.num_old) & (labels < then.num_seen)] < 1)
                                    for then in plan[:now.increment + 1]]
        if plan:
            write('matrix', increment=now.increment, correction=correction, top1_by_increment=by_increment[correction])
    with np.errstate(invalid='ignore'):
        by_class = np.bincount(labels, of_image < 1, now.num_seen) / np.bincount(labels, minlength=now.num_seen)
    return accuracy, by_increment, by_class


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
          **{key: last[key] for key in ('top1', 'top5', 'top1_before', 'top5_before', 'beta', 'gamma')},
          **averages, forgetting_top1=forgetting(matrix), hours=hours, hours_left=hours_left)
    for title, key in (('beta    : ', 'beta'), ('gamma   : ', 'gamma'), ('accuracy: ', s.HEADLINE)):
        write.text(' '.join([title] + [str(np.array([row[key]], np.float32)) for row in rows]))


def finish(write, data, rows, by_class):
    """The [class] lines and the table, which close the log. by_class: from `score`."""
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
