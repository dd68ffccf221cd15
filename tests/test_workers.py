"""Several worker processes: TF_CONFIG, what all must have in common, and how they end."""
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from common import SCRIPT, events, log_of, newest_state, run_main, started, stored

from data import Fault, workers

# Batches of 7 + 7 images, 36 and 43 steps: a signal arrives while the workers still train.
PAIR = ['--BATCH_SIZE=14', '--EPOCHS=20', '--CHECKPOINT_EPOCHS=2', '--CHECKPOINT_MINUTES=1000',
        '--WORKER_MINUTES=0.3']
ERROR = "Graph execution error:\n\nDetected at node 'x':\n  File x\nNode: 'x'\n"
DIFFERS = (': another worker has another value; all must have the same command, code, data, '
           'TensorFlow and MODEL_DIR')
REMEDY = ('; another worker may have stopped or may hang, and its output gives the reason; fix it '
          'and start all workers again')


def free():
    """Two free addresses on this machine."""
    with socket.socket() as first, socket.socket() as second:
        first.bind(('localhost', 0))
        second.bind(('localhost', 0))
        return ['localhost:%d' % listener.getsockname()[1] for listener in (first, second)]


def worker(addresses, index, data, folder, *more):
    """Starts a process that is one of the workers."""
    task = {'type': 'worker', 'index': index}
    config = json.dumps({'cluster': {'worker': addresses}, 'task': task})
    return started(data, folder, *PAIR, *more, env=dict(os.environ, TF_CONFIG=config))


def pair(data, folder, other=()):
    """Starts both workers. other: settings of the second one alone."""
    addresses = free()
    chief = worker(addresses, 0, data, folder)
    return chief, worker(addresses, 1, data, folder, *other)


def read_until(process, start):
    """Waits for the first line of output that begins so."""
    assert any(line.startswith(start) for line in process.stdout), process.stderr.read()


def ends(process, status):
    """Waits for the end, without a traceback. Returns the rest of the output, and the errors."""
    out, err = process.communicate(timeout=120)
    assert process.returncode == status, err
    assert 'Traceback' not in err, err
    return out, err


def config_of(workers_text, task):
    """A text like TF_CONFIG's, of the JSON texts of its parts."""
    return '{"cluster": {"worker": %s}, "task": %s}' % (workers_text, task)


@pytest.mark.parametrize('text, reason', [
    ('{', 'Expecting'),
    ('[]', 'list indices'),
    ('{"cluster": {}, "task": {}}', "has no 'worker'"),
    ('{"cluster": {"worker": ["a:1", "b:2"], "ps": ["c:3"]}, '
     '"task": {"type": "worker", "index": 0}}', 'must be of type worker'),
    (config_of('["a:1", "b:2"]', '{"type": "chief", "index": 0}'), 'must be of type worker'),
    (config_of('["a:1", "a:1"]', '{"type": "worker", "index": 0}'), 'different host:port'),
    (config_of('["a:1", "b:65536"]', '{"type": "worker", "index": 0}'), 'different host:port'),
    (config_of('["a:1", "b"]', '{"type": "worker", "index": 0}'), 'different host:port'),
    (config_of('"a:1"', '{"type": "worker", "index": 0}'), 'different host:port'),
    (config_of('["a:1", "b:2"]', '{"type": "worker", "index": 2}'),
     'task.index=2, and there are 2 workers'),
    (config_of('["a:1", "b:2"]', '{"type": "worker", "index": "x"}'), 'invalid literal')])
def test_a_malformed_cluster(text, reason, monkeypatch):
    monkeypatch.setenv('TF_CONFIG', text)
    with pytest.raises(Fault) as fault:
        workers.cluster()
    message = str(fault.value)
    assert message.startswith('TF_CONFIG=%s: ' % text)
    assert reason in message[len(text):]
    assert 'it should be like {"cluster": {"worker": ["host1:2222", "host2:2222"]}' in message


def test_a_cluster(monkeypatch):
    text = config_of('["a:1", "b:65535"]', '{"type": "worker", "index": "1"}')
    monkeypatch.setenv('TF_CONFIG', text)
    assert workers.cluster() == (['a:1', 'b:65535'], 1)
    monkeypatch.delenv('TF_CONFIG')
    assert workers.cluster() == ([''], 0)


