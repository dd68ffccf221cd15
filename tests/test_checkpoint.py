"""A checkpoint is written as a whole or not at all, returns what was written, and belongs to one run at a time."""
import os
import subprocess
import sys
import time

import numpy as np
import pytest
from common import SCRIPT, settings_of, sign

import bic_layer
import exemplar
from data import Fault, settings
from logs import checkpoint, results

ARRAYS = {'dense/kernel': np.arange(36, dtype=np.float32).reshape(3, 12) / 7, 'dense/bias': np.zeros(12, np.float32)}
FILES = ['SHA256SUMS', 'network.npz', 'state.json']
FIT, SCORE = bic_layer.Fit(0.5, np.float32(-0.25), 2, np.nan, np.bool_(True)), results.Score(1 / 3, np.nan, None, None, None)


def state(done, step=0):
    """The state of a run with `done` of 12 increments. Names and paths are not ASCII, and one path is not even UTF-8."""
    row = results.row(exemplar.Increment(0, 0, 1, 0, 0, 0, 0, 0, 0), FIT, results.Scores([], SCORE, SCORE, SCORE))
    return dict(settings=settings.fixed(settings_of([])), sizes=[1] * 12, exemplars=[['a/1.png']] * done, fits=[FIT] * done,
                classes=[dict(name='zwei Wörter %d' % k, train='a0', held=['a/\udcff.png'], test=[]) for k in range(12)],
                results=[row] * done, matrix=[[np.float64(0.1)] * k for k in range(1, done + 1)], hours=np.float32(0.25),
                trained='1f', step=step, sums=[[0.1 + 0.2, 1e300, 0, 0, 0]], log='logs/log')


def test_what_is_written_is_read(tmp_path):
    """The newest of eleven is number 10. Arrays are identical, the state is as in JSON, and `sha256sum` accepts it."""
    folder = str(tmp_path / 'model' / 'digits')
    assert checkpoint.newest(folder) == (None, None, None, [])
    for increments in range(1, 12):
        checkpoint.write(folder, dict(ARRAYS, increments=np.array(increments)), state(increments))
    arrays, found, path, damaged = checkpoint.newest(folder)
    assert (path, damaged, arrays['dense/kernel'].dtype) == (os.path.join(folder, 'increment-10'), [], np.float32)
    np.testing.assert_equal(arrays, dict(ARRAYS, increments=11))
    row = {key: None if np.isnan(value) else value for key, value in state(1)['results'][0].items()}
    assert found == dict(state(11), format=checkpoint.FORMAT, results=[row] * 11, fits=[[0.5, -0.25, 2, None, True]] * 11)
    assert subprocess.check_output(['sha256sum', '-c', 'SHA256SUMS'], cwd=path) == b'network.npz: OK\nstate.json: OK\n'


def test_within_an_increment_the_last_two_are_kept(tmp_path):
    """Step 900 is older than step 1000, both than the end of their increment. A damaged checkpoint does not count."""
    folder = str(tmp_path)
    for increments, step, there in [(1, 0, '0'), (1, 800, '0 1-step-800'), (1, 900, '0 1-step-800 1-step-900'),
                                    (1, 1000, '0 1-step-1000 1-step-900'), (1, 950, '0 1-step-900 1-step-950'),
                                    (2, 0, '0 1 1-step-900 1-step-950'), (2, 7, '0 1 2-step-7')]:
        path = checkpoint.write(folder, ARRAYS, state(increments, step), checkpoint.newest(folder)[2])
        assert sorted(os.listdir(folder)) == ['increment-' + name for name in there.split()]
        assert checkpoint.newest(folder)[2] == path
        if step == 1000:
            open(os.path.join(path, 'network.npz'), 'wb').close()


