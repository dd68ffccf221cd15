"""Several processes that train together: reads TF_CONFIG, compares what all must have in common, limits waits.

The collective operations themselves are TensorFlow's, see data/devices.py.
"""
import contextlib
import glob
import hashlib
import json
import os
import re
import sys
import threading

import numpy as np
import tensorflow.compat.v1 as tf

from data import Fault, reason

_REMEDY = ('another worker may have stopped or may hang, and its output gives the reason; fix it and start all workers again: '
           'they resume from the last checkpoint')


def cluster():
    """The workers' addresses in TF_CONFIG, list of str, and the index of this one; [''] and 0 without TF_CONFIG."""
    text = os.environ.get('TF_CONFIG')
    if not text:
        return [''], 0
    try:
        config = json.loads(text)
        addresses, task = config['cluster']['worker'], config['task']
        kind, index = task['type'], int(task['index'])
        if set(config['cluster']) != {'worker'} or kind != 'worker':
            raise ValueError('all tasks must be of type worker, and number 0 is the chief')
        wrong = [address for address in addresses if not re.fullmatch(r'\S+:[0-9]{1,5}', str(address))
                 or int(address.rpartition(':')[2]) > 65535]
        if not isinstance(addresses, list) or not addresses or wrong or len(set(addresses)) < len(addresses):
            raise ValueError('cluster.worker must be a list of different host:port')
        if not 0 <= index < len(addresses):
            raise ValueError('task.index=%d, and there are %d workers' % (index, len(addresses)))
    except (ValueError, KeyError, TypeError) as error:
        raise Fault('TF_CONFIG=%s: %s; it should be like {"cluster": {"worker": ["host1:2222", "host2:2222"]}, '
                    '"task": {"type": "worker", "index": 0}}'
                    % (text, 'has no %s' % error if isinstance(error, KeyError) else error))
    return addresses, index


def digests(facts):
    """SHA-256 of each fact, float32 [facts, 32], sorted by name: sums are exact. facts: dict from name to a JSON value."""
    texts = [json.dumps(facts[name], sort_keys=True) for name in sorted(facts)]
    return np.array([list(hashlib.sha256(text.encode()).digest()) for text in texts], np.float32).reshape(-1, 32)


def compare(facts, total, num_workers):
    """Raises a Fault that names each fact in which this worker differs from the others.

    Args: facts: dict, this worker's. total: float32 array [facts, 32], the sum of all workers' digests.
    """
    differ = np.any(total != num_workers * digests(facts), axis=1)
    lines = ['%s=%s: another worker has another value; all must have the same command, code, data, TensorFlow and MODEL_DIR'
             % (name, str(facts[name])[:200]) for name, differs in zip(sorted(facts), differ) if differs]
    if lines:
        raise Fault('\n'.join(lines))


def code():
    """SHA-256 of the project's Python files, str."""
    root, digest = os.path.dirname(os.path.dirname(os.path.abspath(__file__))), hashlib.sha256()
    patterns = [os.path.join(glob.escape(root), part, '*.py') for part in ('', 'data', 'logs')]
    for path in sorted(path for pattern in patterns for path in glob.glob(pattern)):
        with open(path, 'rb') as file:
            digest.update(file.read())
    return digest.hexdigest()


@contextlib.contextmanager
def watchdog(minutes, doing):
    """Context for code that waits for other workers: ends the process if the wait takes longer than `minutes`, a float.

    TensorFlow's collective operations can wait for a dead worker for ever, and block the main thread. If one fails, a Fault is
    raised. doing: str, for the message.
    """
    def end():
        print('%s: not done after %g minutes (WORKER_MINUTES); %s' % (doing, minutes, _REMEDY), file=sys.stderr, flush=True)
        os._exit(1)

    timer = threading.Timer(60 * minutes, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    except tf.errors.OpError as error:
        raise Fault('%s: failed (%s); %s' % (doing, reason(error)[:200], _REMEDY))
    finally:
        timer.cancel()
