"""A run that is stopped or killed, or loses a checkpoint or an image, resumes as if nothing had happened, or says why not."""
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

whole_, KILLS = common.whole_, int(os.environ.get('KILLS', 2))  # see logs/README.md


def sessions(folder):
    """The lines of each session in a run's log, without times and without the lines that every session begins with."""
    parts = common.without_times(common.log_of(folder)).split('[env]')[1:]
    return [[line for line in part.split('\n')[1:] if line and not re.match(r'\[(config|plan|note|left_out|save|resume)', line)]
            for part in parts]


def assert_undisturbed(folder, whole):
    """Networks, states, tables and lines are those of an undisturbed run. Returns the number of lines that are repeated."""
    assert_same_end(folder, whole)
    for name in 'classes', 'predictions', 'exemplars':
        ours, theirs = (glob.glob('%s/logs/run-*/%s.csv' % (each, name)) for each in (folder, whole))
        with open(*ours, 'rb') as our, open(*theirs, 'rb') as their:
            assert our.read() == their.read()
    (expected,), done, twice = sessions(whole), 0, 0
    for lines in sessions(folder):  # each begins where the one before ended, or repeats lines of it
        starts = [start for start in range(done, -1, -1) if expected[start:start + len(lines)] == lines]
        assert starts, lines
        twice, done = twice + done - starts[0], starts[0] + len(lines)
    assert done == len(expected)
    return twice


def run_stopped(patch, increment, steps, *arguments, during='requests'):
    """Runs until SIGTERM arrives after so many steps of an increment, when Run's method `during` is called."""
    method = getattr(Run, during)

    def wrapper(self, now, *args):
        if now.increment == increment and steps in args:
            os.kill(os.getpid(), signal.SIGTERM)
        return method(self, now, *args)

    with pytest.raises(KeyboardInterrupt), patch.context() as patched:
        patched.setattr(Run, during, wrapper)
        run_main(*arguments)


# Within an epoch; before the first step, which is made; after the last step; while it is saved; the newest one is damaged.
@pytest.mark.parametrize('increment, steps, damaged', [(1, 7, False)] + [
    pytest.param(*case, marks=pytest.mark.slow) for case in [(0, 0, False), (0, 11, False), (1, 13, False), (1, 10, True)]])
def test_a_stopped_run_resumes(increment, steps, damaged, handful, whole, tmp_path, monkeypatch):
    """Only the steps after a damaged checkpoint are repeated. Settings that affect results must not change."""
    run_stopped(monkeypatch, increment, steps, handful, tmp_path, *WHOLE, during='save' if steps == 13 else 'requests')
    newest, path = max(1, steps) - damaged, '%s/model/digits/increment-%d-step-' % (tmp_path, increment)
    if damaged:
        os.truncate('%s10/network.npz' % path, 1000)
    with pytest.raises(Fault, match='^TEMPERATURE=3.0: %s%d has 2.0; another MODEL_DIR begins a new run$' % (path, newest)):
        run_main(handful, tmp_path, *WHOLE, '--TEMPERATURE=3.0')
    _, text = run_main(handful, tmp_path, *WHOLE, '--CHECKPOINT_EPOCHS=2')
    assert [event['dir'] for event in events(text, 'resume')] == ['%s%d' % (path, newest)]
    assert text.count('[left_out] %s10: network.npz is damaged' % path) == damaged == assert_undisturbed(tmp_path, whole)


