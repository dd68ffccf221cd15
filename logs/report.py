"""Log files -> tables and pictures: python -m logs.report [--out=FOLDER] LOG [LOG ...]

Prints Markdown: each run in the layout of the authors' README and, of several, the paper's Table 3.
Writes rows.csv and the pictures, PNG, SVG and PDF at the width of a paper's column, to FOLDER.
Several logs of one kind, which differ in SEED alone, are drawn as mean and standard deviation.
Problems of a log are reported on standard error, and the rest is shown.
"""
import csv
import os
import sys

from data import Fault, settings
from logs import read, tables


def main(arguments):
    """Reports on log files.

    Args:
        arguments: list of str, see above.

    Returns:
        int, the exit status: 1 if a log or matplotlib is unusable, 2 for wrong usage or failed
        writes.
    """
    options = [argument for argument in arguments if argument.startswith('--')]
    paths = [argument for argument in arguments if not argument.startswith('--')]
    option, *more = options or ['--out=logs/report']
    folder = option[len('--out='):]
    if more or not option.startswith('--out=') or not folder or not paths:
        _say('usage: python -m logs.report [--out=FOLDER] LOG [LOG ...]')
        return 2
    try:
        os.makedirs(folder, exist_ok=True)
        return report(paths, folder)
    except BrokenPipeError:  # the reader, such as head, has closed it
        sys.stdout = None
        return 0
    except (ImportError, ValueError) as error:  # what matplotlib raises when it is loaded
        _say('no pictures: %s' % error)
        return 1
    except OSError as error:
        _say('%s: cannot be written (%s)' % (error.filename, error.strerror))
        return 2


def report(paths, folder):
    """Prints the tables of logs, and writes rows.csv and pictures to a folder.

    Returns:
        int, 1 if a log is unusable, else 0.
    """
    runs, useless = read.runs(paths, _say)
    datasets = {}
    for run in runs:
        datasets.setdefault(run['settings'].get('DATASET', 'unknown'), []).append(run)
    if len(datasets) > 1:
        _say('logs of several datasets (%s): tables and pictures for each' % ', '.join(datasets))
    for members in datasets.values():
        print_tables(members)
    if runs:
        write_rows(runs, os.path.join(folder, 'rows.csv'))
    sys.stdout.flush()
    for dataset, members in datasets.items():
        prefix = dataset + '-' if len(datasets) > 1 else ''
        draw_all(members, os.path.join(folder, prefix))
    if runs:
        _say('rows.csv and the pictures are in %s' % folder)
    return 1 if useless else 0


def print_tables(runs):
    """Prints the table of each run and, of several, a comparison."""
    for run in runs:
        metric = tables.headline(run)
        print('\n## %s: %s, %s, %s\n' % (
            run['name'], run['settings'].get('DATASET', 'unknown'), run['settings']['METHOD'],
            metric.replace('top', 'top-')))
        lines = _table_lines(run, metric)
        print(tables.table(lines) if lines else 'No increment is finished.')
    for kind, positions in tables.kinds([run['settings'] for run in runs]).items():
        seeds = [runs[position]['settings'].get('SEED', '') for position in positions]
        for seed in sorted(set(seeds)):
            if seeds.count(seed) > 1:
                _say('%s: %d runs with SEED=%s are counted as if it differed'
                     % (kind, seeds.count(seed), seed))
    finished = [(run['settings'], run['rows']) for run in runs if run['rows']]
    if len(finished) > 1:
        compared = tables.comparison(finished, tables.headline(runs[0]))
        print('\n## Comparison\n\n%s\n\n%s' % (compared, tables.SPREAD))


def _table_lines(run, metric):
    """The lines of a run's table, list of dict: a line per number, a column per increment."""
    numbers = [
        ('accuracy, %', metric, 100, '%.2f'),
        ('before correction, %', metric + '_before', 100, '%.2f'),
        ('nearest mean of exemplars, %', metric + '_nme', 100, '%.2f'),
        ('beta', 'beta', 1, '%.6f'),
        ('gamma', 'gamma', 1, '%.6f'),
        ('samples', 'train', 1, '%d')]
    hidden = () if tables.corrected(run) else (metric + '_before', 'beta', 'gamma')
    lines = []
    for title, key, factor, decimals in numbers:
        is_known = any(key in row for row in run['rows'])
        if key in hidden or not is_known:
            continue
        line = {'classes': title}
        for row in run['rows']:
            text = decimals % (factor * row[key]) if key in row else '-'
            line[str(row['classes'])] = text
        lines.append(line)
    return lines


def write_rows(runs, path):
    """Writes one line per run and increment, with the settings in which the runs differ.

    The other columns are all that the logs say of an increment, in the order in which it appears.
    """
    columns = {}
    values_of = {}
    for run in runs:
        for row in run['rows']:
            columns.update(dict.fromkeys(row))
        for name in run['settings']:
            values_of.setdefault(name, set())
    for name, values in values_of.items():
        values.update(run['settings'].get(name) for run in runs)
    differing = {name for name, values in values_of.items()
                 if len(values) > 1 and name not in settings.FREE}
    names = sorted(differing | {'DATASET', 'METHOD', 'SEED'})
    with open(path, 'w', newline='', encoding='utf-8') as file:
        table = csv.writer(file, lineterminator='\n')
        table.writerow(['log'] + names + list(columns))
        for run in runs:
            own_settings = [run['settings'].get(name, '') for name in names]
            for row in run['rows']:
                results = [row.get(key, '') for key in columns]
                table.writerow([run['name']] + own_settings + results)


def draw_all(runs, prefix):
    """Writes the pictures for which the runs have lines.

    Args:
        runs: list of dict, see logs/read.py.
        prefix: str, the beginning of the files' names.
    """
    from logs import draw, plot  # they need matplotlib, and the tables do without
    pictures = []
    for picture in (draw.accuracy, draw.bias, draw.new_classes):
        pictures.append((picture.__name__, picture, runs))
    for run in runs:
        own_prefix = run['name'] + '-' if len(runs) > 1 else ''
        for picture in (draw.training, draw.matrix, draw.confusion):
            pictures.append((own_prefix + picture.__name__, picture, run))
    with plot.styled():
        for name, picture, shown in pictures:
            try:
                figure = picture(shown)
            except Fault as fault:
                _say('%s%s: not drawn: %s' % (os.path.basename(prefix), name, fault))
                continue
            figure.savefig(prefix + name + '.png')
            figure.savefig(prefix + name + '.svg', metadata={'Date': None})
            figure.savefig(prefix + name + '.pdf', metadata={'CreationDate': None})


def _say(text):
    print(text, file=sys.stderr)


if __name__ == '__main__':
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors='backslashreplace')  # names in any language, on any terminal
    sys.exit(main(sys.argv[1:]))
