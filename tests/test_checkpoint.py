"""What is saved is loaded; anything missing or different is an error."""
import os

import numpy as np
import pytest

from data import Fault
from logs import checkpoint

VALUES = {'conv1/kernel': np.random.RandomState(0).normal(size=(3, 5)).astype(np.float32), 'dense/bias': np.zeros(7, np.float32)}
SHAPES = {'conv1/kernel': [3, 5], 'dense/bias': [7]}


@pytest.fixture(name='path')
def path_(tmp_path):
    path = str(tmp_path / 'model' / 'increment-0' / 'network.npz')
    checkpoint.save(path, VALUES)
    return path


def test_loads_what_was_saved(path):
    loaded = checkpoint.load(path, SHAPES)
    assert sorted(loaded) == sorted(VALUES)
    for name in VALUES:
        np.testing.assert_array_equal(loaded[name], VALUES[name])
        assert loaded[name].dtype == np.float32
    assert os.listdir(os.path.dirname(path)) == ['network.npz']


@pytest.mark.parametrize('shapes, message', [
    ({'conv1/kernel': [3, 5]}, r'1 variables differ from the network, first dense/bias: \[7\] in the file, missing in the'),
    (dict(SHAPES, **{'bn/gamma': [5]}), r'first bn/gamma: missing in the file, \[5\] in the network'),
    (dict(SHAPES, **{'conv1/kernel': [5, 3]}), r'first conv1/kernel: \[3, 5\] in the file, \[5, 3\] in the network')])
def test_another_network(path, shapes, message):
    with pytest.raises(Fault, match=message):
        checkpoint.load(path, shapes)


def test_no_checkpoint(tmp_path):
    with pytest.raises(Fault, match='nowhere.npz: no such checkpoint'):
        checkpoint.load(str(tmp_path / 'nowhere.npz'), SHAPES)


def test_a_failed_save_leaves_the_old_file(path):
    class Broken:
        def __array__(self, dtype=None, copy=None):
            raise OSError('disk full')

    with pytest.raises(OSError):
        checkpoint.save(path, dict(VALUES, broken=Broken()))
    assert sorted(checkpoint.load(path, SHAPES)) == sorted(VALUES)
