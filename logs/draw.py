"""Pictures of runs, see logs/logged.py.

Each function returns a matplotlib Figure, and raises a Fault if the log lines that it needs are
missing.
"""
import numbers
import textwrap

import numpy as np

from data import Fault
from logs import plot, tables

# Accuracy after the correction, in percent, in the published metric: the paper's ImageNet results,
# and BiC in its Table 3.
PUBLISHED = {
    'imagenet100': ('top5', range(10, 101, 10),
                    [98.4, 96.2, 94.0, 92.9, 91.1, 89.4, 88.1, 86.5, 85.4, 84.4]),
    'imagenet1000': ('top5', range(100, 1001, 100),
                     [94.1, 92.5, 89.6, 89.1, 85.7, 83.2, 80.2, 77.5, 75.0, 73.2]),
    'cifar100': ('top1', range(20, 101, 20), [84.00, 74.69, 67.93, 61.25, 56.69]),
}
LOSSES = {  # labels of the [train] lines' losses; another one has its key
    'loss': 'loss',
    'loss_class': 'classification, not weighted',
    'loss_distill': 'distillation, not weighted',
    'loss_l2': 'weight decay',
}
CELLS = 500  # rows of a confusion matrix; with more classes, neighbours in the order share one
NAMED = 20   # classes of a confusion matrix whose names have room


# ---- Results of one or several runs --------------------------------------------------------------
def accuracy(runs):
    """Accuracy over classes seen.

    Runs of one kind: before and after the correction. Of several kinds: after it only.
    """
    metric = runs[0].headline
    kinds = _kinds(runs, lambda run: run.rows, '[result]')
    members = [run for run in runs if run.rows]
    if len(kinds) > 1:
        curves = [(kind, metric, kind_members) for kind, kind_members in kinds.items()]
    else:
        curves = [(kind, metric, members) for kind in kinds]
        if any(run.is_corrected for run in members):
            curves = [('after correction', metric, members),
                      ('before correction', metric + '_before', members)]
        curves.append(('nearest mean of exemplars', metric + '_nme', members))
    figure, axes = plot.subplots(2.1)
    for number, (label, key, curve_members) in enumerate(curves):
        percent = [run.curve(key, factor=100) for run in curve_members]
        plot.curve(axes, plot.line_style(number), label, percent)
    _published_curve(axes, members)
    plot.x_label(axes, 'classes seen', kinds)
    axes.set_ylabel('%s accuracy (%%)' % metric.replace('top', 'top-'))
    plot.ticks(axes, _classes_seen(members))
    plot.legend(axes)
    return figure


def _published_curve(axes, runs):
    """Draws the published accuracies if the runs have increments of the same classes."""
    published_metric, classes, percent = PUBLISHED.get(runs[0].dataset, ('', (), ()))
    increments = set()
    for run in runs:
        increments.update((row['increment'], row['classes']) for row in run.rows)
    if published_metric == runs[0].headline and increments <= set(enumerate(classes)):
        plot.curve(axes, plot.REFERENCE, 'published (BiC)', [dict(zip(classes, percent))])


def bias(runs):
    """Beta and gamma over increments."""
    kinds = _kinds(runs, lambda run: run.has_bias_fit, '[bias]')
    figure, (above, below) = plot.subplots(2.7, 2)
    increments = set()
    for axes, name, neutral in ((above, 'beta', 1), (below, 'gamma', 0)):
        axes.axhline(neutral, color='0.6', linewidth=0.6, label='no correction')
        for number, (kind, members) in enumerate(kinds.items()):
            values = [run.curve(name, x='increment') for run in members]
            plot.curve(axes, plot.line_style(number), kind, values)
            increments.update(*values)
        axes.set_ylabel(name)
    plot.x_label(below, 'increment', kinds)
    figure.align_ylabels()
    plot.ticks(below, sorted(increments))
    plot.legend(above)
    return figure


def new_classes(runs):
    """Share of the test images that are assigned to one of the newest classes; the true share."""
    kinds = _kinds(runs, lambda run: any(run.confusion_after), '[confusion] correction=on')
    figure, axes = plot.subplots(2.1)
    true_shares = {}
    for number, (kind, members) in enumerate(kinds.items()):
        before = []
        after = []
        for run in members:
            assigned_before, _ = _newest_shares(run, run.confusion_before)
            assigned_after, true = _newest_shares(run, run.confusion_after)
            before.append(assigned_before)
            after.append(assigned_after)
            true_shares.update(true)
        is_corrected = after != before
        labels = [kind, kind + ' before correction']
        if len(kinds) == 1 and is_corrected:
            labels = ['after correction', 'before correction']
        plot.curve(axes, plot.line_style(number), labels[0], after)
        if is_corrected:
            plot.curve(axes, plot.line_style(number + len(kinds)), labels[1], before)
    plot.curve(axes, plot.REFERENCE, 'true share', [true_shares])
    plot.x_label(axes, 'classes seen', kinds)
    axes.set_ylabel('test images assigned\nto the newest classes (%)')
    axes.set_ylim(bottom=0)
    plot.ticks(axes, _classes_seen(runs) or sorted(true_shares))
    plot.legend(axes)
    return figure


