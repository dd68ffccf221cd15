"""A run that is stopped or killed, or loses a checkpoint or an image, resumes or says why not."""
import glob
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time

import common
import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from common import WHOLE, assert_same_end, events, run_main, started

from data import Fault, batches
from logs.run import Run
from logs.training import Training

whole_ = common.whole_
KILLS = int(os.environ.get('KILLS', 2))  # see logs/README.md
EACH_SESSION = re.compile(r'\[(config|plan|note|left_out|save|resume)')


def sessions(folder):
    """The lines of each session in a run's log.

    Times are left out, and the lines that every session begins with.
    """
    parts = common.without_times(common.log_of(folder)).split('[env]')[1:]
    found = []
    for part in parts:
        lines = part.split('\n')[1:]
        found.append([line for line in lines if line and not EACH_SESSION.match(line)])
    return found


def assert_undisturbed(folder, whole):
    """Networks, states, tables and lines are those of an undisturbed run.

    Returns:
        int, the number of lines that are repeated.
    """
    assert_same_end(folder, whole)
    for name in 'classes', 'predictions', 'exemplars':
        ours, = glob.glob('%s/logs/run-*/%s.csv' % (folder, name))
        theirs, = glob.glob('%s/logs/run-*/%s.csv' % (whole, name))
        with open(ours, 'rb') as our_file, open(theirs, 'rb') as their_file:
            assert our_file.read() == their_file.read()
    expected, = sessions(whole)
    done = 0
    repeated = 0
    for lines in sessions(folder):  # each begins where the one before ended, or repeats lines of it
        starts = [start for start in range(done, -1, -1)
                  if expected[start:start + len(lines)] == lines]
        assert starts, lines
        repeated += done - starts[0]
        done = starts[0] + len(lines)
    assert done == len(expected)
    return repeated


def run_stopped(patch, increment, steps, *arguments):
    """Runs until SIGTERM arrives after so many steps of an increment.

    Args:
        patch: pytest.MonkeyPatch.
        increment: int.
        steps: int. 0: before the first step, which is made.
        arguments: of `run_main`.
    """
    make_step = Training.after

    def after(self, step, losses, waited, also):
        if self._net.now.index == increment and step + 1 == max(1, steps):
            os.kill(os.getpid(), signal.SIGTERM)
        make_step(self, step, losses, waited, also)

    with pytest.raises(KeyboardInterrupt), patch.context() as patched:
        patched.setattr(Training, 'after', after)
        run_main(*arguments)


# Within an epoch; in the first step; in the last one; the newest checkpoint is damaged.
@pytest.mark.parametrize('increment, steps, damaged', [
    (1, 7, False),
    pytest.param(0, 1, False, marks=pytest.mark.slow),
    pytest.param(0, 11, False, marks=pytest.mark.slow),
    pytest.param(1, 13, False, marks=pytest.mark.slow),
    pytest.param(1, 10, True, marks=pytest.mark.slow)])
def test_a_stopped_run_resumes(
        increment, steps, damaged, handful, whole, tmp_path, monkeypatch):
    """Only the steps after a damaged checkpoint are repeated.

    Settings that affect results must not change.
    """
    run_stopped(monkeypatch, increment, steps, handful, tmp_path, *WHOLE)
    path = '%s/model/digits/increment-%d-step-' % (tmp_path, increment)
    newest = steps
    if damaged:
        os.truncate('%s10/network.npz' % path, 1000)
        newest = 9
    with pytest.raises(Fault, match='^TEMPERATURE=3.0: %s%d has 2.0; another MODEL_DIR begins a '
                                    'new run$' % (path, newest)):
        run_main(handful, tmp_path, *WHOLE, '--TEMPERATURE=3.0')
    _, text = run_main(handful, tmp_path, *WHOLE, '--CHECKPOINT_EPOCHS=2')
    assert [event['dir'] for event in events(text, 'resume')] == ['%s%d' % (path, newest)]
    assert text.count('[left_out] %s10: network.npz is damaged' % path) == damaged
    assert assert_undisturbed(tmp_path, whole) == damaged


@pytest.mark.slow
def test_a_stop_while_a_checkpoint_is_written(handful, whole, tmp_path, monkeypatch):
    """The checkpoint after the last step of training is written to its end."""
    save = Run.save

    def stopped(self, now, arrays, step=0, losses=()):
        if (now.index, step) == (1, 13):
            os.kill(os.getpid(), signal.SIGTERM)
        save(self, now, arrays, step, losses)

    with pytest.raises(KeyboardInterrupt), monkeypatch.context() as patched:
        patched.setattr(Run, 'save', stopped)
        run_main(handful, tmp_path, *WHOLE)
    run_main(handful, tmp_path, *WHOLE)
    assert assert_undisturbed(tmp_path, whole) == 0


