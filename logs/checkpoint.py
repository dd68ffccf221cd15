"""Checkpoints: what a run needs to go on after an increment. Networks are NumPy archives; the rest is JSON."""
import contextlib
import fcntl
import hashlib
import io
import json
import os
import platform

import numpy as np

from data import Fault

FORMAT = 1
# The state of a run before its first increment.
NOTHING = dict(settings={}, sizes=[], classes=[], exemplars=[], fits=[], results=[], matrix=[], hours=0.0)


def save(folder, weights, state):
    """Writes increment-<k>/network.npz, and then increment-<k>/state.json, which completes it; each whole or not at all.

    Args:
        folder: str, made if need be. weights: dict from a variable's name to its array.
        state: dict with the keys of NOTHING: settings that affect results; sizes, classes of each increment planned; classes, by
            label, dicts of name and the paths held (out) and test(ed on); exemplars, their paths by label in order of choice,
            of the classes learnt; fits, results and matrix, one entry per increment done; hours so far.

    Raises:
        Fault: a file cannot be written.
    """
    folder = os.path.join(folder, 'increment-%d' % (len(state['results']) - 1))
    network = io.BytesIO()
    np.savez(network, **weights)
    text = json.dumps(dict(state, format=FORMAT, network=_digest(network.getvalue())), default=lambda number: number.item())
    try:
        os.makedirs(folder, exist_ok=True)
        _write(os.path.join(folder, 'network.npz'), network.getvalue())
        _write(os.path.join(folder, 'state.json'), ('%s\n%s\n' % (text, _digest(text.encode()))).encode())
    except OSError as error:
        raise Fault('%s: cannot be written (%s); the run can go on from the increment before it' % (folder, error.strerror))


def load(folder):
    """Reads what `save` wrote last.

    Args:
        folder: str.

    Returns:
        weights: dict from name to array, or None if there is no state.
        state: dict, see `save`; NOTHING if there is none.

    Raises:
        Fault: a file cannot be read, is damaged, or has another format.
    """
    last = where(folder)
    if not last:
        return None, NOTHING
    try:
        with open(os.path.join(last, 'state.json'), 'rb') as file:
            text, digest, _ = file.read().split(b'\n')
        if _digest(text) != digest.decode():
            raise ValueError('state.json is damaged')
        state = json.loads(text.decode())
        if state['format'] != FORMAT:
            raise ValueError('state.json has format %s, and this program writes %d' % (state['format'], FORMAT))
        with open(os.path.join(last, 'network.npz'), 'rb') as file:
            network = file.read()
        if _digest(network) != state['network']:
            raise ValueError('network.npz is damaged')
    except (OSError, ValueError) as error:
        raise Fault('%s: the run cannot go on from it (%s); delete it to go on from the increment before it, if there is one, or '
                    'begin a new run in another MODEL_DIR' % (last, error))
    with np.load(io.BytesIO(network), allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}, state


def where(folder):
    """The folder of the last increment that is complete, or None."""
    try:
        names = [name for name in os.listdir(folder) if name.startswith('increment-') and name[10:].isdigit()]
    except (FileNotFoundError, NotADirectoryError):  # the latter is reported with the settings
        return None
    except OSError as error:
        raise Fault('%s: cannot be read (%s)' % (folder, error.strerror))
    complete = [int(name[10:]) for name in names if os.path.exists(os.path.join(folder, name, 'state.json'))]
    return os.path.join(folder, 'increment-%d' % max(complete)) if complete else None


@contextlib.contextmanager
def lock(folder):
    """Keeps other runs out of a folder; the system gives it free when this process ends, however it ends.

    Raises:
        Fault: another run has it, or the folder cannot be written.
    """
    try:
        os.makedirs(folder, exist_ok=True)
        file = open(os.path.join(folder, 'lock'), 'a+')
    except OSError as error:
        raise Fault('%s: cannot be written (%s)' % (folder, error.strerror))
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise Fault('%s: another run is writing there (%s); wait for its end, or choose another MODEL_DIR'
                        % (folder, file.read().strip()))
        except OSError as error:
            raise Fault('%s: cannot be locked (%s); choose another MODEL_DIR' % (folder, error.strerror))
        file.truncate(0)
        file.write('process %d on %s' % (os.getpid(), platform.node()))
        file.flush()
        yield


def _digest(content):
    return hashlib.sha256(content).hexdigest()


def _write(path, content):
    """Under another name first, then renamed."""
    with open(path + '.partial', 'wb') as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(path + '.partial', path)
