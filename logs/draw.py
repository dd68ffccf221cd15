"""Pictures of runs, see logs/read.py: as wide as a paper's column, readable without colours. Each returns a matplotlib Figure."""
import contextlib
import textwrap
import warnings

import matplotlib
import numpy as np
from matplotlib import colors
from matplotlib.figure import Figure

from data import Fault
from logs import tables

# Accuracy after the correction, in percent, in the published metric: the paper's ImageNet results, and BiC in its Table 3.
PUBLISHED = {
    'imagenet100': ('top5', range(10, 101, 10), [98.4, 96.2, 94.0, 92.9, 91.1, 89.4, 88.1, 86.5, 85.4, 84.4]),
    'imagenet1000': ('top5', range(100, 1001, 100), [94.1, 92.5, 89.6, 89.1, 85.7, 83.2, 80.2, 77.5, 75.0, 73.2]),
    'cifar100': ('top1', range(20, 101, 20), [84.00, 74.69, 67.93, 61.25, 56.69]),
}
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
CELLS = 500  # a confusion matrix has at most so many rows; with more classes, neighbours in the class order share one
NAMED = 12   # classes of a confusion matrix whose names have room


@contextlib.contextmanager
def styled():
    """The context in which pictures are made and saved."""
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings('ignore', 'Glyph')  # a class name in a script that the font does not have
        yield


def accuracy(runs):
    """Accuracy over classes seen. Runs of one kind: before and after the correction; of several kinds: after it only.

    Like all functions below, it raises a Fault if the log lines that it needs are missing.
    """
    metric = tables.headline(runs[0])
    figure, axes = _axes(2.1)
    of_kind = _kinds(runs, lambda run: run['rows'], '[result]')
    if len(of_kind) > 1:
        curves = [(kind, metric, members) for kind, members in of_kind.items()]
    else:
        (kind, members), = of_kind.items()
        curves = [(kind, metric, members)]
        if any(tables.corrected(run) for run in members):
            curves = [('after correction', metric, members), ('before correction', metric + '_before', members)]
        curves.append(('nearest mean of exemplars', metric + '_nme', members))
    for number, (label, key, members) in enumerate(curves):
        _curve(axes, number, label, [{row['classes']: 100 * row[key] for row in run['rows'] if key in row} for run in members])
    classes = sorted({row['classes'] for run in runs for row in run['rows']})
    published, of, percent = PUBLISHED.get(runs[0]['settings'].get('DATASET'), ('', (), ()))
    if published == metric and {(row['increment'], row['classes']) for run in runs for row in run['rows']} <= set(enumerate(of)):
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
        axes.axhline(neutral, color='0.6', linewidth=0.6, label='no correction')
        for number, (kind, members) in enumerate(of_kind.items()):
            _curve(axes, number, kind, [{row['increment']: row[name] for row in run['rows'] if name in row} for run in members])
        axes.set_ylabel(name)
    below.set_xlabel('increment')
    figure.align_ylabels()
    _ticks(below, sorted({row['increment'] for run in runs for row in run['rows']}))
    _legend(above)
    return figure


def new_classes(runs):
    """Share of the test images that are assigned to one of the newest classes, and the true share."""
    figure, axes = _axes(2.1)
    of_kind = _kinds(runs, lambda run: any(k for k, _ in run['confusion']), '[confusion] correction=on')
    right = {}
    for number, (kind, members) in enumerate(of_kind.items()):
        shares = {'on': [], 'off': []}
        for run in members:
            for correction, of_runs in shares.items():
                counts = {k: lines for (k, which), lines in run['confusion'].items() if which == correction and k}
                of_runs.append({k: 100 * lines[:, k].sum() / lines.sum() for k, lines in counts.items()})
                right.update({k: 100 * lines[k].sum() / lines.sum() for k, lines in counts.items()})
        labels = {'on': kind, 'off': kind + ' before correction'}
        corrected = shares['on'] != shares['off']
        if len(of_kind) == 1 and corrected:
            labels = {'on': 'after correction', 'off': 'before correction'}
        _curve(axes, number, labels['on'], shares['on'])
        if corrected:
            _curve(axes, number + len(of_kind), labels['off'], shares['off'])
    _curve(axes, None, 'true share', [right])
    axes.set(xlabel='increment', ylabel='test images assigned\nto the newest classes (%)')
    axes.set_ylim(bottom=0)
    _ticks(axes, sorted(right))
    _legend(axes)
    return figure


