"""The log: one event, one line, `[tag] key=value ...`, to standard output and to the run's log file."""
import numbers
import sys

try:
    import tqdm
except ImportError:  # the method does without
    tqdm = None

_DECIMALS = {'beta': 6, 'gamma': 6, 'lr': 6, 'images_per_sec': 1, 'seconds': 1, 'hours': 2, 'hours_left': 2,
             'network_gb': 2, 'main_gb': 2, 'disk_gb': 2}  # 4 where not named


class Log:
    """Writes lines to standard output and to a new file, each flushed at once.

    Args:
        path: str, the log file, or None for standard output alone.

    Raises:
        OSError: the file exists or cannot be made.
    """

    def __init__(self, path):
        self.path = path
        self._file = open(path, 'x', encoding='utf-8', errors='backslashreplace') if path else None
        if hasattr(sys.stdout, 'reconfigure'):
            sys.stdout.reconfigure(errors='backslashreplace')  # class names in any language, on terminals in any
        self._watched = tqdm is not None and sys.stdout.isatty() and sys.stderr.isatty()

    def __call__(self, tag, **values):
        """One line. Fractions, not percent, with fixed decimals; lists are joined by commas; no spaces in values."""
        self.text('%-9s %s' % ('[%s]' % tag, ' '.join('%s=%s' % (key, _text(key, value)) for key, value in values.items())))

    def text(self, line):
        """A line that is no event: settings, the authors' closing lines, the table."""
        if self._watched:
            tqdm.tqdm.write(line)  # above the progress bar
        else:
            print(line, flush=True)
        if self._file:
            self._file.write(line + '\n')
            self._file.flush()

    def progress(self, steps, title):
        """The same steps, with a progress bar where a person watches a terminal and tqdm is installed."""
        return tqdm.tqdm(steps, title, leave=False) if self._watched else steps

    def close(self):
        if self._file:
            self._file.close()


def table(rows):
    """Rows as a Markdown table that is aligned for the eye as well.

    Args:
        rows: list of dict, all with the same keys; floats are shown like in log lines.

    Returns:
        str, without a newline at its end.
    """
    cells = [list(rows[0])] + [[_text(key, value) for key, value in row.items()] for row in rows]
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    lines = ['| %s |' % ' | '.join(cell.rjust(width) for cell, width in zip(line, widths)) for line in cells]
    return '\n'.join([lines[0], '|%s|' % '|'.join('-' * (width + 1) + ':' for width in widths)] + lines[1:])


def _text(key, value):
    if isinstance(value, (list, tuple)):
        return ','.join(_text(key, one) for one in value)
    if isinstance(value, numbers.Real) and not isinstance(value, numbers.Integral):
        return '%.*f' % (_DECIMALS.get(key, 4), float(value))
    return str(value)
