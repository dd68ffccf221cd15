"""A checkpoint is written whole or not at all."""
import os

import numpy as np
import pytest

from logs import checkpoint

VALUES = {'conv1/kernel': np.random.RandomState(0).normal(size=(3, 5)).astype(np.float32), 'dense/bias': np.zeros(7, np.float32)}


def stored(path):
    with np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def test_save(tmp_path):
    path = str(tmp_path / 'model' / 'increment-0' / 'network.npz')
    checkpoint.save(path, VALUES)
    assert os.listdir(os.path.dirname(path)) == ['network.npz']
    assert sorted(stored(path)) == sorted(VALUES)
    for name, value in stored(path).items():
        np.testing.assert_array_equal(value, VALUES[name])
        assert value.dtype == np.float32


def test_a_failed_save_leaves_the_old_file(tmp_path):
    class Broken:
        def __array__(self, dtype=None, copy=None):
            raise OSError('disk full')

    path = str(tmp_path / 'network.npz')
    checkpoint.save(path, VALUES)
    with pytest.raises(OSError):
        checkpoint.save(path, dict(VALUES, broken=Broken()))
    assert sorted(stored(path)) == sorted(VALUES)