def _newest_shares(run, confusion):
    """Percent of the test images that are assigned to the newest classes, and that are of them.

    Args:
        run: logged.Run.
        confusion: dict from increment to array, its confusion matrices.

    Returns:
        assigned, true: dicts from classes seen. They leave out increment 0: all classes are new.
    """
    classes_seen = {row['increment']: row['classes'] for row in run.rows}
    assigned = {}
    true = {}
    for k, images in confusion.items():
        if k:
            x = classes_seen.get(k, k)
            assigned[x] = 100 * images[:, k].sum() / images.sum()
            true[x] = 100 * images[k].sum() / images.sum()
    return assigned, true


# ---- One run -------------------------------------------------------------------------------------
def training(run):
    """Losses and learning rate over the steps of the whole run."""
    if not run.train:
        raise Fault('no [train] line')
    figure, (above, below) = plot.subplots(2.7, 2, height_ratios=[2, 1])
    begin = {}
    lines = {}
    step = 0
    for k in sorted(run.steps):
        begin[k] = step
        step += run.steps[k]
        lines[k] = [line for line in run.train if line['increment'] == k]
    _draw_losses(above, run, lines, begin)
    rates = _draw_rates(below, run, lines, begin)
    for axes in (above, below):
        axes.grid(axis='x', visible=False)
        for k in begin:
            axes.axvline(begin[k], color='0.8', linewidth=0.5, zorder=0)
    for k in lines:
        if not lines[k]:
            middle = begin[k] + run.steps[k] / 2
            above.text(middle, 0.5, 'trained by another run', transform=above.get_xaxis_transform(),
                       rotation=90, ha='center', va='center', color='0.4')
    above.set(ylabel='loss (nats)', ylim=(0, None))
    below.set(xlabel='training step; vertical lines: increments', ylabel='learning rate')
    if above.get_legend_handles_labels()[0]:
        plot.legend(above)
    else:
        plot.note(above, 'no finite loss in the log')
    if rates:
        ticks = sorted(rates)[-6:]
        below.set_yscale('log')
        below.set_yticks(ticks, ['%g' % rate for rate in ticks])
        below.minorticks_off()
    else:
        plot.note(below, 'no learning rate in the log')
    figure.align_ylabels()
    if max(begin.values()) > 5000:
        below.xaxis.set_major_formatter(
            lambda step, _: '%gk' % (step / 1000) if step else '0')
    return figure


def _draw_losses(axes, run, lines, begin):
    """Draws each loss that has numbers; increments are not joined."""
    keys = dict(LOSSES)
    for line in run.train:
        for key in line:
            if key.startswith('loss'):
                keys.setdefault(key, key)
    for number, (key, label) in enumerate(keys.items()):
        style = plot.line_style(number)
        if len(run.train) >= 40:
            del style['marker']
        for k, increment_lines in lines.items():
            values = np.array([_number(line.get(key)) for line in increment_lines])
            is_shown = np.isfinite(values)
            if key != 'loss':
                is_shown &= values != 0  # a method without this term logs 0
            if is_shown.any():
                steps = [begin[k] + line['step'] for line in increment_lines]
                axes.plot(steps, values, label=label, linewidth=0.8, **style)
                label = None


def _number(value):
    """The value, or nan if it is no number."""
    return value if isinstance(value, numbers.Real) else np.nan


def _draw_rates(axes, run, lines, begin):
    """Draws the learning rate. Returns the rates that a logarithmic axis can show, set."""
    rates = set()
    for k, increment_lines in lines.items():
        steps, values = _rates(increment_lines, run.lr_drops.get(k), run.steps[k])
        rates.update(float('%.3g' % value) for value in values if 0 < value < np.inf)
        axes.plot(begin[k] + np.array(steps), values, color=plot.COLORS[0], linewidth=0.8,
                  drawstyle='steps-post')
    return rates


def _rates(lines, drops, last):
    """Steps at which an increment's learning rate begins, drops and ends, and the rates there.

    Args:
        lines: list of dict, its [train] lines.
        drops: list of float, the steps after which the rate drops. None: not known.
        last: int, its steps.
    """
    if not lines:
        return [], []
    if drops is None:  # of the authors' logs, only the lines with a rate are known
        return [line['step'] for line in lines], [line['lr'] for line in lines]
    steps = [0] + [drop + 1 for drop in drops if drop + 1 < last]
    drops_before = sum(lines[0]['step'] > step for step in steps[1:])
    first = lines[0]['lr'] * 10.0 ** drops_before
    rates = [first * 0.1 ** number for number in range(len(steps))]
    return steps + [last], rates + rates[-1:]


