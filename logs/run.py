"""A run: what is done, where it goes on, what is saved. It ties the rooms of logs/ together."""
import contextlib
import dataclasses
import os
import shutil
import time

import numpy as np

import resnet_model
from data import Fault, dataset, devices, settings
from logs import beside, checkpoint, export, log, metrics, signals
from logs.state import State
from logs.training import Training

_STUDENT = 'resnet/'       # in graphs, before the names of a network's variables
_OLD = 'resnet_old/'


class Run:
    """One run, new or resumed from its newest checkpoint.

    Args:
        s: settings.
        faults: data.Faults, to which what is wrong with the run is added.
        devices: devices.Devices.
        cache: dataset.Cache or None.

    Attributes:
        s, faults, devices: as above.
        folder: str, MODEL_DIR/DATASET.
        state: state.State, what is done.
        data: dataset.Dataset.
        memory: list by label of int arrays, the exemplars of the old classes in order of choice.
        remaining: list of exemplar.Increment.
        resumed: str, folder of the newest checkpoint, or None.
        damaged: list of str, newer checkpoints that are damaged.
        log: log.Log, in `opened`.
    """

    def __init__(self, s, faults, devices, cache=None):
        self.s = s
        self.faults = faults
        self.devices = devices
        self.folder = '%s/%s' % (s.MODEL_DIR, s.DATASET)
        self.log = None
        self.resumed = None
        self.damaged = []
        self._began = time.time()
        self._steps_done = 0  # in this process, of increments that are done
        self._network = None  # the previous increment's, dict from name to array; None before it
        self._correction = None
        self._arrays = {}     # the variables to go on with within an increment

        known = dataset.Known()
        saved = None if faults.concern('MODEL_DIR', 'DATASET') else checkpoint.newest(self.folder)
        if saved:
            self.resumed = saved.path
            self.damaged = saved.damaged
            settings.changes(s, saved.state.settings, saved.path, faults)
            known = dataset.Known(saved.state.sizes, saved.state.classes, saved.state.exemplars)
        self.data, self.memory, sizes, self.remaining = dataset.read(
            s, faults, known, cache)
        self.state = State(
            settings=settings.fixed(s), sizes=sizes, classes=self.data.classes(known),
            exemplars=[], rows=[], step=0)
        if saved:
            self._continue(saved.arrays, saved.state)

    def _continue(self, arrays, state):
        """Takes over a checkpoint."""
        # New classes may have come since.
        self.state = dataclasses.replace(
            state, sizes=self.state.sizes, classes=self.state.classes)
        self._began = time.time()
        if state.step:
            self._arrays = arrays
        else:
            self._network, self._correction = checkpoint.split(arrays)

    @property
    def rows(self):
        """The rows of the closing table, see metrics.result_row."""
        return self.state.rows

    @property
    def step(self):
        """Training steps done of the next increment, int."""
        return self.state.step

    @property
    def ends(self):
        """Classes seen after each increment of the plan, list of int."""
        return self.state.ends

    @property
    def finished(self):
        return not self.remaining

    @property
    def steps_left(self):
        """Training steps to the end of the run, int."""
        steps = [settings.num_steps(self.s, now.num_train) for now in self.remaining]
        takes_first = self.s.FIRST_INCREMENT_FROM and not self.resumed
        shared = steps[0] if takes_first and not self.step else 0
        return sum(steps) - self.step - shared

    @property
    def hours(self):
        """Spent on the run so far, earlier processes included, float."""
        return self.state.hours + (time.time() - self._began) / 3600

    def take_first_increment(self):
        """Takes the first network of the run in FIRST_INCREMENT_FROM, if set, as if just trained.

        Raises:
            Fault: there is none, or this run would train another one.
        """
        source = self.s.FIRST_INCREMENT_FROM
        if not source or self.resumed:
            return
        path = '%s/%s/increment-0' % (source, self.s.DATASET)
        remedy = 'with --FIRST_INCREMENT_FROM= it is trained anew'
        try:
            arrays, state = checkpoint.read(path)
        except (OSError, ValueError) as error:
            raise Fault('FIRST_INCREMENT_FROM=%s: %s is not the first increment of a run (%s); %s'
                        % (source, path, error, remedy))
        settings.changes(
            self.s, state.settings, path, self.faults, ignored=settings.LATER, remedy=remedy)
        trained_on = self.data.digest(np.concatenate(self.data.train[:self.ends[0]]))
        network, _ = checkpoint.split(arrays)
        num_classes = resnet_model.last_layer(network)[1].size
        if trained_on != state.trained_on or num_classes != len(self.data.names):
            self.faults.add('FIRST_INCREMENT_FROM=%s: that network was trained on other images, or '
                            'has another number of classes; %s' % (source, remedy))
        self.faults.raise_any()
        self.state.trained_on = trained_on
        self.state.step = settings.num_steps(self.s, self.remaining[0].num_train)
        self._arrays = {_STUDENT + name: array for name, array in network.items()}

    @contextlib.contextmanager
    def opened(self):
        """A context that keeps other runs out of the folder and has the log open."""
        no_lock = contextlib.nullcontext()
        with checkpoint.lock(self.folder, self.resumed) if self.devices.chief else no_lock:
            # From now on the chief's lock is there.
            self._agree(devices.facts(self.s), 'start')
            self._began = time.time()
            self.log = log.begin(self)
            self.state.log = self.log.path or ''
            try:
                self._export_missing()
                yield
            finally:
                self.log.close()

    # ---- An increment ----------------------------------------------------------------------------
    def begin(self, now):
        """Begins an increment, or goes on with it.

        Args:
            now: exemplar.Increment.

        Returns:
            train, val, test: int arrays, see Dataset.split.

        Raises:
            Fault: it was begun with other images, or other workers do not agree.
        """
        trains_on_all = settings.METHODS[self.s.METHOD].trains_on_all
        old_images = self.data.train[:now.num_old] if trains_on_all else self.memory
        train, val, test = self.data.split(now, old_images)
        num_classes = len(self.data.names)
        trained_on = self.data.digest(train)
        if self.step:
            _, bias = resnet_model.last_layer(_student(self._arrays))
            if trained_on != self.state.trained_on or len(bias) != num_classes:
                raise Fault('%s: increment %d began with other images, or with fewer classes; put '
                            'its images back, or delete %s/increment-%d-step-* to begin this '
                            'increment anew' % (self.resumed, now.index, self.folder, now.index))
        self.state.trained_on = trained_on
        if self._network:
            self._network = resnet_model.grown(self._network, num_classes, self.s.SEED)
        self._agree(dict(
            checkpoint=os.path.basename(self.resumed or ''), step=self.step, images=trained_on,
            classes=self.state.classes, MODEL_DIR=checkpoint.lock_state(self.folder)[0]),
            'increment=%d' % now.index)
        return train, val, test

    def restore(self, net):
        """Initialises a net: from the checkpoint within this increment, or as it begins.

        Then student and old network are the previous network; the old one ends in its corrected
        last layer [C].

        Args:
            net: see imagenet_main.build.

        Raises:
            Fault: the checkpoint does not fit the net.
        """
        try:
            if self.step:
                arrays = self._arrays
                if self.resumed:  # of another run's first increment, only the network is there
                    missing = sorted(set(net.variables) - set(arrays))
                    if missing:
                        raise ValueError('%s is missing' % missing[0])
            else:
                arrays = self._first_arrays(net)
            self.devices.initialize(net.session, net, arrays)
            self._arrays = {}  # the session has them now
            self._network = None
        except ValueError as error:
            raise Fault('%s: network.npz does not fit: %s; restore it, or delete the checkpoint'
                        % (self.resumed or self.s.FIRST_INCREMENT_FROM, error))

    def _first_arrays(self, net):
        """What a net's variables begin an increment with, dict from name to array."""
        if not self._network:
            student = resnet_model.variables('resnet')
            shapes = {name: variable.shape.as_list() for name, variable in student.items()}
            drawn = resnet_model.initial_weights(shapes, self.s.SEED)
            return {_STUDENT + name: array for name, array in drawn.items()}
        networks = {_STUDENT: self._network}
        if resnet_model.variables('resnet_old'):
            old_network = self._network
            if settings.METHODS[self.s.METHOD].teaches_corrected:
                # Columns of classes not yet seen are not used.
                old_network = resnet_model.with_last_layer(
                    old_network, self._correction.kernel, self._correction.bias, net.num_classes)
            networks[_OLD] = old_network
        arrays = {}
        for scope, network in networks.items():
            for name, array in network.items():
                arrays[scope + name] = array
        return arrays

    @contextlib.contextmanager
    def training(self, net):
        """A context for the training steps of an increment: a signal ends them with a checkpoint.

        Args:
            net: see imagenet_main.build.

        Yields:
            training.Training, an iterator over the steps.
        """
        request = signals.Request()
        with request.noted():
            yield Training(self, net, request)

    def read_network(self, net):
        """Reads the trained network, dict from name to array."""
        values = {name: value for name, value in net.values.items() if name.startswith(_STUDENT)}
        return _student(self.devices.read(net.session, values))

    def follows_chief(self, now):
        """In a worker that is not the chief: waits for the chief's results and takes them over.

        Returns:
            bool, whether this is such a worker.

        Raises:
            Fault: no sign of life from the chief for WORKER_MINUTES.
        """
        if self.devices.chief:
            return False
        path = os.path.join(self.folder, 'increment-%d' % now.index)
        stamp = None
        since = time.monotonic()
        while True:
            with contextlib.suppress(OSError, ValueError):  # not there yet, or an old damaged one
                arrays, state = checkpoint.read(path)
                break
            previous_stamp = stamp
            stamp = checkpoint.lock_state(self.folder)
            if stamp != previous_stamp:
                since = time.monotonic()
            elif time.monotonic() - since > 60 * self.s.WORKER_MINUTES:
                raise Fault('increment=%d: no sign of life from the chief, worker 0, for %g '
                            'minutes (WORKER_MINUTES); its output says why; start all workers '
                            'again, and they resume from the last checkpoint'
                            % (now.index, self.s.WORKER_MINUTES))
            time.sleep(0.5)
        self._continue(arrays, state)
        self.resumed = path
        self.remaining = self.remaining[1:]
        self.memory = [self.data.find(paths, label)[0]
                       for label, paths in enumerate(state.exemplars)]
        return True

    def record(self, now, weights, correction, memory, scores):
        """Ends an increment: tables, pictures, log lines, the checkpoint, the exported model.

        Args:
            now: exemplar.Increment.
            weights: dict from name to array, the trained network.
            correction: bic_layer.Correction.
            memory: list by label of int arrays, images in order of choice.
            scores: metrics.Scores of the test.
        """
        beside.write(self.log.events.folder, self.data, now, scores, memory)
        self.log.events.pictures(self.s, self.data, now, scores, memory)
        self.memory = memory
        self._network = weights
        self._correction = correction
        self._steps_done += settings.num_steps(self.s, now.num_train) - self.step
        self.remaining = self.remaining[1:]
        self.state.rows.append(metrics.result_row(now, correction, scores))
        self.state.exemplars = [self.data.relative(numbers) for numbers in memory]
        self.state.step = 0
        self.state.losses = []
        log.write_result(self)
        if self.finished:
            log.write_end(self, scores)
        # If this increment was trained before and its checkpoint was damaged, an old model is
        # still there.
        shutil.rmtree(export.path_of(self.folder, now.index), ignore_errors=True)
        self.save(now, checkpoint.joined(weights, correction))
        self._export_missing()
        if self.finished:
            log.write_places(self)

    @property
    def hours_left(self):
        """To the end of the run, at the speed of this process so far, float; nan if unknown."""
        if not self._steps_done:
            return float('nan')
        hours = (time.time() - self._began) / 3600
        return hours * self.steps_left / self._steps_done

    # ---- Saving ----------------------------------------------------------------------------------
    def save(self, now, arrays, step=0, losses=()):
        """Writes a checkpoint and a [save] line, if this process is the chief.

        Args:
            now: exemplar.Increment.
            arrays: dict from name to array: within an increment all variables of its graph, after
                it those of the network and the corrected last layer.
            step: int, training steps done of the increment; 0 after it.
            losses: list of dict, the losses of the steps since the last [train] line.
        """
        signals.raise_lost()
        if not self.devices.chief:
            return
        state = dataclasses.replace(
            self.state, step=step, losses=list(losses), hours=self.hours)
        self.resumed = checkpoint.write(self.folder, arrays, state, self.resumed)
        self.log('save', increment=now.index, dir=self.resumed)

    def export(self):
        """Writes the model of a finished run if it is missing."""
        if self._lacks_model():
            with checkpoint.lock(self.folder, self.resumed):
                self._export_missing()

    def _export_missing(self):
        """Writes the model of the last increment if it is missing.

        The checkpoint comes first: a failure loses no training.
        """
        if self._lacks_model():
            path = export.path_of(self.folder, self.state.done - 1)
            export.write(path, self.s, self.state.names_seen, self._network, self._correction)

    def _lacks_model(self):
        path = export.path_of(self.folder, self.state.done - 1)
        return self._network and self.devices.chief and not os.path.isdir(path)

    def _agree(self, facts, doing):
        """Compares facts with all other workers; a signal meanwhile ends the process at once."""
        if self.devices.num_workers > 1:
            with signals.heard(at_once=True):
                self.devices.agree(self.s, facts, doing)


def _student(arrays):
    """The student among a graph's variables, dict from name to array."""
    student = {}
    for name, array in arrays.items():
        if name.startswith(_STUDENT):
            student[name[len(_STUDENT):]] = array
    return student
