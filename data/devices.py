"""The devices that share each batch: those of this machine, or of the machines that TF_CONFIG names.

Training is synchronous, by TensorFlow's own distribution engine. Every device takes its share of the same batch, and gradients
are summed over all of them. On one device there is no strategy, and the share is 1.
"""
import atexit
import contextlib
import ctypes
import sys
import time

import numpy as np
import tensorflow
import tensorflow.compat.v1 as tf
from tensorflow.core.protobuf.rewriter_config_pb2 import RewriterConfig

import resnet_model
from data import Fault, settings, workers

_SERVERS = []  # this worker's
atexit.register(_SERVERS.clear)  # TensorFlow 1.15 fails if its server is deleted after its modules
_LINGER = 2  # seconds in which other workers fetch this one's part of the last sum


class Devices:
    """The devices that a graph and its session run on. s: settings; None means one device.

    Attributes:
        strategy: of TensorFlow, or None for one device.
        total, local, first: int, number of devices, number of those of this process, and the number of its first one.
        chief: bool. The chief evaluates, corrects, herds and writes; other workers only train.
        num_workers: int.
    """

    def __init__(self, s=None):
        addresses, index = workers.cluster() if s else ([''], 0)
        self.num_workers, self.chief, self.strategy, self._target = len(addresses), index == 0, None, ''
        self._minutes = s.WORKER_MINUTES if s else 0
        self.total = count(s) if s else 1
        self.local = self.total // self.num_workers
        self.first = self.local * index
        if s and s.REPLICAS and self.num_workers > 1:
            raise Fault('REPLICAS=%d: TF_CONFIG names several workers, and each uses all of its visible GPUs' % s.REPLICAS)
        if s and s.REPLICAS > num_gpus() > 0:
            raise Fault('REPLICAS=%d: there are %d GPUs' % (s.REPLICAS, num_gpus()))
        if self.total > 1:
            for gpu in tf.config.experimental.list_physical_devices('GPU'):  # before the strategy starts them
                tf.config.experimental.set_memory_growth(gpu, True)
            with tf.Graph().as_default():  # otherwise TensorFlow 2 starts a server of its own
                self.strategy = self._strategy()
        if self.num_workers > 1:
            self._serve(s, addresses, index)

    def _strategy(self):
        if self.num_workers > 1:
            kinds = tf.distribute.experimental.CollectiveCommunication
            return tf.distribute.experimental.MultiWorkerMirroredStrategy(kinds.NCCL if num_gpus() else kinds.RING)
        kind = 'gpu' if num_gpus() else 'cpu'
        return tf.distribute.MirroredStrategy(['/%s:%d' % (kind, number) for number in range(self.total)])

    def _serve(self, s, addresses, index):
        """Starts this worker's server at its address."""
        try:
            _SERVERS.append(tf.distribute.Server({'worker': addresses}, 'worker', index, config=self._config(s)))
        except tf.errors.OpError as error:
            raise Fault('TF_CONFIG: this worker cannot take its address %s (%s)' % (addresses[index], str(error).split('\n')[0]))
        self._target = _SERVERS[-1].target
        if not self.chief:
            print('worker %d of %s: follows the chief, worker 0, whose output and log show the progress'
                  % (index, ', '.join(addresses)), file=sys.stderr, flush=True)

    def _config(self, s):
        config = session_config(s)
        if self.num_workers > 1:
            return self.strategy.update_config_proto(config)
        if self.strategy and not num_gpus():
            config.device_count['CPU'] = self.local
        return config

    @contextlib.contextmanager
    def graph(self):
        """Context: a new graph. Every device has a copy of its variables."""
        with tf.Graph().as_default():
            with self.strategy.scope() if self.strategy else contextlib.nullcontext():
                yield

    def session(self, s):
        """A session for the current graph, which must be complete."""
        tf.get_default_graph().finalize()
        return tf.Session(self._target, config=self._config(s))

    def waiting(self, doing):
        """Context for code that waits for other workers. doing: str, for messages."""
        return workers.watchdog(self._minutes, doing) if self.num_workers > 1 else contextlib.nullcontext()

    def agree(self, s, facts, doing):
        """Waits for all other workers, and raises a Fault if one has other facts.

        Args: facts: dict from name to a JSON value. doing: str, for messages.
        """
        with self.waiting(doing + ': comparing settings, code and data with the other workers'), self.graph():
            own = tf.placeholder(tf.float32, [None, 32])
            total = self.total_of(self.run(lambda replica: own / self.local))
            with self.session(s) as session:
                summed = session.run(total, {own: workers.digests(facts)})
        try:
            workers.compare(facts, np.round(summed), self.num_workers)
        except Fault:
            self.leave()
            raise

    def run(self, step):
        """Builds `step`, a function of a device's number in this process, on each device. Returns its results, per device."""
        if not self.strategy:
            return step(0)
        # TensorFlow 1.15 numbers replicas within a process, later versions across all of them.
        run = getattr(self.strategy, 'run', None) or self.strategy.experimental_run_v2
        return run(lambda: step(tf.distribute.get_replica_context().replica_id_in_sync_group % self.local))

    def share(self, replica, batch, count):
        """One device's share of a batch, to train on.

        Args:
            replica: the device's number in this process. count: int tensor, images of the whole batch.
            batch: (images, labels), this process's part of the batch; tensors [part, ..].

        Returns:
            images, labels: those of this device.
            share: float32 tensor or 1.0. The devices' means, each times its share, add up to the batch's mean.
        """
        if not self.strategy:
            return (*batch, 1.0)
        images, labels = self._part(replica, batch, count, self.first, self.total)
        return images, labels, tf.cast(tf.size(labels), tf.float32) / tf.cast(count, tf.float32)

    def each(self, function, images):
        """Applies function, from a tensor to a tuple of tensors [images, ..], to images split over this process's devices."""
        if not self.strategy:
            return function(images)

        def step(replica):
            mine, = self._part(replica, [images], tf.shape(images)[0], 0, self.local)
            with tf.device('/cpu:0'):
                mine = tf.concat([mine, images[:1]], 0)  # a share may be empty, and the network rejects empty batches
            return [output[:-1] for output in function(mine)]

        return tuple(tf.concat(self.strategy.experimental_local_results(value), 0) for value in self.run(step))

    @staticmethod
    def _part(replica, tensors, count, first, total):
        with tf.device('/cpu:0'):  # slice on the CPU: each device receives only its own images
            begin, end = (count * (first + number) // total - count * first // total for number in (replica, replica + 1))
            return [tensor[begin:end] for tensor in tensors]

    def total_of(self, value):
        """The sum over all devices of what `run` returned, a tensor."""
        return self.strategy.reduce(tf.distribute.ReduceOp.SUM, value, axis=None) if self.strategy else value

    def read(self, session, model):
        """Reads all variables of a model, dict from name to array. Gives every device the mean of the moving averages.

        Args: model: namespace with values, variables and initializer, see imagenet_main.build.
        """
        with self.waiting('reading the network'):
            values = session.run(model.values)
            if self.strategy:
                session.run(model.initializer, resnet_model.feeds(model.variables, values))
        return values

    def leave(self):
        """Call it before this process ends: other workers may still fetch its part of the last sum."""
        time.sleep(_LINGER if self.num_workers > 1 else 0)

    def part(self, batch_size):
        """How many images of a batch this process gets, int."""
        return batch_size * self.local // self.total

    def mine(self, positions, total_images, batch_size):
        """Which positions in an increment's order of training belong to this process, bool array.

        Args: positions: int array, from 0, over all epochs. total_images: int, number of positions in all epochs.
        """
        within = positions % batch_size
        count = np.minimum(batch_size, total_images - positions + within)  # images of the batch: the last one may be smaller
        return (within >= count * self.first // self.total) & (within < count * (self.first + self.local) // self.total)


ONE = Devices()


def count(s):
    """Number of devices that share each batch, int."""
    num_workers = len(workers.cluster()[0])
    return num_workers * max(1, num_gpus()) if num_workers > 1 else s.REPLICAS or max(1, num_gpus())


def num_gpus():
    return len(tf.config.experimental.list_physical_devices('GPU'))


def optimizer(s, rate):
    """SGD with momentum. rate: float scalar tensor."""
    with_momentum = tf.train.MomentumOptimizer(rate, s.MOMENTUM)
    if precision(s) == 'float16':  # it rounds small gradients to 0: the loss is scaled up, the gradients back
        with_momentum = tf.train.experimental.enable_mixed_precision_graph_rewrite(with_momentum)
    return with_momentum


def precision(s):
    """The number type of convolutions, str. MIXED_PRECISION: float16 on GPUs, bfloat16 on CPUs made for it (TensorFlow 2)."""
    if not s.MIXED_PRECISION:
        return 'float32'
    if num_gpus():
        return 'float16'
    try:
        with open('/proc/cpuinfo') as file:
            units = {'avx512_bf16', 'amx_bf16'} & set(file.read().split())
    except OSError:
        units = set()
    return 'bfloat16' if units and hasattr(RewriterConfig(), 'auto_mixed_precision_onednn_bfloat16') else 'float32'


def session_config(s):
    """The tf.ConfigProto of a session on one device."""
    config = tf.ConfigProto(allow_soft_placement=True, gpu_options=tf.GPUOptions(allow_growth=True))
    if s.XLA:
        config.graph_options.optimizer_options.global_jit_level = tf.OptimizerOptions.ON_1
    if precision(s) == 'bfloat16':
        config.graph_options.rewrite_options.auto_mixed_precision_onednn_bfloat16 = RewriterConfig.ON
    return config


def set_up(s):
    """Prepares the process for training: determinism, mixed precision, memory."""
    if s.DETERMINISTIC:
        if not hasattr(tensorflow.config.experimental, 'enable_op_determinism'):
            raise Fault('DETERMINISTIC=True: needs TensorFlow 2.9 or later, and this is %s' % tf.__version__)
        tensorflow.config.experimental.enable_op_determinism()
    if num_gpus():
        if precision(s) != 'float16':  # a run before this one in the same process may have had it
            tf.train.experimental.disable_mixed_precision_graph_rewrite()
        return
    # Keep freed memory in the process: returning it to the system costs up to a third of a training step on a CPU.
    try:
        mallopt = ctypes.CDLL('libc.so.6').mallopt
    except (OSError, AttributeError):  # another C library
        return
    for option, value in ((-4, 0), (-1, -1)):  # M_MMAP_MAX: map no block by itself; M_TRIM_THRESHOLD: never trim
        mallopt(option, value)


def facts(s):
    """What all workers must have in common from the start, dict, for `agree`."""
    return dict(settings.fixed(s), code=workers.code(), TensorFlow=tf.__version__, GPUs=num_gpus())