@pytest.mark.parametrize('name', FILES)
@pytest.mark.parametrize('reason, target', [('Is a directory', '.'), ('No space left on device', '/dev/full')])
def test_a_checkpoint_that_cannot_be_written(name, reason, target, tmp_path):
    """A file cannot be opened, or the disk is full: the previous checkpoint stays the newest, and no damage is reported."""
    before, folder = checkpoint.write(str(tmp_path), ARRAYS, state(1)), tmp_path / 'increment-1'
    (tmp_path / 'checkpoint.partial').mkdir()
    (tmp_path / 'checkpoint.partial' / name).symlink_to(target)
    with pytest.raises(Fault, match='^%s: cannot be written .%s.; free space or fix it, and the same comm' % (folder, reason)):
        checkpoint.write(str(tmp_path), ARRAYS, state(2))
    assert checkpoint.newest(str(tmp_path))[2:] == (before, [])
    assert checkpoint.write(str(tmp_path), ARRAYS, state(2)) == checkpoint.newest(str(tmp_path))[2] == str(folder)


@pytest.mark.parametrize('name', FILES)
def test_damaged_files(name, tmp_path):
    """A file is cut anywhere, has any bit flipped, or is missing: the previous checkpoint is used. Without one it is a Fault."""
    before, folder = checkpoint.write(str(tmp_path), ARRAYS, state(1)), tmp_path / 'increment-1-step-5'
    checkpoint.write(str(tmp_path), ARRAYS, state(1, 5), before)
    whole = (folder / name).read_bytes()
    for place in np.random.RandomState(0).randint(0, 8 * len(whole), 60):
        start, byte = whole[:place // 8], whole[place // 8]
        for content in start, start + bytes([byte ^ 1 << place % 8]) + whole[place // 8 + 1:]:
            (folder / name).write_bytes(content)
            arrays, found, path, (damaged,) = checkpoint.newest(str(tmp_path))
            assert (len(arrays), found['step'], path) == (2, 0, before)
            assert damaged in ['%s: %s is damaged' % (folder, file) for file in FILES[1:] if name in (file, 'SHA256SUMS')]
    (tmp_path / 'increment-0').rename(tmp_path / 'elsewhere')
    for reason, change in ('is damaged', lambda: None), ('no such file', (folder / name).unlink):
        change()
        with pytest.raises(Fault, match='step-5: .*%s; no other checkpoint is there; delete it to begin anew' % reason):
            checkpoint.newest(str(tmp_path))


@pytest.mark.parametrize('content', [b'{"format": 5}', b'{"format": 3}\n0123456789abcdef\n', b'[]'])
def test_another_format(content, tmp_path):
    """Earlier versions wrote a second line after the JSON, and no SHA256SUMS."""
    path = checkpoint.write(str(tmp_path), ARRAYS, state(1))
    (tmp_path / 'increment-0' / 'state.json').write_bytes(content)
    for change in sign, lambda path: os.remove(os.path.join(path, 'SHA256SUMS')):
        change(path)
        with pytest.raises(Fault, match='increment-0: state.json has another format than 4, which this program writes; begin'):
            checkpoint.newest(str(tmp_path))


def test_two_runs_cannot_write_to_one_folder(tmp_path, monkeypatch):
    """The second run is told which process has the lock. When that process is killed, the lock is free."""
    folder = str(tmp_path / 'model')
    program = ('import time; from logs import checkpoint\n'
               'with checkpoint.lock(%r, None):\n    print("locked", flush=True); time.sleep(60)' % folder)
    with subprocess.Popen([sys.executable, '-c', program], cwd=os.path.dirname(SCRIPT), stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b'locked\n'
        with pytest.raises(Fault, match='another run is writing there .process %d on .*choose another MODEL_DIR' % other.pid):
            checkpoint.lock(folder, None).__enter__()
        other.kill()
    monkeypatch.setattr(checkpoint, '_HEARTBEAT', 0.01)
    with checkpoint.lock(folder, None):
        os.utime(os.path.join(folder, 'lock'), (0, 0))
        stamps = [checkpoint.lock_state(folder)[1] for _ in range(100) if not time.sleep(0.01)]
        assert any(stamps)  # which the run renews
    checkpoint.write(folder, ARRAYS, state(1))  # by yet another run, since this one looked
    with pytest.raises(Fault, match='another run has just written there; repeat the command'):
        checkpoint.lock(folder, None).__enter__()
