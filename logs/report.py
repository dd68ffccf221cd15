"""Log files -> tables and pictures: python -m logs.report [--out=FOLDER] LOG [LOG ...]

Prints Markdown: each run in the layout of the authors' README and, of several, the paper's Table 3. Writes rows.csv and the
pictures, PNG and SVG at the width of a paper's column, to FOLDER. Several logs of one kind, which differ in SEED alone, are
drawn as mean and standard deviation. What is wrong with a log is said on standard error, and the rest is shown.
"""
import csv
import os
import sys
import textwrap

import numpy as np

from data import FREE, Fault
from logs import read, tables

# Accuracy after the correction, in percent, in the published metric: the paper's ImageNet results, and BiC in its Table 3.
PUBLISHED = {
    'imagenet100': ('top5', range(10, 101, 10), [98.4, 96.2, 94.0, 92.9, 91.1, 89.4, 88.1, 86.5, 85.4, 84.4]),
    'imagenet1000': ('top5', range(100, 1001, 100), [94.1, 92.5, 89.6, 89.1, 85.7, 83.2, 80.2, 77.5, 75.0, 73.2]),
    'cifar100': ('top1', range(20, 101, 20), [84.00, 74.69, 67.93, 61.25, 56.69]),
}
COLUMNS = ('increment classes top1 top1_before top1_nme top5 top5_before top5_nme top1_val top1_val_before top5_val '
           'top5_val_before beta gamma loss_before loss_after at_bound train val test exemplars_per_class steps avg_top1 '
           'avg_top5 avg_top1_excl_first avg_top5_excl_first forgetting_top1 hours').split()
# Told apart without colours, too: Okabe and Ito's palette (but for its yellow, too faint for lines), markers and dashes.
COLORS = ['#000000', '#D55E00', '#0072B2', '#009E73', '#E69F00', '#56B4E9', '#CC79A7']
MARKERS = 'osD^vPX*'
DASHES = ['-', '--', '-.', (0, (4, 1, 1, 1, 1, 1)), (0, (1, 1)), (0, (7, 2))]
STYLE = {
    'font.size': 8, 'axes.titlesize': 8, 'axes.labelsize': 8, 'xtick.labelsize': 7, 'ytick.labelsize': 7, 'legend.fontsize': 7,
    'axes.linewidth': 0.6, 'lines.linewidth': 1.0, 'lines.markersize': 3.5, 'errorbar.capsize': 1.5, 'legend.frameon': False,
    'axes.spines.top': False, 'axes.spines.right': False, 'axes.grid': True, 'grid.color': '0.9', 'grid.linewidth': 0.5,
    'axes.axisbelow': True, 'savefig.dpi': 300, 'svg.hashsalt': 'bic'}
WIDTH = 3.3  # inches, a column of the paper
CELL = 15    # points, the least side of a cell that has room for its number


def main(arguments):
    """Reports on log files.

    Returns:
        int, the exit status: 1 if a log could not be used at all, 2 for wrong usage.
    """
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
            draw(of_dataset, os.path.join(folder, dataset + '-' if len(datasets) > 1 else ''))
    except BrokenPipeError:  # whoever reads it has seen enough
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
    """Prints the table of each run, and those of several beside each other."""
    for run in runs:
        metric = headline(run)
        print('\n## %s: %s, %s, %s\n' % (run['name'], run['settings'].get('DATASET', 'unknown'), run['settings']['METHOD'],
                                        metric.replace('top', 'top-')))
        lines = [('accuracy, %', metric, 100, '%.2f'), ('before correction, %', metric + '_before', 100, '%.2f'),
                 ('nearest mean of exemplars, %', metric + '_nme', 100, '%.2f'), ('beta', 'beta', 1, '%.6f'),
                 ('gamma', 'gamma', 1, '%.6f'), ('samples', 'train', 1, '%d')]
        shown = [line for line in lines if any(line[1] in row for row in run['rows'])]
        if shown:
            print(tables.table([dict([('classes', title)] + [
                (str(row['classes']), decimals % (factor * row[key]) if key in row else '-') for row in run['rows']])
                for title, key, factor, decimals in shown]))
    for kind, positions in tables.kinds([run['settings'] for run in runs]).items():
        seeds = [runs[position]['settings'].get('SEED', '') for position in positions]
        for seed in sorted(set(seeds)):
            if seeds.count(seed) > 1:
                _say('%s: %d runs with SEED=%s are counted as if it differed' % (kind, seeds.count(seed), seed))
    if len(runs) > 1:
        print('\n## Comparison\n\n%s' % tables.comparison([(run['settings'], run['rows']) for run in runs], headline(runs[0])))


