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
        datasets.setdefault(run.dataset, []).append(run)
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
        print('\n## %s: %s, %s, %s\n' % (
            run.name, run.dataset, run.settings['METHOD'], run.headline.replace('top', 'top-')))
        lines = _table_lines(run)
        print(tables.table(lines) if lines else 'No increment is finished.')
    for kind, positions in tables.kinds([run.settings for run in runs]).items():
        seeds = [runs[position].settings.get('SEED', '') for position in positions]
        for seed in sorted(set(seeds)):
            if seeds.count(seed) > 1:
                _say('%s: %d runs with SEED=%s are counted as if it differed'
                     % (kind, seeds.count(seed), seed))
    finished = [(run.settings, run.rows) for run in runs if run.rows]
    if len(finished) > 1:
        compared = tables.comparison(finished, runs[0].headline)
        print('\n## Comparison\n\n%s\n\n%s' % (compared, tables.SPREAD))


def _table_lines(run):
    """The lines of a run's table, list of dict: a line per number, a column per increment."""
    before = run.headline + '_before'
    titles = {
        run.headline: 'accuracy, %',
        before: 'before correction, %',
        run.headline + '_nme': 'nearest mean of exemplars, %',
        'beta': 'beta',
        'gamma': 'gamma',
        'train': 'samples',
    }
    hidden = () if run.is_corrected else (before, 'beta', 'gamma')
    lines = []
    for key, title in titles.items():
        is_fraction = key.startswith('top')
        if key in hidden or not run.curve(key):
            continue
        line = {'classes': title}
        for row in run.rows:
            text = '-'
            if key in row:
                text = '%.2f' % (100 * row[key]) if is_fraction else tables.text(key, row[key])
            line[str(row['classes'])] = text
        lines.append(line)
    return lines


def write_rows(runs, path):
    """Writes one line per run and increment, with the settings in which the runs differ.

    The other columns are all that the logs say of an increment, in the order in which it appears.
    """
    columns = {}
    for run in runs:
        for row in run.rows:
            columns.update(dict.fromkeys(row))
    names = _settings_to_show(runs)
    with open(path, 'w', newline='', encoding='utf-8') as file:
        table = csv.writer(file, lineterminator='\n')
        table.writerow(['log'] + names + list(columns))
        for run in runs:
            own_settings = [run.settings.get(name, '') for name in names]
            for row in run.rows:
                results = [settings.as_text(row.get(key, '')) for key in columns]
                table.writerow([run.name] + own_settings + results)


def _settings_to_show(runs):
    """Names of the settings that affect results and differ between runs, and of the main ones."""
    names = {'DATASET', 'METHOD', 'SEED'}
    for name in set().union(*[run.settings for run in runs]) - set(settings.FREE):
        if len({run.settings.get(name) for run in runs}) > 1:
            names.add(name)
    return sorted(names)


def draw_all(runs, prefix):
    """Writes the pictures for which the runs have lines.

    Args:
        runs: list of logged.Run.
        prefix: str, the beginning of the files' names.
    """
    from logs import draw, plot  # they need matplotlib, and the tables do without
    pictures = []
    for picture in (draw.accuracy, draw.bias, draw.new_classes):
        pictures.append((picture.__name__, picture, runs))
    for run in runs:
        own_prefix = run.name + '-' if len(runs) > 1 else ''
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
