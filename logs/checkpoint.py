"""Checkpoints: the files that a run is resumed from. They are data only; nothing is executed.

A checkpoint is a folder, increment-<k>/ after an increment, increment-<k>-step-<n>/ within one:
    network.npz     after an increment the network's variables and the corrected last layer, within
                    one all variables of the graph
    state.json      the run's state.State
    SHA256SUMS      checksums of the two, as `sha256sum -c` reads them
"""
import contextlib
import dataclasses
import fcntl
import hashlib
import json
import os
import platform
import re
import shutil
import threading
import zipfile
from typing import NamedTuple

import numpy as np

import bic_layer
from data import Fault, sources
from logs import state as states

FORMAT = 5
_CORRECTED = 'corrected/'  # before the names of the last layer to use
_HEARTBEAT = 5  # seconds between two time stamps of a lock


class Checkpoint(NamedTuple):
    """A checkpoint that was read.

    Attributes:
        arrays: dict from name to array.
        state: state.State.
        path: str, its folder.
        damaged: list of str, newer checkpoints that are damaged, and how.
    """
    arrays: dict
    state: states.State
    path: str
    damaged: list


def write(folder, arrays, state, before=None):
    """Writes a checkpoint. If the process is killed, older checkpoints stay good.

    Of the checkpoints within increments, this one and `before` are kept.

    Args:
        folder: str, MODEL_DIR/DATASET.
        arrays: dict from name to array.
        state: state.State.
        before: str or None, folder of the checkpoint that this run wrote last or resumed from.

    Returns:
        str, the checkpoint's folder.

    Raises:
        Fault: it cannot be written.
    """
    path = os.path.join(folder, state.name)
    partial = os.path.join(folder, 'checkpoint.partial')
    values = dict(dataclasses.asdict(state), format=FORMAT)
    try:
        os.makedirs(partial, exist_ok=True)
        with open(os.path.join(partial, 'network.npz'), 'wb') as file:
            np.savez(file, **arrays)
        with open(os.path.join(partial, 'state.json'), 'w') as file:
            json.dump(values, file, indent=1)
        sums = [_sum_line(partial, name) for name in ('network.npz', 'state.json')]
        with open(os.path.join(partial, 'SHA256SUMS'), 'w') as file:
            file.writelines(sums)
        put(partial, path)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise Fault('%s: cannot be written (%s); free space or fix it, and the same command '
                    'resumes from the checkpoint before' % (path, error.strerror))
    if state.step:
        _remove_within(folder, keep=[path, before])
    return path


def newest(folder, within=True):
    """Reads the newest checkpoint that is not damaged.

    Args:
        folder: str, MODEL_DIR/DATASET.
        within: bool. False: only those after an increment.

    Returns:
        Checkpoint, or None if there is none.

    Raises:
        Fault: all are damaged, or one cannot be read or has another format.
    """
    damaged = []
    for path in _newest_first(folder):
        if _is_within(path) and not within:
            continue
        try:
            arrays, state = read(path)
        except (ValueError, RecursionError) as error:  # the latter of JSON within JSON within ..
            damaged.append('%s: %s' % (path, error))
        except OSError as error:
            raise Fault('%s: cannot be read (%s)' % (error.filename, error.strerror))
        else:
            return Checkpoint(arrays, state, path, damaged)
    if damaged:
        raise Fault('%s; no other checkpoint is there; delete it to begin anew'
                    % '\n'.join(damaged))
    return None


