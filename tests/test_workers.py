"""Several worker processes: TF_CONFIG, what all must have in common, and how they end when one of them does."""
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

# Batches of 7 + 7 images, 36 and 43 steps: enough that a signal arrives while the workers still train.
PAIR = ['--BATCH_SIZE=14', '--EPOCHS=20', '--CHECKPOINT_EPOCHS=2', '--CHECKPOINT_MINUTES=1000', '--WORKER_MINUTES=0.3']
ERROR = "Graph execution error:\n\nDetected at node 'x':\n  File x\nNode: 'x'\n"
DIFFERS = ': another worker has another value; all must have the same command, code, data, TensorFlow and MODEL_DIR'
REMEDY = '; another worker may have stopped or may hang, and its output gives the reason; fix it and start all workers again'


def free():
    """Two free addresses on this machine."""
    with socket.socket() as one, socket.socket() as two:
        for listener in one, two:
            listener.bind(('localhost', 0))
        return ['localhost:%d' % listener.getsockname()[1] for listener in (one, two)]


def worker(addresses, index, data, folder, *more):
    """Starts a process that is one of the workers."""
    config = json.dumps(dict(cluster=dict(worker=addresses), task=dict(type='worker', index=index)))
    return started(data, folder, *PAIR, *more, env=dict(os.environ, TF_CONFIG=config))


def pair(data, folder, other=()):
    """Starts both workers. other: settings of the second one alone."""
    addresses = free()
    return worker(addresses, 0, data, folder), worker(addresses, 1, data, folder, *other)


def read_until(process, start):
    """Waits for the first line of output that begins so."""
    assert any(line.startswith(start) for line in process.stdout), process.stderr.read()


def ends(process, status):
    """Waits for the end. Returns the rest of the output, and the errors, which must not have a traceback."""
    out, err = process.communicate(timeout=120)
    assert process.returncode == status and 'Traceback' not in err, err
    return out, err


@pytest.mark.parametrize('text, reason', [
    ('{', 'Expecting'),
    ('[]', 'list indices'),
    ('{"cluster": {}, "task": {}}', "has no 'worker'"),
    ('{"cluster": {"worker": ["a:1", "b:2"], "ps": ["c:3"]}, "task": {"type": "worker", "index": 0}}', 'must be of type worker'),
    ('{"cluster": {"worker": ["a:1", "b:2"]}, "task": {"type": "chief", "index": 0}}', 'must be of type worker'),
    ('{"cluster": {"worker": ["a:1", "a:1"]}, "task": {"type": "worker", "index": 0}}', 'different host:port'),
    ('{"cluster": {"worker": ["a:1", "b:65536"]}, "task": {"type": "worker", "index": 0}}', 'different host:port'),
    ('{"cluster": {"worker": ["a:1", "b:2"]}, "task": {"type": "worker", "index": 2}}', 'task.index=2, and there are 2 workers'),
    ('{"cluster": {"worker": ["a:1", "b:2"]}, "task": {"type": "worker", "index": "x"}}', 'invalid literal')])
def test_a_malformed_cluster(text, reason, monkeypatch):
    monkeypatch.setenv('TF_CONFIG', text)
    with pytest.raises(Fault) as fault:
        workers.cluster()
    assert str(fault.value).startswith('TF_CONFIG=%s: ' % text) and reason in str(fault.value)[len(text):]
    assert 'it should be like {"cluster": {"worker": ["host1:2222", "host2:2222"]}' in str(fault.value)


def test_a_cluster(monkeypatch):
    monkeypatch.setenv('TF_CONFIG', '{"cluster": {"worker": ["a:1", "b:65535"]}, "task": {"type": "worker", "index": "1"}}')
    assert workers.cluster() == (['a:1', 'b:65535'], 1)
    monkeypatch.delenv('TF_CONFIG')
    assert workers.cluster() == ([''], 0)


@pytest.mark.parametrize('seeds', [(1, 2), (1, 1, 2), (3, 1, 2)])
def test_each_worker_names_what_differs(seeds):
    """Each names SEED with its own value, and no fact that all share, whatever the order of its keys."""
    facts = [dict(SEED=seed, DATASET='digits', sizes=dict([('a', 5), ('b', [0.5, 'x'])][::order]))
             for seed, order in zip(seeds, (1, -1, 1))]
    for fact in facts:
        workers.compare(fact, len(seeds) * workers.digests(fact), len(seeds))
        with pytest.raises(Fault) as fault:
            workers.compare(fact, sum(workers.digests(other) for other in facts), len(seeds))
        assert str(fault.value).split('\n') == ['SEED=%d%s' % (fact['SEED'], DIFFERS)]


@pytest.mark.parametrize('before', ['', ERROR, ERROR + 'From /job:worker/replica:0/task:0:\n'])
def test_a_collective_that_fails(before):
    """TensorFlow 2 writes more than the reason."""
    with pytest.raises(Fault) as fault, workers.watchdog(1, 'step=7'):
        raise tf.errors.UnavailableError(None, None, before + 'Socket closed\n\t [[node x]]\nmore')
    assert str(fault.value).startswith('step=7: failed (Socket closed)' + REMEDY)
    for error in Fault('mine'), KeyboardInterrupt('mine'):
        with pytest.raises(type(error), match='^mine$'), workers.watchdog(1, 'step=7'):
            raise error