@pytest.mark.slow
def test_a_process_is_stopped_in_each_stage(handful, whole, tmp_path):
    """SIGTERM comes in training and in stage 2, SIGKILL in stage 2 and in the test. What follows training is repeated."""
    for number, line in ((signal.SIGTERM, '[train]   increment=0'), (signal.SIGTERM, '[bias]    increment=1'),
                         (signal.SIGKILL, '[bias]    increment=1'), (signal.SIGKILL, '[eval]    increment=1 split=test')):
        process = started(handful, tmp_path, *WHOLE)
        assert any(printed.startswith(line) for printed in process.stdout)
        process.send_signal(number)
        _, err = process.communicate()
        assert process.returncode == (75 if number == signal.SIGTERM else -9) and 'Traceback' not in err
        assert err.endswith('stopped; the same command resumes\n') == (number == signal.SIGTERM)
        assert not os.path.exists('%s/model/digits/increment-1' % tmp_path)
    _, text = run_main(handful, tmp_path, *WHOLE)
    assert [(event['increment'], event['step']) for event in events(text, 'resume')][1:] == [('1', '13')] * 3
    assert assert_undisturbed(tmp_path, whole) > 0 and text.count('[train]   increment=1') == 8


@pytest.mark.slow
def test_killed_at_random_moments(handful, whole, tmp_path):
    """SIGKILL comes after random lines or in the middle of a save. The last start is left alone."""
    moment = random.Random(KILLS)
    for kill in range(KILLS + 1):
        shutil.rmtree('%s/model/digits/checkpoint.partial' % tmp_path, ignore_errors=True)  # its return shows the next save
        process = started(handful, tmp_path, *WHOLE)
        stage = moment.choice(['[plan]', '[save]', '[train]', '[bias]', '[eval]', '[memory]', '[result]'])
        if kill % 2 and kill < KILLS:
            while process.poll() is None and not os.path.exists('%s/model/digits/checkpoint.partial' % tmp_path):
                time.sleep(0.0005)
            process.kill()
        elif kill < KILLS and any(line.startswith(stage) for line in process.stdout):
            time.sleep(moment.choice([0, 0.01, 0.05]))
            process.kill()
        _, err = process.communicate()
        if process.returncode != -9:  # it came to its end; if kills remain, once more from the beginning
            assert process.returncode == 0, err
            assert_undisturbed(tmp_path, whole)
        if process.returncode == 0 or not glob.glob('%s/model/digits/increment-*' % tmp_path):  # a new run has a new log
            shutil.rmtree(str(tmp_path / 'model'), ignore_errors=True)
            shutil.rmtree(str(tmp_path / 'logs'), ignore_errors=True)


def test_signals_in_training():
    """Signals ignored at the start stay ignored. The first one of a kind is noted, and the second one ends the process."""
    program = """if True:
        import os, signal, types
        from logs.run import Run, like_ctrl_c
        run, me = types.SimpleNamespace(asked=False), os.getpid()
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background it may be ignored
        like_ctrl_c()
        with Run.noting_signals(run):
            os.kill(me, signal.SIGHUP) or print(run.asked)
            os.kill(me, signal.SIGINT) or print(run.asked)
            os.kill(me, signal.SIGTERM) or print(run.asked, flush=True)
            os.kill(me, signal.SIGINT) or signal.pause()"""
    done = subprocess.run([sys.executable, '-c', program], cwd=os.path.dirname(common.SCRIPT), stdout=subprocess.PIPE)
    assert (done.returncode, done.stdout) == (75, b'False\nTrue\nTrue\n')


@pytest.mark.slow
@pytest.mark.parametrize('count, change, reason', [
    (30, lambda path: os.truncate(path, 40), 'is cut off'), (24, os.remove, 'no such file')], ids=['train', 'test'])
def test_an_image_breaks_during_the_run(count, change, reason, handful, whole, tmp_path, monkeypatch):
    """An image to train or test on is damaged in increment 1. The message names it, and once it is restored, the run resumes."""
    data, broken, feed = tmp_path / 'data', [], batches.feed
    shutil.copytree(handful, str(data))

    def wrapper(model, data, numbers):
        if len(numbers) == count and not broken:
            broken.append(os.fsdecode(data.paths[numbers[-1]]))
            change(broken[0])
        return feed(model, data, numbers)

    with pytest.raises(Fault) as fault, monkeypatch.context() as patch:
        patch.setattr(batches, 'feed', wrapper)
        run_main(data, tmp_path, *WHOLE)
    assert str(fault.value).startswith('%s: %s; fix it, and the same command resumes' % (broken[0], reason))
    shutil.copy(os.path.join(handful, os.path.relpath(broken[0], str(data))), broken[0])
    run_main(data, tmp_path, *WHOLE)
    assert_undisturbed(tmp_path, whole)


