"""Checkpoints: a network's variables by name, in one NumPy archive."""
import os

import numpy as np


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
