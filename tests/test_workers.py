"""Processes that work together, without TensorFlow: what they tell each other, and how they end."""
import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from data import Fault, workers

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PROGRAM = '''
import os, signal, sys, time
from data import Fault, workers
from logs import stop
workers._INTERVAL, workers._PATIENCE, workers._QUIET = 0.1, 2, 9
addresses, index, folder, facts, work = sys.argv[1].split(','), int(sys.argv[2]), *sys.argv[3:]
joined = workers.Workers(addresses, index)
try:
    joined.join(eval(facts), 0.3)
    with stop.watched(), joined.watched():
        print('joined', flush=True)
        exec(work)
except Fault as fault:
    sys.exit(str(fault))
except stop.Stopped:
    sys.exit(stop.STATUS)
'''
IDLE = '''
while not stop.asked():
    time.sleep(0.1)
raise stop.Stopped()
'''


def free(count):
    """Addresses on this machine."""
    listeners = [socket.socket() for _ in range(count)]
    for listener in listeners:
        listener.bind(('localhost', 0))
    addresses = ['localhost:%d' % listener.getsockname()[1] for listener in listeners]
    for listener in listeners:
        listener.close()
    return addresses


def process(addresses, index, work, folder='', facts='{}', errors=subprocess.PIPE):
    return subprocess.Popen([sys.executable, '-c', PROGRAM, ','.join(addresses), str(index), str(folder), facts, work], cwd=ROOT,
                            stdout=subprocess.PIPE, stderr=errors, universal_newlines=True)


def started(addresses, works, folder='', facts='{}', joined=True):
    """A process per work, worker 0, 1, .., which have all joined."""
    processes = [process(addresses, index, work, folder, facts) for index, work in enumerate(works)]
    for each in processes if joined else ():
        assert each.stdout.readline() == 'joined\n', each.communicate()
    return processes


def ended(processes):
    """Status, output and errors of each."""
    return [(*each.communicate(timeout=30), each.returncode)[::-1] for each in processes]


def test_all_hear_what_all_tell():
    """Twice, so that nobody is ahead; 300 kB, so that no buffer holds it."""
    work = 'told = [joined.exchange(str(3 * again + index) * 300000) for again in (0, 1)]\n' \
           'print([(len(text), text[-1]) for texts in told for text in texts])'
    for status, err, out in ended(started(free(3), [work] * 3)):
        assert (status, err, eval(out)) == (0, '', [(300000, number) for number in '012345'])


def test_what_must_be_alike(tmp_path):
    """Each says what differs; the chief's lock is in another folder for the last one."""
    work = 'os.makedirs(folder * (index < 2) or "/", exist_ok=True)\n' \
           'index or open(folder + "/lock", "w").write("process 7")\n' \
           'joined.agree(dict(SEED=1 + index % 2, lists="long" * 100 + "!" * (index == 1)), folder + "x" * (index == 2))'
    for index, (status, err, _) in enumerate(ended(started(free(3), [work] * 3, tmp_path / 'model'))):
        assert status == 1 and 'Traceback' not in err, index
        lines = err.strip().split('\n')
        assert [line.partition(':')[0] for line in lines] == ['SEED', 'lists', 'lock in MODEL_DIR']
        assert ') has 2; all must have the same command, code, data and MODEL' in lines[0] and 'has 1, and worker 1 (' in lines[0]
        assert ') has process 7, and worker 2 (' in lines[2] and 'has none in %s/modelx, which all' % tmp_path in lines[2]


def test_another_tensorflow():
    for status, err, out in ended(started(free(2), ['pass'] * 2, facts='dict(tensorflow="2.%d" % index, gpus=0)', joined=False)):
        assert (status, out) == (1, '') and err.startswith('tensorflow: worker 0 (localhost:') and ') has 2.1; ' in err
        assert err.count('\n') == 1


@pytest.mark.parametrize('number', [0, 2])
def test_one_is_killed(number):
    addresses = free(3)
    processes = started(addresses, [IDLE] * 3)
    processes[number].kill()
    for index, (status, err, _) in enumerate(ended(processes)):
        if index != number:
            assert (status, err) == (1, 'worker %d (%s) is gone; its own output says why, or it was killed; start all '
                                        'workers again, and they go on from the last checkpoint\n' % (number, addresses[number]))


def test_one_stands_still():
    """Which a signal does to it; then it goes on, and hears of it."""
    processes = started(free(3), [IDLE] * 3)
    processes[1].send_signal(signal.SIGSTOP)
    others = ended([processes[0], processes[2]])
    processes[1].send_signal(signal.SIGCONT)
    (status, err, _), = ended(processes[1:2])
    assert status == 1 and 'start all workers again' in err
    for status, err, _ in others:
        assert status == 1 and 'worker 1 (' in err and ') has been silent for 2 seconds; start all workers again' in err