@pytest.mark.slow
def test_classes_that_come_while_a_run_is_stopped(handful, tmp_path, monkeypatch):
    """Within increment 1 of 2, it refuses them until its checkpoint is deleted. Then increment 1 begins anew; they come after."""
    data = common.class_folders(handful, tmp_path, {'d': 0, 'b': 1, 'e': 2, 'c': 3})
    run_stopped(monkeypatch, 1, 2, data, tmp_path, *common.FOLDERS)
    common.class_folders(handful, tmp_path, {'a': 4, 'f': 5})
    path = '%s/model/digits/increment-1-step-' % tmp_path
    with pytest.raises(Fault, match='^%s2: increment 1 began with .* fewer classes; .*, or delete %s' % (path, path)):
        run_main(data, tmp_path, *common.FOLDERS)
    shutil.rmtree(path + '2')
    rows, text = run_main(data, tmp_path, *common.FOLDERS)
    assert [row['classes'] for row in rows] == [int(event['seen_classes']) for event in events(text, 'result')] == [2, 4, 6]
    assert common.stored(tmp_path, 'increment-1')['dense/bias'].shape == (6,)


@pytest.mark.slow
def test_the_first_increment_of_another_run(handful, whole, tmp_path):
    """It is not trained again, and everything else is as if it had been. Only settings that do not affect it may differ."""
    shared = '--FIRST_INCREMENT_FROM=%s/model' % whole
    run_main(handful, tmp_path, *WHOLE, shared)
    assert_same_end(tmp_path, whole)
    assert sessions(tmp_path) == [[line for line in sessions(whole)[0] if not line.startswith('[train]   increment=0')]]
    other = common.class_folders(handful, tmp_path, {str(digit): digit for digit in range(8)})
    for data, more, message in ((handful, ['--SEED=2'], 'SEED=2: .*-0 has 1; with --FIRST_INCREMENT_FROM= it is trained anew'),
                                (handful, ['--FIRST_INCREMENT_FROM=x'], 'x: x/digits/increment-0 is not the first increment'),
                                (other, [], 'that network was trained on other images')):
        with pytest.raises(Fault, match=message):
            run_main(data, tmp_path / 'other', *WHOLE, shared, *more)


@pytest.mark.slow
def test_deterministic_kernels(handful, whole, tmp_path):
    """The losses differ by rounding at most. TensorFlow 1.15 has no such switch."""
    out, err = started(handful, tmp_path, *WHOLE, '--DETERMINISTIC=True').communicate()
    if tf.__version__.startswith('1.'):
        assert 'DETERMINISTIC=True: needs TensorFlow 2.9 or later, and this is 1.15' in err
    else:
        losses = [[float(event['loss']) for event in events(text, 'train')] for text in (out, common.log_of(whole))]
        np.testing.assert_allclose(*losses, rtol=0.01)
        assert len(events(out, 'result')) == 2


def test_an_interrupt_that_python_drops():
    """Python drops it while an object is deleted. Then the next checkpoint is not written, and the run stops."""
    program = """if True:
        import os, signal
        from logs.run import Run, like_ctrl_c
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        like_ctrl_c()

        class Deleted:
            def __del__(self):
                os.kill(os.getpid(), signal.SIGTERM)

        Deleted()
        print('dropped')
        try:
            Run.save(None, None, {})
        except KeyboardInterrupt:
            print('stopped')"""
    assert subprocess.check_output([sys.executable, '-c', program], cwd=os.path.dirname(common.SCRIPT)) == b'dropped\nstopped\n'
