"""The devices that share each batch: those of this machine, or of several that TF_CONFIG names, by TensorFlow's own engine.

Training is synchronous: every device takes its share of the same batch, gradients are summed over all of them. One device alone
is the plain case, without a strategy.
"""
import atexit
import contextlib
import functools
import glob
import hashlib
import json
import os
import re
import signal
import socket
import sys
import threading
import time

import numpy as np
import tensorflow.compat.v1 as tf

from data import Fault, machine
from logs import stop

_PATIENCE = 30   # seconds without an answer after which a worker counts as gone
_INTERVAL = 2    # seconds between two questions
_EXCHANGED = 2 ** 16  # bytes that a worker can tell the others
_JOINED = []     # the strategy of several workers and this one's server
atexit.register(_JOINED.clear)  # TensorFlow 1.15's server complains when it is deleted after the modules


class Replicas:
    """The devices, as a graph and its session see them.

    Attributes: strategy, of TensorFlow, or None for one device; total, first, local, how many devices there are, the number of
    this process's first one, and how many it has; chief, whether this process writes checkpoints and the log; config and target,
    for a tf.Session.
    """

    def __init__(self, config=None, strategy=None, local=1, workers=('',), index=0, target=''):
        self.config, self.strategy, self.local, self.target = config, strategy, local, target
        self.workers, self.index, self.chief = workers, index, index == 0
        self.total, self.first = local * len(workers), local * index

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

    def meet(self):
        """Waits for all workers."""
        if len(self.workers) > 1:
            self.exchange('')

    def exchange(self, text):
        """Tells all workers a text, of up to 64 kB, and gives the list of what they told, by worker."""
        row = np.zeros([len(self.workers), _EXCHANGED], np.float32)
        content = np.frombuffer(text.encode(), np.uint8)
        row[self.index, :len(content)] = content
        with tf.Graph().as_default():
            with self.scope():
                told = tf.placeholder(tf.float32, row.shape)
                heard = self.total_of(self.run(lambda replica: told / self.local))
            with tf.Session(self.target, config=self.config) as session:
                rows = session.run(heard, {told: row})
        return [bytes(np.uint8(np.round(of_worker))).rstrip(b'\0').decode() for of_worker in rows]

    def agree(self, facts, folder):
        """Compares what every worker must have alike: these facts, the code, and the chief's lock in the folder.

        Args:
            facts: dict from name to what JSON can hold; of what is long, digests are compared.
            folder: str, of the checkpoints, where the chief has the lock.

        Raises:
            Fault: what differs from the chief's.
        """
        if len(self.workers) == 1:
            return
        self.meet()  # from now on the lock is there
        facts = {name: value if len(json.dumps(value)) < 200 else hashlib.sha256(json.dumps(value).encode()).hexdigest()
                 for name, value in facts.items()}
        facts.update(code=_code(), devices=self.local, tensorflow=tf.__version__,
                     folder='another one than the chief\'s: all must share it')
        with contextlib.suppress(OSError), open(os.path.join(folder, 'lock')) as lock:
            facts['folder'] = lock.read()
        chiefs, *others = [json.loads(text) for text in self.exchange(json.dumps(facts))]
        faults = ['%s=%s: worker %d (%s) has %s; all workers must run the same command, code and data'
                  % (name, chiefs.get(name), number, self.workers[number], theirs.get(name))
                  for number, theirs in enumerate(others, 1) for name in sorted(set(chiefs) | set(theirs))
                  if chiefs.get(name) != theirs.get(name)]
        if faults:
            raise Fault('\n'.join(faults))

    @contextlib.contextmanager
    def watched(self):
        """Ends this process when another worker is gone: a collective operation may wait for it for ever.

        Raises:
            Fault: TensorFlow noticed it first.
        """
        if len(self.workers) == 1:
            yield
            return
        over, (heard, told) = threading.Event(), socket.socketpair()
        heard.setblocking(False)
        told.setblocking(False)
        before = signal.set_wakeup_fd(told.fileno())
        threading.Thread(target=self._watch, args=(over, heard), daemon=True).start()
        try:
            yield
        except tf.errors.OpError:
            time.sleep(_INTERVAL)  # a process that dies takes a moment
            gone = [address for address in self.others() if not _answers(address)]
            if not gone:
                raise
            raise Fault(self._gone(gone[0]))
        finally:
            over.set()
            signal.set_wakeup_fd(before)
            heard.close()
            told.close()

    def _watch(self, over, signals):
        """Ends the process, for the main thread may wait in TensorFlow, where neither exceptions nor signals reach it."""
        silent, asked = dict.fromkeys(self.others(), 0), []
        while not over.wait(_INTERVAL):
            with contextlib.suppress(OSError):
                asked += len(signals.recv(9)) * [time.monotonic()]
            if len(asked) > 1 or asked and not stop.asked() and time.monotonic() - asked[0] > _PATIENCE:
                os._exit(stop.STATUS)
            for address in silent:
                silent[address] = 0 if _answers(address) else silent[address] + 1
                if silent[address] * _INTERVAL > _PATIENCE and not over.is_set():
                    print(self._gone(address), file=sys.stderr, flush=True)
                    os._exit(1)

    def others(self):
        """The addresses of the other workers."""
        return [address for number, address in enumerate(self.workers) if number != self.index]

    def _gone(self, address):
        return ('worker %d (%s) is gone; its own output says why; start all workers again, and they go on from the last '
                'checkpoint' % (self.workers.index(address), address))


