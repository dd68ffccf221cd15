"""The log: one event, one line, `[tag] key=value ...`, to standard output and to a file."""
import contextlib
import errno
import os
import platform
import shlex
import subprocess
import time

import numpy as np
import tensorflow.compat.v1 as tf

from data import Fault, devices, numerics, settings
from logs import events, metrics, notes, tables


class Log:
    """Writes lines to standard output and to a file, and flushes each at once.

    Args:
        path: str, the log file, made or appended to. None: only standard output.
        silent: bool, True: writes nothing at all.

    Attributes:
        path: as above.
        events: events.Events or None.

    Raises:
        OSError: the file cannot be made.
    """

    def __init__(self, path, silent=False):
        self.path = path
        self.events = None
        self._silent = silent
        self._file = None
        if path:
            self._file = open(path, 'a', encoding='utf-8', errors='backslashreplace')
            if _is_cut_off(path):
                self._file.write('\n')

    def __call__(self, tag, **values):
        """Writes one line: fractions, not percent, with fixed decimals; lists joined by commas."""
        words = ['%-9s' % ('[%s]' % tag)]
        words += ['%s=%s' % (key, tables.text(key, value)) for key, value in values.items()]
        words.append(time.strftime('time=%Y-%m-%dT%H:%M:%S'))
        self.text(' '.join(words))
        if self.events:
            self.events.line(tag, values)

    def text(self, line):
        """Writes a line as it is: settings, the authors' closing lines, the table."""
        if self._silent:
            return
        try:
            print(line, flush=True)
        except OSError as error:
            raise _cannot_be_written('standard output', error)
        if self._file:
            try:
                self._file.write(line + '\n')
                self._file.flush()
                if not os.fstat(self._file.fileno()).st_nlink:
                    raise FileNotFoundError(errno.ENOENT, 'it was deleted')
            except OSError as error:
                raise _cannot_be_written(self.path, error)

    def close(self):
        if self._file:
            with contextlib.suppress(OSError):  # of a full disk, already reported
                self._file.close()
        if self.events:
            self.events.close()


def _cannot_be_written(name, error):
    return Fault('%s: cannot be written (%s); the same command resumes from the last checkpoint'
                 % (name, error.strerror))


def _is_cut_off(path):
    """Whether a log ends in the middle of a line, as after a full disk."""
    with open(path, 'rb') as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 1))
        return size > 0 and file.read(1) != b'\n'


class Meter:
    """Measures the steps since the last [train] line: means, speed, time left.

    Args:
        s: settings.
        steps: int, training steps left in the run, this increment's included.
        losses: list of dict, the losses of the steps since the last line, from a checkpoint.

    Attributes:
        losses: list of dict, those up to now.
    """

    def __init__(self, s, steps, losses):
        self.losses = list(losses)
        self._batch_size = s.BATCH_SIZE
        self._steps_left = steps
        self._is_timed = False
        self._images = 0
        self._seconds = 0.0
        self._waited = 0.0
        self._all_images = 0     # those above are since the last line, these since the beginning
        self._all_seconds = 0.0

    def add(self, losses, waited, images, seconds):
        """Adds one step.

        Args:
            losses: dict of float.
            waited: float, seconds of waiting for the batch.
            images: int.
            seconds: float.
        """
        self.losses.append({name: float(loss) for name, loss in losses.items()})
        self._steps_left -= 1
        if self._is_timed:
            self._images += images
            self._seconds += seconds
            self._waited += waited
            self._all_images += images
            self._all_seconds += seconds
        self._is_timed = True  # the first step, which has TensorFlow's start-up, is not

    def read(self):
        """Returns the means, and begins anew.

        Returns:
            means: dict of float, the losses.
            times: dict of float: images_per_sec, input_wait (a fraction), hours_left.
        """
        speed = self._images / self._seconds if self._images else float('nan')
        means = {}
        for name in self.losses[-1]:
            means[name] = np.mean([losses[name] for losses in self.losses])
        hours_left = float('nan')
        if self._all_images:
            seconds_per_image = self._all_seconds / self._all_images
            hours_left = self._steps_left * self._batch_size * seconds_per_image / 3600
        times = dict(
            images_per_sec=speed,
            input_wait=self._waited / self._seconds if self._images else float('nan'),
            hours_left=hours_left)
        self.losses = []
        self._images = 0
        self._seconds = 0.0
        self._waited = 0.0
        return means, times


