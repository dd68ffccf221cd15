"""A run: what is done so far, where it continues, saving and stopping."""
import contextlib
import os
import shlex
import shutil
import signal
import sys
import threading
import time

import numpy as np

import bic_layer
import resnet_model
from data import Fault, dataset, devices, settings
from logs import checkpoint, export, log, results, tables

STATUS = 75  # of a process that was stopped and can be resumed; EX_TEMPFAIL, "try again", in BSD's sysexits.h
_INTERRUPTS = []  # signals that raised KeyboardInterrupt: Python drops it while an object is deleted, so `save` looks here
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # Ctrl-C; what schedulers send; a lost terminal

# The state of a run before its first step; checkpoints keep these. `trained`: the digest of the increment's training images.
# `sums`: losses of the steps since the last [train] line.
NEW = dict(dataset.NEW, settings={}, fits=[], results=[], matrix=[], hours=0.0, trained='', step=0, sums=[], log='')


class Run:
    """One run, new or resumed from its newest checkpoint.

    Args: s, faults: from `settings.read`. prepared, seen: dicts, see `dataset.read`. on: devices.Devices.

    Attributes:
        asked: bool, whether a signal has asked the training to stop.
        data, plan: from `dataset.read`. missing: list of str, why the run cannot start, one line each.
        resumed: str, folder of the newest checkpoint, or None. damaged: list of str, newer checkpoints that are damaged.
        step: int, steps done of the next increment. sums: list of lists, losses of the steps since the last [train] line.
        weights: dict from name to array, the newest trained network; None before the first one, and after a resume within an
            increment until its training ends.
        exemplars: list of int arrays: by label, the stored images of the old classes, in order of choice.
        fits, rows, matrix: lists, per increment done: bic_layer.Fit; the row of the closing table; top-1 by increment.
        log: log.Log, in `opened`. log_path: str.
    """

    def __init__(self, s, faults, prepared, on, seen=None):
        self.s, self.devices, self.log, self.asked = s, on, None, False
        self.folder = '%s/%s' % (s.MODEL_DIR, s.DATASET)
        arrays, state, self.resumed, self.damaged = checkpoint.newest(self.folder) if not faults else (None, None, None, [])
        if self.resumed:
            faults = settings.changes(s, state['settings'], self.resumed)
        state = state or NEW
        self.data, self.exemplars, self.plan, self.missing = dataset.read(s, faults, prepared, state, seen)
        self._classes = self.data.classes(state)
        self._take(arrays, state)

    def check(self):
        """Raises a Fault with the reasons if the run cannot start."""
        if self.missing:
            raise Fault('\n'.join(self.missing))

    @property
    def done(self):
        """Number of increments that are done."""
        return len(self.rows)

    @property
    def finished(self):
        return self.done == len(self.plan)

    @property
    def steps_left(self):
        """Training steps to the end of the run, int."""
        steps = [settings.num_steps(self.s, now) for now in self.plan]
        shared = steps[0] if self.s.FIRST_INCREMENT_FROM and not (self.step or self.rows) else 0
        return sum(steps[self.done:]) - self.step - shared

    def _take(self, arrays, state):
        """Takes over the state of a checkpoint; None in it means an unknown number."""
        nan = float('nan')
        self.fits = [bic_layer.Fit(*[nan if value is None else value for value in fit]) for fit in state['fits']]
        self.rows = [{key: nan if value is None else value for key, value in row.items()} for row in state['results']]
        self.matrix = [[nan if value is None else value for value in row] for row in state['matrix']]
        self.step, self.sums, self.log_path = state['step'], state['sums'], state['log']
        self._trained, self._hours, self._began, self._saved = state['trained'], state['hours'], time.time(), time.time()
        self._steps_done = 0  # in this process, of increments that are done
        self._arrays, self.weights, self._last_layer = None, None, {}
        if self.step:
            self._arrays = arrays
        elif arrays:
            self.weights, self._last_layer = checkpoint.network(arrays)

    def take_first_increment(self):
        """Takes the first network of the run in FIRST_INCREMENT_FROM, if set, as if this run had just trained it.

        Raises: Fault: there is none, or this run would train another one.
        """
        if not self.s.FIRST_INCREMENT_FROM or self.resumed:
            return
        path = '%s/%s/increment-0' % (self.s.FIRST_INCREMENT_FROM, self.s.DATASET)
        remedy = 'with --FIRST_INCREMENT_FROM= it is trained anew'
        try:
            weights, state = checkpoint.read(path)
        except (OSError, ValueError) as error:
            raise Fault('FIRST_INCREMENT_FROM=%s: %s is not the first increment of a run (%s); %s'
                        % (self.s.FIRST_INCREMENT_FROM, path, error, remedy))
        faults = list(settings.changes(self.s, state['settings'], path, [settings.LATER], remedy).values())
        trained = self.data.digest(np.concatenate(self.data.train[:self.plan[0].num_seen]))
        if trained != state['trained'] or len(weights['dense/bias']) != len(self.data.names):
            faults.append('FIRST_INCREMENT_FROM=%s: that network was trained on other images, or has another number of classes; '
                          '%s' % (self.s.FIRST_INCREMENT_FROM, remedy))
        if faults:
            raise Fault('\n'.join(faults))
        self._trained, self.step = trained, settings.num_steps(self.s, self.plan[0])
        self._arrays = {'resnet/' + name: value for name, value in weights.items()}

    @contextlib.contextmanager
    def opened(self):
        """A context that keeps other runs out of the folder and has the log open."""
        with checkpoint.lock(self.folder, self.resumed) if self.devices.chief else contextlib.nullcontext():
            self._agree(devices.facts(self.s), 'start')  # from now on the chief's lock is there
            self._began = self._saved = time.time()
            self.log = log.begin(self)
            self.log_path = self.log.path or ''
            try:
                self._export()
                yield
            finally:
                self.log.close()

    def begin(self, now, train):
        """Prepares an increment. Checks that it continues on the images it began with, and that all workers agree.

        Args: train: int array, its training images.
        """
        trained, num_classes = self.data.digest(train), len(self.data.names)
        if self.step and (trained != self._trained or len(self._arrays['resnet/dense/bias']) != num_classes):
            raise Fault('%s: increment %d began with other images, or with fewer classes; put its images back, or delete '
                        '%s/increment-%d-step-* to begin this increment anew'
                        % (self.resumed, now.increment, self.folder, now.increment))
        self._trained, self.weights = trained, resnet_model.grown(self.weights, num_classes, self.s.SEED)
        self._agree(dict(
            checkpoint=os.path.basename(self.resumed or ''), step=self.step, images=trained, classes=self._classes,
            MODEL_DIR=checkpoint.lock_state(self.folder)[0]), 'increment=%d' % now.increment)

    def _agree(self, facts, doing):
        """Compares facts with all other workers. During the wait, a signal ends the process at once."""
        if self.devices.num_workers > 1:
            with _heard(at_once=True):
                self.devices.agree(self.s, facts, doing)

    def restore(self, session, model):
        """Initialises a model's variables from the checkpoint within this increment, or else from the previous network."""
        try:
            if self.step:
                variables = model.variables  # of another run's first increment, only the network is there
                if not self.resumed:
                    variables = {name: variable for name, variable in variables.items() if name.startswith('resnet/')}
                values = resnet_model.feeds(variables, self._arrays)
            else:
                values = resnet_model.first_weights(model.networks, self.weights, self.s.SEED)
        except ValueError as error:
            raise Fault('%s: %s; restore it, or delete the checkpoint' % (self.resumed or self.s.FIRST_INCREMENT_FROM, error))
        with self.devices.waiting('initialising the network'):
            session.run(model.initializer, values)

    def save(self, now, values, step=0, sums=()):
        """Writes a checkpoint and a [save] line, if this process is the chief.

        Args:
            values: dict from name to array: within an increment all variables of its graph, after it those of the network.
            step: int, steps done of the increment; 0 after it. sums: list of lists, losses since the last [train] line.
        """
        if _INTERRUPTS:
            raise KeyboardInterrupt
        self._saved = time.time()
        if not self.devices.chief:
            return
        state = dict(settings=settings.fixed(self.s), sizes=[other.num_seen - other.num_old for other in self.plan],
                     classes=self._classes, exemplars=[self.data.relative(numbers) for numbers in self.exemplars],
                     fits=self.fits, results=self.rows, matrix=self.matrix, trained=self._trained, step=step, sums=sums,
                     log=self.log_path, hours=self._hours + (time.time() - self._began) / 3600)
        self.resumed = checkpoint.write(self.folder, values, state, self.resumed)
        self.log('save', increment=now.increment, dir=self.resumed)

    @contextlib.contextmanager
    def noting_signals(self):
        """A context for training steps: a signal sets `asked`; the same signal again ends the process at once.

        Signals that were ignored at the start, as by nohup, stay ignored.
        """
        def note(number, _):
            self.asked = True

        before = {number: signal.signal(number, note) for number in _SIGNALS if signal.getsignal(number) != signal.SIG_IGN}
        try:
            with _heard(at_once=False):
                yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        if self.asked:  # while the last checkpoint was written
            raise KeyboardInterrupt

    def requests(self, now, step):
        """After `step` steps of an increment: whether a signal asks to stop, and whether a checkpoint is due, two bools."""
        every, images_done = self.s.CHECKPOINT_EPOCHS * now.train, step * self.s.BATCH_SIZE
        border = bool(every and step) and images_done // every > (images_done - self.s.BATCH_SIZE) // every
        return [self.asked, border or time.time() - self._saved > 60 * self.s.CHECKPOINT_MINUTES]

    def follow(self, now):
        """In a worker that is not the chief: waits for the chief's checkpoint of this increment and takes it over.

        Raises: Fault: no sign of life from the chief for WORKER_MINUTES.
        """
        path, seen, since = os.path.join(self.folder, 'increment-%d' % now.increment), None, time.monotonic()
        while True:
            with contextlib.suppress(OSError, ValueError):  # not there yet, or a damaged one from before
                arrays, state = checkpoint.read(path)
                break
            stamp = checkpoint.lock_state(self.folder)
            if stamp != seen:
                seen, since = stamp, time.monotonic()
            elif time.monotonic() - since > 60 * self.s.WORKER_MINUTES:
                raise Fault('increment=%d: no sign of life from the chief, worker 0, for %g minutes (WORKER_MINUTES); its output '
                            'says why; start all workers again, and they resume from the last checkpoint'
                            % (now.increment, self.s.WORKER_MINUTES))
            time.sleep(0.5)
        self._take(arrays, state)
        self.resumed = path
        self.exemplars = [self.data.find(paths, label)[0] for label, paths in enumerate(state['exemplars'])]

    def finish(self, now, fit, scores, last_layer):
        """Ends an increment: writes tables, pictures, log lines, the checkpoint, and the exported model.

        Args: fit: bic_layer.Fit. scores: results.Scores of the test. last_layer: dict, variables to replace in that model.
        """
        s, folder = self.s, self.log.events.folder
        results.record(folder, self.data, now, scores, self.exemplars)
        self.log.events.pictures(s, self.data, now, scores, self.exemplars)
        self.fits.append(fit)
        self.rows.append(results.row(now, fit, scores))
        self.matrix.append(scores.on.by_increment)
        self._steps_done += settings.num_steps(s, now) - self.step
        self.step, self.sums, self._last_layer = 0, [], last_layer
        hours = (time.time() - self._began) / 3600
        left = hours * self.steps_left / self._steps_done if self._steps_done else float('nan')
        results.close(s, self.log, self.rows, self.matrix, self._hours + hours, left)
        if self.finished:
            results.finish(self.log, self.data, self.rows, scores.on.by_class)
        # If this increment was trained before and its checkpoint was damaged, an old model is still there.
        shutil.rmtree(export.path_of(self.folder, now.increment), ignore_errors=True)
        self.save(now, dict(self.weights, **{checkpoint.LAST_LAYER + name: value for name, value in self._last_layer.items()}))
        self._export()

    def _export(self):
        """Writes the model of the last increment if it is missing. The checkpoint comes first: a failure loses no training."""
        if self._lacks_model():
            export.write(self.folder, self.s, self.plan[self.done - 1], self.data.names, dict(self.weights, **self._last_layer),
                         self.fits[-1])

    def export(self):
        """Writes the model of a finished run if it is missing."""
        if self._lacks_model():
            with checkpoint.lock(self.folder, self.resumed):
                self._export()

    def _lacks_model(self):
        return self.weights and self.devices.chief and not os.path.isdir(export.path_of(self.folder, self.done - 1))