ALONE = Replicas()


def is_chief():
    return _cluster()[1] == 0


def count(s):
    """How many devices share each batch."""
    workers = len(_cluster()[0])
    return workers * max(1, machine.num_gpus()) if workers > 1 else s.REPLICAS or max(1, machine.num_gpus())


def of_machine(s):
    """The replicas of this process, and the connection to the others that TF_CONFIG names.

    Args:
        s: settings.

    Raises:
        Fault: TF_CONFIG is malformed, this worker's address cannot be taken, or another worker does not answer.
    """
    config, local, workers, index = machine.session_config(s), count(s), *_cluster()
    if s.REPLICAS and (len(workers) > 1 or s.REPLICAS > machine.num_gpus() > 0):
        raise Fault('REPLICAS=%d: %s' % (s.REPLICAS, 'TF_CONFIG names several workers; each uses all of its visible GPUs'
                                         if len(workers) > 1 else 'there are %d GPUs' % machine.num_gpus()))
    if local > 1:
        machine.let_memory_grow()
    if len(workers) == 1:
        if local == 1:
            return Replicas(config)
        if not machine.num_gpus():
            config.device_count['CPU'] = local
        kind = 'gpu' if machine.num_gpus() else 'cpu'
        with tf.Graph().as_default():
            return Replicas(config, tf.distribute.MirroredStrategy(['/%s:%d' % (kind, number) for number in range(local)]), local)
    if not _JOINED:  # once for all runs of the process
        with tf.Graph().as_default():  # else TensorFlow 2 starts a server of its own
            kinds = tf.distribute.experimental.CollectiveCommunication
            _JOINED.append(tf.distribute.experimental.MultiWorkerMirroredStrategy(
                kinds.NCCL if machine.num_gpus() else kinds.RING))
    strategy = _JOINED[0]
    config = strategy.update_config_proto(config)
    try:
        if len(_JOINED) == 1:
            _JOINED.append(tf.distribute.Server({'worker': workers}, 'worker', index, config=config))
    except tf.errors.OpError as error:
        raise Fault('TF_CONFIG: this worker cannot take its address %s (%s)' % (workers[index], str(error).split('\n')[0]))
    devices = Replicas(config, strategy, local // len(workers), workers, index, _JOINED[1].target)
    deadline, silent = time.time() + 60 * s.WORKER_MINUTES, devices.others()
    while silent and time.time() < deadline:
        silent = [address for address in silent if not _answers(address)]
        time.sleep(0.5 if silent else 0)
    if silent:
        raise Fault('TF_CONFIG: no answer within %s minutes (WORKER_MINUTES) from %s; start all workers, and see that their '
                    'addresses can be reached' % (s.WORKER_MINUTES, ', '.join(silent)))
    return devices


@functools.lru_cache(maxsize=None)  # what is changed while the process runs, it does not run
def _code():
    """A digest of the project's program files, as this process found them."""
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    digest = hashlib.sha256()
    for path in sorted(glob.glob(os.path.join(root, '*.py')) + glob.glob(os.path.join(root, '[dl]*', '*.py'))):
        with open(path, 'rb') as file:
            digest.update(file.read())
    return digest.hexdigest()


def _cluster():
    """The workers' addresses, list of str, and this one's number."""
    text = os.environ.get('TF_CONFIG')
    if not text:
        return [''], 0
    try:
        config = json.loads(text)
        workers, task = config['cluster']['worker'], config['task']
        kind, index = task['type'], int(task['index'])
        if set(config['cluster']) != {'worker'} or kind != 'worker':
            raise ValueError('only tasks of type worker can take part, and number 0 is the chief')
        wrong = [address for address in workers if not re.fullmatch(r'\S+:[0-9]{1,5}', str(address))
                 or int(address.rpartition(':')[2]) > 65535]
        if not isinstance(workers, list) or not workers or wrong or len(set(workers)) < len(workers):
            raise ValueError('cluster.worker must be a list of different host:port')
        if not 0 <= index < len(workers):
            raise ValueError('task.index=%d, and there are %d workers' % (index, len(workers)))
    except (ValueError, KeyError, TypeError) as error:
        raise Fault('TF_CONFIG=%s: %s; it should be like {"cluster": {"worker": ["host1:2222", "host2:2222"]}, '
                    '"task": {"type": "worker", "index": 0}}'
                    % (text, 'has no %s' % error if isinstance(error, KeyError) else error))
    return workers, index


def _answers(address):
    host, _, port = address.rpartition(':')
    try:
        socket.create_connection((host, int(port)), 5).close()
        return True
    except (OSError, UnicodeError):  # the latter of a name that cannot be one
        return False
