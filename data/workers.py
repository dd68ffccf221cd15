"""Several processes that train together: reads TF_CONFIG, compares what all share, limits waits.

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

_REMEDY = ('another worker may have stopped or may hang, and its output gives the reason; fix it '
           'and start all workers again: they resume from the last checkpoint')
_EXAMPLE = ('{"cluster": {"worker": ["host1:2222", "host2:2222"]}, '
            '"task": {"type": "worker", "index": 0}}')


def cluster():
    """Reads TF_CONFIG.

    Returns:
        addresses: list of str, host:port of each worker; [''] without TF_CONFIG.
        index: int, this worker's; 0 without TF_CONFIG.
    """
    text = os.environ.get('TF_CONFIG')
    if not text:
        return [''], 0
    try:
        config = json.loads(text)
        addresses = config['cluster']['worker']
        task = config['task']
        index = int(task['index'])
        if set(config['cluster']) != {'worker'} or task['type'] != 'worker':
            raise ValueError('all tasks must be of type worker, and number 0 is the chief')
        if not _are_addresses(addresses):
            raise ValueError('cluster.worker must be a list of different host:port')
        if not 0 <= index < len(addresses):
            raise ValueError('task.index=%d, and there are %d workers' % (index, len(addresses)))
    except (ValueError, KeyError, TypeError) as error:
        problem = 'has no %s' % error if isinstance(error, KeyError) else error
        raise Fault('TF_CONFIG=%s: %s; it should be like %s' % (text, problem, _EXAMPLE))
    return addresses, index


def _are_addresses(addresses):
    """Whether a value of any type is a list of different host:port."""
    if not isinstance(addresses, list) or not addresses:
        return False
    for address in addresses:
        match = re.fullmatch(r'\S+:([0-9]{1,5})', str(address))
        if not match or int(match.group(1)) > 65535:
            return False
    return len(set(addresses)) == len(addresses)


def digests(facts):
    """Digests facts in such a way that the sum over workers is exact.

    Args:
        facts: dict from name to a JSON value.

    Returns:
        float32 array [facts, 32], the bytes of each fact's SHA-256, sorted by name.
    """
    rows = []
    for name in sorted(facts):
        text = json.dumps(facts[name], sort_keys=True)
        rows.append(list(hashlib.sha256(text.encode()).digest()))
    return np.array(rows, np.float32).reshape(-1, 32)


def compare(facts, total, num_workers):
    """Raises a Fault that names each fact in which this worker differs from the others.

    Args:
        facts: dict from name to a JSON value, this worker's.
        total: float32 array [facts, 32], the sum of all workers' digests.
        num_workers: int.
    """
    differs = np.any(total != num_workers * digests(facts), axis=1)
    lines = ['%s=%s: another worker has another value; all must have the same command, code, data, '
             'TensorFlow and MODEL_DIR' % (name, str(facts[name])[:200])
             for name, fact_differs in zip(sorted(facts), differs) if fact_differs]
    if lines:
        raise Fault('\n'.join(lines))


def code():
    """SHA-256 of the project's Python files, str."""
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    paths = []
    for folder in ('', 'data', 'logs'):
        paths += glob.glob(os.path.join(glob.escape(root), folder, '*.py'))
    digest = hashlib.sha256()
    for path in sorted(paths):
        with open(path, 'rb') as file:
            digest.update(file.read())
    return digest.hexdigest()


@contextlib.contextmanager
def watchdog(minutes, doing):
    """Context for code that waits for other workers: ends the process if the wait is too long.

    TensorFlow's collective operations can wait for a dead worker for ever, and block the main
    thread.

    Args:
        minutes: float, the longest wait.
        doing: str, for the message.

    Raises:
        Fault: a collective operation failed.
    """
    def end():
        print('%s: not done after %g minutes (WORKER_MINUTES); %s' % (doing, minutes, _REMEDY),
              file=sys.stderr, flush=True)
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