def read(path):
    """Reads a checkpoint.

    Args:
        path: str, its folder.

    Returns:
        arrays: dict from name to array.
        state: state.State.

    Raises:
        ValueError: it is damaged.
        Fault: it has another format, or is not what this program writes.
        OSError.
    """
    for name in ('SHA256SUMS', 'network.npz', 'state.json'):
        irregular = sources.irregular(os.path.join(path, name))
        if irregular:
            _check_format(path)  # the fault of a checkpoint from before there were checksums
            raise ValueError('%s: %s' % (name, irregular))
    with open(os.path.join(path, 'SHA256SUMS'), errors='replace') as file:
        sums = file.readlines()
    for name in ('network.npz', 'state.json'):
        if _sum_line(path, name) not in sums:
            raise ValueError('%s is damaged' % name)
    values = _check_format(path)
    try:
        state = states.from_json(values)
        if state.name != os.path.basename(os.path.normpath(path)):
            raise ValueError('the folder was renamed, %s is in it' % state.name)
        with np.load(os.path.join(path, 'network.npz'), allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (ValueError, zipfile.BadZipFile, OSError, NotImplementedError) as error:
        raise Fault('%s: is not as this program writes it: %s; restore it, or delete it and resume '
                    'from the checkpoint before' % (path, error))
    return arrays, state


def joined(network, correction):
    """The arrays of a checkpoint after an increment, dict from name to array.

    Args:
        network: dict from name to array, as trained.
        correction: bic_layer.Correction.
    """
    arrays = dict(network)
    for name, value in correction._asdict().items():
        arrays[_CORRECTED + name] = np.asarray(value)
    return arrays


def split(arrays):
    """The opposite of `joined`: the network as trained, and the bic_layer.Correction."""
    network = {}
    correction = {}
    for name, array in arrays.items():
        if name.startswith(_CORRECTED):
            correction[name[len(_CORRECTED):]] = array
        else:
            network[name] = array
    return network, bic_layer.Correction(**correction)


@contextlib.contextmanager
def lock(folder, newest_path):
    """A context that keeps other runs out of a folder.

    The system releases the lock when this process ends, for any reason. The lock's time stamp is
    renewed every few seconds: it shows other workers that this process is alive.

    Args:
        folder: str, MODEL_DIR/DATASET.
        newest_path: str or None, the newest checkpoint that this run knows.

    Raises:
        Fault: another run has the lock, or has written a newer checkpoint.
    """
    path = os.path.join(folder, 'lock')
    try:
        os.makedirs(folder, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    except OSError as error:
        raise Fault('%s: cannot be written (%s)' % (path, error.strerror))
    ended = threading.Event()

    def beat():
        while not ended.wait(_HEARTBEAT):
            with contextlib.suppress(OSError):
                os.utime(path)

    with open(descriptor, 'r+b', buffering=0) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Fault('%s: another run is writing there (%s); wait for its end, or choose '
                        'another MODEL_DIR' % (folder, file.read().decode(errors='replace')))
        except OSError as error:
            raise Fault('%s: cannot be locked (%s); choose another MODEL_DIR'
                        % (folder, error.strerror))
        checkpoint = newest(folder)
        if checkpoint and checkpoint.path != newest_path:
            raise Fault('%s: another run has just written there; repeat the command to resume '
                        'from that' % folder)
        with contextlib.suppress(OSError):  # on a full disk it is locked all the same
            file.truncate(0)
            file.write(('process %d on %s' % (os.getpid(), platform.node())).encode())
            os.fsync(file.fileno())  # workers on other machines read it
        threading.Thread(target=beat, daemon=True).start()
        try:
            yield
        finally:
            ended.set()


def lock_state(folder):
    """Text and time stamp of a folder's lock, str and float; '' and 0 where there is none."""
    try:
        with open(os.path.join(folder, 'lock')) as file:
            return file.read(), os.fstat(file.fileno()).st_mtime
    except OSError:
        return '', 0


def put(partial, path):
    """Flushes a folder to the disk and renames it. An older folder there is replaced as a whole.

    Args:
        partial: str, the folder, complete.
        path: str, its new name.
    """
    old = path + '.old'
    shutil.rmtree(old, ignore_errors=True)
    for folder, _, names in os.walk(partial):
        for name in names + ['']:
            _sync(os.path.join(folder, name))
    if os.path.lexists(path):
        os.rename(path, old)
    os.rename(partial, path)
    _sync(os.path.dirname(path))  # otherwise a power cut may undo the renaming
    shutil.rmtree(old, ignore_errors=True)


def _sync(path):
    """Flushes a file or folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:
        if not os.path.isdir(path):  # some network file systems cannot flush folders
            raise
    finally:
        os.close(descriptor)


def _sum_line(folder, name):
    """The line of SHA256SUMS for a file, str."""
    digest = hashlib.sha256()
    with open(os.path.join(folder, name), 'rb') as file:
        for block in iter(lambda: file.read(1 << 20), b''):  # a network need not fit twice
            digest.update(block)
    return '%s  %s\n' % (digest.hexdigest(), name)


def _check_format(path):
    """The values of state.json, dict, or None if there is no such file.

    Raises:
        Fault: it has another format.
    """
    file = os.path.join(path, 'state.json')
    if sources.irregular(file):
        return None
    with open(file, encoding='utf-8') as text:
        # The first formats have more behind the JSON.
        values, _ = json.JSONDecoder().raw_decode(text.read())
    if not isinstance(values, dict) or values.pop('format', None) != FORMAT:
        raise Fault('%s: state.json has another format than %d, which this program writes; begin a '
                    'new run in another MODEL_DIR, or resume with the commit that wrote it'
                    % (path, FORMAT))
    return values


def _newest_first(folder):
    """The checkpoint folders, complete or not, list of str."""
    try:
        names = os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):  # the latter is reported with the settings
        return []
    except OSError as error:
        raise Fault('%s: cannot be read (%s)' % (folder, error.strerror))
    ages = {}
    for name in names:
        match = re.fullmatch(r'increment-(\d+)(?:-step-(\d+))?', name, re.ASCII)
        if match:
            step = int(match.group(2) or 0) or float('inf')
            ages[os.path.join(folder, name)] = (int(match.group(1)), step)
    return sorted(ages, key=ages.get, reverse=True)


def _is_within(path):
    """Whether a checkpoint was written within an increment, not after it."""
    return '-step-' in os.path.basename(path)


def _remove_within(folder, keep):
    """Removes the checkpoints within increments but for some paths, a list."""
    for path in _newest_first(folder):
        if _is_within(path) and path not in keep:
            shutil.rmtree(path, ignore_errors=True)
