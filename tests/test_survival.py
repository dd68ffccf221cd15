"""A run that is stopped, killed, or loses its disk, its log or an image goes on as if nothing had happened, or says why not."""
import os
import random
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from test_main import FOLDERS, SCRIPT, arguments, class_folders_, events, run_main, stored, without_times  # noqa: F401

import imagenet_main
from data import Fault, checks
from logs import checkpoint, log, stop

KILLS = int(os.environ.get('KILLS', 2))  # KILLS=24 python -m pytest tests/test_survival.py -k killed
OFTEN = ['--CHECKPOINT_EPOCHS=1', '--LOG_STEPS=2', '--EPOCHS=3', '--IMAGE_SIZE=16']


@pytest.fixture(name='whole', scope='session')
def whole_(handful, tmp_path_factory):
    """A run that nothing happened to: folder and log."""
    folder = tmp_path_factory.mktemp('whole')
    return str(folder), run_main(handful, folder, *OFTEN)[1]


def lines(text):
    """The log's lines of all increments without times and savings."""
    return [line for line in without_times(text).split('\n')
            if re.match(r'\[(train|bias|eval|matrix|memory|result|class)\]|beta|gamma|accuracy|\|', line)]


def assert_same_end(folder, whole):
    """Both runs' networks to the last bit; their states but for the hours."""
    for k in (0, 1):
        ours, theirs = (stored(each, 'increment-%d' % k, 'network.npz') for each in (folder, whole))
        assert sorted(ours) == sorted(theirs)
        for name in ours:
            np.testing.assert_array_equal(ours[name], theirs[name])
    ours, theirs = (checkpoint.load(os.path.join(str(each), 'model', 'digits'))[1] for each in (folder, whole))
    assert {key: ours[key] for key in ours if key != 'hours'} == {key: theirs[key] for key in theirs if key != 'hours'}


def stopping_after(monkeypatch, questions):
    """Ctrl-C comes as if the run had asked for it so many times in vain."""
    asked = []
    monkeypatch.setattr(stop, 'asked', lambda: asked.append(0) or len(asked) > questions)


def logs_of(folder):
    """All logs of a run in the order in which they were written."""
    texts = []
    for path in sorted(folder.glob('*logs*/log-*'), key=lambda path: path.stat().st_mtime):
        texts.append(path.read_text(encoding='utf-8'))
    return texts


# Batches of 7: 11 steps of increment 0, 3 of its test, 4 of herding; 13 steps of increment 1, 2 of validation, 4 of test, 5.
@pytest.mark.parametrize('questions', [4, 15, 30])
def test_a_stopped_run_goes_on_where_it_was(questions, handful, whole, tmp_path, monkeypatch):
    """In training, before its last step, after it, in the test and in herding of both increments: the same bits and lines."""
    stopping_after(monkeypatch, questions)
    with pytest.raises(stop.Stopped):
        run_main(handful, tmp_path, *OFTEN)
    monkeypatch.undo()
    (tmp_path / 'logs').rename(tmp_path / 'first-logs')
    run_main(handful, tmp_path, *OFTEN, '--CHECKPOINT_EPOCHS=2', '--KEEP_GB=0')    # these may change
    assert_same_end(tmp_path, whole[0])
    first, second = logs_of(tmp_path)
    resume, = events(second, 'resume')
    seen = lines(first)
    assert (resume['increment'], int(resume['step'])) == ('0', min(questions + 1, 11)) if questions < 18 else (
        '1', min(questions - 17, 13))
    again, expected = lines(second), lines(whole[1])
    assert again == expected[-len(again):]
    if questions <= 10 or 18 <= questions <= 30:   # in training the step is finished and saved, and nothing is done twice
        assert seen + again == expected
    else:                                          # what follows training is repeated
        assert seen == expected[:len(seen)] and len(seen) + len(again) >= len(expected)


def started(handful, folder, *more):
    return subprocess.Popen([sys.executable, SCRIPT] + arguments(handful, folder, *OFTEN, *more), cwd=str(folder),
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True)


def test_a_signal(handful, whole, tmp_path):
    """Status 75, and the same command goes on."""
    run = started(handful, tmp_path)
    for line in run.stdout:
        if line.startswith('[train]'):
            run.send_signal(signal.SIGTERM)
            break
    out, err = run.communicate()
    assert run.returncode == stop.STATUS == 75 and 'stopped; the same command goes on' in err and 'Traceback' not in err
    assert '[save]' in out
    run_main(handful, tmp_path / 'unused', *OFTEN, '--MODEL_DIR=%s/model' % tmp_path)
    assert_same_end(tmp_path, whole[0])


