"""The devices that share each batch: those of this machine, or of the machines in TF_CONFIG.

Training is synchronous, by TensorFlow's own distribution engine. Every device takes its share of
the same batch, and gradients are summed over all of them. On one device there is no strategy, and
the share is 1.
"""
import atexit
import contextlib
import sys
import time

import numpy as np
import tensorflow.compat.v1 as tf

from data import Fault, numerics, settings, workers

_SERVERS = []  # this worker's
atexit.register(_SERVERS.clear)  # TensorFlow 1.15 fails if its server is deleted after its modules
_LINGER = 2  # seconds in which other workers fetch this one's part of the last sum


class Devices:
    """The devices that a graph and its session run on.

    Args:
        s: settings. None: one device.

    Attributes:
        strategy: of TensorFlow, or None for one device.
        total: int, number of devices.
        local: int, number of those of this process.
        first: int, the number of the first of these.
        chief: bool. The chief evaluates, corrects, herds and writes; other workers only train.
        num_workers: int.
    """

    def __init__(self, s=None):
        addresses, index = workers.cluster() if s else ([''], 0)
        self.num_workers = len(addresses)
        self.chief = index == 0
        self.total = count(s) if s else 1
        self.local = self.total // self.num_workers
        self.first = self.local * index
        self.strategy = None
        self._target = ''
        self._minutes = s.WORKER_MINUTES if s else 0
        if s and s.REPLICAS and self.num_workers > 1:
            raise Fault('REPLICAS=%d: TF_CONFIG names several workers, and each uses all of its '
                        'visible GPUs' % s.REPLICAS)
        if s and s.REPLICAS > numerics.num_gpus() > 0:
            raise Fault('REPLICAS=%d: there are %d GPUs' % (s.REPLICAS, numerics.num_gpus()))
        if self.total > 1:
            # Before the strategy starts them.
            for gpu in tf.config.experimental.list_physical_devices('GPU'):
                tf.config.experimental.set_memory_growth(gpu, True)
            with tf.Graph().as_default():  # otherwise TensorFlow 2 starts a server of its own
                self.strategy = self._strategy()
        if self.num_workers > 1:
            self._serve(s, addresses, index)

    def _strategy(self):
        if self.num_workers > 1:
            kinds = tf.distribute.experimental.CollectiveCommunication
            kind = kinds.NCCL if numerics.num_gpus() else kinds.RING
            return tf.distribute.experimental.MultiWorkerMirroredStrategy(kind)
        kind = 'gpu' if numerics.num_gpus() else 'cpu'
        names = ['/%s:%d' % (kind, number) for number in range(self.total)]
        return tf.distribute.MirroredStrategy(names)

    def _serve(self, s, addresses, index):
        """Starts this worker's server at its address."""
        cluster = {'worker': addresses}
        try:
            server = tf.distribute.Server(cluster, 'worker', index, config=self._config(s))
        except tf.errors.OpError as error:
            raise Fault('TF_CONFIG: this worker cannot take its address %s (%s)'
                        % (addresses[index], str(error).split('\n')[0]))
        _SERVERS.append(server)
        self._target = server.target
        if not self.chief:
            print('worker %d of %s: follows the chief, worker 0, whose output and log show the '
                  'progress' % (index, ', '.join(addresses)), file=sys.stderr, flush=True)

    def _config(self, s):
        config = numerics.session_config(s)
        if self.num_workers > 1:
            return self.strategy.update_config_proto(config)
        if self.strategy and not numerics.num_gpus():
            config.device_count['CPU'] = self.local
        return config

    @contextlib.contextmanager
    def graph(self):
        """A context with a new graph. Every device has a copy of its variables."""
        with tf.Graph().as_default():
            with self.strategy.scope() if self.strategy else contextlib.nullcontext():
                yield

    def session(self, s):
        """A session for the current graph, which becomes final."""
        if self.num_workers > 1:
            self._part = tf.placeholder(tf.float32, [None, None])
            self._sum = self.total_of(self.run(lambda replica: self._part / self.local))
        tf.get_default_graph().finalize()
        return tf.Session(self._target, config=self._config(s))

    def run(self, step):
        """Builds a function on each device.

        Args:
            step: function from the number of a device in this process to a tensor.

        Returns:
            what it returns, per device.
        """
        if not self.strategy:
            return step(0)
        # TensorFlow 1.15 numbers replicas within a process, later versions across all of them.
        run = getattr(self.strategy, 'run', None) or self.strategy.experimental_run_v2

        def on_replica():
            replica = tf.distribute.get_replica_context().replica_id_in_sync_group
            return step(replica % self.local)

        return run(on_replica)

    def totals(self, step):
        """Builds a training step on each device, and sums what it returns.

        Args:
            step: function from the number of a device in this process to a dict of float scalar
                tensors, and to a list of operations.

        Returns:
            dict of float scalar tensors, the sums over all devices. Fetching any of them runs the
            operations on all devices.
        """
        names = []

        def stacked(replica):
            values, updates = step(replica)
            names[:] = values
            # The dependency must be that of the stack: from a product with a constant, TensorFlow's
            # graph optimizer may remove it, and then nothing is trained.
            with tf.control_dependencies(updates):
                return tf.stack(list(values.values()))

        sums = self.total_of(self.run(stacked))
        return dict(zip(names, tf.unstack(sums)))

    def total_of(self, value):
        """The sum over all devices of what `run` returned, a tensor."""
        if not self.strategy:
            return value
        return self.strategy.reduce(tf.distribute.ReduceOp.SUM, value, axis=None)

    def share(self, replica, batch, count):
        """One device's share of a batch, to train on.

        Args:
            replica: int, the device's number in this process.
            batch: (images, labels), tensors [part, ..]: this process's part of the batch.
            count: int tensor, images of the whole batch.

        Returns:
            images, labels: those of this device.
            share: float32 tensor, or 1.0. The devices' means, each times its share, add up to the
                batch's mean.
        """
        images, labels = batch
        if not self.strategy:
            return images, labels, 1.0
        images, labels = _slices(replica, [images, labels], count, self.first, self.total)
        return images, labels, tf.cast(tf.size(labels), tf.float32) / tf.cast(count, tf.float32)

    def each(self, function, images):
        """Applies a function to images that this process's devices share.

        Args:
            function: from images to a tensor [images, ..].
            images: tensor [images, ..].

        Returns:
            the function's tensor, of all images.
        """
        if not self.strategy:
            return function(images)

        def step(replica):
            own_images, = _slices(replica, [images], tf.shape(images)[0], 0, self.local)
            with tf.device('/cpu:0'):
                # A share may be empty, and the network rejects empty batches.
                own_images = tf.concat([own_images, images[:1]], 0)
            return function(own_images)[:-1]

        return tf.concat(self.strategy.experimental_local_results(self.run(step)), 0)

    def initialize(self, session, net, arrays):
        """Initialises all variables of a net. Those without an array get their own initial value.

        Args:
            session: of the net's graph.
            net: see imagenet_main.build.
            arrays: dict from a variable's name to its array.

        Raises:
            ValueError: an array does not fit its variable.
        """
        feed = numerics.initial_values(net.variables, arrays)
        with self.waiting('initialising the network'):
            session.run(net.initializer, feed)

    def read(self, session, values):
        """Reads variables; of moving averages the mean over all devices.

        Args:
            session: of a net.
            values: dict from name to tensor, some of the net's values.

        Returns:
            dict from name to array.
        """
        with self.waiting('reading the network'):
            return session.run(values)

    def average_and_read(self, session, net):
        """Gives every device the mean of the moving averages, and reads all variables of a net.

        Returns:
            dict from a variable's name to its array.
        """
        arrays = self.read(session, net.values)
        if self.strategy:
            self.initialize(session, net, arrays)
        return arrays

    def summed(self, session, array):
        """The sum over all workers of an array, float32 [.., ..]; waits for all of them."""
        if self.num_workers == 1:
            return array
        return session.run(self._sum, {self._part: array})

    def agree(self, s, facts, doing):
        """Waits for all other workers.

        Args:
            s: settings.
            facts: dict from name to a JSON value.
            doing: str, for messages.

        Raises:
            Fault: another worker has other facts.
        """
        doing += ': comparing settings, code and data with the other workers'
        with self.waiting(doing), self.graph(), self.session(s) as session:
            total = self.summed(session, workers.digests(facts))
        try:
            workers.compare(facts, np.round(total), self.num_workers)
        except Fault:
            self.leave()
            raise

    def waiting(self, doing):
        """A context for code that waits for other workers. doing: str, for messages."""
        if self.num_workers == 1:
            return contextlib.nullcontext()
        return workers.watchdog(self._minutes, doing)

    def leave(self):
        """Call it before this process ends: other workers may still fetch its part of a sum."""
        if self.num_workers > 1:
            time.sleep(_LINGER)

    def part(self, batch_size):
        """How many images of a batch this process gets, int."""
        return batch_size * self.local // self.total

    def mine(self, positions, num_images, batch_size):
        """Which positions in an increment's order of training belong to this process.

        Args:
            positions: int array, from 0, over all epochs.
            num_images: int, number of positions in all epochs.
            batch_size: int.

        Returns:
            bool array.
        """
        within = positions % batch_size
        batch_begin = positions - within
        count = np.minimum(batch_size, num_images - batch_begin)  # the last batch may be smaller
        begin = count * self.first // self.total
        end = count * (self.first + self.local) // self.total
        return (within >= begin) & (within < end)


def _slices(replica, tensors, count, first, total):
    """The part of some tensors that belongs to a device, list of tensors.

    Args:
        replica: int, the device's number in this process.
        tensors: list of tensors [images, ..], of this process.
        count: int tensor, images of all devices.
        first: int, the number of this process's first device.
        total: int, number of devices.
    """
    with tf.device('/cpu:0'):  # slice on the CPU: each device receives only its own images
        before_process = count * first // total
        begin = count * (first + replica) // total - before_process
        end = count * (first + replica + 1) // total - before_process
        return [tensor[begin:end] for tensor in tensors]


ONE = Devices()


def count(s):
    """Number of devices that share each batch, int."""
    num_workers = len(workers.cluster()[0])
    num_gpus = max(1, numerics.num_gpus())
    if num_workers > 1:
        return num_workers * num_gpus
    return s.REPLICAS or num_gpus


def facts(s):
    """What all workers must have in common from the start, dict, for `Devices.agree`."""
    return dict(
        settings.fixed(s),
        code=workers.code(),
        TensorFlow=tf.__version__,
        GPUs=numerics.num_gpus())