def training(run):
    """Losses and learning rate over the steps of the whole run."""
    if not run['train']:
        raise Fault('no [train] line')
    figure, (above, below) = _axes(2.7, 2, ratios=[2, 1])
    begin = {k: sum(run['steps'][before] for before in run['steps'] if before < k) for k in run['steps']}
    of_increment = {k: [line for line in run['train'] if line['increment'] == k] for k in run['steps']}
    for number, (key, label) in enumerate((
            ('loss', 'loss'), ('loss_class', 'classification, not weighted'), ('loss_distill', 'distillation, not weighted'),
            ('loss_l2', 'weight decay'))):
        for k, lines in of_increment.items():  # increments are not joined
            if any(np.isfinite(line.get(key, np.nan)) and (line[key] or key == 'loss') for line in lines):
                above.plot([begin[k] + line['step'] for line in lines], [line.get(key, np.nan) for line in lines], label=label,
                           color=COLORS[number], linestyle=DASHES[number], linewidth=0.8,
                           marker=MARKERS[number] if len(run['train']) < 40 else None)
                label = None
    rates = set()
    for k, lines in of_increment.items():
        steps, values = _rates(lines, run['drops'].get(k), run['steps'][k])
        rates |= {float('%.3g' % value) for value in values if 0 < value < np.inf}
        below.plot(begin[k] + np.array(steps), values, color=COLORS[0], linewidth=0.8, drawstyle='steps-post')
    for axes in (above, below):
        axes.grid(axis='x', visible=False)
        for k in begin:
            axes.axvline(begin[k], color='0.8', linewidth=0.5, zorder=0)
    above.set(ylabel='loss (nats)', ylim=(0, None))
    below.set(xlabel='training step; vertical lines: increments', ylabel='learning rate')
    if above.get_legend_handles_labels()[0]:
        _legend(above)
    else:
        _note(above, 'no finite loss in the log')
    if rates:
        below.set_yscale('log')
        below.set_yticks(sorted(rates)[-6:], ['%g' % rate for rate in sorted(rates)[-6:]])
        below.minorticks_off()
    else:
        _note(below, 'no learning rate in the log')
    figure.align_ylabels()
    if max(begin.values()) > 5000:
        below.xaxis.set_major_formatter(lambda step, _: '%gk' % (step / 1000) if step else '0')
    return figure


def _rates(lines, drops, last):
    """Steps at which an increment's learning rate begins, drops and ends, and the rates from there on. last: int, its steps."""
    if not lines:
        return [], []
    if drops is None:  # of the authors' logs, only the lines with a rate are known
        return [line['step'] for line in lines], [line['lr'] for line in lines]
    steps = [0] + [drop + 1 for drop in drops if drop + 1 < last]
    first = lines[0]['lr'] * 10.0 ** sum(lines[0]['step'] > step for step in steps[1:])
    rates = [first * 0.1 ** number for number in range(len(steps))]
    return steps + [last], rates + rates[-1:]


def matrix(run):
    """Accuracy after each increment, on the classes of each increment."""
    lines = {k: values for (k, correction), values in run['matrix'].items() if correction == 'on'}
    if not lines:
        raise Fault('no [matrix] correction=on line')
    size = max(lines) + 1
    percent = np.full((size, size), np.nan)
    for k, values in lines.items():
        percent[k, :len(values)] = 100 * np.array(values)
    figure, axes = _axes(2.7)
    image = _image(axes, percent, WIDTH - 1, size)
    axes.set(xlabel='classes of increment', ylabel='after increment')
    label = 'top-1 accuracy%s (%%)' % (' after correction' if tables.corrected(run) else '')
    figure.colorbar(image, ax=axes, label=label).outline.set_linewidth(0.4)
    return figure


def confusion(run):
    """Confusion matrix at the last increment, before and after the correction; by increment if there are no predictions.

    Rows are true, columns predicted; each row is a share of its images, in percent.
    """
    ends = {row['increment']: row['classes'] for row in run['rows']}
    if run['predictions']:
        last = max(run['predictions'])
        labels, size = run['predictions'][last], ends.get(last, 0)
        if labels.max() >= size:
            raise Fault('predictions.csv has label %d at increment %d, which has %d classes' % (labels.max(), last, size))
        return confusion_by_class(labels[:, 0], labels[:, 1:].T, run['names'][:size],
                                  [classes for k, classes in ends.items() if k < last], size)
    last, both = max((k for k, _ in run['confusion']), default=0), []
    for correction in ('off', 'on'):
        if (last, correction) not in run['confusion']:
            raise Fault('no [confusion] correction=%s line, and no predictions.csv beside the log' % correction)
        both.append(run['confusion'][last, correction])
    return _confusion(both, 'increment', last + 1)