def compare(each, prepared, on, execute):
    """Carries out several runs in turn and prints their results side by side. Returns each run's closing table, list of dict.

    Args:
        each: list of (settings, faults), from `settings.read`. prepared, on: as for Run.
        execute: function that carries out a Run and returns its rows.

    Raises: Fault: one of the runs cannot begin; then none begins. KeyboardInterrupt: with the name of the run.
    """
    seen = {}
    runs = [Run(s, faults, prepared, on, seen) for s, faults in each]
    for run in runs:
        run.check()
    compared, began, done, to_do = [], time.time(), 0, sum(run.steps_left for run in runs)
    while runs:
        run = runs.pop(0)  # with its data
        s, steps = run.s, run.steps_left
        title = 'run %d of %d, %s: ' % (len(each) - len(runs), len(each), os.path.basename(s.MODEL_DIR))
        left = '%.2f' % ((time.time() - began) / 3600 / done * (to_do - done)) if done else 'not known yet'
        if on.chief and not s.PLAN_ONLY:
            print('\n%s%s' % (title, 'is finished' if run.finished else 'hours left of all: %s' % left), flush=True)
        try:
            if run.finished and not s.PLAN_ONLY:
                run.export()
            else:
                execute(run)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(title)
        done += steps
        rows = run.rows and run.rows[:-1] + [dict(run.rows[-1], forgetting_top1=results.forgetting(run.matrix))]
        compared.append((vars(s), rows))
    if all(rows for _, rows in compared) and on.chief:
        print('\n%s\n\n%s\n\nPictures: python -m logs.report %s/*=*/log-*' % (
            tables.comparison(compared, each[0][0].HEADLINE), tables.SPREAD, shlex.quote(os.path.dirname(each[0][0].LOG_DIR))))
    return [rows for _, rows in compared]


@contextlib.contextmanager
def _heard(at_once):
    """A context for long calls of TensorFlow, in which Python runs no signal handlers: a thread answers signals.

    at_once: bool. True: a signal ends the process. False: the second one of a kind does; at the first, a message is printed.
    """
    numbers, wakeup = os.pipe()
    os.set_blocking(wakeup, False)

    def answer():
        seen = set()
        while True:
            number = os.read(numbers, 1)  # of a signal; nothing when this context ends
            if not number:
                break
            if at_once or number in seen:
                print('stopped; the same command resumes', file=sys.stderr, flush=True)
                os._exit(STATUS)
            seen.add(number)
            print('stopping after this training step; the same signal again stops at once', file=sys.stderr, flush=True)
        os.close(numbers)

    before = signal.set_wakeup_fd(wakeup)
    threading.Thread(target=answer, daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.close(wakeup)


def like_ctrl_c():
    """Makes signals raise KeyboardInterrupt. Those that were ignored at the start, as by nohup, stay ignored."""
    for number in _SIGNALS:
        if signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, _interrupt)


def _interrupt(number, _):
    _INTERRUPTS.append(number)
    raise KeyboardInterrupt