@pytest.mark.slow
def test_a_process_is_stopped_in_each_stage(handful, whole, tmp_path):
    """SIGTERM comes in training and in stage 2, SIGKILL in stage 2 and in the test.

    What follows training is repeated.
    """
    for number, line in ((signal.SIGTERM, '[train]   increment=0'),
                         (signal.SIGTERM, '[bias]    increment=1'),
                         (signal.SIGKILL, '[bias]    increment=1'),
                         (signal.SIGKILL, '[eval]    increment=1 split=test')):
        process = started(handful, tmp_path, *WHOLE)
        assert any(printed.startswith(line) for printed in process.stdout)
        process.send_signal(number)
        _, err = process.communicate()
        is_stop = number == signal.SIGTERM
        assert process.returncode == (75 if is_stop else -9) and 'Traceback' not in err
        assert err.endswith('stopped; the same command resumes\n') == is_stop
        assert not os.path.exists('%s/model/digits/increment-1' % tmp_path)
    _, text = run_main(handful, tmp_path, *WHOLE)
    places = [(event['increment'], event['step']) for event in events(text, 'resume')]
    assert places[1:] == [('1', '13')] * 3
    assert assert_undisturbed(tmp_path, whole) > 0
    assert text.count('[train]   increment=1') == 8


@pytest.mark.slow
def test_killed_at_random_moments(handful, whole, tmp_path):
    """SIGKILL comes after random lines or in the middle of a save. The last start is left alone."""
    moment = random.Random(KILLS)
    partial = '%s/model/digits/checkpoint.partial' % tmp_path
    tags = ['[plan]', '[save]', '[train]', '[bias]', '[eval]', '[memory]', '[result]']
    for kill in range(KILLS + 1):
        shutil.rmtree(partial, ignore_errors=True)  # its return shows the next save
        process = started(handful, tmp_path, *WHOLE)
        tag = moment.choice(tags)
        if kill % 2 and kill < KILLS:
            while process.poll() is None and not os.path.exists(partial):
                time.sleep(0.0005)
            process.kill()
        elif kill < KILLS and any(line.startswith(tag) for line in process.stdout):
            time.sleep(moment.choice([0, 0.01, 0.05]))
            process.kill()
        _, err = process.communicate()
        if process.returncode != -9:  # it came to its end; once more from the beginning
            assert process.returncode == 0, err
            assert_undisturbed(tmp_path, whole)
        has_checkpoint = glob.glob('%s/model/digits/increment-*' % tmp_path)
        if process.returncode == 0 or not has_checkpoint:  # a new run has a new log
            shutil.rmtree(str(tmp_path / 'model'), ignore_errors=True)
            shutil.rmtree(str(tmp_path / 'logs'), ignore_errors=True)


def run_program(program):
    """The exit status and the output of Python code in a process of its own."""
    done = subprocess.run([sys.executable, '-c', program], cwd=os.path.dirname(common.SCRIPT),
                          stdout=subprocess.PIPE)
    return done.returncode, done.stdout


def test_signals_in_training():
    """Signals ignored at the start stay ignored.

    The first one of a kind is noted, and the second one ends the process.
    """
    program = """if True:
        import os, signal
        from logs import signals
        request, me = signals.Request(), os.getpid()
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.default_int_handler)  # it may be ignored in background
        with signals.like_ctrl_c(), request.noted():
            os.kill(me, signal.SIGHUP) or print(request.stop)
            os.kill(me, signal.SIGINT) or print(request.stop)
            os.kill(me, signal.SIGTERM) or print(request.stop, flush=True)
            os.kill(me, signal.SIGINT) or signal.pause()"""
    assert run_program(program) == (75, b'False\nTrue\nTrue\n')


def test_signals_after_the_program():
    """A process that goes on, as IPython does, has its own handlers back."""
    program = """if True:
        import os, signal
        from logs import signals
        signal.signal(signal.SIGINT, signal.default_int_handler)  # it may be ignored in background
        signal.signal(signal.SIGTERM, lambda *_: print('its own'))
        with signals.like_ctrl_c():
            try:
                os.kill(os.getpid(), signal.SIGINT)
            except KeyboardInterrupt:
                print('stopped')
        os.kill(os.getpid(), signal.SIGTERM)
        signals.raise_lost()"""
    assert run_program(program) == (0, b'stopped\nits own\n')


