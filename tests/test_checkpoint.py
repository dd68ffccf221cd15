"""A checkpoint is written whole or not at all, and gives back what was saved."""
import os

import numpy as np
import pytest

from data import Fault
from logs import checkpoint

WEIGHTS = {'conv1/kernel': np.random.RandomState(0).normal(size=(3, 5)).astype(np.float32), 'dense/bias': np.zeros(7, np.float32)}


def state(increments):
    """Of a run with so many increments done; with names and paths that are not ASCII, or no text at all."""
    return dict(settings={'SEED': 1, 'LR_DROP_EPOCHS': [4, 6]}, sizes=[2, 1],
                classes=[dict(name='zwei Wörter', held=['a/\udcff.png'], test=[])], exemplars=[['a/1.png']],
                fits=[[1.0, 0.0, float('nan'), 0.1 + 0.2, False]],
                results=[dict(increment=k, top1=1 / 3) for k in range(increments)], matrix=[[np.float64(0.1)]],
                hours=np.float32(0.25))


def test_what_is_saved_is_loaded(tmp_path):
    folder = str(tmp_path / 'model' / 'digits')
    assert checkpoint.load(folder) == (None, checkpoint.NOTHING)
    for increments in (1, 2):
        checkpoint.save(folder, dict(WEIGHTS, increments=np.array(increments)), state(increments))
    weights, loaded = checkpoint.load(folder)
    assert weights.pop('increments') == 2 and sorted(weights) == sorted(WEIGHTS)
    for name, value in weights.items():
        np.testing.assert_array_equal(value, WEIGHTS[name])
        assert value.dtype == np.float32
    assert loaded.pop('format') == checkpoint.FORMAT
    assert np.isnan(loaded['fits'][0].pop(2))
    expected = state(2)
    expected['fits'][0].pop(2)
    assert loaded == expected
    assert sorted(os.listdir(folder)) == ['increment-0', 'increment-1', 'state.json']


def test_a_failed_save_leaves_the_state_before_it(tmp_path):
    class Broken:
        def __array__(self, dtype=None, copy=None):
            raise OSError('disk full')

    folder = str(tmp_path)
    checkpoint.save(folder, WEIGHTS, state(1))
    with pytest.raises(OSError):
        checkpoint.save(folder, dict(WEIGHTS, broken=Broken()), state(2))
    weights, loaded = checkpoint.load(folder)
    assert sorted(weights) == sorted(WEIGHTS) and len(loaded['results']) == 1


@pytest.mark.parametrize('name, content, reason', [
    ('state.json', b'{"format": 1, "sizes"', 'state.json: the run cannot go on from it'),
    ('state.json', b'{"format": 9, "results": []}', 'its format is 9, and this program writes 1'),
    ('state.json', b'[]', 'state.json: the run cannot go on from it'),
    ('state.json', b'\xff', 'state.json: the run cannot go on from it'),
    ('increment-0/network.npz', b'', 'network.npz: the run cannot go on from it'),
    ('increment-0/network.npz', b'PK\x03\x04', 'network.npz: the run cannot go on from it'),
    ('increment-0/network.npz', None, 'network.npz: the run cannot go on from it .*No such file')])
def test_damaged_files(name, content, reason, tmp_path):
    checkpoint.save(str(tmp_path), WEIGHTS, state(1))
    if content is None:
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(Fault, match=reason + '(.|\n)*begin a new run in another MODEL_DIR'):
        checkpoint.load(str(tmp_path))
