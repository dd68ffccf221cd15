"""The log: one event, one line, `[tag] key=value ...`, to standard output and to the run's log file."""
import errno
import os
import platform
import subprocess
import sys
import time

import numpy as np
import tensorflow.compat.v1 as tf

try:
    import tqdm
except ImportError:  # the method does without
    tqdm = None

from data import Fault, protocol, settings
from logs import events, tables


class Log:
    """Writes lines to standard output and to a new file, each flushed at once.

    Args:
        path: str, the log file, or None for standard output alone.

    Attributes: events, an events.Events that has the lines as curves, or None.

    Raises:
        OSError: the file exists or cannot be made. Later, Fault: a line cannot be written.
    """

    def __init__(self, path):
        self.path, self.events, self.silent = path, None, False
        self._file = open(path, 'x', encoding='utf-8', errors='backslashreplace') if path else None
        if hasattr(sys.stdout, 'reconfigure'):
            sys.stdout.reconfigure(errors='backslashreplace')  # class names in any language, on terminals in any
        self._watched = tqdm is not None and sys.stdout.isatty() and sys.stderr.isatty()

    def __call__(self, tag, **values):
        """One line. Fractions, not percent, with fixed decimals; lists are joined by commas; no spaces in values."""
        self.text('%-9s %s' % ('[%s]' % tag, ' '.join('%s=%s' % (key, tables.text(key, value)) for key, value in values.items())))
        if self.events:
            self.events.line(tag, values)

    def text(self, line):
        """A line that is no event: settings, the authors' closing lines, the table."""
        if self.silent:
            return
        try:
            if self._watched:
                tqdm.tqdm.write(line)  # above the progress bar
            else:
                print(line, flush=True)
        except OSError as error:
            raise Fault('standard output: cannot be written (%s); the same command goes on from the last checkpoint'
                        % error.strerror)
        if self._file:
            try:
                self._file.write(line + '\n')
                self._file.flush()
                if not os.fstat(self._file.fileno()).st_nlink:
                    raise FileNotFoundError(errno.ENOENT, 'it was deleted')
            except OSError as error:
                raise Fault('%s: cannot be written (%s); the same command goes on from the last checkpoint, with a new log'
                            % (self.path, error.strerror))

    def progress(self, steps, title):
        """The same steps, with a progress bar where a person watches a terminal and tqdm is installed."""
        return tqdm.tqdm(steps, title, leave=False) if self._watched else steps

    def close(self):
        if self._file:
            self._file.close()
        if self.events:
            self.events.close()


def begin(s, data, plan, state, resumed, chief, **machine):
    """Opens a run's log, none for a plan alone, and writes what the run is going to do after what is done.

    Args:
        s: settings. data, plan: from `protocol.read`. state: dict, see `checkpoint.save`.
        resumed: str, the folder of the checkpoint, or None. chief: bool; other workers' lines go nowhere. machine: what else the
            [env] line says.

    Returns:
        Log.

    Raises:
        Fault: the log cannot be made.
    """
    name, write = '%s-%s' % (s.DATASET, time.strftime('%Y%m%d-%H%M%S')), Log(None)
    write.silent = not chief
    if chief and not s.PLAN_ONLY:
        trained = [row['train'] for row in state['results']] + [now.train for now in plan[len(state['results']):]]
        steps = [settings.num_steps(s, now._replace(train=count)) for now, count in zip(plan, trained)]
        try:
            os.makedirs(s.LOG_DIR, exist_ok=True)
            write = Log(os.path.join(s.LOG_DIR, 'log-' + name))
            write.events = events.Events(os.path.join(s.LOG_DIR, 'run-' + name), [sum(steps[:k]) for k in range(len(steps))],
                                         [now.num_seen for now in plan])
        except OSError as error:
            raise Fault('%s: cannot be made (%s)' % (error.filename, error.strerror))
    try:
        commit = subprocess.check_output(['git', 'describe', '--always', '--dirty'], stderr=subprocess.DEVNULL,
                                         cwd=os.path.dirname(os.path.abspath(__file__))).decode().strip()
    except (OSError, subprocess.CalledProcessError):
        commit = 'unknown'
    write('env', git=commit, python=platform.python_version(), tensorflow=tf.__version__, numpy=np.__version__, **machine,
          host=platform.node())
    for name, value in sorted(vars(s).items()):
        write.text('[config]  %s=%s' % (name, tables.setting(value)))
    for line in data.left_out:
        write.text('[left_out] %s' % line)
    done = len(state['results'])
    if resumed:
        write('resume', increment=done, seen_classes=plan[done].num_old, step=state['step'], dir=resumed)
    for now in plan[done:]:
        write('plan', increment=now.increment, new_classes=now.num_seen - now.num_old, seen_classes=now.num_seen,
              train=now.train, val=now.val, test=now.test, exemplars_per_class=now.exemplars, steps=settings.num_steps(s, now),
              lr_drops=settings.lr_drops(s, now.train))
        for label in range(now.num_old, now.num_seen) if s.PLAN_ONLY else ():
            write.text('[class]   increment=%d label=%d train=%d held_out=%d test=%d name=%s' % (
                now.increment, label, len(data.train[label]), len(data.held[label]), len(data.test[label]), data.names[label]))
    write('estimate', **protocol.estimate(s, data, plan, done))
    return write
