"""The log: one event, one line, `[tag] key=value ...`, to standard output and to the run's log file."""
import contextlib
import errno
import math
import os
import platform
import subprocess
import time

import numpy as np
import tensorflow.compat.v1 as tf

from data import Fault, devices, settings
from logs import events, tables

_FEW = 30        # validation images
_SETTLED = 3     # time constants after which 5 % of a moving average's initial value is left


class Log:
    """Writes lines to standard output and to a file, and flushes each at once. Its attribute events: events.Events or None.

    Args: path: str, the log file, made or appended to; None: only standard output. silent: bool, True: writes nothing at all.

    Raises: OSError: the file cannot be made.
    """

    def __init__(self, path, silent=False):
        self.path, self.events, self._silent = path, None, silent
        self._file = open(path, 'a', encoding='utf-8', errors='backslashreplace') if path else None
        if self._file and _is_cut_off(path):
            self._file.write('\n')

    def __call__(self, tag, **values):
        """Writes one line: fractions, not percent, with fixed decimals; lists joined by commas."""
        pairs = ['%s=%s' % (key, tables.text(key, value)) for key, value in values.items()]
        self.text(' '.join(['%-9s' % ('[%s]' % tag)] + pairs + [time.strftime('time=%Y-%m-%dT%H:%M:%S')]))
        if self.events:
            self.events.line(tag, values)

    def text(self, line):
        """Writes a line as it is: settings, the authors' closing lines, the table."""
        if self._silent:
            return
        try:
            print(line, flush=True)
        except OSError as error:
            raise Fault('standard output: cannot be written (%s); the same command resumes from the last checkpoint'
                        % error.strerror)
        if self._file:
            try:
                self._file.write(line + '\n')
                self._file.flush()
                if not os.fstat(self._file.fileno()).st_nlink:
                    raise FileNotFoundError(errno.ENOENT, 'it was deleted')
            except OSError as error:
                raise Fault('%s: cannot be written (%s); the same command resumes from the last checkpoint'
                            % (self.path, error.strerror))

    def close(self):
        if self._file:
            with contextlib.suppress(OSError):  # of a full disk, already reported
                self._file.close()
        if self.events:
            self.events.close()


def _is_cut_off(path):
    """Whether a log ends in the middle of a line, as after a full disk."""
    with open(path, 'rb') as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 1))
        return size > 0 and file.read(1) != b'\n'


class Meter:
    """Measures the steps since the last [train] line: means, speed, time left.

    Args:
        steps: int, training steps left in the run, this increment's included.
        sums: list of lists, losses of the steps since the last line, from a checkpoint; also an attribute.
    """

    def __init__(self, s, steps, sums):
        self.sums, self._s, self._steps = [list(losses) for losses in sums], s, steps
        self._timed, self._images, self._seconds, self._waited = False, 0, 0.0, 0.0

    def add(self, losses, waited, images, seconds):
        """Adds one step. losses: list of float. waited: float, seconds of waiting for the batch. images: int. seconds: float."""
        self.sums.append([float(loss) for loss in losses])
        self._steps -= 1
        if self._timed:  # the first step, which has TensorFlow's start-up, is not timed
            self._images, self._seconds, self._waited = self._images + images, self._seconds + seconds, self._waited + waited
        self._timed = True

    def read(self):
        """Returns the mean losses and a dict of images_per_sec, input_wait (a fraction) and hours_left; then resets."""
        speed = self._images / self._seconds if self._images else float('nan')
        means, times = np.mean(self.sums, axis=0), dict(
            images_per_sec=speed, input_wait=self._waited / self._seconds if self._images else float('nan'),
            hours_left=self._steps * self._s.BATCH_SIZE / speed / 3600)
        self.sums, self._images, self._seconds, self._waited = [], 0, 0.0, 0.0
        return means, times


