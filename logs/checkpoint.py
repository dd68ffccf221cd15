"""Checkpoints: what a run needs to go on. Arrays are in NumPy archives; the rest is JSON; nothing that is read is executed."""
import contextlib
import fcntl
import hashlib
import io
import json
import os
import platform
import re
import shutil
import time

import numpy as np

from data import Fault
from logs import stop

FORMAT = 3
# The state of a run before its first step.
NOTHING = dict(settings={}, sizes=[], classes=[], exemplars=[], fits=[], results=[], matrix=[], hours=0.0, trained='', step=0,
               sums=[])


def save(folder, arrays, state, before=None):
    """Writes increment-<k>/, or within an increment increment-<k>-step-<n>/, of which the one before is kept.

    First network.npz, then state.json, which completes it; each whole or not at all, so that the checkpoints before it stay good
    whenever the process is killed.

    Args:
        folder: str, made if need be. arrays: dict from name to array: after an increment the network's variables, within one
            all variables of the graph.
        state: dict with the keys of NOTHING: settings that affect results; sizes, classes of each increment planned; classes, by
            label, dicts of name, of the digest of the images to train on, and of the paths held (out) and test(ed on);
            exemplars, their paths by label in order of choice, of the classes learnt; fits, results and matrix, one entry per
            increment done; hours so far; trained, the digest of the increment's training set; step, how many of it are done
            within an increment, else 0; sums, the losses of its steps since the last [train] line.
        before: str or None, the checkpoint that this run saved last, or began with: known to be whole.

    Returns:
        str, the checkpoint's folder.

    Raises:
        Fault: a file cannot be written.
    """
    done, step = len(state['results']), state['step']
    name = 'increment-%d-step-%d' % (done, step) if step else 'increment-%d' % (done - 1)
    path, network = os.path.join(folder, name), io.BytesIO()
    np.savez(network, **arrays)
    content = network.getbuffer()
    text = json.dumps(dict(state, format=FORMAT, network=_digest(content)), default=lambda number: number.item())
    try:
        os.makedirs(path, exist_ok=True)
        _write(os.path.join(path, 'network.npz'), content)
        _write(os.path.join(path, 'state.json'), ('%s\n%s\n' % (text, _digest(text.encode()))).encode())
        for changed in (path, folder):  # without it a power cut may undo what was renamed
            sync(changed)
    except OSError as error:
        raise Fault('%s: cannot be written (%s); free space or mend it, and the same command goes on from the checkpoint before'
                    % (path, error.strerror))
    for other in _newest_first(folder) if step else ():
        if 'step' in other and other not in (name, os.path.basename(before or '')):
            with contextlib.suppress(OSError):
                os.remove(os.path.join(folder, other, 'state.json'))  # first: what is not complete is not looked at
            shutil.rmtree(os.path.join(folder, other), ignore_errors=True)
    return path


def load(folder):
    """Reads the newest checkpoint that is whole.

    Args:
        folder: str.

    Returns:
        arrays: dict from name to array, or None if there is no checkpoint.
        state: dict, see `save`; NOTHING if there is none.
        path: str, the checkpoint's folder, or None.
        damaged: list of str: newer checkpoints that are damaged.

    Raises:
        Fault: checkpoints are there and none is whole; a file may not be read, or has another format.
    """
    damaged = []
    for name in _newest_first(folder):
        path = os.path.join(folder, name)
        try:
            return read(path) + (path, damaged)
        except Fault:
            raise
        except ValueError as error:
            damaged.append('%s: %s' % (path, error))
        except (FileNotFoundError, NotADirectoryError) as error:
            if error.filename.endswith('network.npz'):  # without state.json it was never complete
                damaged.append('%s: network.npz is not there' % path)
        except OSError as error:
            raise Fault('%s: cannot be read (%s)' % (error.filename, error.strerror))
    if damaged:
        raise Fault('%s; no other checkpoint is there; delete it to begin anew' % '\n'.join(damaged))
    return None, NOTHING, None, []