def write_rows(runs, path):
    """One line per run and increment, with the settings in which the runs differ."""
    with open(path, 'w', newline='', encoding='utf-8') as file:
        write = csv.writer(file, lineterminator='\n')
        names = sorted({name for run in runs for name in run['settings'] if name not in FREE
                        and len({other['settings'].get(name) for other in runs}) > 1} | {'DATASET', 'METHOD', 'SEED'})
        write.writerow(['log'] + names + COLUMNS)
        for run in runs:
            settings = [run['settings'].get(name, '') for name in names]
            write.writerows([run['name']] + settings + [row.get(key, '') for key in COLUMNS] for row in run['rows'])


def draw(runs, prefix):
    """Writes the pictures that the runs have lines for. prefix: what the names of the files begin with."""
    import matplotlib  # the tables do without
    pictures = [(picture.__name__, picture, runs) for picture in (accuracy, bias, new_classes)]
    pictures += [('%s%s' % (run['name'] + '-' if len(runs) > 1 else '', picture.__name__), picture, run)
                 for run in runs for picture in (training, matrix, confusion)]
    with matplotlib.rc_context(STYLE):
        for name, picture, shown in pictures:
            try:
                figure = picture(shown)
            except Fault as fault:
                _say('%s%s: left out: %s' % (os.path.basename(prefix), name, fault))
                continue
            figure.savefig(prefix + name + '.png')
            figure.savefig(prefix + name + '.svg', metadata={'Date': None})


def accuracy(runs):
    """Accuracy over classes seen: of one kind before and after the correction, of several kinds after it.

    Returns:
        matplotlib.figure.Figure, like all that follow. Raises: Fault: which line is missing.
    """
    metric = headline(runs[0])
    figure, axes = _axes(2.1)
    of_kind = _kinds(runs, lambda run: run['rows'], '[result]')
    if len(of_kind) > 1:
        curves = [(kind, metric, members) for kind, members in of_kind.items()]
    else:
        (kind, members), = of_kind.items()
        corrected = any(row[metric] != row.get(metric + '_before', row[metric]) for run in members for row in run['rows'])
        curves = [('after correction', metric, members), ('before correction', metric + '_before', members)] if corrected else [
            (kind, metric, members)]
        curves.append(('nearest mean of exemplars', metric + '_nme', members))
    for number, (label, key, members) in enumerate(curves):
        _curve(axes, number, label, [{row['classes']: 100 * row[key] for row in run['rows'] if key in row} for run in members])
    classes = sorted({row['classes'] for run in runs for row in run['rows']})
    published, of, percent = PUBLISHED.get(runs[0]['settings'].get('DATASET'), ('', (), ()))
    if published == metric and set(classes) <= set(of):
        _curve(axes, None, 'published (BiC)', [dict(zip(of, percent))])
    axes.set(xlabel='classes seen', ylabel='%s accuracy (%%)' % metric.replace('top', 'top-'))
    _ticks(axes, classes)
    _legend(axes)
    return figure


def bias(runs):
    """Beta and gamma over increments."""
    figure, (above, below) = _axes(2.7, 2)
    of_kind = _kinds(runs, lambda run: any(row.get('beta', 1) != 1 or row.get('gamma', 0) != 0 for row in run['rows']), '[bias]')
    for axes, name, neutral in ((above, 'beta', 1), (below, 'gamma', 0)):
        axes.axhline(neutral, color='0.6', linewidth=0.6)
        for number, (kind, members) in enumerate(of_kind.items()):
            _curve(axes, number, kind, [{row['increment']: row[name] for row in run['rows'] if name in row} for run in members])
        axes.set_ylabel(name)
    below.set_xlabel('increment')
    figure.align_ylabels()
    _ticks(below, sorted({row['increment'] for run in runs for row in run['rows']}))
    if len(of_kind) > 1:
        _legend(above)
    return figure


def new_classes(runs):
    """Share of the test images that are taken for one of the newest classes, and the share that are of them."""
    figure, axes = _axes(2.1)
    of_kind = _kinds(runs, lambda run: any(k for k, _ in run['confusion']), '[confusion] correction=on')
    right, number = {}, 0
    for kind, members in of_kind.items():
        shares = {'on': [], 'off': []}
        for run in members:
            for correction, of_runs in shares.items():
                counts = {k: lines for (k, which), lines in run['confusion'].items() if which == correction and k}
                of_runs.append({k: 100 * lines[:, k].sum() / lines.sum() for k, lines in counts.items()})
                right.update({k: 100 * lines[k].sum() / lines.sum() for k, lines in counts.items()})
        labels = {'on': kind, 'off': kind + ', before'}
        corrected = shares['on'] != shares['off']
        if len(of_kind) == 1 and corrected:
            labels = {'on': 'after correction', 'off': 'before correction'}
        for correction in ('on', 'off') if corrected else ('on',):
            _curve(axes, number, labels[correction], shares[correction])
            number += 1
    _curve(axes, None, 'true share', [right])
    axes.set(xlabel='increment', ylabel='assigned to newest (%)')
    axes.set_ylim(bottom=0)
    _ticks(axes, sorted(right))
    _legend(axes)
    return figure


