"""A checkpoint is written whole or not at all, and gives back what was saved."""
import os
import subprocess
import sys

import numpy as np
import pytest

from data import Fault
from logs import checkpoint

WEIGHTS = {'conv1/kernel': np.random.RandomState(0).normal(size=(3, 5)).astype(np.float32), 'dense/bias': np.zeros(7, np.float32)}


def state(increments, step=0):
    """Of a run with so many increments done; with names and paths that are not ASCII, or no text at all."""
    return dict(trained='1f', step=step, sums=[[0.1 + 0.2, 1e300]], settings={'SEED': 1, 'LR_DROP_EPOCHS': [4, 6]}, sizes=[2, 1],
                classes=[dict(name='zwei Wörter', train='a0', held=['a/\udcff.png'], test=[])], exemplars=[['a/1.png']],
                fits=[[1.0, 0.0, float('nan'), 0.1 + 0.2, False]],
                results=[dict(increment=k, top1=1 / 3) for k in range(increments)], matrix=[[np.float64(0.1)]],
                hours=np.float32(0.25))


def test_what_is_saved_is_loaded(tmp_path):
    folder = str(tmp_path / 'model' / 'digits')
    assert checkpoint.load(folder) == (None, checkpoint.NOTHING, None, [])
    for increments in range(1, 12):
        checkpoint.save(folder, dict(WEIGHTS, increments=np.array(increments)), state(increments))
    weights, loaded, path, damaged = checkpoint.load(folder)      # number 10 is later than number 9
    assert (path, damaged) == (os.path.join(folder, 'increment-10'), [])
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


def test_within_an_increment_the_last_two_are_kept(tmp_path):
    """Step 900 comes before step 1000, both before the end of their increment; one of a later step, from before the data
    changed, does not outlive a new one."""
    def names():
        return sorted(os.listdir(str(tmp_path)))

    checkpoint.save(str(tmp_path), WEIGHTS, state(1))
    path = None
    for step in (800, 900, 1000):
        path = checkpoint.save(str(tmp_path), WEIGHTS, state(1, step), path)
        assert checkpoint.load(str(tmp_path))[1]['step'] == step
    assert names() == ['increment-0', 'increment-1-step-1000', 'increment-1-step-900']
    (tmp_path / 'increment-1-step-1000' / 'network.npz').write_bytes(b'')    # what is damaged does not push out what is not
    path = checkpoint.load(str(tmp_path))[2]
    path = checkpoint.save(str(tmp_path), WEIGHTS, state(1, 950), path)
    assert names() == ['increment-0', 'increment-1-step-900', 'increment-1-step-950']
    checkpoint.save(str(tmp_path), WEIGHTS, state(2))
    assert checkpoint.load(str(tmp_path))[2] == str(tmp_path / 'increment-1')
    checkpoint.save(str(tmp_path), WEIGHTS, state(2, 7), path)
    assert names() == ['increment-0', 'increment-1', 'increment-1-step-950', 'increment-2-step-7']


@pytest.mark.parametrize('name', ['network.npz', 'state.json'])
def test_a_failed_save_leaves_the_state_before_it(name, tmp_path):
    """The place of a file is taken."""
    checkpoint.save(str(tmp_path), WEIGHTS, state(1))
    (tmp_path / 'increment-1').mkdir()
    (tmp_path / 'increment-1' / (name + '.partial')).mkdir()
    with pytest.raises(Fault, match='increment-1: cannot be written .Is a directory.; .* goes on from the checkpoint before'):
        checkpoint.save(str(tmp_path), WEIGHTS, state(2))
    assert len(checkpoint.load(str(tmp_path))[1]['results']) == 1


@pytest.fixture(name='small_disk')
def small_disk_(tmp_path):
    """A file system of its own, of one megabyte, where the system lets us have one."""
    folder = tmp_path / 'disk'
    folder.mkdir()
    if subprocess.call(['mount', '-t', 'tmpfs', '-o', 'size=1m', 'tmpfs', str(folder)], stderr=subprocess.DEVNULL):
        pytest.skip('no right to mount a file system')
    yield folder
    subprocess.check_call(['umount', str(folder)])