def test_a_step_that_does_not_end():
    """Of whoever it is: each waits for the others."""
    work = 'for seconds in 0.3, 0.3, 0.3, 60:\n    with joined.step(0.01):\n        time.sleep(seconds)\n'
    for status, err, _ in ended(started(free(2), [work] * 2)):
        assert status == 1 and err.startswith('a step takes longer than WORKER_MINUTES') and err.count('\n') == 1
    work = 'with joined.step(0.01):\n    pass\ntime.sleep(1.5)'    # it is over
    assert [status for status, _, _ in ended(started(free(2), [work] * 2))] == [0, 0]


def test_a_step_that_fails():
    """Whose cause is sought for long: the others end meanwhile, and their end does not disturb the search."""
    work = 'try:\n    with joined.step(1):\n        raise OSError("gradient")\nexcept OSError:\n' \
           '    time.sleep(1)\n    raise Fault("the image is broken")'
    (status, err, _), failed = ended(started(free(2), [IDLE, work]))
    assert status == 1 and 'worker 1 (' in err and ') has ended: its own output says why' in err
    assert failed[:2] == (1, 'the image is broken\n')


@pytest.mark.parametrize('number', [0, 1])
def test_one_is_asked_to_stop(number):
    processes = started(free(3), [IDLE] * 3)
    processes[number].send_signal(signal.SIGTERM)
    assert ended(processes) == [(75, '', '')] * 3


def test_one_fails():
    addresses = free(3)
    works = [IDLE, IDLE, 'time.sleep(0.5); raise Fault("disk full\\nmend it")']
    (status, err, _), other, failed = ended(started(addresses, works))
    assert (status, err) == (1, 'worker 2 (%s) has ended: disk full\nmend it\n' % addresses[2])
    assert other[:2] == (status, err) and failed[:2] == (1, 'disk full\nmend it\n')


def test_one_has_another_fault():
    """One of the program, whose traceback is its own."""
    (status, err, _), failed = ended(started(free(2), [IDLE, 'time.sleep(0.5); raise RuntimeError("why")']))
    assert status == 1 and 'worker 1 (' in err and ') has ended: its own output says why' in err
    assert failed[0] == 1 and failed[1].endswith('RuntimeError: why\n')


def test_one_ends_earlier():
    """All have done their work: its end is no fault, but one who wants to go on with it is told."""
    (status, err, _), first = ended(started(free(2), ['time.sleep(1)', 'pass']))
    assert (status, err, first[0]) == (0, '', 0)
    (status, err, _), first = ended(started(free(2), ['time.sleep(1); joined.exchange(0)', 'pass']))
    assert status == 1 and 'worker 1 (' in err and 'is gone' in err and first[0] == 0


@pytest.mark.parametrize('late', [0, 1])
def test_a_stop_while_all_meet(late):
    """All decide alike: to stop when one was asked before it told, else to go on."""
    work = 'time.sleep(1.5 * (index == %d))\njoined.exchange(0)\nprint("on")' % late
    processes = started(free(3), [work] * 3)
    time.sleep(0.5)
    processes[1].send_signal(signal.SIGTERM)
    expected = (75, '', '') if late else (0, '', 'on\n')
    assert [(status, out) for status, _, out in ended(processes)][::2] == [expected[::2]] * 2


def test_nothing_can_be_written():
    """On a full disk: the process ends all the same."""
    addresses = free(2)
    with open('/dev/full', 'w') as full:
        chief, = started(addresses, ['time.sleep(0.5); raise Fault("disk full")'], joined=False)
        other = process(addresses, 1, IDLE, errors=full)
        assert ended([chief])[0][:2] == (1, 'disk full\n') and other.wait(timeout=30) == 1


def test_all_are_suspended_together():
    """For longer than one may be silent; they go on."""
    processes = started(free(2), ['time.sleep(4)'] * 2)
    for number in signal.SIGSTOP, signal.SIGCONT:
        for each in processes:
            each.send_signal(number)
        time.sleep(2.5 * (number == signal.SIGSTOP))
    assert [status for status, _, _ in ended(processes)] == [0, 0]


def test_a_signal_that_the_main_thread_does_not_hear():
    """It waits in TensorFlow, perhaps for ever: the second one ends the process all the same."""
    work = 'for number in signal.SIGTERM, signal.SIGHUP:\n' \
           '    signal.signal(number, lambda *_: None)      # as if no handler ran\n' \
           '    os.kill(os.getpid(), number); os.kill(os.getpid(), number)      # of one cause: as one\n' \
           '    time.sleep(1)\n    print(number)\n' \
           'time.sleep(60)'
    assert [status for status, _, _ in ended(started(free(2), [work, IDLE]))] == [75, 1]


