"""Log files -> tables and pictures: python -m logs.report [--out=FOLDER] LOG [LOG ...]

Prints Markdown: each run in the layout of the authors' README and, of several, the paper's Table 3. Writes rows.csv and the
pictures, PNG and SVG at the width of a paper's column, to FOLDER. Several logs of one kind, which differ in SEED alone, are
drawn as mean and standard deviation. Problems of a log are reported on standard error, and the rest is shown.
"""
import csv
import os
import sys

from data import Fault, settings
from logs import read, tables

COLUMNS = ('increment classes top1 top1_before top1_nme top5 top5_before top5_nme top1_val top1_val_before top5_val '
           'top5_val_before beta gamma loss_before loss_after at_bound train val test exemplars_per_class steps avg_top1 '
           'avg_top5 avg_top1_excl_first avg_top5_excl_first forgetting_top1 hours').split()


def main(arguments):
    """Reports on log files; returns an exit status: 1 if a log or matplotlib is unusable, 2 for wrong usage or failed writes."""
    out, *more = [argument for argument in arguments if argument.startswith('--')] or ['--out=logs/report']
    paths = [argument for argument in arguments if not argument.startswith('--')]
    folder = out[len('--out='):]
    if more or not out.startswith('--out=') or not folder or not paths:
        _say('usage: python -m logs.report [--out=FOLDER] LOG [LOG ...]')
        return 2
    try:
        os.makedirs(folder, exist_ok=True)
        runs, useless = read.runs(paths, _say)
        datasets = {}
        for run in runs:
            datasets.setdefault(run['settings'].get('DATASET', 'unknown'), []).append(run)
        if len(datasets) > 1:
            _say('logs of several datasets (%s): tables and pictures for each' % ', '.join(datasets))
        for of_dataset in datasets.values():
            tell(of_dataset)
        if runs:
            write_rows(runs, os.path.join(folder, 'rows.csv'))
        sys.stdout.flush()
        for dataset, of_dataset in datasets.items():
            draw_all(of_dataset, os.path.join(folder, dataset + '-' if len(datasets) > 1 else ''))
        if runs:
            _say('rows.csv and the pictures are in %s' % folder)
    except BrokenPipeError:  # the reader, such as head, has closed it
        sys.stdout = None
        return 0
    except ImportError as error:
        _say('no pictures: %s' % error)
        return 1
    except OSError as error:
        _say('%s: cannot be written (%s)' % (error.filename, error.strerror))
        return 2
    return 1 if useless else 0


def tell(runs):
    """Prints the table of each run and, of several, a comparison."""
    for run in runs:
        metric = tables.headline(run)
        print('\n## %s: %s, %s, %s\n' % (run['name'], run['settings'].get('DATASET', 'unknown'), run['settings']['METHOD'],
                                        metric.replace('top', 'top-')))
        lines = [('accuracy, %', metric, 100, '%.2f'), ('before correction, %', metric + '_before', 100, '%.2f'),
                 ('nearest mean of exemplars, %', metric + '_nme', 100, '%.2f'), ('beta', 'beta', 1, '%.6f'),
                 ('gamma', 'gamma', 1, '%.6f'), ('samples', 'train', 1, '%d')]
        hidden = () if tables.corrected(run) else (metric + '_before', 'beta', 'gamma')
        shown = [line for line in lines if line[1] not in hidden and any(line[1] in row for row in run['rows'])]
        if not shown:
            print('No increment is finished.')
        else:
            print(tables.table([dict([('classes', title)] + [
                (str(row['classes']), decimals % (factor * row[key]) if key in row else '-') for row in run['rows']])
                for title, key, factor, decimals in shown]))
    for kind, positions in tables.kinds([run['settings'] for run in runs]).items():
        seeds = [runs[position]['settings'].get('SEED', '') for position in positions]
        for seed in sorted(set(seeds)):
            if seeds.count(seed) > 1:
                _say('%s: %d runs with SEED=%s are counted as if it differed' % (kind, seeds.count(seed), seed))
    finished = [(run['settings'], run['rows']) for run in runs if run['rows']]
    if len(finished) > 1:
        compared = tables.comparison(finished, tables.headline(runs[0]))
        print('\n## Comparison\n\n%s\n\n%s' % (compared, tables.SPREAD))


def write_rows(runs, path):
    """One line per run and increment, with the settings in which the runs differ."""
    with open(path, 'w', newline='', encoding='utf-8') as file:
        write = csv.writer(file, lineterminator='\n')
        names = sorted({name for run in runs for name in run['settings'] if name not in settings.FREE
                        and len({other['settings'].get(name) for other in runs}) > 1} | {'DATASET', 'METHOD', 'SEED'})
        write.writerow(['log'] + names + COLUMNS)
        for run in runs:
            values = [run['settings'].get(name, '') for name in names]
            write.writerows([run['name']] + values + [row.get(key, '') for key in COLUMNS] for row in run['rows'])


def draw_all(runs, prefix):
    """Writes the pictures for which the runs have lines. prefix: str, the beginning of the files' names."""
    from logs import draw  # needs matplotlib, and the tables do without
    pictures = [(picture.__name__, picture, runs) for picture in (draw.accuracy, draw.bias, draw.new_classes)]
    pictures += [('%s%s' % (run['name'] + '-' if len(runs) > 1 else '', picture.__name__), picture, run)
                 for run in runs for picture in (draw.training, draw.matrix, draw.confusion)]
    with draw.styled():
        for name, picture, shown in pictures:
            try:
                figure = picture(shown)
            except Fault as fault:
                _say('%s%s: not drawn: %s' % (os.path.basename(prefix), name, fault))
                continue
            figure.savefig(prefix + name + '.png')
            figure.savefig(prefix + name + '.svg', metadata={'Date': None})


def _say(text):
    print(text, file=sys.stderr)


if __name__ == '__main__':
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors='backslashreplace')  # names in any language, on terminals in any
    sys.exit(main(sys.argv[1:]))