# ---- What a run writes ---------------------------------------------------------------------------
def begin(run):
    """Opens a run's log, and writes what the run will do.

    A plan alone gets no log file. Workers other than the chief write nothing.

    Args:
        run: logs.run.Run.

    Returns:
        Log.
    """
    s = run.s
    write = _open(run)
    if run.resumed:
        next_increment = run.remaining[0]
        write('resume', increment=next_increment.index, seen_classes=next_increment.num_old,
              step=run.step, dir=run.resumed)
    num_gpus = numerics.num_gpus()
    write('env', git=_commit(), python=platform.python_version(), tensorflow=tf.__version__,
          numpy=np.__version__,
          device='gpu:%d' % num_gpus if num_gpus else 'cpu:%d' % _num_cpus(),
          precision=numerics.precision(s), replicas=devices.count(s), host=platform.node())
    for name, value in sorted(vars(s).items()):
        write.text('[config]  %s=%s' % (name, settings.as_text(value)))
    for line in run.damaged:
        write.text('[left_out] %s' % line)
    for now in run.remaining:
        write('plan', increment=now.index, new_classes=now.num_seen - now.num_old,
              seen_classes=now.num_seen, train=now.num_train, val=now.num_val, test=now.num_test,
              exemplars_per_class=now.exemplars_per_class,
              steps=settings.num_steps(s, now.num_train),
              lr_drops=settings.lr_drops(s, now.num_train))
        if s.PLAN_ONLY:
            _write_classes(write, run.data, now)
    for line in notes.on(run):
        write.text('[note]    ' + line)
    return write


def _num_cpus():
    """Number of processors that this process may use, int."""
    if hasattr(os, 'sched_getaffinity'):
        return len(os.sched_getaffinity(0))
    return os.cpu_count()


def _commit():
    """The project's commit, str."""
    folder = os.path.dirname(os.path.abspath(__file__))
    try:
        commit = subprocess.check_output(['git', 'describe', '--always', '--dirty'],
                                         stderr=subprocess.DEVNULL, cwd=folder)
    except (OSError, subprocess.CalledProcessError):
        return 'unknown'
    return commit.decode().strip()


def _write_classes(write, data, now):
    """Writes a line per new class: how many images it has, and its name."""
    for label in range(now.num_old, now.num_seen):
        write.text('[class]   increment=%d label=%d train=%d held_out=%d test=%d name=%s' % (
            now.index, label, len(data.train[label]), len(data.held[label]), len(data.test[label]),
            data.names[label]))


def write_bias(write, now, fit, num_val):
    """Writes the [bias] line, and a [note] if beta is at its bound.

    Args:
        write: Log.
        now: exemplar.Increment.
        fit: bic_layer.BiasFit.
        num_val: int, validation images.
    """
    write('bias', increment=now.index, **fit._asdict(), val=num_val)
    if fit.at_bound:
        write.text('[note]    increment %d: beta is at its bound: %d validation images are too '
                   'few, or too easy, for a fit; in a new run, a larger MEMORY_SIZE or '
                   'VAL_FRACTION gives more' % (now.index, num_val))


def write_scores(write, now, split, scores):
    """Writes [eval] lines and, of the nearest mean of exemplars, an [nme] line.

    Args:
        write: Log.
        now: exemplar.Increment.
        split: str, 'val' or 'test'.
        scores: metrics.Scores.
    """
    num_images = len(scores.labels)
    for correction, score in (('off', scores.before), ('on', scores.after)):
        write('eval', increment=now.index, split=split, correction=correction, images=num_images,
              top1=score.top1, top5=score.top5)
    if scores.nme:
        write('nme', increment=now.index, images=num_images, top1=scores.nme.top1,
              top5=scores.nme.top5)