def test_others_at_the_door():
    """The chief waits for worker 1. What is no worker is passed by; a second worker 1 is sent away; other lists are compared."""
    addresses = free(3)
    chief, = started(addresses, [IDLE], joined=False)
    host, port = addresses[0].split(':')
    for content in (b'GET / HTTP/1.1\r\n\r\n', b'[1]\n', b'\xff\n', b'', b'{"worker": []}\n', b'[' * 9999 + b'\n'):
        deadline = time.time() + 20
        while True:
            try:
                with socket.create_connection((host, int(port)), 5) as connection:
                    connection.sendall(content)
                break
            except ConnectionRefusedError:  # it is starting
                assert time.time() < deadline
                time.sleep(0.1)
    first, second = (process(addresses, 1, IDLE) for _ in range(2))
    while first.poll() is None and second.poll() is None:
        time.sleep(0.1)
    sent_away, taken = (first, second) if first.poll() is not None else (second, first)
    assert sent_away.communicate()[1] == 'TF_CONFIG: task.index=1: another process is this worker already\n'
    other = process(addresses[:1] + addresses[:0:-1], 2, IDLE)
    fault = 'TF_CONFIG: cluster.worker is %s for the chief, and %s for worker 2; all must have the same list\n' % (
        json.dumps(addresses), json.dumps(addresses[:1] + addresses[:0:-1]))
    (_, err, _), (_, others, _) = ended([chief, other])
    assert err == others == fault and chief.returncode == other.returncode == 1
    assert taken.communicate(timeout=30)[1].endswith('has ended: ' + fault) and taken.returncode == 1


@pytest.mark.parametrize('index', [0, 1])
def test_one_does_not_answer(index, monkeypatch, capsys):
    monkeypatch.setattr(workers, '_QUIET', 0.3)
    addresses = free(2)
    with pytest.raises(Fault) as fault:
        workers.Workers(addresses, index).join({}, 0.02)
    reason = ' (Connection refused)' if index else ''
    assert 'no answer within 0.02 minutes (WORKER_MINUTES) from %s%s; start' % (addresses[1 - index], reason) in str(fault.value)
    assert capsys.readouterr().err == 'waiting for %s%s\n' % (addresses[1 - index], reason)
    with pytest.raises(Fault) as again:
        workers.wait_for(addresses, 0.01)
    assert ' (Connection refused), '.join(addresses) in str(again.value)
    with pytest.raises(Fault, match='no answer .* from no.such.host:1 .*(known|resolution|associated)'):
        workers.wait_for(['no.such.host:1'], 0.001)


def test_an_address_that_is_taken():
    with socket.socket() as listener:
        listener.bind(('', 0))
        listener.listen(1)
        address = 'localhost:%d' % listener.getsockname()[1]
        with pytest.raises(Fault) as fault:
            workers.Workers([address, 'localhost:1'], 0).join({}, 0.02)
        assert str(fault.value) == 'TF_CONFIG: this worker cannot take its address %s (Address already in use)' % address


@pytest.mark.parametrize('text, reason', [
    ('{', 'Expecting'),
    ('[]', 'list indices'),
    ('{"cluster": {}, "task": {}}', "has no 'worker'"),
    ('{"cluster": {"worker": ["a:1", "b:2"], "ps": ["c:3"]}, "task": {"type": "worker", "index": 0}}', 'only tasks of type'),
    ('{"cluster": {"worker": ["a:1", "b:2"]}, "task": {"type": "chief", "index": 0}}', 'only tasks of type worker'),
    ('{"cluster": {"worker": ["a:1", "a:1"]}, "task": {"type": "worker", "index": 0}}', 'different host:port'),
    ('{"cluster": {"worker": ["a", "b:2"]}, "task": {"type": "worker", "index": 0}}', 'different host:port'),
    ('{"cluster": {"worker": ["a:1", "b:2"]}, "task": {"type": "worker", "index": 2}}', 'task.index=2, and there are 2 workers'),
    ('{"cluster": {"worker": ["a:1", "b:2"]}, "task": {"type": "worker", "index": "x"}}', 'invalid literal')])
def test_a_malformed_cluster(text, reason, monkeypatch):
    monkeypatch.setenv('TF_CONFIG', text)
    with pytest.raises(Fault) as fault:
        workers.cluster()
    assert str(fault.value).startswith('TF_CONFIG=' + text) and reason in str(fault.value)
    assert 'it should be like {"cluster": {"worker": ["host1:2222", "host2:2222"]}' in str(fault.value)


def test_a_cluster(monkeypatch):
    monkeypatch.setenv('TF_CONFIG', '{"cluster": {"worker": ["a:1", "b:2"]}, "task": {"type": "worker", "index": 1}}')
    assert workers.cluster() == (['a:1', 'b:2'], 1) and not workers.is_chief()
    monkeypatch.delenv('TF_CONFIG')
    assert workers.cluster() == ([''], 0) and workers.is_chief()
