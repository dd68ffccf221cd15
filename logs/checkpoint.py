"""Checkpoints: the files that a run is resumed from. Arrays are in NumPy archives, the rest is JSON; nothing in them is executed.

A checkpoint is a folder, increment-<k>/ after an increment, increment-<k>-step-<n>/ within one:
    network.npz     after an increment the network's variables, within one all variables of the graph
    state.json      the state of the run, see logs/run.py
    SHA256SUMS      checksums of the two, as `sha256sum -c` reads them
"""
import contextlib
import fcntl
import hashlib
import io
import json
import math
import os
import platform
import re
import shutil
import threading
import zipfile

import numpy as np

from data import Fault, settings, sources

FORMAT = 4
LAST_LAYER = 'last_layer/'  # arrays of METHOD=joint_last that replace the network's last layer in the model to use
# The kind of each value in state.json. A type: a value of that type, where float allows a whole number. None: a number, or null
# for nan. [kind]: a list of that kind. {key: kind}: a dict with exactly these keys.
_ROW = dict(dict.fromkeys('increment classes train val test'.split(), int),
            **dict.fromkeys('top1_before top1 top5_before top5 top1_nme top5_nme beta gamma'.split()))
_STATE = {
    'format': int, 'settings': dict, 'sizes': [int], 'exemplars': [[str]], 'fits': [list], 'matrix': [[None]], 'hours': float,
    'classes': [{'name': str, 'train': str, 'held': [str], 'test': [str]}], 'trained': str, 'step': int, 'sums': [[float]],
    'log': str, 'results': [_ROW]}
_HEARTBEAT = 5  # seconds between two time stamps of a lock


def write(folder, arrays, state, before=None):
    """Writes a checkpoint and returns its folder, str. If the process is killed, older checkpoints stay good.

    Of the checkpoints within increments, this one and `before` are kept.

    Args:
        arrays: dict from name to array.
        state: dict with keys results (one entry per increment done) and step (0 after an increment), and others.
        before: str or None, folder of the checkpoint that this run wrote last or was resumed from.
    """
    step, name = state['step'], _name(state)
    path, partial, network = os.path.join(folder, name), os.path.join(folder, 'checkpoint.partial'), io.BytesIO()
    np.savez(network, **arrays)
    files = {'network.npz': network.getbuffer(),
             'state.json': json.dumps(_without_nan(dict(state, format=FORMAT)), allow_nan=False, indent=1).encode()}
    files['SHA256SUMS'] = b''.join(_sum_line(file, content) for file, content in files.items())
    try:
        os.makedirs(partial, exist_ok=True)
        for file, content in files.items():
            with open(os.path.join(partial, file), 'wb') as opened:
                opened.write(content)
        put(partial, path)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise Fault('%s: cannot be written (%s); free space or fix it, and the same command resumes from the checkpoint before'
                    % (path, error.strerror))
    for other in _newest_first(folder) if step else ():
        if 'step' in other and other not in (name, os.path.basename(before or '')):
            shutil.rmtree(os.path.join(folder, other), ignore_errors=True)
    return path


def newest(folder, within=True):
    """Reads the newest checkpoint that is not damaged; within=False: only those after an increment.

    Returns:
        arrays, state: as `read` returns them; None if there is no checkpoint.
        path: str, the checkpoint's folder, or None.
        damaged: list of str, newer checkpoints that are damaged, and how.

    Raises: Fault: all checkpoints are damaged, or one has another format or was edited.
    """
    damaged = []
    for name in _newest_first(folder):
        path = os.path.join(folder, name)
        if 'step' in name and not within:
            continue
        try:
            return read(path) + (path, damaged)
        except (ValueError, RecursionError) as error:  # the latter of JSON within JSON within ..
            damaged.append('%s: %s' % (path, error))
        except OSError as error:
            raise Fault('%s: cannot be read (%s)' % (error.filename, error.strerror))
    if damaged:
        raise Fault('%s; no other checkpoint is there; delete it to begin anew' % '\n'.join(damaged))
    return None, None, None, []