def test_the_second_signal_ends_the_process():
    """The same once more, by itself; another one in between, or at the same time, is as the first."""
    code = ('import os, signal, time; from logs import stop\n'
            'signal.signal(signal.SIGINT, signal.default_int_handler)\n'   # of a job in the background it may be ignored
            'with stop.watched():\n    both = {signal.SIGTERM, signal.SIGINT}\n'
            '    signal.pthread_sigmask(signal.SIG_BLOCK, both)\n    for number in both:\n        os.kill(os.getpid(), number)\n'
            '    signal.pthread_sigmask(signal.SIG_UNBLOCK, both)\n    assert stop.asked()\n'
            '    print("on", flush=True)\n    os.kill(os.getpid(), signal.SIGINT); time.sleep(60)')
    done = subprocess.run([sys.executable, '-c', code], cwd=os.path.dirname(SCRIPT), stdout=subprocess.PIPE)
    assert (done.returncode, done.stdout) == (-signal.SIGINT, b'on\n')


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_before_the_run(number):
    """While it waits for other workers, say: as Ctrl-C, but where it is ignored from outside."""
    code = ('import os, signal; from logs import stop\nignored = signal.SIGHUP if %d == signal.SIGTERM else signal.SIGTERM\n'
            'signal.signal(%d, signal.SIG_DFL); signal.signal(ignored, signal.SIG_IGN)\n'
            'stop.like_ctrl_c(); os.kill(os.getpid(), ignored)\n'
            'try:\n    os.kill(os.getpid(), %d)\nexcept KeyboardInterrupt:\n    print("stopped")') % (number, number, number)
    assert subprocess.check_output([sys.executable, '-c', code], cwd=os.path.dirname(SCRIPT)) == b'stopped\n'


def test_killed_at_random_moments(handful, whole, tmp_path):
    """SIGKILL after a random line or in the middle of a save, and again, then a start that is left alone: the same bits."""
    moment, stages = random.Random(KILLS), []
    for kill in range(KILLS):
        run = started(handful, tmp_path)
        if kill % 2:   # while a file is being written
            while run.poll() is None and not list((tmp_path / 'model').glob('digits/*/*.partial')):
                time.sleep(0.0005)
            stages.append('save')
        else:
            stage = moment.choice(['[plan]', '[save]', '[train]', '[bias]', '[eval]', '[memory]', '[result]'])
            for line in run.stdout:
                if line.startswith(stage):
                    time.sleep(moment.choice([0, 0.01, 0.05]))
                    break
            stages.append(stage)
        if run.poll() is not None:   # it had come to its end: once more from the beginning
            stages[-1] += ' (ended)'
            assert run.returncode == 0, run.stderr.read()
            assert_same_end(tmp_path, whole[0])
            (tmp_path / 'model').rename(tmp_path / ('model-%d' % kill))
        run.kill()
        run.communicate()
    print('killed at', ' '.join(stages))
    last = started(handful, tmp_path)
    out, err = last.communicate()
    assert last.returncode == 0, err
    assert_same_end(tmp_path, whole[0])


def test_a_damaged_checkpoint(handful, whole, tmp_path, monkeypatch):
    """The one before it is used, and the log says so."""
    stopping_after(monkeypatch, 8)
    with pytest.raises(stop.Stopped):
        run_main(handful, tmp_path, *OFTEN)
    monkeypatch.undo()
    path = tmp_path / 'model' / 'digits' / 'increment-0-step-9' / 'network.npz'
    path.write_bytes(path.read_bytes()[:-1])
    (tmp_path / 'logs').rename(tmp_path / 'first-logs')
    _, text = run_main(handful, tmp_path, *OFTEN)
    assert '[left_out] %s: network.npz is damaged\n' % path.parent in text
    assert events(text, 'resume')[0]['step'] == '8'      # the end of an epoch
    assert_same_end(tmp_path, whole[0])


@pytest.fixture(name='copied')
def copied_(handful, tmp_path):
    """The handful, whose images may be deleted."""
    folder = tmp_path / 'copied'
    for part in ('train', 'val'):
        with open(os.path.join(handful, part + '.txt')) as file:
            text = file.read()
        for line in text.split('\n')[:-1]:
            (folder / line.split()[0]).parent.mkdir(parents=True, exist_ok=True)
            (folder / line.split()[0]).symlink_to(os.path.join(handful, line.split()[0]))
        (folder / (part + '.txt')).write_text(text)
    return folder


