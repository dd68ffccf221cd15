"""A checkpoint is written as a whole or not at all, is read as written, and has one owner."""
import json
import os
import subprocess
import sys
import time

import numpy as np
import pytest
from common import SCRIPT, settings_of, sign

import bic_layer
from data import Fault, settings
from logs import checkpoint
from logs.state import State

ARRAYS = {'dense/kernel': np.arange(36, dtype=np.float32).reshape(3, 12) / 7,
          'dense/bias': np.zeros(12, np.float32)}
FILES = ['SHA256SUMS', 'network.npz', 'state.json']


def state(done, step=0):
    """The state of a run with `done` of 12 increments.

    Names and paths are not ASCII, and one path is not even UTF-8.
    """
    classes = []
    for k in range(12):
        name = 'zwei Wörter %d' % k
        classes.append(dict(name=name, train='a0', held=['a/\udcff.png'], test=[]))
    row = dict(increment=0, classes=1, top1=1 / 3, top5=float('nan'), top1_by_increment=[0.25])
    return State(
        settings=settings.fixed(settings_of([])), sizes=[1] * 12, classes=classes,
        exemplars=[['a/1.png']] * done, rows=[row] * done, step=step, trained_on='1f',
        losses=[dict(loss=0.1 + 0.2, top1=1e300)], hours=0.25, log='logs/log')


def path_of_newest(folder):
    saved = checkpoint.newest(str(folder))
    return saved and saved.path


def test_what_is_written_is_read(tmp_path):
    """The newest of eleven is number 10. Everything is identical, and `sha256sum` accepts it."""
    folder = str(tmp_path / 'model' / 'digits')
    assert checkpoint.newest(folder) is None
    for increments in range(1, 12):
        arrays = dict(ARRAYS, increments=np.array(increments))
        checkpoint.write(folder, arrays, state(increments))
    saved = checkpoint.newest(folder)
    assert (saved.path, saved.damaged) == (os.path.join(folder, 'increment-10'), [])
    assert saved.arrays['dense/kernel'].dtype == np.float32
    np.testing.assert_equal(saved.arrays, dict(ARRAYS, increments=11))
    np.testing.assert_equal(vars(saved.state), vars(state(11)))
    sums = subprocess.check_output(['sha256sum', '-c', 'SHA256SUMS'], cwd=saved.path)
    assert sums == b'network.npz: OK\nstate.json: OK\n'


def test_a_network_and_its_correction():
    """The network keeps its trained last layer, beside the corrected one."""
    correction = bic_layer.Correction(ARRAYS['dense/kernel'] / 2, ARRAYS['dense/bias'], 0.5, -0.1)
    network, again = checkpoint.split(checkpoint.joined(ARRAYS, correction))
    np.testing.assert_equal(network, ARRAYS)
    np.testing.assert_equal(tuple(again), tuple(correction))


def test_within_an_increment_the_last_two_are_kept(tmp_path):
    """Step 900 is older than step 1000, both than the end of their increment.

    A damaged checkpoint does not count.
    """
    for increments, step, expected in [
            (1, 0, '0'),
            (1, 800, '0 1-step-800'),
            (1, 900, '0 1-step-800 1-step-900'),
            (1, 1000, '0 1-step-1000 1-step-900'),
            (1, 950, '0 1-step-900 1-step-950'),
            (2, 0, '0 1 1-step-900 1-step-950'),
            (2, 7, '0 1 2-step-7')]:
        before = path_of_newest(tmp_path)
        path = checkpoint.write(str(tmp_path), ARRAYS, state(increments, step), before)
        names = ['increment-' + name for name in expected.split()]
        assert sorted(os.listdir(str(tmp_path))) == names
        assert path_of_newest(tmp_path) == path
        if step == 1000:
            open(os.path.join(path, 'network.npz'), 'wb').close()


@pytest.mark.parametrize('name', FILES)
@pytest.mark.parametrize('reason, target', [
    ('Is a directory', '.'), ('No space left on device', '/dev/full')])
def test_a_checkpoint_that_cannot_be_written(name, reason, target, tmp_path):
    """The previous checkpoint stays the newest, and no damage is reported."""
    before = checkpoint.write(str(tmp_path), ARRAYS, state(1))
    folder = tmp_path / 'increment-1'
    (tmp_path / 'checkpoint.partial').mkdir()
    (tmp_path / 'checkpoint.partial' / name).symlink_to(target)
    message = '^%s: cannot be written .%s.; free space or fix it, and the same comm'
    with pytest.raises(Fault, match=message % (folder, reason)):
        checkpoint.write(str(tmp_path), ARRAYS, state(2))
    saved = checkpoint.newest(str(tmp_path))
    assert (saved.path, saved.damaged) == (before, [])
    assert checkpoint.write(str(tmp_path), ARRAYS, state(2)) == str(folder)
    assert path_of_newest(tmp_path) == str(folder)


