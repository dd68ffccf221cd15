"""A checkpoint is written whole or not at all, and gives back what was saved."""
import os
import subprocess
import sys

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
    for increments in range(1, 12):
        checkpoint.save(folder, dict(WEIGHTS, increments=np.array(increments)), state(increments))
    weights, loaded = checkpoint.load(folder)      # number 10 is later than number 9
    assert weights.pop('increments') == 11 and sorted(weights) == sorted(WEIGHTS)
    for name, value in weights.items():
        np.testing.assert_array_equal(value, WEIGHTS[name])
        assert value.dtype == np.float32
    assert loaded.pop('format') == checkpoint.FORMAT and loaded.pop('network')
    assert np.isnan(loaded['fits'][0].pop(2))
    expected = state(11)
    expected['fits'][0].pop(2)
    assert loaded == expected
    assert sorted(os.listdir(os.path.join(folder, 'increment-10'))) == ['network.npz', 'state.json']


@pytest.mark.parametrize('name', ['network.npz', 'state.json'])
def test_a_failed_save_leaves_the_state_before_it(name, tmp_path):
    """The disk is full half-way through a file."""
    folder = str(tmp_path)
    checkpoint.save(folder, WEIGHTS, state(1))
    checkpoint.save(folder, WEIGHTS, state(2))
    os.remove(str(tmp_path / 'increment-1' / 'state.json'))
    (tmp_path / 'increment-1' / (name + '.partial')).mkdir()
    with pytest.raises(Fault, match='increment-1: cannot be written .Is a directory.; the run can go on from the'):
        checkpoint.save(folder, WEIGHTS, state(2))
    assert len(checkpoint.load(folder)[1]['results']) == 1


@pytest.mark.parametrize('name', ['network.npz', 'state.json'])
def test_a_file_is_replaced_whole(name, tmp_path):
    """A reader that opened it before goes on reading what it opened."""
    checkpoint.save(str(tmp_path), WEIGHTS, state(1))
    with open(str(tmp_path / 'increment-0' / name), 'rb') as before:
        checkpoint.save(str(tmp_path), dict(WEIGHTS, more=np.ones(3)), dict(state(1), hours=7.0))
        with open(str(tmp_path / 'increment-0' / name), 'rb') as after:
            assert before.read() != after.read()
            before.seek(0)
            assert len(before.read()) == os.fstat(before.fileno()).st_size > 0


@pytest.mark.parametrize('name', ['network.npz', 'state.json'])
def test_damaged_files(name, tmp_path):
    """Cut anywhere, any bit turned over, or gone: one message, which names the folder and the ways out."""
    checkpoint.save(str(tmp_path), WEIGHTS, state(1))
    path = tmp_path / 'increment-0' / name
    whole, random = path.read_bytes(), np.random.RandomState(0)
    damaged = [whole[:int(length)] for length in random.randint(0, len(whole), 20)]
    for place in random.randint(0, 8 * len(whole), 60):
        content = bytearray(whole)
        content[place // 8] ^= 1 << place % 8
        damaged.append(bytes(content))
    for content in damaged:
        path.write_bytes(content)
        with pytest.raises(Fault, match='increment-0: the run cannot go on from it .*; delete it to go on from the increment'):
            checkpoint.load(str(tmp_path))
    path.unlink()
    if name == 'network.npz':
        with pytest.raises(Fault, match='increment-0: the run cannot go on from it .*No such file'):
            checkpoint.load(str(tmp_path))


def test_another_format(tmp_path, monkeypatch):
    checkpoint.save(str(tmp_path), WEIGHTS, state(1))
    monkeypatch.setattr(checkpoint, 'FORMAT', 9)
    with pytest.raises(Fault, match='state.json has format 1, and this program writes 9'):
        checkpoint.load(str(tmp_path))


def test_two_runs_cannot_write_to_one_folder(tmp_path):
    """The second is told who has it; when that process is killed, the folder is free again."""
    folder = str(tmp_path / 'model')
    code = ('import time; from logs import checkpoint\n'
            'with checkpoint.lock(%r):\n    print("locked", flush=True); time.sleep(60)' % folder)
    other = subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.PIPE,
                             cwd=os.path.dirname(os.path.dirname(os.path.abspath(checkpoint.__file__))))
    assert other.stdout.readline() == b'locked\n'
    with pytest.raises(Fault, match='another run is writing there .process %d on .*choose another MODEL_DIR' % other.pid):
        with checkpoint.lock(folder):
            pass
    other.kill()
    other.wait()
    other.stdout.close()
    with checkpoint.lock(folder):
        pass