def breaking(monkeypatch, part, change):
    """Has one of the images change, vanish for instance, once the run is in increment 1."""
    evaluate, changed = imagenet_main.results.evaluate, []

    def wrapper(s, session, model, now, data, images):
        if part == 'test' and now.increment and not changed and set(images) == set(np.concatenate(data.test[:8])):
            changed.append(os.fsdecode(data.paths[images[3]]))
            change(changed[0])
        return evaluate(s, session, model, now, data, images)

    feed = imagenet_main.batches.training_feed

    def training_feed(s, model, data, train):
        if part == 'train' and len(train) == 30 and not changed:
            changed.append(os.fsdecode(data.paths[train[-1]]))
            change(changed[0])
        return feed(s, model, data, train)

    monkeypatch.setattr(imagenet_main.results, 'evaluate', wrapper)
    monkeypatch.setattr(imagenet_main.batches, 'training_feed', training_feed)
    return changed


def overwrite(path):
    with open(path, 'rb') as file:
        content = bytearray(file.read())
    os.remove(path)
    content[len(content) // 2] ^= 255     # its first and last bytes stay
    with open(path, 'wb') as file:
        file.write(content)


@pytest.mark.parametrize('part, change', [('train', overwrite), ('test', os.remove)])
def test_an_image_breaks_during_the_run(part, change, copied, whole, tmp_path, monkeypatch):
    """It is named; when it is back the run goes on, with the same bits; or, when so configured, without it."""
    saved = {}

    def broken(path):
        saved['link'] = os.readlink(path)
        change(path)

    changed = breaking(monkeypatch, part, broken)
    with pytest.raises(checks.BrokenImages) as fault:
        run_main(str(copied), tmp_path, *OFTEN, '--KEEP_GB=0')
    assert str(fault.value).startswith(changed[0] + ': ') and 'LEAVE_OUT_BROKEN=True' in str(fault.value)
    assert '\n' not in str(fault.value)
    monkeypatch.undo()
    if os.path.exists(changed[0]):
        os.remove(changed[0])
    os.symlink(saved['link'], changed[0])
    (tmp_path / 'logs').rename(tmp_path / 'first-logs')
    run_main(str(copied), tmp_path, *OFTEN)
    assert_same_end(tmp_path, whole[0])

    changed = breaking(monkeypatch, part, change)
    rows = imagenet_main.main(arguments(str(copied), tmp_path / 'without', *OFTEN, '--KEEP_GB=0', '--LEAVE_OUT_BROKEN=True'))
    assert [(row['train'], row['test']) for row in rows] == [(25, 15), (29, 24) if part == 'train' else (30, 23)]
    texts = logs_of(tmp_path / 'without')
    assert changed[0] in texts[-1] and '[left_out]' in texts[-1]


@pytest.mark.parametrize('method', ['bic', 'finetune'])
def test_classes_that_come_while_a_run_is_stopped(method, class_folders, tmp_path, monkeypatch):
    """Within increment 1 of 2: it begins anew from increment 0, with a larger dense layer, and the new classes are the third."""
    more = FOLDERS + ['--METHOD=' + method]
    data = class_folders({'d': 0, 'b': 1, 'e': 2, 'c': 3})
    stopping_after(monkeypatch, 12)
    with pytest.raises(stop.Stopped):
        run_main(data, tmp_path, *more)
    monkeypatch.undo()
    state, path = checkpoint.load(str(tmp_path / 'model' / 'digits'))[1:3]
    assert (len(state['results']), state['step']) == (1, 4)
    class_folders({'a': 4, 'f': 5})
    (tmp_path / 'logs').rename(tmp_path / 'first-logs')
    begun, first_weights = [], imagenet_main.resnet_model.first_weights
    monkeypatch.setattr(imagenet_main.resnet_model, 'first_weights', lambda *args: begun.append(args[1]) or first_weights(*args))
    rows, text = run_main(data, tmp_path, *more)
    np.testing.assert_array_equal(begun[0]['conv1/kernel'], stored(tmp_path, 'increment-0', 'network.npz')['conv1/kernel'])
    assert '[left_out] %s: increment 1 has other images or more classes now, and begins anew' % path in text
    assert [row['classes'] for row in rows] == [2, 4, 6] and events(text, 'train')[0]['step'] == '1'
    assert sorted(stored(tmp_path, 'increment-2', 'network.npz')['dense/bias'].shape) == [6]


def test_the_log_is_deleted_or_the_disk_is_full(tmp_path):
    write = log.Log(str(tmp_path / 'log'))
    write.text('a line')
    os.remove(str(tmp_path / 'log'))
    with pytest.raises(Fault, match='/log: cannot be written .it was deleted.; the same command goes on from the last'):
        write.text('another')
    write.close()
    write._file = open('/dev/full', 'w')
    with pytest.raises(Fault, match='/log: cannot be written .No space left on device.'):
        write.text('another')
    code = 'from logs import log\nlog.Log(None).text("line")'
    with open('/dev/full', 'w') as full:
        done = subprocess.run([sys.executable, '-c', code], cwd=os.path.dirname(SCRIPT), stdout=full, stderr=subprocess.PIPE)
    assert b'standard output: cannot be written (No space left on device); the same command goes on' in done.stderr


def test_out_of_memory():
    with pytest.raises(Fault, match='out of memory .OOM when allocating.*a smaller BATCH_SIZE, IMAGE_SIZE or RESNET_DEPTH'):
        with checks.explained(np.array([], object)):
            raise tf.errors.ResourceExhaustedError(None, None, 'Graph execution error:\nOOM when allocating tensor\nmore')
    for kind in (tf.errors.InternalError, tf.errors.ResourceExhaustedError):      # of another kind: TensorFlow's own message
        with pytest.raises(kind), checks.explained(np.array([], object)):
            raise kind(None, None, 'cuDNN, or too many open files')


def test_the_first_increment_of_another_run(handful, whole, tmp_path, monkeypatch):
    """It is not trained again, and everything else comes as if it had been; what differs later may."""
    trained = []
    train_classifier = imagenet_main.train_classifier
    monkeypatch.setattr(imagenet_main, 'train_classifier',
                        lambda *args: trained.append(args[7]['step']) or train_classifier(*args))
    more = OFTEN + ['--FIRST_INCREMENT_FROM=%s/model' % whole[0]]
    _, text = run_main(handful, tmp_path, *more)
    assert trained == [11, 0]
    assert_same_end(tmp_path, whole[0])
    assert lines(text) == [line for line in lines(whole[1]) if not line.startswith('[train]   increment=0')]
    _, text = run_main(handful, tmp_path / 'other', '--GAMMA_PENALTY=0.5', *more)
    assert events(text, 'bias')[0]['beta'] != events(whole[1], 'bias')[0]['beta']
    with pytest.raises(Fault, match='SEED=2: .*increment-0 has 1; with --FIRST_INCREMENT_FROM= it is trained anew'):
        run_main(handful, tmp_path / 'refused', '--SEED=2', *more)
    with pytest.raises(Fault, match='FIRST_INCREMENT_FROM=nowhere: nowhere/digits/increment-0 is not the first'):
        run_main(handful, tmp_path / 'refused', '--FIRST_INCREMENT_FROM=nowhere', '--PLAN_ONLY=True')
    (tmp_path / 'swapped').mkdir()
    for name in ('train', 'val', 'val.txt'):
        os.symlink(os.path.join(handful, name), str(tmp_path / 'swapped' / name))
    with open(os.path.join(handful, 'train.txt')) as file:
        (tmp_path / 'swapped' / 'train.txt').write_text(''.join(sorted(file, reverse=True)))
    with pytest.raises(Fault, match='that network was trained on other images'):
        run_main(str(tmp_path / 'swapped'), tmp_path / 'refused', *more)


def test_deterministic_kernels(handful, whole, tmp_path):
    """Another order of summing at most, seen in the losses of some steps; TensorFlow 1.15 has no such switch."""
    run = started(handful, tmp_path, '--DETERMINISTIC=True')
    out, err = run.communicate()
    if tf.__version__.startswith('1.'):
        assert run.returncode == 1 and 'DETERMINISTIC=True: must be False, or True with TensorFlow 2.9' in err
    else:
        assert run.returncode == 0, err
        losses = [[float(event['loss']) for event in events(text, 'train')] for text in (out, whole[1])]
        np.testing.assert_allclose(*losses, rtol=0.01)
        assert len(events(out, 'result')) == 2