@pytest.mark.parametrize('seeds', [(1, 2), (1, 1, 2), (3, 1, 2)])
def test_each_worker_names_what_differs(seeds):
    """Each names SEED with its own value, and no fact that all share, in any order of its keys."""
    items = [('a', 5), ('b', [0.5, 'x'])]
    facts_of_workers = []
    for seed, order in zip(seeds, (1, -1, 1)):
        facts_of_workers.append({'SEED': seed, 'DATASET': 'digits', 'sizes': dict(items[::order])})
    total = sum(workers.digests(facts) for facts in facts_of_workers)
    for facts in facts_of_workers:
        workers.compare(facts, len(seeds) * workers.digests(facts), len(seeds))
        with pytest.raises(Fault) as fault:
            workers.compare(facts, total, len(seeds))
        assert str(fault.value) == 'SEED=%d%s' % (facts['SEED'], DIFFERS)


@pytest.mark.parametrize('before', ['', ERROR, ERROR + 'From /job:worker/replica:0/task:0:\n'])
def test_a_collective_that_fails(before):
    """TensorFlow 2 writes more than the reason."""
    with pytest.raises(Fault) as fault, workers.watchdog(1, 'step=7'):
        raise tf.errors.UnavailableError(None, None, before + 'Socket closed\n\t [[node x]]\nmore')
    assert str(fault.value).startswith('step=7: failed (Socket closed)' + REMEDY)
    for error in (Fault('mine'), KeyboardInterrupt('mine')):
        with pytest.raises(type(error), match='^mine$'), workers.watchdog(1, 'step=7'):
            raise error