def training(run):
    """Losses and learning rate over the steps of the whole run."""
    from matplotlib import ticker
    if not run['train']:
        raise Fault('no [train] line')
    figure, (above, below) = _axes(2.7, 2, [2, 1])
    begin = {k: sum(run['steps'][before] for before in run['steps'] if before < k) for k in run['steps']}
    for number, (key, label) in enumerate((('loss', 'loss'), ('loss_class', 'classification'), ('loss_distill', 'distillation'),
                                           ('loss_l2', 'weight decay'), ('lr', None))):
        axes, style = (above, number) if label else (below, 0)
        for k in sorted({line['increment'] for line in run['train'] if key in line}):  # one by one, for they are not joined
            lines = [line for line in run['train'] if line['increment'] == k]
            axes.plot([begin[k] + line['step'] for line in lines], [line.get(key, np.nan) for line in lines], label=label,
                      color=COLORS[style], linestyle=DASHES[style], linewidth=0.8,
                      drawstyle='steps-pre' if key == 'lr' else 'default',
                      marker=MARKERS[style] if len(run['train']) < 40 else None)
            label = None
    for axes in (above, below):
        axes.grid(axis='x', visible=False)
        for k in begin:
            axes.axvline(begin[k], color='0.8', linewidth=0.5, zorder=0)
    above.set(ylabel='loss (nats)', ylim=(0, None))
    below.set(xlabel='training step; vertical lines: increments', ylabel='learning rate', yscale='log')
    below.yaxis.set_major_locator(ticker.LogLocator(numticks=5))
    below.yaxis.set_minor_locator(ticker.NullLocator())
    figure.align_ylabels()
    if max(begin.values()) > 5000:
        below.xaxis.set_major_formatter(lambda step, _: '%gk' % (step / 1000) if step else '0')
    _legend(above)
    return figure


def matrix(run):
    """Accuracy after each increment, on the classes of each increment."""
    lines = {k: values for (k, correction), values in run['matrix'].items() if correction == 'on'}
    if not lines:
        raise Fault('no [matrix] correction=on line')
    size = max(max(lines), max(map(len, lines.values())) - 1) + 1
    percent = np.full((size, size), np.nan)
    for k, values in lines.items():
        percent[k, :len(values)] = 100 * np.array(values)
    figure, axes = _axes(2.7)
    image = _image(axes, percent, WIDTH - 1)
    axes.set(xlabel='classes of increment', ylabel='after increment')
    figure.colorbar(image, ax=axes, label='top-1 accuracy (%)').outline.set_linewidth(0.4)
    return figure


def confusion(run):
    """Confusion matrix at the last increment, before and after the correction: by class if there are predictions.

    Otherwise by increment. Rows are true, columns predicted; each row is a share of its images, in percent.
    """
    from matplotlib import colors
    counts, kind, borders = [], 'increment', ()
    if run['predictions']:
        kind, last = 'class', max(run['predictions'])
        labels = run['predictions'][last]
        size = next((row['classes'] for row in run['rows'] if row['increment'] == last), 0)
        if labels.max() >= size:
            raise Fault('predictions.csv has label %d at increment %d, which has %d classes' % (labels.max(), last, size))
        for column in (1, 2):
            counts.append(np.bincount(labels[:, 0] * size + labels[:, column], minlength=size * size).reshape(size, size))
        borders = [row['classes'] - 0.5 for row in run['rows'] if row['increment'] < last]
    else:
        last = max((k for k, _ in run['confusion']), default=0)
        for correction in ('off', 'on'):
            if (last, correction) not in run['confusion']:
                raise Fault('no [confusion] correction=%s line, and no predictions.csv beside the log' % correction)
            counts.append(run['confusion'][last, correction])
    norm = colors.PowerNorm(0.5, 0, 100)  # what goes astray is a few percent of each class; white to black would hide it
    figure, both = _axes(2.65, 1, [1, 1])
    for axes, title, of_images in zip(both, ('before correction', 'after correction'), counts):
        with np.errstate(invalid='ignore'):  # a class without test images
            image = _image(axes, 100 * of_images / of_images.sum(axis=1, keepdims=True), (WIDTH - 0.6) / 2, norm)
        for border in borders:
            axes.axhline(border, color='0.6', linewidth=0.3)
            axes.axvline(border, color='0.6', linewidth=0.3)
        axes.set(title=title, xlabel='predicted ' + kind)
    both[0].set_ylabel('true ' + kind)
    both[1].set_yticklabels([])
    bar = figure.colorbar(image, ax=both, label='share of the row\'s images (%)', location='bottom', aspect=30, shrink=0.7,
                          ticks=[0, 5, 20, 50, 100])
    bar.outline.set_linewidth(0.4)
    return figure