def write_confusion(write, now, scores, ends):
    """Writes [matrix] and [confusion] lines of the test.

    Args:
        write: Log.
        now: exemplar.Increment.
        scores: metrics.Scores.
        ends: list of int, classes seen after each increment so far.
    """
    for correction, score in (('off', scores.before), ('on', scores.after)):
        write('matrix', increment=now.index, correction=correction,
              top1_by_increment=score.top1_by_increment)
        counts = metrics.confusion(scores.labels, score.predicted, ends)
        for true_increment, predicted in enumerate(counts):
            write('confusion', increment=now.index, correction=correction, true=true_increment,
                  predicted=predicted.tolist())


def write_result(run):
    """Writes the [result] line and the authors' three lines, of all increments so far."""
    rows = run.rows
    row = dict(rows[-1])
    increment = row.pop('increment')
    classes = row.pop('classes')
    results = {key: value for key, value in row.items() if key not in _IN_PLAN}
    run.log('result', increment=increment, seen_classes=classes, **results,
            **metrics.averages(rows), forgetting_top1=metrics.forgetting(rows), hours=run.hours,
            hours_left=run.hours_left)
    lines = (('beta    : ', 'beta'), ('gamma   : ', 'gamma'), ('accuracy: ', run.s.HEADLINE))
    for title, key in lines:
        values = [str(np.array([row[key]], np.float32)) for row in rows]
        run.log.text(' '.join([title] + values))


_IN_PLAN = ('train', 'val', 'test', 'top1_by_increment')  # other lines have these of a row


def write_end(run, scores):
    """Writes the end of the log: the [class] lines and the table.

    Args:
        run: logs.run.Run.
        scores: metrics.Scores of the last test.
    """
    for label, top1 in enumerate(scores.after.top1_by_class):
        run.log.text('[class]   label=%d images=%d top1=%.4f name=%s'
                     % (label, len(run.data.test[label]), top1, run.data.names[label]))
    run.log.text(tables.table(metrics.closing(run.rows)))


def write_places(run):
    """Writes where the log, the tables and the model of a finished run are."""
    model = '%s/export/%d' % (run.folder, run.state.done - 1)
    run.log.text('[note]    log: %s; tables: %s; model: %s; pictures: python -m logs.report %s'
                 % (run.log.path, run.log.events.folder, model, shlex.quote(run.log.path)))


def _open(run):
    """Opens the log of the resumed run, or a new one, and the folder run-<..> beside it."""
    s = run.s
    if s.PLAN_ONLY or not run.devices.chief:
        return Log(None, silent=not run.devices.chief)
    log_dir = os.path.normpath(s.LOG_DIR)
    folder, name = os.path.split(run.state.log)
    try:
        if not name or folder != log_dir or not os.path.isfile(run.state.log):
            name = 'log-%s-%s' % (s.DATASET, time.strftime('%Y%m%d-%H%M%S'))
            name = _make_new(log_dir, name)
        beside = os.path.join(log_dir, 'run' + name[len('log'):])
        os.makedirs(beside, exist_ok=True)
        write = Log(os.path.join(log_dir, name))
        write.events = events.Events(beside, _steps_before(run), run.ends, run.state.done, run.step)
    except OSError as error:
        raise Fault('%s: cannot be made (%s)' % (error.filename, error.strerror))
    return write


def _steps_before(run):
    """Training steps before each increment of the plan, list of int."""
    num_train = [row['train'] for row in run.rows] + [now.num_train for now in run.remaining]
    steps_before = []
    total = 0
    for number in num_train:
        steps_before.append(total)
        total += settings.num_steps(run.s, number)
    return steps_before


def _make_new(folder, name):
    """Makes the folder run-<..> of a new log. Returns the log's name, longer if it is taken."""
    os.makedirs(folder, exist_ok=True)
    while True:
        try:
            os.mkdir(os.path.join(folder, 'run' + name[len('log'):]))
            return name
        except FileExistsError:
            name += '-2'