def confusion_by_class(labels, predicted, names, ends, size):
    """Confusion matrix by class, before and after the correction.

    Args:
        labels: int array [images]. predicted: two int arrays [images], before and after the correction. size: int, classes.
        names: list of str, by label, or empty. ends: list of int, classes seen after each earlier increment.
    """
    cells = min(size, CELLS)
    counts = np.zeros([2, cells, cells], int)
    for of_images, said in zip(counts, predicted):
        np.add.at(of_images, (labels * cells // size, said * cells // size), 1)
    return _confusion(counts, 'class', size, ends, names)


def _confusion(both, kind, size, ends=(), names=()):
    norm = colors.PowerNorm(0.5, 0, 100)  # what is confused is a few percent of each class; white to black would hide it
    titles = ('before correction', 'after correction')
    if np.array_equal(*both):
        both, titles = both[:1], ('',)
    figure, pair = _axes(2.65, columns=len(both))
    pair = np.atleast_1d(pair)
    for axes, title, counts in zip(pair, titles, both):
        percent = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        image = _image(axes, percent, (WIDTH - 0.6) / len(both), size, norm)
        for end in ends:
            axes.axhline(end - 0.5, color='0.6', linewidth=0.3)
            axes.axvline(end - 0.5, color='0.6', linewidth=0.3)
        axes.set(title=title, xlabel='predicted ' + kind)
        if len(names) == size <= NAMED:
            shown = [textwrap.shorten(name, 14, placeholder='..') or name[:14] for name in names]
            axes.set_xticks(range(size), shown, rotation=90, fontsize=6)
            axes.set_yticks(range(size), shown, fontsize=6)
    pair[0].set_ylabel('true ' + kind)
    for axes in pair[1:]:
        axes.set_yticklabels([])
    bar = figure.colorbar(image, ax=pair, label='share of the row\'s images (%, square-root scale)', location='bottom',
                          aspect=30, shrink=0.7, ticks=[0, 5, 20, 50, 100])
    bar.outline.set_linewidth(0.4)
    return figure


def _kinds(runs, has, line):
    """The runs that have such lines, by kind: dict from name to list of run."""
    named = tables.kinds([run['settings'] for run in runs])
    found = {kind: [runs[position] for position in positions if has(runs[position])] for kind, positions in named.items()}
    if not any(found.values()):
        raise Fault('no finished increment has a %s line' % line)
    return {kind: members for kind, members in found.items() if members}


def _axes(height, rows=1, columns=1, ratios=None):
    """A figure one column of the paper wide, and its axes: one, or an array. ratios: the heights of the rows."""
    figure = Figure((WIDTH, height), layout='constrained')
    return figure, figure.subplots(rows, columns, sharex='col', gridspec_kw=dict(height_ratios=ratios))


def _curve(axes, number, label, of_runs):
    """Mean and standard deviation over runs, each a dict from x to y. number: int, the style; None: that of a reference curve."""
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


def _image(axes, percent, width, size, norm=None):
    """Draws a matrix in percent, `width` inches wide. Cells show their numbers if there is room. size: int, rows."""
    norm = norm or colors.Normalize(0, 100)
    image = axes.imshow(percent, cmap='Greys', norm=norm, interpolation='nearest', extent=(-0.5, size - 0.5, size - 0.5, -0.5))
    axes.grid(False)
    axes.spines[['top', 'right']].set_visible(True)
    ticks = np.arange(0, size, -(-size // 10) if size <= 20 else -(-size // 5))
    axes.set_xticks(ticks)
    axes.set_yticks(ticks)
    for row, column in np.argwhere(~np.isnan(percent)) if 72 * width / size >= CELL else ():
        axes.text(column, row, '%.0f' % percent[row, column], ha='center', va='center', fontsize=7,
                  color='white' if norm(percent[row, column]) > 0.55 else 'black')
    return image


def _note(axes, text):
    """Says in an empty panel why it is empty."""
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha='center', va='center', color='0.4')


def _ticks(axes, xs):
    """Sets a tick at each x, or fewer if there is no room."""
    axes.set_xticks(xs[::-(-len(xs) // 12)])
    axes.minorticks_off()


def _legend(axes):
    """Puts the legend above the axes, in as many columns as fit, and makes the figure higher."""
    handles, labels = axes.get_legend_handles_labels()
    labels = [textwrap.fill(label, 48) for label in labels]
    longest = max(len(line) for label in labels for line in label.split('\n'))
    columns = max(1, min(len(labels), int((WIDTH - 0.4) / (0.5 + 0.052 * longest))))
    lines = -(-len(labels) // columns) * (1 + max(label.count('\n') for label in labels))
    axes.figure.set_figheight(axes.figure.get_figheight() + 0.14 * lines)
    axes.legend(handles, labels, loc='lower center', bbox_to_anchor=(0.5, 1), borderaxespad=0.2, columnspacing=1.2,
                handlelength=2.6, ncol=columns)
