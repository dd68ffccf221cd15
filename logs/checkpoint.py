"""Checkpoints: what a run needs to go on after an increment. Networks are NumPy archives; the rest is JSON."""
import json
import os
import zipfile

import numpy as np

from data import Fault

FORMAT = 1
# The state of a run before its first increment.
NOTHING = dict(settings={}, sizes=[], classes=[], exemplars=[], fits=[], results=[], matrix=[], hours=0.0)


def save(folder, weights, state):
    """Writes the network of an increment, and then the state that makes it the one to go on from. Each whole or not at all.

    Args:
        folder: str, made if need be. weights: dict from a variable's name to its array.
        state: dict with the keys of NOTHING: settings that affect results; sizes, classes of each increment planned; classes, by
            label, dicts of name and the paths held (out) and test(ed on); exemplars, their paths by label in order of choice,
            of the classes learnt; fits, results and matrix, one entry per increment done; hours so far.
    """
    path = network(folder, len(state['results']) - 1)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    _write(path, lambda file: np.savez(file, **weights))
    text = json.dumps(dict(state, format=FORMAT), indent=0, default=lambda number: number.item())
    _write(where(folder), lambda file: file.write(text.encode()))


def load(folder):
    """Reads what `save` wrote last.

    Args:
        folder: str.

    Returns:
        weights: dict from name to array, or None if there is no state.
        state: dict, see `save`; NOTHING if there is none.

    Raises:
        Fault: a file cannot be read, or has another format.
    """
    if not os.path.exists(where(folder)):
        return None, NOTHING
    try:
        path = where(folder)
        with open(path, encoding='utf-8') as file:
            state = json.load(file)
        if state['format'] != FORMAT or not set(NOTHING) <= set(state):
            raise ValueError('its format is %s, and this program writes %s' % (state['format'], FORMAT))
        path = network(folder, len(state['results']) - 1)
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}, state
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise Fault('%s: the run cannot go on from it (%s); begin a new run in another MODEL_DIR, or delete %s'
                    % (path, error, folder))


def where(folder):
    return os.path.join(folder, 'state.json')


def network(folder, increment):
    return os.path.join(folder, 'increment-%d' % increment, 'network.npz')


def _write(path, write):
    """Under another name first, then renamed."""
    with open(path + '.partial', 'wb') as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(path + '.partial', path)
