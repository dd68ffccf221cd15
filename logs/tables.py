"""Tables in Markdown, aligned for the eye as well: of one run, and of several beside each other.

Needs no TensorFlow.
"""
import numbers

import numpy as np

from data import settings

# Decimals of a float in log lines and tables, by key; 4 where none is named.
_DECIMALS = {'beta': 6, 'gamma': 6, 'lr': 6, 'images_per_sec': 1, 'seconds': 1, 'hours': 2,
             'hours_left': 2}
SPREAD = ('± is the sample standard deviation over the seeds; forgetting and nearest mean are '
          'those after the last increment.')


def text(key, value):
    """A value as in log lines and tables, str: floats with the key's decimals, lists by commas."""
    if isinstance(value, (list, tuple)):
        return ','.join(text(key, element) for element in value)
    is_whole = isinstance(value, numbers.Integral)
    if isinstance(value, numbers.Real) and not is_whole:
        return '%.*f' % (_DECIMALS.get(key, 4), float(value))
    return str(value)


def table(rows):
    """A Markdown table, str, without a final newline.

    Args:
        rows: list of dict with the same keys, the head of the table. Floats are shown as in log
            lines.
    """
    lines = [list(rows[0])]
    for row in rows:
        lines.append([text(key, value) for key, value in row.items()])
    widths = [max(map(len, column)) for column in zip(*lines)]
    texts = []
    for line in lines:
        cells = [cell.rjust(width) for cell, width in zip(line, widths)]
        texts.append('| %s |' % ' | '.join(cells))
    rulers = ['-' * (width + 1) + ':' for width in widths]
    texts.insert(1, '|%s|' % '|'.join(rulers))
    return '\n'.join(texts)


def kinds(settings_of_runs):
    """Groups runs into kinds, in their order.

    Runs of one kind differ only in SEED and in settings that do not affect results. If an old log
    lacks a setting, the value of the first run that has it is used.

    Args:
        settings_of_runs: list of dict from setting to value, one per run.

    Returns:
        dict from the kind's name, the settings in which the kinds differ, to the positions of its
        runs, list of int.
    """
    defaults = {}
    for run in settings_of_runs:
        for name, value in run.items():
            defaults.setdefault(name, value)
    names = [name for name in defaults if name != 'SEED' and name not in settings.FREE]
    complete = []
    for run in settings_of_runs:
        complete.append([settings.as_text(run.get(name, defaults[name])) for name in names])
    differing = [number for number, values in enumerate(zip(*complete)) if len(set(values)) > 1]
    if not differing:
        differing = [number for number, name in enumerate(names) if name == 'METHOD']
    members = {}
    for position, values in enumerate(complete):
        own_values = tuple(values[number] for number in differing)
        members.setdefault(own_values, []).append(position)
    named = {}
    only_method = [names[number] for number in differing] == ['METHOD']
    for values, positions in members.items():
        own_settings = settings_of_runs[positions[0]]
        words = []
        for number, value in zip(differing, values):
            if names[number] in own_settings:
                words.append(value if only_method else '%s=%s' % (names[number], value))
        named[', '.join(words) or 'all'] = positions
    return named


def comparison(runs, metric):
    """The paper's Table 3 in Markdown, str: a line per kind of run, in percent.

    The accuracy is that after the correction. A kind of several runs has mean ± sample standard
    deviation. Averages are over the runs that got furthest, with no increment missing. Forgetting
    and the nearest mean of exemplars are those after the last increment.

    Args:
        runs: list of (settings, rows): dict from name to value; and list of dict, one per
            increment, with `classes`, the number of classes seen, and the metric as a fraction; if
            known, also forgetting_top1 and the metric with _nme.
        metric: 'top1' or 'top5'.
    """
    columns = set()
    for _, rows in runs:
        columns.update(row['classes'] for row in rows)
    columns = sorted(columns)
    lines = []
    for name, positions in kinds([run_settings for run_settings, _ in runs]).items():
        members = [_rows_by_classes(runs[position][1], metric) for position in positions]
        whole = _complete(members, columns[-1])
        line = {metric + ', %': name}
        for classes in columns:
            values = [rows[classes][metric] for rows in members if classes in rows]
            line[str(classes)] = _spread(values)
        line['average'] = _spread([_average(rows, metric, 0) for rows in whole])
        later = [_average(rows, metric, 1) for rows in whole if len(rows) > 1]
        line['without first'] = _spread(later)
        for title, key in (('forgetting', 'forgetting_top1'), ('nearest mean', metric + '_nme')):
            values = [rows[-1].get(key, np.nan) for rows in whole]
            line[title] = _spread([value for value in values if np.isfinite(value)])
        line['runs'] = len(members)
        lines.append(line)
    return table(lines)


def _rows_by_classes(rows, metric):
    """The rows that have the metric, dict from the number of classes seen."""
    return {row['classes']: row for row in rows if metric in row}


def _complete(members, last):
    """The rows of those runs that have all increments of their kind up to the last one."""
    all_classes = set().union(*members)
    complete = []
    for rows in members:
        if rows and len(rows) == len(all_classes) and max(rows) == last:
            complete.append([rows[classes] for classes in sorted(rows)])
    return complete


def _average(rows, metric, first):
    """Mean accuracy from position `first` on: the log's own, of unrounded values, if there."""
    key = 'avg_%s%s' % (metric, '_excl_first' if first else '')
    if key in rows[-1] and rows[-1]['increment'] == len(rows) - 1:
        return rows[-1][key]
    return np.mean([row[metric] for row in rows[first:]])


def _spread(fractions):
    """Mean in percent, ± the sample standard deviation of several. Rounds as log lines do."""
    percent = 100 * np.round(fractions, 4)
    if len(percent) > 1:
        return '%.2f ± %.2f' % (percent.mean(), percent.std(ddof=1))
    return '%.2f' % percent[0] if len(percent) else '-'