def begin(run):
    """Opens a run's log, writes what the run will do, and returns the Log.

    A plan alone gets no log file. Workers other than the chief write nothing.
    """
    s, write = run.s, _opened(run)
    if run.resumed:
        write('resume', increment=run.done, seen_classes=run.plan[run.done].num_old, step=run.step, dir=run.resumed)
    try:
        commit = subprocess.check_output(['git', 'describe', '--always', '--dirty'], stderr=subprocess.DEVNULL,
                                         cwd=os.path.dirname(os.path.abspath(__file__))).decode().strip()
    except (OSError, subprocess.CalledProcessError):
        commit = 'unknown'
    gpus = devices.num_gpus()
    write('env', git=commit, python=platform.python_version(), tensorflow=tf.__version__, numpy=np.__version__,
          device='gpu:%d' % gpus if gpus else 'cpu:%d' % os.cpu_count(), precision=devices.precision(s),
          replicas=devices.count(s), host=platform.node())
    for name, value in sorted(vars(s).items()):
        write.text('[config]  %s=%s' % (name, settings.shown(value)))
    for line in run.damaged:
        write.text('[left_out] %s' % line)
    for now in run.plan[run.done:]:
        write('plan', increment=now.increment, new_classes=now.num_seen - now.num_old, seen_classes=now.num_seen,
              train=now.train, val=now.val, test=now.test, exemplars_per_class=now.exemplars, steps=settings.num_steps(s, now),
              lr_drops=settings.lr_drops(s, now.train))
        for label in range(now.num_old, now.num_seen) if s.PLAN_ONLY else ():
            data = run.data
            write.text('[class]   increment=%d label=%d train=%d held_out=%d test=%d name=%s' % (
                now.increment, label, len(data.train[label]), len(data.held[label]), len(data.test[label]), data.names[label]))
    for line in _notes(run):
        write.text('[note]    ' + line)
    return write


def _notes(run):
    """Notes on what is legal but may be a mistake, list of str."""
    s, to_do, notes = run.s, run.plan[run.done:], []
    few = [now.val for now in to_do if now.num_old and now.val < _FEW and s.METHOD == 'bic']
    if few:
        notes.append('the correction is fitted on %d validation images or fewer; with fewer than %d it may do harm; in a new '
                     'run, a larger MEMORY_SIZE or VAL_FRACTION gives more' % (max(few), _FEW))
    steps = min(settings.num_steps(s, now) for now in to_do)
    if steps * (1 - s.BATCH_NORM_DECAY) < _SETTLED:
        notes.append('BATCH_NORM_DECAY=%g: moving averages need about %.0f steps, and an increment has %d; unsettled ones make '
                     'the test and the correction worse; in a new run, more EPOCHS%s would do'
                     % (s.BATCH_NORM_DECAY, _SETTLED / (1 - s.BATCH_NORM_DECAY), steps, ' or BATCH_NORM_DECAY=%g' % (
                         math.floor(100 * (1 - _SETTLED / steps)) / 100) if steps >= 2 * _SETTLED else ''))
    if run.data.skipped:
        notes.append('%d files in class folders are skipped: their names do not end like an image\'s: %s%s' % (
            len(run.data.skipped), ', '.join(run.data.skipped[:3]), ' ..' if len(run.data.skipped) > 3 else ''))
    return notes


def _opened(run):
    """Opens the log of the resumed run, or a new LOG_DIR/log-<dataset>-<date>-<time>, and the folder run-<..> beside it."""
    s, path = run.s, run.log_path
    if s.PLAN_ONLY or not run.devices.chief:
        return Log(None, silent=not run.devices.chief)
    folder, name = os.path.split(path)
    trained = [row['train'] for row in run.rows] + [now.train for now in run.plan[run.done:]]
    steps = [settings.num_steps(s, now._replace(train=count)) for now, count in zip(run.plan, trained)]
    try:
        if not name or folder != os.path.normpath(s.LOG_DIR) or not os.path.isfile(path):
            folder, name = os.path.normpath(s.LOG_DIR), 'log-%s-%s' % (s.DATASET, time.strftime('%Y%m%d-%H%M%S'))
            name = _new(folder, name)
        beside = os.path.join(folder, 'run' + name[len('log'):])
        os.makedirs(beside, exist_ok=True)
        write = Log(os.path.join(folder, name))
        write.events = events.Events(beside, [sum(steps[:k]) for k in range(len(steps))],
                                     [now.num_seen for now in run.plan], run.done, run.step)
    except OSError as error:
        raise Fault('%s: cannot be made (%s)' % (error.filename, error.strerror))
    return write


def _new(folder, name):
    """Makes the folder run-<..> of a new log, and returns the log's name: longer if a run began in the same second."""
    os.makedirs(folder, exist_ok=True)
    while True:
        try:
            os.mkdir(os.path.join(folder, 'run' + name[len('log'):]))
            return name
        except FileExistsError:
            name += '-2'