def test_a_collective_that_does_not_end():
    """The first wait ends in time. The second one sleeps too long, and the process is ended."""
    program = ('import time\nfrom data import workers\nwith workers.watchdog(0.01, "one"):\n    pass\ntime.sleep(1.5)\n'
               'print("in time", flush=True)\nwith workers.watchdog(0.01, "two"):\n    time.sleep(60)\nprint("late")')
    ended = subprocess.run([sys.executable, '-c', program], cwd=os.path.dirname(SCRIPT), capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (1, 'in time\n')
    assert 'two: not done after 0.01 minutes (WORKER_MINUTES)' + REMEDY in ended.stderr


@pytest.mark.slow
def test_workers_that_stay_alone(handful, tmp_path):
    """One worker waits in vain. One whose address is taken ends at once, as does one that gets a signal while it waits."""
    addresses = free()
    waits = worker(free(), 1, handful, tmp_path, '--WORKER_MINUTES=0.1')
    stopped = worker(addresses, 0, handful, tmp_path, '--WORKER_MINUTES=5')
    while not (tmp_path / 'model' / 'digits' / 'lock').exists() and stopped.poll() is None:
        time.sleep(0.1)
    taken = worker(addresses, 0, handful, tmp_path)
    assert 'TF_CONFIG: this worker cannot take its address %s (' % addresses[0] in ends(taken, 1)[1]
    stopped.send_signal(signal.SIGTERM)  # since it has the lock, it waits for worker 1
    assert ends(stopped, 75)[1].endswith('stopped; the same command resumes\n')
    assert 'with the other workers: not done after 0.1 minutes (WORKER_MINUTES)' + REMEDY in ends(waits, 1)[1]


@pytest.mark.slow
@pytest.mark.parametrize('names', ['SEED TEMPERATURE', 'MODEL_DIR classes images'])
def test_workers_that_differ(names, handful, tmp_path):
    """They differ in settings; or in the order of the images and in MODEL_DIR."""
    for part in 'train', 'val', 'val.txt':
        os.symlink(os.path.join(handful, part), str(tmp_path / part))
    with open(handful + '/train.txt') as file:
        (tmp_path / 'train.txt').write_text(''.join(reversed(file.readlines())))
    folders = ['--MODEL_DIR=%s/other' % tmp_path, '--DATA_DIR=%s' % tmp_path]
    for process in pair(handful, tmp_path, ['--SEED=2', '--TEMPERATURE=3.0'] if 'SEED' in names else folders):
        lines = [line for line in ends(process, 1)[1].split('\n') if line.endswith(DIFFERS)]
        assert [line.partition('=')[0] for line in lines] == names.split()


@pytest.mark.slow
def test_two_workers(handful, tmp_path):
    """They do what two devices do. They are stopped in three ways, resume each time, and finish. So does one alone."""
    _, of_devices = run_main(handful, tmp_path / 'devices', *PAIR, '--REPLICAS=2')

    chief, other = pair(handful, tmp_path)
    read_until(chief, '[train]   increment=1 epoch=5')  # there are checkpoints of increment 0 and of epoch 4
    other.kill()
    assert other.wait(timeout=120) and REMEDY in ends(chief, 1)[1]
    losses = [[float(event['loss']) for event in events(text, 'train')][:4] for text in (log_of(tmp_path), of_devices)]
    np.testing.assert_allclose(*losses, atol=1e-3)

    chief, other = pair(handful, tmp_path)
    read_until(chief, '[train]')
    other.send_signal(signal.SIGTERM)  # one stops both
    resume, = events(log_of(tmp_path), 'resume')
    assert resume['increment'] == '1' and resume['step'] != '0'
    (out, _), (_, err), step = ends(chief, 75), ends(other, 75), newest_state(tmp_path)['step']
    assert err.endswith('stopped; the same command resumes\n') and int(resume['step']) < step < 43
    assert events(out, 'save')[-1]['dir'].endswith('/increment-1-step-%d' % step)

    chief, other = pair(handful, tmp_path)
    read_until(chief, '[bias]')  # now the chief evaluates alone
    chief.kill()
    assert chief.wait(timeout=120) and 'increment=1: no sign of life from the chief, worker 0, for 0.3 min' in ends(other, 1)[1]

    shutil.copytree(str(tmp_path / 'model'), str(tmp_path / 'alone' / 'model'))
    rows, text = run_main(handful, tmp_path / 'alone', *PAIR)
    assert [row['classes'] for row in rows] == [5, 8] and events(text, 'env')[0]['replicas'] == '1'
    assert not events(text, 'train') and events(text, 'resume')[0]['step'] == '43'

    # Where one looks for images and writes its log is its own matter, as is how often it would save or write.
    os.symlink(handful, str(tmp_path / 'images'))
    chief, other = pair(handful, tmp_path, ['--CHECKPOINT_EPOCHS=3', '--LOG_STEPS=5', '--LOG_DIR=%s/none' % tmp_path,
                                            '--DATA_DIR=%s/images' % tmp_path])
    out, (quiet, followed) = ends(chief, 0)[0], ends(other, 0)
    assert not quiet and 'worker 1 of localhost:' in followed and ': follows the chief, worker 0' in followed
    assert not os.path.exists(str(tmp_path / 'none')) and events(out, 'env')[0]['replicas'] == '2'
    assert len(events(log_of(tmp_path), 'result')) == 2 and len(events(log_of(tmp_path), 'resume')) == 3
    assert sorted(stored(tmp_path, 'increment-1')) == sorted(stored(tmp_path / 'devices', 'increment-1'))

    # With the same weights, one device corrects and herds as two do.
    theirs, ours = newest_state(tmp_path), newest_state(tmp_path / 'alone')
    assert theirs['exemplars'] == ours['exemplars']
    np.testing.assert_allclose(theirs['fits'][1][:4], ours['fits'][1][:4], atol=1e-4)
    assert theirs['results'][1] == pytest.approx(ours['results'][1], abs=1e-4)