def test_a_full_disk(small_disk):
    """Saves until there is no room: the message says so, and the newest whole checkpoint is what was saved last."""
    big, step = dict(WEIGHTS, big=np.zeros(50000, np.float32)), 0
    path = checkpoint.save(str(small_disk), big, state(0, 1))
    full = pytest.raises(Fault, match='cannot be written .No space left on device.')
    with open(str(small_disk / 'other'), 'wb') as other, full:
        for step in range(2, 20):
            path = checkpoint.save(str(small_disk), big, state(0, step), path)
            other.write(bytes(100000))
            other.flush()
    assert 2 < step < 12
    weights, loaded, _, damaged = checkpoint.load(str(small_disk))
    assert loaded['step'] == step - 1 and damaged == [] and weights['big'].shape == (50000,)
    with checkpoint.lock(str(small_disk), path):
        pass
    os.remove(str(small_disk / 'other'))
    checkpoint.save(str(small_disk), big, state(0, step))
    assert checkpoint.load(str(small_disk))[1]['step'] == step


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
    """Cut anywhere, any bit turned over, or gone: the checkpoint before it is taken, and without one it is a fault."""
    checkpoint.save(str(tmp_path), WEIGHTS, state(1))
    checkpoint.save(str(tmp_path), WEIGHTS, state(1, 5))
    folder = tmp_path / 'increment-1-step-5'
    whole, random = (folder / name).read_bytes(), np.random.RandomState(0)
    contents = [whole[:int(length)] for length in random.randint(0, len(whole), 20)] + [whole + b'\n']
    for place in random.randint(0, 8 * len(whole), 60):
        content = bytearray(whole)
        content[place // 8] ^= 1 << place % 8
        contents.append(bytes(content))
    for content in contents:
        (folder / name).write_bytes(content)
        _, loaded, path, damaged = checkpoint.load(str(tmp_path))
        assert (loaded['step'], path) == (0, str(tmp_path / 'increment-0'))
        assert damaged == ['%s: %s is damaged' % (folder, name)]
    (tmp_path / 'increment-0').rename(tmp_path / 'elsewhere')
    with pytest.raises(Fault, match='step-5: %s is damaged; no other checkpoint is there; delete it to begin anew' % name):
        checkpoint.load(str(tmp_path))
    (folder / name).unlink()
    if name == 'network.npz':
        with pytest.raises(Fault, match='step-5: network.npz is not there'):
            checkpoint.load(str(tmp_path))


def test_another_format(tmp_path, monkeypatch):
    checkpoint.save(str(tmp_path), WEIGHTS, state(1))
    monkeypatch.setattr(checkpoint, 'FORMAT', 9)
    with pytest.raises(Fault, match='increment-0: state.json has another format than 9, which this program writes; begin'):
        checkpoint.load(str(tmp_path))


def test_two_runs_cannot_write_to_one_folder(tmp_path):
    """The second is told who has it; when that process is killed, the folder is free again."""
    folder = str(tmp_path / 'model')
    code = ('import time; from logs import checkpoint\n'
            'with checkpoint.lock(%r, None):\n    print("locked", flush=True); time.sleep(60)' % folder)
    other = subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.PIPE,
                             cwd=os.path.dirname(os.path.dirname(os.path.abspath(checkpoint.__file__))))
    assert other.stdout.readline() == b'locked\n'
    with pytest.raises(Fault, match='another run is writing there .process %d on .*choose another MODEL_DIR' % other.pid):
        with checkpoint.lock(folder, None):
            pass
    other.kill()
    other.wait()
    other.stdout.close()
    with checkpoint.lock(folder, None):
        pass
    checkpoint.save(folder, WEIGHTS, state(1))      # by yet another run, since this one looked
    with pytest.raises(Fault, match='another run has just written there; repeat the command'):
        with checkpoint.lock(folder, None):
            pass
