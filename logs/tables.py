"""Tables in Markdown, aligned for the eye as well: of one run, and of several beside each other. Needs no TensorFlow."""
import numbers

import numpy as np

from data import settings

_DECIMALS = {'beta': 6, 'gamma': 6, 'lr': 6, 'images_per_sec': 1, 'seconds': 1, 'hours': 2, 'hours_left': 2}  # 4 where not named
SPREAD = '± is the sample standard deviation over the seeds; forgetting and nearest mean are those after the last increment.'


def text(key, value):
    """A value as in log lines and tables: floats with the key's decimals, lists joined by commas."""
    if isinstance(value, (list, tuple)):
        return ','.join(text(key, one) for one in value)
    if isinstance(value, numbers.Real) and not isinstance(value, numbers.Integral):
        return '%.*f' % (_DECIMALS.get(key, 4), float(value))
    return str(value)


def table(rows):
    """A Markdown table, str, without a final newline. rows: list of dict with the same keys; floats are shown as in log lines."""
    cells = [list(rows[0])] + [[text(key, value) for key, value in row.items()] for row in rows]
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    lines = ['| %s |' % ' | '.join(cell.rjust(width) for cell, width in zip(line, widths)) for line in cells]
    return '\n'.join([lines[0], '|%s|' % '|'.join('-' * (width + 1) + ':' for width in widths)] + lines[1:])


def kinds(each):
    """Groups runs into kinds. Runs of one kind differ only in SEED and in settings that do not affect results.

    If an old log lacks a setting, the value of the first run that has it is used.

    Args: each: list of dict from setting to value, one per run.

    Returns: dict from the kind's name, the settings in which the kinds differ, to the positions of its runs, list of int.
    """
    first = {}
    for one in each:
        for name, value in one.items():
            first.setdefault(name, settings.as_text(value))
    of_runs = [{name: settings.as_text(one.get(name, value)) for name, value in first.items()
                if name != 'SEED' and name not in settings.FREE} for one in each]
    differ = [name for name in of_runs[0] if len({one[name] for one in of_runs}) > 1] or ['METHOD']
    members = {}
    for position, one in enumerate(of_runs):
        members.setdefault(tuple(one.get(name, '') for name in differ), []).append(position)
    named = {}
    for values, positions in members.items():
        own = [(name, value) for name, value in zip(differ, values) if name in each[positions[0]]]
        of_kind = ', '.join(value if differ == ['METHOD'] else '%s=%s' % (name, value) for name, value in own)
        named[of_kind or 'all'] = positions
    return named


def comparison(runs, metric):
    """The paper's Table 3 in Markdown, str: a line per kind of run, accuracy after the correction in percent.

    A kind of several runs has mean ± sample standard deviation. Averages are over the runs that got furthest, with no increment
    missing. Forgetting and the nearest mean of exemplars are those after the last increment.

    Args:
        runs: list of (settings, rows): dict from name to value, and list of dict, one per increment, with `classes`, the number
            of classes seen, and the metric as a fraction; if known, also forgetting_top1 and the metric with _nme.
        metric: 'top1' or 'top5'.
    """
    columns = sorted({row['classes'] for _, rows in runs for row in rows})
    lines = []
    for name, positions in kinds([one for one, _ in runs]).items():
        of_runs = [{row['classes']: row for row in runs[position][1] if metric in row} for position in positions]
        whole = [[run[classes] for classes in sorted(run)] for run in of_runs
                 if run and len(run) == len(set().union(*of_runs)) and max(run) == columns[-1]]
        line = {metric + ', %': name}
        line.update((str(classes), _spread([run[classes][metric] for run in of_runs if classes in run])) for classes in columns)
        line['average'] = _spread([_average(rows, metric, 0) for rows in whole])
        line['without first'] = _spread([_average(rows, metric, 1) for rows in whole if rows[1:]])
        for title, key in (('forgetting', 'forgetting_top1'), ('nearest mean', metric + '_nme')):
            line[title] = _spread([rows[-1][key] for rows in whole if np.isfinite(rows[-1].get(key, np.nan))])
        lines.append(dict(line, runs=len(of_runs)))
    return table(lines)


def headline(run):
    """The metric of a run's tables and pictures, 'top1' or 'top5'. run: dict, see logs/read.py."""
    return run['settings'].get('HEADLINE', 'top1')


def corrected(run):
    """Whether a run's outputs were corrected, bool. run: dict, see logs/read.py."""
    metric = headline(run)
    return any(row.get('beta', 1) != 1 or row.get('gamma', 0) != 0
               or row.get(metric) != row.get(metric + '_before', row.get(metric)) for row in run['rows'])


def _average(rows, metric, first):
    """Mean of a run's accuracy from position `first` on. Prefers the log's own mean, of unrounded values."""
    key = 'avg_%s%s' % (metric, '_excl_first' if first else '')
    if key in rows[-1] and rows[-1]['increment'] == len(rows) - 1:
        return rows[-1][key]
    return np.mean([row[metric] for row in rows[first:]])


def _spread(fractions):
    """Mean in percent, with the sample standard deviation if there are several; rounds fractions as log lines do."""
    percent = 100 * np.round(fractions, 4)
    if len(percent) > 1:
        return '%.2f ± %.2f' % (percent.mean(), percent.std(ddof=1))
    return '%.2f' % percent[0] if len(percent) else '-'