def test_an_interrupt_that_python_drops():
    """Python drops it while an object is deleted.

    Then the next checkpoint is not written, and the run stops.
    """
    program = """if True:
        import os, signal
        from logs import signals
        from logs.run import Run

        class Deleted:
            def __del__(self):
                os.kill(os.getpid(), signal.SIGTERM)

        with signals.like_ctrl_c():
            Deleted()
            print('dropped')
            try:
                Run.save(None, None, {})
            except KeyboardInterrupt:
                print('stopped')"""
    assert run_program(program) == (0, b'dropped\nstopped\n')


@pytest.mark.slow
@pytest.mark.parametrize('count, change, reason', [
    (30, lambda path: os.truncate(path, 40), 'is cut off'),
    (24, os.remove, 'no such file')], ids=['train', 'test'])
def test_an_image_breaks_during_the_run(
        count, change, reason, handful, whole, tmp_path, monkeypatch):
    """An image to train or test on is damaged in increment 1.

    The message names it, and once it is restored, the run resumes.
    """
    data_dir = tmp_path / 'data'
    shutil.copytree(handful, str(data_dir))
    broken = []
    start = batches.Stream.start

    def breaking_start(self, session, data, numbers):
        if len(numbers) == count and not broken:
            broken.append(os.fsdecode(data.paths[numbers[-1]]))
            change(broken[0])
        start(self, session, data, numbers)

    with pytest.raises(Fault) as fault, monkeypatch.context() as patch:
        patch.setattr(batches.Stream, 'start', breaking_start)
        run_main(data_dir, tmp_path, *WHOLE)
    message = '%s: %s; fix it, and the same command resumes' % (broken[0], reason)
    assert str(fault.value).startswith(message)
    name = os.path.relpath(broken[0], str(data_dir))
    shutil.copy(os.path.join(handful, name), broken[0])
    run_main(data_dir, tmp_path, *WHOLE)
    assert_undisturbed(tmp_path, whole)


@pytest.mark.slow
def test_classes_that_come_while_a_run_is_stopped(handful, tmp_path, monkeypatch):
    """Within increment 1 of 2, it refuses them until its checkpoint is deleted.

    Then increment 1 begins anew; they come after it.
    """
    data = common.class_folders(handful, tmp_path, {'d': 0, 'b': 1, 'e': 2, 'c': 3})
    run_stopped(monkeypatch, 1, 2, data, tmp_path, *common.FOLDERS)
    common.class_folders(handful, tmp_path, {'a': 4, 'f': 5})
    path = '%s/model/digits/increment-1-step-' % tmp_path
    message = '^%s2: increment 1 began with .* fewer classes; .*, or delete %s' % (path, path)
    with pytest.raises(Fault, match=message):
        run_main(data, tmp_path, *common.FOLDERS)
    shutil.rmtree(path + '2')
    rows, text = run_main(data, tmp_path, *common.FOLDERS)
    assert [row['classes'] for row in rows] == [2, 4, 6]
    assert [event['seen_classes'] for event in events(text, 'result')] == ['2', '4', '6']
    arrays, _ = common.stored(tmp_path, 'increment-1')
    assert arrays['dense/bias'].shape == (6,)


@pytest.mark.slow
def test_the_first_increment_of_another_run(handful, whole, tmp_path):
    """It is not trained again, and everything else is as if it had been.

    Only settings that do not affect it may differ.
    """
    shared = '--FIRST_INCREMENT_FROM=%s/model' % whole
    run_main(handful, tmp_path, *WHOLE, shared)
    assert_same_end(tmp_path, whole)
    expected = [line for line in sessions(whole)[0]
                if not line.startswith('[train]   increment=0')]
    assert sessions(tmp_path) == [expected]
    other = common.class_folders(handful, tmp_path, {str(digit): digit for digit in range(8)})
    for data, more, message in (
            (handful, ['--SEED=2'],
             'SEED=2: .*-0 has 1; with --FIRST_INCREMENT_FROM= it is trained anew'),
            (handful, ['--FIRST_INCREMENT_FROM=x'],
             'x: x/digits/increment-0 is not the first increment'),
            (other, [], 'that network was trained on other images')):
        with pytest.raises(Fault, match=message):
            run_main(data, tmp_path / 'other', *WHOLE, shared, *more)


@pytest.mark.slow
def test_deterministic_kernels(handful, whole, tmp_path):
    """The losses differ by rounding at most. TensorFlow 1.15 has no such switch."""
    out, err = started(handful, tmp_path, *WHOLE, '--DETERMINISTIC=True').communicate()
    if tf.__version__.startswith('1.'):
        assert 'DETERMINISTIC=True: needs TensorFlow 2.9 or later, and this is 1.15' in err
        return
    ours = [float(event['loss']) for event in events(out, 'train')]
    theirs = [float(event['loss']) for event in events(common.log_of(whole), 'train')]
    np.testing.assert_allclose(ours, theirs, rtol=0.01)
    assert len(events(out, 'result')) == 2
