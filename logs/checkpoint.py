"""Checkpoints: a network's variables by name, in one NumPy archive.

The names are without the network's scope, so that one file fills both the student and the old network.
"""
import os

import numpy as np

from data import Fault


def save(path, values):
    """Writes a checkpoint whole or not at all: under another name first, then renamed.

    Args:
        path: str, '...npz'; its folder is made. values: dict from name to array.
    """
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path + '.partial', 'wb') as file:
        np.savez(file, **values)
        file.flush()
        os.fsync(file.fileno())
    os.replace(path + '.partial', path)


def load(path, shapes):
    """Reads a checkpoint.

    Args:
        path: str. shapes: dict from name to list of int, what the network expects.

    Returns:
        dict from name to array.

    Raises:
        Fault: the file is missing, or its names or shapes are not the expected ones.
    """
    if not os.path.exists(path):
        raise Fault('%s: no such checkpoint' % path)
    with np.load(path, allow_pickle=False) as archive:
        values = {name: archive[name] for name in archive.files}
    stored = {name: list(value.shape) for name, value in values.items()}
    wrong = sorted(name for name in set(stored) | set(shapes) if stored.get(name) != shapes.get(name))
    if wrong:
        raise Fault('%s: %d variables differ from the network, first %s: %s in the file, %s in the network'
                    % (path, len(wrong), wrong[0], stored.get(wrong[0], 'missing'), shapes.get(wrong[0], 'missing')))
    return values