def headline(run):
    """The metric of a run's tables and pictures."""
    return run['settings'].get('HEADLINE', 'top1')


def _kinds(runs, has, line):
    """The runs that have such lines, by kind: dict from name to list of run."""
    having = [run for run in runs if has(run)]
    if not having:
        raise Fault('no %s line' % line)
    named = tables.kinds([run['settings'] for run in runs])
    found = {kind: [runs[position] for position in positions if has(runs[position])] for kind, positions in named.items()}
    return {kind: members for kind, members in found.items() if members}


def _axes(height, rows=1, ratios=(1,)):
    """A figure one column wide, and its axes: one, `rows` above each other, or as many beside each other as there are ratios."""
    from matplotlib.figure import Figure
    figure = Figure((WIDTH, height), layout='constrained')
    if rows > 1:
        return figure, figure.subplots(rows, sharex=True, gridspec_kw=dict(height_ratios=ratios if len(ratios) == rows else None))
    return figure, figure.subplots(1, len(ratios))


def _curve(axes, number, label, of_runs):
    """Mean and standard deviation over runs.

    Args:
        number: int, which colour, marker and dashes; None: those of what others are compared with. of_runs: list of dict, x to y.
    """
    if number is None:
        style = dict(color='0.45', marker='x', linestyle=(0, (2, 1)), zorder=1)
    else:
        style = dict(color=COLORS[number % len(COLORS)], marker=MARKERS[number % len(MARKERS)],
                     linestyle=DASHES[number % len(DASHES)])
    xs = sorted(set().union(*of_runs))
    of_x = [[run[x] for run in of_runs if x in run] for x in xs]
    deviation = [np.std(ys, ddof=1) if len(ys) > 1 else 0 for ys in of_x] if len(of_runs) > 1 else None
    if xs:
        axes.errorbar(xs, [np.mean(ys) for ys in of_x], deviation, label=label, elinewidth=0.6, **style)


def _image(axes, percent, width, norm=None):
    """A matrix in percent, with its numbers where a cell of it, drawn so many inches wide, has room for them."""
    from matplotlib import colors
    size = len(percent)
    norm = norm or colors.Normalize(0, 100)
    image = axes.imshow(percent, cmap='Greys', norm=norm, interpolation='nearest')
    axes.grid(False)
    axes.spines[['top', 'right']].set_visible(True)
    ticks = np.arange(0, size, -(-size // 10) if size <= 20 else -(-size // 5))
    axes.set_xticks(ticks)
    axes.set_yticks(ticks)
    for row, column in np.argwhere(~np.isnan(percent)) if 72 * width / size >= CELL else ():
        axes.text(column, row, '%.0f' % percent[row, column], ha='center', va='center', fontsize=7,
                  color='white' if norm(percent[row, column]) > 0.55 else 'black')
    return image


def _ticks(axes, xs):
    """A tick at each x, as far as there is room."""
    axes.set_xticks(xs[::-(-len(xs) // 12)])
    axes.minorticks_off()


def _legend(axes):
    """Above the axes, where no data are, in as many columns as fit; the figure grows by it."""
    handles, labels = axes.get_legend_handles_labels()
    labels = [textwrap.fill(label, 48) for label in labels]
    longest = max(len(line) for label in labels for line in label.split('\n'))
    columns = max(1, min(len(labels), int((WIDTH - 0.4) / (0.5 + 0.052 * longest))))
    lines = -(-len(labels) // columns) * (1 + max(label.count('\n') for label in labels))
    axes.figure.set_figheight(axes.figure.get_figheight() + 0.14 * lines)
    axes.legend(handles, labels, loc='lower center', bbox_to_anchor=(0.5, 1), borderaxespad=0.2, columnspacing=1.2,
                handlelength=2.6, ncol=columns)


def _say(text):
    print(text, file=sys.stderr)


if __name__ == '__main__':
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors='backslashreplace')  # names in any language, on terminals in any
    sys.exit(main(sys.argv[1:]))