def matrix(run):
    """Accuracy after each increment, on the classes of each increment."""
    if not run.matrix:
        raise Fault('no [matrix] correction=on line')
    size = max(run.matrix) + 1
    percent = np.full((size, size), np.nan)
    for k, fractions in run.matrix.items():
        percent[k, :len(fractions)] = 100 * np.array(fractions)
    figure, axes = plot.subplots(2.7)
    image = plot.image(axes, percent, plot.WIDTH - 1, size)
    axes.set(xlabel='classes of increment', ylabel='after increment')
    label = 'top-1 accuracy (%)'
    if run.is_corrected:
        label = 'top-1 after correction (%)'
    figure.colorbar(image, ax=axes, label=label).outline.set_linewidth(0.4)
    return figure


def confusion(run):
    """Confusion matrix at the last increment, before and after the correction.

    It is by class, or by increment if there are no predictions. Rows are true, columns predicted;
    each row is a share of its images, in percent.
    """
    if run.predictions:
        ends = {row['increment']: row['classes'] for row in run.rows}
        last = max(run.predictions)
        labels = run.predictions[last]
        size = ends.get(last, 0)
        if labels.max() >= size:
            raise Fault('predictions.csv has label %d at increment %d, which has %d classes'
                        % (labels.max(), last, size))
        earlier_ends = [classes for k, classes in ends.items() if k < last]
        return confusion_by_class(
            labels[:, 0], labels[:, 1:].T, run.names[:size], earlier_ends, size)
    last = max([*run.confusion_before, *run.confusion_after], default=0)
    both = []
    for correction, matrices in (('off', run.confusion_before), ('on', run.confusion_after)):
        if last not in matrices:
            raise Fault('no [confusion] correction=%s line, and no predictions.csv beside the log'
                        % correction)
        both.append(matrices[last])
    return _confusion(both, 'increment', last + 1)


def confusion_by_class(labels, predicted, names, ends, size):
    """Confusion matrix by class, before and after the correction.

    Args:
        labels: int array [images].
        predicted: two int arrays [images], before and after the correction.
        names: list of str, by label, or empty.
        ends: list of int, classes seen after each earlier increment.
        size: int, classes.
    """
    cells = min(size, CELLS)
    counts = np.zeros([2, cells, cells], int)
    for cell_counts, predicted_labels in zip(counts, predicted):
        np.add.at(cell_counts, (labels * cells // size, predicted_labels * cells // size), 1)
    return _confusion(counts, 'class', size, ends, names)


def _confusion(both, kind, size, ends=(), names=()):
    # What is confused is a few percent of each class; an even scale from white to black hides it.
    norm = plot.colors.PowerNorm(0.5, 0, 100)
    titles = ('before correction', 'after correction')
    if np.array_equal(*both):
        both = both[:1]
        titles = ('',)
    figure, pair = plot.subplots(2.65, columns=len(both))
    pair = np.atleast_1d(pair)
    for axes, title, counts in zip(pair, titles, both):
        percent = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        image = plot.image(axes, percent, (plot.WIDTH - 0.6) / len(both), size, norm)
        for end in ends:
            axes.axhline(end - 0.5, color='0.6', linewidth=0.3)
            axes.axvline(end - 0.5, color='0.6', linewidth=0.3)
        axes.set(title=title, xlabel='predicted ' + kind)
        if len(names) == size <= NAMED:
            shown = [_short(name) for name in names]
            axes.set_xticks(range(size), shown, rotation=90, fontsize=5)
            axes.set_yticks(range(size), shown, fontsize=5)
    pair[0].set_ylabel('true ' + kind)
    for axes in pair[1:]:
        axes.set_yticklabels([])
    bar = figure.colorbar(image, ax=pair, label='percent of the row\'s images', location='bottom',
                          aspect=30, shrink=0.7, ticks=[0, 5, 20, 50, 100])
    bar.outline.set_linewidth(0.4)
    return figure


def _short(name):
    """A class's name in at most 14 letters."""
    return plot.literal(textwrap.shorten(name, 14, placeholder='..') or name[:14])


# ---- What several pictures need ------------------------------------------------------------------
def _kinds(runs, has, line):
    """The runs that have such lines, by kind.

    Args:
        runs: list of logged.Run.
        has: function from a run to whether it has them.
        line: str, the lines' name.

    Returns:
        dict from the kind's name to list of logged.Run.
    """
    kinds = {}
    for kind, positions in tables.kinds([run.settings for run in runs]).items():
        members = [runs[position] for position in positions if has(runs[position])]
        if members:
            kinds[kind] = members
    if not kinds:
        raise Fault('no finished increment has a %s line' % line)
    return kinds


def _classes_seen(runs):
    """Classes seen after the increments of some runs, rising list of int."""
    classes = set()
    for run in runs:
        classes.update(row['classes'] for row in run.rows)
    return sorted(classes)