def read(path):
    """Reads a checkpoint: arrays, dict from name to array, and state, dict.

    Raises: ValueError: it is damaged. Fault: it has another format, or was edited. OSError.
    """
    contents = {}
    for name in ('SHA256SUMS', 'network.npz', 'state.json'):
        irregular = sources.irregular(os.path.join(path, name))
        if irregular:
            _format(path)  # the fault of a checkpoint from before there were checksums
            raise ValueError('%s: %s' % (name, irregular))
        with open(os.path.join(path, name), 'rb') as file:
            contents[name] = file.read()
        if name != 'SHA256SUMS' and _sum_line(name, contents[name]) not in contents['SHA256SUMS']:
            raise ValueError('%s is damaged' % name)
    state = _format(path)
    wrong = _wrong(state)
    if not wrong and _name(state) != os.path.basename(os.path.normpath(path)):
        wrong = 'the folder was renamed, %s is in it' % _name(state)
    try:
        with np.load(io.BytesIO(contents['network.npz']), allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (ValueError, zipfile.BadZipFile, OSError, NotImplementedError):
        wrong = wrong or 'network.npz is no archive of arrays'
    if not wrong:
        shapes = [arrays[name].shape for name in sorted(arrays) if re.fullmatch('(resnet/)?dense/(bias|kernel)', name)]
        if [shape[-1:] for shape in shapes] != [(len(state['classes']),)] * 2:
            wrong = 'network.npz has no dense layer for the classes of state.json'
    if wrong:
        raise Fault('%s: is not as this program wrote it: %s; restore it, or delete it and resume from the checkpoint before'
                    % (path, wrong))
    return arrays, state


def network(arrays):
    """The arrays of a checkpoint after an increment, two dicts: the trained network, and what replaces parts of it in use."""
    replaced = {name[len(LAST_LAYER):]: value for name, value in arrays.items() if name.startswith(LAST_LAYER)}
    return {name: value for name, value in arrays.items() if not name.startswith(LAST_LAYER)}, replaced


@contextlib.contextmanager
def lock(folder, newest_path):
    """A context that keeps other runs out of a folder. The system releases the lock when this process ends, for any reason.

    The lock's time stamp is renewed every few seconds: it shows other workers that this process is alive.
    Raises a Fault if another run has the lock, or has written a newer checkpoint than newest_path, str or None, from `newest`.
    """
    path = os.path.join(folder, 'lock')
    try:
        os.makedirs(folder, exist_ok=True)
        file = open(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666), 'r+b', buffering=0)
    except OSError as error:
        raise Fault('%s: cannot be written (%s)' % (path, error.strerror))
    ended = threading.Event()

    def beat():
        while not ended.wait(_HEARTBEAT):
            with contextlib.suppress(OSError):
                os.utime(path)

    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Fault('%s: another run is writing there (%s); wait for its end, or choose another MODEL_DIR'
                        % (folder, file.read().decode(errors='replace')))
        except OSError as error:
            raise Fault('%s: cannot be locked (%s); choose another MODEL_DIR' % (folder, error.strerror))
        if newest(folder)[2] != newest_path:
            raise Fault('%s: another run has just written there; repeat the command to resume from that' % folder)
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
    """Flushes a folder to the disk, then renames it to path. An older folder there is replaced as a whole."""
    old = path + '.old'
    shutil.rmtree(old, ignore_errors=True)
    for place, _, files in os.walk(partial):
        for name in files + ['']:
            _sync(os.path.join(place, name))
    if os.path.lexists(path):
        os.rename(path, old)
    os.rename(partial, path)
    _sync(os.path.dirname(path))  # otherwise a power cut may undo the renaming
    shutil.rmtree(old, ignore_errors=True)


def _sync(path):
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def _sum_line(name, content):
    return ('%s  %s\n' % (hashlib.sha256(content).hexdigest(), name)).encode()


def _name(state):
    """The folder of a checkpoint with this state, str."""
    done, step = len(state['results']), state['step']
    return 'increment-%d-step-%d' % (done, step) if step else 'increment-%d' % (done - 1)


def _wrong(state):
    """What is wrong with a state that has the right format, str; or None."""
    kinds = ['%s of state.json has another form' % key for key in _STATE if key not in state or not _is(state[key], _STATE[key])]
    if kinds:
        return kinds[0]
    done = len(state['results'])
    illegal = settings.illegal(state['settings'])
    if illegal:
        return 'settings of state.json: ' + illegal
    if (len(state['fits']), len(state['matrix'])) != (done, done) or not all(
            len(fit) == 5 and _is(fit[:4], [None]) and type(fit[4]) is bool for fit in state['fits']):
        return 'fits or matrix of state.json are not one per increment'
    if [len(row) for row in state['matrix']] != list(range(1, done + 1)):
        return 'matrix of state.json has rows of another length'
    if any(len(losses) != 5 for losses in state['sums']):
        return 'sums of state.json are not five losses per step'
    if min(state['sizes'], default=0) < 1 or sum(state['sizes']) != len(state['classes']) or done > len(state['sizes']):
        return 'sizes of state.json do not add up to its classes'
    if len(state['exemplars']) != sum(state['sizes'][:done]):
        return 'exemplars of state.json are not one list per class learnt'
    return 'step of state.json is too small' if state['step'] < (0 if done else 1) else None


def _is(value, kind):
    if isinstance(kind, list):
        return isinstance(value, list) and all(_is(one, kind[0]) for one in value)
    if isinstance(kind, dict):
        return isinstance(value, dict) and set(value) == set(kind) and all(_is(value[key], kind[key]) for key in kind)
    if kind in (None, float):
        return type(value) in (int, float) or kind is None and value is None
    return type(value) is kind


def _format(path):
    """The state of a checkpoint, or None if it has none. Raises: Fault: it has another format."""
    file = os.path.join(path, 'state.json')
    if sources.irregular(file):
        return None
    with open(file, encoding='utf-8') as text:
        state, _ = json.JSONDecoder().raw_decode(text.read())  # other formats have more behind it
    if not isinstance(state, dict) or state.get('format') != FORMAT:
        raise Fault('%s: state.json has another format than %d, which this program writes; begin a new run in another MODEL_DIR, '
                    'or resume with the commit that wrote it' % (path, FORMAT))
    return state


def _newest_first(folder):
    """Names of the checkpoint folders, complete or not."""
    try:
        names = os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):  # the latter is reported with the settings
        return []
    except OSError as error:
        raise Fault('%s: cannot be read (%s)' % (folder, error.strerror))
    parts = [re.fullmatch(r'increment-(\d+)(?:-step-(\d+))?', name, re.ASCII) for name in names]
    order = {found.group(): (int(found.group(1)), int(found.group(2) or 0) or float('inf')) for found in parts if found}
    return sorted(order, key=order.get, reverse=True)


def _without_nan(value):
    """The value with None for nan, which JSON does not have, and Python's numbers for NumPy's."""
    if isinstance(value, dict):
        return {key: _without_nan(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(one) for one in value]
    value = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(value, float) and math.isnan(value) else value