def test_a_collective_that_does_not_end():
    """The first wait ends in time. The second one sleeps too long, and the process is ended."""
    program = """
import time
from data import workers
with workers.watchdog(0.01, "one"):
    pass
time.sleep(1.5)
print("in time", flush=True)
with workers.watchdog(0.01, "two"):
    time.sleep(60)
print("late")
"""
    ended = subprocess.run([sys.executable, '-c', program], cwd=os.path.dirname(SCRIPT),
                           capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (1, 'in time\n')
    assert 'two: not done after 0.01 minutes (WORKER_MINUTES)' + REMEDY in ended.stderr


@pytest.mark.slow
def test_workers_that_stay_alone(handful, tmp_path):
    """One waits in vain. One whose address is taken, and one that gets a signal, end at once."""
    addresses = free()
    waits = worker(free(), 1, handful, tmp_path, '--WORKER_MINUTES=0.1')
    stopped = worker(addresses, 0, handful, tmp_path, '--WORKER_MINUTES=5')
    lock = tmp_path / 'model' / 'digits' / 'lock'
    while not lock.exists() and stopped.poll() is None:
        time.sleep(0.1)
    taken = worker(addresses, 0, handful, tmp_path)
    message = 'TF_CONFIG: this worker cannot take its address %s (' % addresses[0]
    assert message in ends(taken, 1)[1]
    stopped.send_signal(signal.SIGTERM)  # since it has the lock, it waits for worker 1
    assert ends(stopped, 75)[1].endswith('stopped; the same command resumes\n')
    message = 'with the other workers: not done after 0.1 minutes (WORKER_MINUTES)' + REMEDY
    assert message in ends(waits, 1)[1]


@pytest.mark.slow
@pytest.mark.parametrize('names', ['SEED TEMPERATURE', 'MODEL_DIR classes images'])
def test_workers_that_differ(names, handful, tmp_path):
    """They differ in settings; or in the order of the images and in MODEL_DIR."""
    for part in ('train', 'val', 'val.txt'):
        os.symlink(os.path.join(handful, part), str(tmp_path / part))
    with open(handful + '/train.txt') as file:
        (tmp_path / 'train.txt').write_text(''.join(reversed(file.readlines())))
    if 'SEED' in names:
        other = ['--SEED=2', '--TEMPERATURE=3.0']
    else:
        other = ['--MODEL_DIR=%s/other' % tmp_path, '--DATA_DIR=%s' % tmp_path]
    for process in pair(handful, tmp_path, other):
        lines = [line for line in ends(process, 1)[1].split('\n') if line.endswith(DIFFERS)]
        assert [line.partition('=')[0] for line in lines] == names.split()


@pytest.mark.slow
def test_two_workers(handful, tmp_path):
    """They do what two devices do. Stopped in three ways, they resume and finish; so does one."""
    _, text_of_devices = run_main(handful, tmp_path / 'devices', *PAIR, '--REPLICAS=2')

    chief, other = pair(handful, tmp_path)
    # There are checkpoints of increment 0 and of epoch 4.
    read_until(chief, '[train]   increment=1 epoch=5')
    other.kill()
    assert other.wait(timeout=120)
    assert REMEDY in ends(chief, 1)[1]
    losses = [first_losses(text) for text in (log_of(tmp_path), text_of_devices)]
    np.testing.assert_allclose(*losses, atol=1e-3)

    stop_both_by_a_signal_to_one(handful, tmp_path)

    chief, other = pair(handful, tmp_path)
    read_until(chief, '[bias]')  # now the chief evaluates alone
    chief.kill()
    assert chief.wait(timeout=120)
    message = 'increment=1: no sign of life from the chief, worker 0, for 0.3 min'
    assert message in ends(other, 1)[1]

    shutil.copytree(str(tmp_path / 'model'), str(tmp_path / 'alone' / 'model'))
    rows, text = run_main(handful, tmp_path / 'alone', *PAIR)
    assert [row['classes'] for row in rows] == [5, 8]
    assert events(text, 'env')[0]['replicas'] == '1'
    assert not events(text, 'train')
    assert events(text, 'resume')[0]['step'] == '43'

    # Where one looks for images and writes its log is its own matter, as is how often it would
    # save or write.
    os.symlink(handful, str(tmp_path / 'images'))
    chief, other = pair(handful, tmp_path, [
        '--CHECKPOINT_EPOCHS=3', '--LOG_STEPS=5', '--LOG_DIR=%s/none' % tmp_path,
        '--DATA_DIR=%s/images' % tmp_path])
    out, _ = ends(chief, 0)
    quiet, followed = ends(other, 0)
    assert not quiet
    assert 'worker 1 of localhost:' in followed
    assert ': follows the chief, worker 0' in followed
    assert not os.path.exists(str(tmp_path / 'none'))
    assert events(out, 'env')[0]['replicas'] == '2'
    assert len(events(log_of(tmp_path), 'result')) == 2
    assert len(events(log_of(tmp_path), 'resume')) == 3
    arrays, _ = stored(tmp_path, 'increment-1')
    others, _ = stored(tmp_path / 'devices', 'increment-1')
    assert sorted(arrays) == sorted(others)

    # With the same weights, one device corrects and herds as two do.
    theirs = newest_state(tmp_path)
    ours = newest_state(tmp_path / 'alone')
    assert theirs.exemplars == ours.exemplars
    their_row = dict(theirs.rows[1])
    our_row = dict(ours.rows[1])
    accuracies = their_row.pop('top1_by_increment')
    assert accuracies == pytest.approx(our_row.pop('top1_by_increment'), abs=1e-4)
    assert their_row == pytest.approx(our_row, abs=1e-4)


def first_losses(text):
    """The losses of a log's first four [train] lines, list of float."""
    return [float(event['loss']) for event in events(text, 'train')[:4]]


def stop_both_by_a_signal_to_one(handful, tmp_path):
    """Resumes both workers. They stop after the next step, with a checkpoint."""
    chief, other = pair(handful, tmp_path)
    read_until(chief, '[train]')
    other.send_signal(signal.SIGTERM)
    resume, = events(log_of(tmp_path), 'resume')
    assert resume['increment'] == '1'
    assert resume['step'] != '0'
    out, _ = ends(chief, 75)
    _, err = ends(other, 75)
    step = newest_state(tmp_path).step
    assert err.endswith('stopped; the same command resumes\n')
    assert int(resume['step']) < step < 43
    assert events(out, 'save')[-1]['dir'].endswith('/increment-1-step-%d' % step)