@pytest.mark.parametrize('name', FILES)
def test_damaged_files(name, tmp_path):
    """A file is cut anywhere, has any bit flipped, or is missing.

    Then the previous checkpoint is used; without one it is a Fault.
    """
    before = checkpoint.write(str(tmp_path), ARRAYS, state(1))
    checkpoint.write(str(tmp_path), ARRAYS, state(1, 5), before)
    folder = tmp_path / 'increment-1-step-5'
    whole = (folder / name).read_bytes()
    expected = ['%s: %s is damaged' % (folder, file) for file in FILES[1:]
                if name in (file, 'SHA256SUMS')]
    for place in np.random.RandomState(0).randint(0, 8 * len(whole), 60):
        start = whole[:place // 8]
        flipped = bytes([whole[place // 8] ^ 1 << place % 8])
        for content in (start, start + flipped + whole[place // 8 + 1:]):
            (folder / name).write_bytes(content)
            saved = checkpoint.newest(str(tmp_path))
            assert (len(saved.arrays), saved.state.step, saved.path) == (2, 0, before)
            damaged, = saved.damaged
            assert damaged in expected
    (tmp_path / 'increment-0').rename(tmp_path / 'elsewhere')
    for reason, change in (('is damaged', lambda: None), ('no such file', (folder / name).unlink)):
        change()
        with pytest.raises(Fault, match='step-5: .*%s; no other checkpoint is there; delete it to '
                                        'begin anew' % reason):
            checkpoint.newest(str(tmp_path))


@pytest.mark.parametrize('content', [
    b'{"format": 6}', b'{"format": 4}', b'{"format": 3}\n0123456789abcdef\n', b'[]'])
def test_another_format(content, tmp_path):
    """Early versions wrote a second line after the JSON, and no SHA256SUMS."""
    path = checkpoint.write(str(tmp_path), ARRAYS, state(1))
    (tmp_path / 'increment-0' / 'state.json').write_bytes(content)
    for change in sign, lambda path: os.remove(os.path.join(path, 'SHA256SUMS')):
        change(path)
        with pytest.raises(Fault, match='increment-0: state.json has another format than 5, which '
                                        'this program writes; begin'):
            checkpoint.newest(str(tmp_path))


@pytest.mark.parametrize('change, message', [
    (lambda values: values.pop('classes'), 'classes is missing'),
    (lambda values: values.update(color='red'), 'color is unknown'),
    (lambda values: values.update(step='5'), 'step is not of type int'),
    (lambda values: values.update(step=5), 'the folder was renamed, increment-1-step-5 is in it'),
    (lambda values: [values.pop(name) for name in ('losses', 'hours', 'log', 'trained_on')], None)])
def test_a_state_that_is_not_as_written(change, message, tmp_path):
    """One clear refusal names the field. A field with a default may be missing."""
    path = checkpoint.write(str(tmp_path), ARRAYS, state(1))
    file = tmp_path / 'increment-0' / 'state.json'
    values = json.loads(file.read_text())
    change(values)
    file.write_text(json.dumps(values))
    sign(path)
    if message:
        with pytest.raises(Fault, match='increment-0: is not as this program writes it: %s; '
                                        'restore it, or delete it and resume' % message):
            checkpoint.newest(str(tmp_path))
    else:
        found = checkpoint.newest(str(tmp_path)).state
        assert (found.losses, found.hours, found.log, found.trained_on) == ([], 0.0, '', '')


def test_two_runs_cannot_write_to_one_folder(tmp_path, monkeypatch):
    """The second run is told which process has the lock. When it is killed, the lock is free."""
    folder = str(tmp_path / 'model')
    program = ('import time; from logs import checkpoint\n'
               'with checkpoint.lock(%r, None):\n'
               '    print("locked", flush=True); time.sleep(60)' % folder)
    with subprocess.Popen([sys.executable, '-c', program], cwd=os.path.dirname(SCRIPT),
                          stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b'locked\n'
        message = 'another run is writing there .process %d on .*choose another MODEL_DIR'
        with pytest.raises(Fault, match=message % other.pid):
            checkpoint.lock(folder, None).__enter__()
        other.kill()
    monkeypatch.setattr(checkpoint, '_HEARTBEAT', 0.01)
    with checkpoint.lock(folder, None):
        os.utime(os.path.join(folder, 'lock'), (0, 0))
        stamps = []
        for _ in range(100):
            time.sleep(0.01)
            stamps.append(checkpoint.lock_state(folder)[1])
        assert any(stamps)  # which the run renews
    checkpoint.write(folder, ARRAYS, state(1))  # by yet another run, since this one looked
    with pytest.raises(Fault, match='another run has just written there; repeat the command'):
        checkpoint.lock(folder, None).__enter__()