def read(path):
    """One checkpoint's folder.

    Returns:
        arrays, state: as `load` gives them.

    Raises:
        ValueError: it is damaged. Fault: it has another format. OSError.
    """
    with open(os.path.join(path, 'state.json'), 'rb') as file:
        text, _, rest = file.read().partition(b'\n')
    if _digest(text).encode() + b'\n' != rest:
        raise ValueError('state.json is damaged')
    state = json.loads(text.decode())
    if not isinstance(state, dict) or state.get('format') != FORMAT:
        raise Fault('%s: state.json has another format than %d, which this program writes; begin a new run in another MODEL_DIR, '
                    'or go on with the commit that wrote it' % (path, FORMAT))
    if set(state) != {'format', 'network', *NOTHING}:
        raise ValueError('state.json is not complete')
    with open(os.path.join(path, 'network.npz'), 'rb') as file:
        network = file.read()
    if _digest(network) != state['network']:
        raise ValueError('network.npz is damaged')
    with np.load(io.BytesIO(network), allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}, state


def network(folder, increment):
    """The network after an increment, dict from name to array; None before the first.

    Raises:
        Fault: it is not there, or damaged.
    """
    if increment < 0:
        return None
    path = os.path.join(folder, 'increment-%d' % increment)
    try:
        return read(path)[0]
    except (OSError, ValueError) as error:
        raise Fault('%s: increment %d begins anew from it, and it cannot be read (%s)' % (path, increment + 1, error))


def wait(folder, increment):
    """Waits until another process, which is watched, has written the checkpoint of an increment.

    Returns:
        arrays, state, path: as `load` gives them.

    Raises:
        Stopped: as was asked.
    """
    path = os.path.join(folder, 'increment-%d' % increment)
    while not stop.asked():
        with contextlib.suppress(OSError, ValueError):  # not there yet; or there, and damaged, from before
            return read(path) + (path,)
        time.sleep(0.5)
    raise stop.Stopped()


def _newest_first(folder):
    """The names of the checkpoints' folders, complete or not."""
    try:
        names = os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):  # the latter is reported with the settings
        return []
    except OSError as error:
        raise Fault('%s: cannot be read (%s)' % (folder, error.strerror))
    parts = [re.fullmatch(r'increment-(\d+)(?:-step-(\d+))?', name, re.ASCII) for name in names]
    order = {found.group(): (int(found.group(1)), int(found.group(2) or 0) or float('inf')) for found in parts if found}
    return sorted(order, key=order.get, reverse=True)


@contextlib.contextmanager
def lock(folder, newest, chief=True):
    """Keeps other runs out of a folder; the system gives it free when this process ends, however it ends.

    Args:
        folder: str. newest: str or None, the checkpoint that `load` gave. chief: bool; other workers leave the lock to it.

    Raises:
        Fault: another run has it, or had it since; or the folder cannot be written.
    """
    if not chief:
        yield
        return
    try:
        os.makedirs(folder, exist_ok=True)
        file = open(os.path.join(folder, 'lock'), 'a+b', buffering=0)
    except OSError as error:
        raise Fault('%s: cannot be written (%s)' % (folder, error.strerror))
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise Fault('%s: another run is writing there (%s); wait for its end, or choose another MODEL_DIR'
                        % (folder, file.read().decode()))
        except OSError as error:
            raise Fault('%s: cannot be locked (%s); choose another MODEL_DIR' % (folder, error.strerror))
        if load(folder)[2] != newest:
            raise Fault('%s: another run has just written there; repeat the command to go on from that' % folder)
        with contextlib.suppress(OSError):  # a full disk: locked all the same
            file.truncate(0)
            file.write(('process %d on %s' % (os.getpid(), platform.node())).encode())
            os.fsync(file.fileno())  # other workers read it, on other machines
        yield


def sync(path):
    """Has the system put a file, or what is in a folder, where a power cut cannot undo it."""
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def _digest(content):
    return hashlib.sha256(content).hexdigest()


def _write(path, content):
    """Under another name first, then renamed."""
    with open(path + '.partial', 'wb') as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(path + '.partial', path)
