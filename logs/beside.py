"""The tables beside a run's log: classes.csv, predictions.csv and exemplars.csv."""
import csv
import os

import numpy as np

from data import Fault


def write(folder, data, now, scores, memory):
    """Adds an increment to the tables. Its lines from an interrupted run are replaced.

    Args:
        folder: str, must exist.
        data: dataset.Dataset.
        now: exemplar.Increment.
        scores: metrics.Scores of the test.
        memory: list by label of int arrays, images in order of choice.

    Raises:
        Fault: they cannot be written.
    """
    try:
        _replace_from(os.path.join(folder, 'classes.csv'), now.index,
                      ['label', 'name', 'images', 'top1_before', 'top1'],
                      _class_rows(data, now, scores))
        _replace_from(os.path.join(folder, 'predictions.csv'), now.index,
                      ['path', 'class', 'before', 'after', 'nme'],
                      _prediction_rows(data, now, scores))
        _replace_from(os.path.join(folder, 'exemplars.csv'), now.index,
                      ['label', 'position', 'path'],
                      _exemplar_rows(data, memory))
    except OSError as error:
        raise Fault('%s: cannot be written (%s); the same command resumes from the last checkpoint'
                    % (folder, error.strerror))


def _class_rows(data, now, scores):
    num_images = np.bincount(scores.labels, minlength=now.num_seen)
    return zip(range(now.num_seen), data.names, num_images, scores.before.top1_by_class,
               scores.after.top1_by_class)


def _prediction_rows(data, now, scores):
    test = np.concatenate(data.test[:now.num_seen])
    nme = scores.nme.predicted if scores.nme else [''] * len(test)
    return zip(data.relative(test), scores.labels, scores.before.predicted,
               scores.after.predicted, nme)


def _exemplar_rows(data, memory):
    for label, class_images in enumerate(memory):
        for position, path in enumerate(data.relative(class_images)):
            yield label, position, path


def _replace_from(path, increment, header, rows):
    """Writes a table: the old rows of earlier increments, then the new rows of this one."""
    kept = []
    if os.path.exists(path):
        with open(path, newline='', encoding='utf-8', errors='surrogateescape') as file:
            for row in csv.reader(file):
                if row and row[0].isdigit() and int(row[0]) < increment:
                    kept.append(row)
    partial = path + '.partial'
    with open(partial, 'w', newline='', encoding='utf-8', errors='surrogateescape') as file:
        table = csv.writer(file, lineterminator='\n')
        table.writerow(['increment'] + header)
        table.writerows(kept)
        for row in rows:
            table.writerow([increment, *row])
    os.replace(partial, path)
