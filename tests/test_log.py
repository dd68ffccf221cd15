"""Log lines and tables have the format that other programs parse; and a log that cannot be written."""
import contextlib
import io
import math
import os

import numpy as np
import pytest

import imagenet_main
from data import Fault
from logs import events, log, tables


def test_lines(tmp_path, capsys, monkeypatch):
    """A line is printed and appended to the file, with fixed decimals."""
    monkeypatch.setattr(log.time, 'strftime', lambda text: text.replace('%Y-%m-%dT%H:%M:%S', 'now'))
    (tmp_path / 'log').write_text('cut o')
    write = log.Log(str(tmp_path / 'log'))
    write('plan', increment=1, train=14417)
    write('train', increment=0, lr=0.1 ** 5, loss=np.float32(2.11394), images_per_sec=412.66, hours_left=12.345)
    write('bias', beta=0.5900134, gamma=np.float64(-0.44165498), at_bound=False)
    write('matrix', correction='on', top1_by_increment=[0.79, 0.772])
    write('result', forgetting_top1=math.nan)
    write.text(tables.table([dict(increment=0, ä=1.0), dict(increment=10, ä=0.51234)]))
    lines = '''[plan]    increment=1 train=14417 time=now
[train]   increment=0 lr=0.000010 loss=2.1139 images_per_sec=412.7 hours_left=12.35 time=now
[bias]    beta=0.590013 gamma=-0.441655 at_bound=False time=now
[matrix]  correction=on top1_by_increment=0.7900,0.7720 time=now
[result]  forgetting_top1=nan time=now
| increment |      ä |
|----------:|-------:|
|         0 | 1.0000 |
|        10 | 0.5123 |
'''
    assert (tmp_path / 'log').read_text(encoding='utf-8') == 'cut o\n' + lines and capsys.readouterr() == (lines, '')
    write.close()


@pytest.mark.parametrize('path, name, reason', [
    ('log', 'log', 'it was deleted'), (None, 'standard output', 'No space left on device'),
    ('/dev/full', '/dev/full', 'No space left on device')])
def test_a_log_that_cannot_be_written(path, name, reason, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Fault) as fault, monkeypatch.context() as patch, contextlib.closing(log.Log(path)) as write:
        if path == 'log':
            os.remove(path)
        elif not path:
            patch.setattr('sys.stdout', io.TextIOWrapper(open('/dev/full', 'wb', 0), write_through=True))
        write.text('a line')
    assert str(fault.value) == '%s: cannot be written (%s); the same command resumes from the last checkpoint' % (name, reason)


def test_no_event_file_can_be_made(tmp_path):
    (tmp_path / 'run').write_text('')
    with pytest.raises(Fault, match='run: cannot be written .*; the same command resumes from the last checkpoint'):
        events.Events(str(tmp_path / 'run'), [0], [2], 0, 0)


def test_two_runs_begin_in_the_same_second(tmp_path):
    assert [log._new(str(tmp_path / 'logs'), 'log-x') for _ in range(3)] == ['log-x', 'log-x-2', 'log-x-2-2']
    assert sorted(os.listdir(str(tmp_path / 'logs'))) == ['run-x', 'run-x-2', 'run-x-2-2']


@pytest.mark.parametrize('more, notes', [
    ({}, []), (dict(VAL_FRACTION='0.1'), ['the correction is fitted on 20 validation images or fewer; with fewer than 30 it']),
    (dict(VAL_FRACTION='0.1', METHOD='distill'), []),
    (dict(BATCH_NORM_DECAY='0.99'), ['BATCH_NORM_DECAY=0.99: moving averages need about 300 steps, and an increment has 65; '])])
def test_notes(more, notes, digits, tmp_path, capsys):
    """The demonstration's first increment has 257 images: 8 epochs in batches of 32 are 65 steps, and 1 - 3 / 65 is 0.953."""
    imagenet_main.main(['--DATA_DIR=%s' % digits, '--MODEL_DIR=%s' % tmp_path, '--PLAN_ONLY=True']
                       + ['--%s=%s' % pair for pair in more.items()])
    lines = [line[10:] for line in capsys.readouterr().out.split('\n') if line.startswith('[note]')]
    assert [line[:len(note)] for line, note in zip(lines, notes)] == notes and len(lines) == len(notes)
    assert not lines or 'BATCH_NORM' not in lines[0] or lines[0].endswith('EPOCHS or BATCH_NORM_DECAY=0.95 would do')
