"""What the pictures of logs/draw.py share: as wide as a paper's column, readable without colours.

Figures draw themselves: no display and no backend is needed.
"""
import contextlib
import os
import textwrap
import warnings

import numpy as np

# Notebooks name a backend here that may not be installed, and matplotlib then fails to load.
_backend = os.environ.pop('MPLBACKEND', None)
try:
    import matplotlib
    from matplotlib import colors
    from matplotlib.figure import Figure
finally:
    if _backend is not None:
        os.environ['MPLBACKEND'] = _backend

# Told apart without colours, too: Okabe and Ito's palette (but for its yellow, too faint for
# lines), markers and dashes.
COLORS = ['#000000', '#D55E00', '#0072B2', '#009E73', '#E69F00', '#56B4E9', '#CC79A7']
MARKERS = 'osD^vPX*'
DASHES = ['-', '--', '-.', (0, (4, 1, 1, 1, 1, 1)), (0, (1, 1)), (0, (7, 2))]
REFERENCE = dict(color='0.45', marker='x', linestyle=(0, (2, 1)), zorder=1)
STYLE = {
    'font.size': 8, 'axes.titlesize': 8, 'axes.labelsize': 8, 'xtick.labelsize': 7,
    'ytick.labelsize': 7, 'legend.fontsize': 7, 'axes.linewidth': 0.6, 'lines.linewidth': 1.0,
    'lines.markersize': 3.5, 'errorbar.capsize': 1.5, 'legend.frameon': False,
    'axes.spines.top': False, 'axes.spines.right': False, 'axes.grid': True, 'grid.color': '0.9',
    'grid.linewidth': 0.5, 'axes.axisbelow': True, 'savefig.dpi': 300, 'svg.hashsalt': 'bic'}
WIDTH = 3.3  # inches, a column of the paper
CELL = 15    # points, the least side of a cell that has room for its number
EMPTY = '#DCE6F0'  # of a matrix's cells without a number: no shade of grey


@contextlib.contextmanager
def styled():
    """The context in which pictures are made and saved."""
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings('ignore', 'Glyph')  # a name in a script that the font has not
        yield


def literal(text):
    """A name as text: matplotlib reads what stands between two dollars as a formula."""
    return text.replace('$', r'\$')


def subplots(height, rows=1, columns=1, height_ratios=None):
    """A figure one column of the paper wide, and its axes: one, or an array."""
    figure = Figure((WIDTH, height), layout='constrained')
    grid = dict(height_ratios=height_ratios)
    return figure, figure.subplots(rows, columns, sharex='col', gridspec_kw=grid)


def line_style(number):
    """The style of a picture's curve, dict."""
    return dict(color=COLORS[number % len(COLORS)], marker=MARKERS[number % len(MARKERS)],
                linestyle=DASHES[number % len(DASHES)])


def curve(axes, style, label, runs):
    """Draws the mean over runs and, of several, the sample standard deviation.

    Args:
        axes: to draw on.
        style: dict, from `line_style`.
        label: str.
        runs: list of dict from x to y.
    """
    xs = sorted(set().union(*runs))
    if not xs:
        return
    means = []
    deviations = []
    for x in xs:
        ys = [run[x] for run in runs if x in run]
        means.append(np.mean(ys))
        deviations.append(np.std(ys, ddof=1) if len(ys) > 1 else 0)
    axes.errorbar(xs, means, deviations if len(runs) > 1 else None, label=literal(label),
                  elinewidth=0.6, **style)


def x_label(axes, text, kinds):
    """Names the x axis, and says what the bars are if there are several runs of a kind.

    Args:
        axes: to draw on.
        text: str.
        kinds: dict from the kind's name to its runs.
    """
    most = max(map(len, kinds.values()))
    if most > 1:
        text += '; bars: standard deviation of %d seeds' % most
    axes.set_xlabel(text)


def image(axes, percent, width, size, norm=None):
    """Draws a matrix. Its cells show their numbers if there is room.

    Args:
        axes: to draw on.
        percent: float array [rows, rows]; nan: an empty cell.
        width: float, inches.
        size: int, rows of the matrix before neighbours shared one.
        norm: of the colours, or None.
    """
    norm = norm or colors.Normalize(0, 100)
    axes.set_facecolor(EMPTY)
    image = axes.imshow(percent, cmap='Greys', norm=norm, interpolation='nearest',
                        extent=(-0.5, size - 0.5, size - 0.5, -0.5))
    axes.grid(False)
    axes.spines[['top', 'right']].set_visible(True)
    ticks = np.arange(0, size, -(-size // 10) if size <= 20 else -(-size // 5))
    axes.set_xticks(ticks)
    axes.set_yticks(ticks)
    if 72 * width / size >= CELL:
        for row, column in np.argwhere(~np.isnan(percent)):
            value = percent[row, column]
            axes.text(column, row, '%.0f' % value, ha='center', va='center', fontsize=7,
                      color='white' if norm(value) > 0.55 else 'black')
    return image


def note(axes, text):
    """Says in an empty panel why it is empty."""
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha='center', va='center', color='0.4')


def ticks(axes, xs):
    """Sets a tick at each x, or fewer if there is no room."""
    axes.set_xticks(xs[::-(-len(xs) // 12)])
    axes.minorticks_off()


def legend(axes):
    """Puts the legend above the axes, in as many columns as fit, and makes the figure higher."""
    handles, labels = axes.get_legend_handles_labels()
    labels = [textwrap.fill(label, 48) for label in labels]
    longest = max(map(len, '\n'.join(labels).split('\n')))
    columns = max(1, min(len(labels), int((WIDTH - 0.4) / (0.42 + 0.05 * longest))))
    lines_per_label = 1 + max(label.count('\n') for label in labels)
    lines = -(-len(labels) // columns) * lines_per_label
    axes.figure.set_figheight(axes.figure.get_figheight() + 0.14 * lines)
    axes.legend(handles, labels, loc='lower center', bbox_to_anchor=(0.5, 1), borderaxespad=0.2,
                columnspacing=1.2, handlelength=2.4, ncol=columns)
