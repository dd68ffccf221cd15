"""The devices that share each batch: those of this machine, or of several that TF_CONFIG names, by TensorFlow's own engine.

Training is synchronous: every device takes its share of the same batch, gradients are summed over all of them. One device alone
is the plain case, without a strategy.
"""
import atexit
import contextlib
import glob
import hashlib
import os

import numpy as np
import tensorflow.compat.v1 as tf

from data import Fault, machine, workers

_SERVERS = []  # this worker's
atexit.register(_SERVERS.clear)  # TensorFlow 1.15's complains when it is deleted after the modules


class Replicas:
    """The devices, as a graph and its session see them.

    Attributes: strategy, of TensorFlow, or None for one device; total, first, local, how many devices there are, the number of
    this process's first one, and how many it has; workers, a Workers, all processes; target, for a tf.Session.
    """

    def __init__(self, strategy=None, local=1, joined=workers.NONE):
        self.strategy, self.local, self.workers, self.target = strategy, local, joined, ''
        self.total, self.first = local * len(joined.addresses), local * joined.index

    def config(self, s):
        """The tf.ConfigProto of a session. s: settings."""
        config = machine.session_config(s)
        if self.workers.several:
            return self.strategy.update_config_proto(config)
        if self.strategy and not machine.num_gpus():
            config.device_count['CPU'] = self.local
        return config

    def scope(self):
        """The context in which the graph is built."""
        return self.strategy.scope() if self.strategy else contextlib.nullcontext()

    def run(self, step):
        """Builds `step`, a function of a replica's number in this process, for each; returns what it returns, per replica."""
        if not self.strategy:
            return step(0)
        # TensorFlow 1.15 numbers replicas within a process, later versions across all of them.
        run = getattr(self.strategy, 'run', None) or self.strategy.experimental_run_v2
        return run(lambda: step(tf.distribute.get_replica_context().replica_id_in_sync_group % self.local))

    def share(self, replica, tensors, count=None):
        """What a replica gets of this process's part of a batch.

        Args:
            replica: its number in this process. tensors: list of tensors, [images, ..]. count: int tensor, images of the batch of
                all processes; None: the whole batch is this process's.

        Returns:
            list of tensors, [images of this replica, ..].
        """
        if not self.strategy:
            return tensors
        first, total = (0, self.local) if count is None else (self.first, self.total)
        with tf.device('/cpu:0'):  # not the whole batch to every device
            count = tf.shape(tensors[0])[0] if count is None else count
            begin, end = (count * (first + number) // total - count * first // total for number in (replica, replica + 1))
            return [tensor[begin:end] for tensor in tensors]

    def total_of(self, value):
        """The sum over all replicas of what `run` gave, a tensor."""
        return self.strategy.reduce(tf.distribute.ReduceOp.SUM, value, axis=None) if self.strategy else value

    def each(self, function, images):
        """Shares images among this process's replicas.

        Args:
            function: from a tensor [images, ..] to a tuple of tensors [images, ..]. images: tensor [images, ..].

        Returns:
            tuple of tensors [images, ..].
        """
        if not self.strategy:
            return function(images)

        def step(replica):
            with tf.device('/cpu:0'):  # one image more, for a share may be empty, and networks do not take that
                mine = tf.concat(self.share(replica, [images]) + [images[:1]], 0)
            return [output[:-1] for output in function(mine)]

        return tuple(tf.concat(self.strategy.experimental_local_results(value), 0) for value in self.run(step))

    def part(self, batch_size):
        """Images of a batch that are this process's."""
        return batch_size * self.local // self.total

    def mine(self, positions, total_images, batch_size):
        """Which positions in an increment's order of training are this process's.

        Args:
            positions: int array, from 0, over all epochs. total_images: int, how many there are. batch_size: int.

        Returns:
            bool array.
        """
        within = positions % batch_size
        count = np.minimum(batch_size, total_images - positions + within)  # images of the batch: the last one may be smaller
        return (within >= count * self.first // self.total) & (within < count * (self.first + self.local) // self.total)


ALONE = Replicas()


def count(s):
    """How many devices share each batch."""
    num_workers = len(workers.cluster()[0])
    return num_workers * max(1, machine.num_gpus()) if num_workers > 1 else s.REPLICAS or max(1, machine.num_gpus())


def of_machine(s, facts=()):
    """The replicas of this process, connected with the other processes that TF_CONFIG names.

    Args:
        s: settings. facts: dict, what else all workers must have alike, see `workers.Workers.compare`.

    Raises:
        Fault: TF_CONFIG is malformed, this worker's address cannot be taken, another worker does not answer, or has other
            GPUs, another TensorFlow, other code, or other facts. Stopped: as was asked.
    """
    total, (addresses, index) = count(s), workers.cluster()
    if s.REPLICAS and (len(addresses) > 1 or s.REPLICAS > machine.num_gpus() > 0):
        raise Fault('REPLICAS=%d: %s' % (s.REPLICAS, 'TF_CONFIG names several workers; each uses all of its visible GPUs'
                                         if len(addresses) > 1 else 'there are %d GPUs' % machine.num_gpus()))
    if total == 1:
        return ALONE
    machine.let_memory_grow()
    if len(addresses) > 1:
        joined = workers.Workers(addresses, index)
        joined.join(dict(facts, GPUs=machine.num_gpus(), TensorFlow=tf.__version__, code=_code()), s.WORKER_MINUTES)
        with joined.telling():
            return _of_workers(s, joined)
    kind = 'gpu' if machine.num_gpus() else 'cpu'
    with tf.Graph().as_default():
        return Replicas(tf.distribute.MirroredStrategy(['/%s:%d' % (kind, number) for number in range(total)]), total)


def _of_workers(s, joined):
    with tf.Graph().as_default():  # else TensorFlow 2 starts a server of its own
        kinds = tf.distribute.experimental.CollectiveCommunication
        strategy = tf.distribute.experimental.MultiWorkerMirroredStrategy(kinds.NCCL if machine.num_gpus() else kinds.RING)
    devices = Replicas(strategy, max(1, machine.num_gpus()), joined)
    try:
        _SERVERS.append(tf.distribute.Server({'worker': joined.addresses}, 'worker', joined.index, config=devices.config(s)))
    except tf.errors.OpError as error:
        raise Fault('TF_CONFIG: this worker cannot take its address %s (%s)'
                    % (joined.addresses[joined.index], str(error).split('\n')[0]))
    workers.wait_for(joined.addresses, s.WORKER_MINUTES)
    devices.target = _SERVERS[-1].target
    return devices


def _code():
    """A digest of the project's program files."""
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    digest = hashlib.sha256()
    for path in sorted(glob.glob(os.path.join(root, '*.py')) + glob.glob(os.path.join(root, '[dl]*', '*.py'))):
        with open(path, 'rb') as file:
            digest.update(file.read())
    return digest.hexdigest()[:12]
