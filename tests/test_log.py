"""Log lines and tables have the format that others parse; notes; a log that cannot be written."""
import contextlib
import io
import math
import os
import types

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import bic_layer
import exemplar
import imagenet_main
from data import Fault
from logs import events, log, metrics, tables


def increment(index):
    """One of two increments, of 2 classes and of 1."""
    return exemplar.Increment(
        index=index, num_old=2 * index, num_seen=2 + index, exemplars_per_class=0,
        kept_per_class=0, val_per_class=0, num_train=0, num_val=0, num_test=0)


def test_lines(tmp_path, capsys, monkeypatch):
    """A line is printed and appended to the file, with fixed decimals."""
    monkeypatch.setattr(
        log.time, 'strftime', lambda text: text.replace('%Y-%m-%dT%H:%M:%S', 'now'))
    (tmp_path / 'log').write_text('cut o')
    write = log.Log(str(tmp_path / 'log'))
    write('plan', increment=1, train=14417)
    write('train', increment=0, lr=0.1 ** 5, loss=np.float32(2.11394), images_per_sec=412.66,
          hours_left=12.345)
    write('bias', beta=0.5900134, gamma=np.float64(-0.44165498), at_bound=False)
    write('matrix', correction='on', top1_by_increment=[0.79, 0.772])
    write('result', forgetting_top1=math.nan)
    write.text(tables.table([dict(increment=0, ä=1.0), dict(increment=10, ä=0.51234)]))
    train = 'lr=0.000010 loss=2.1139 images_per_sec=412.7 hours_left=12.35'
    lines = '''[plan]    increment=1 train=14417 time=now
[train]   increment=0 %s time=now
[bias]    beta=0.590013 gamma=-0.441655 at_bound=False time=now
[matrix]  correction=on top1_by_increment=0.7900,0.7720 time=now
[result]  forgetting_top1=nan time=now
| increment |      ä |
|----------:|-------:|
|         0 | 1.0000 |
|        10 | 0.5123 |
''' % train
    assert (tmp_path / 'log').read_text(encoding='utf-8') == 'cut o\n' + lines
    assert capsys.readouterr() == (lines, '')
    write.close()


def recorded():
    """A list of lines, and what writes into it as a log.Log does."""
    lines = []

    def write(tag, **values):
        lines.append((tag, values))

    write.text = lambda line: lines.append(line)
    return lines, write


def test_lines_of_a_test():
    """Of 2 old classes and 1 new one. The correction moves one image to its own, old class."""
    labels = np.array([0, 1, 2, 2])
    logits = np.array([[2.0, 0, 3], [0, 2, 1], [0, 1, 4], [0, 9, 4]])
    corrected_logits = logits * [1, 1, 2] + [0, 0, -5]
    # Cosines of the third image and the means: 1, 2 and 2.2 over the root of 5.
    features = np.array([[3.0, 0], [0, 2], [1, 2], [0, 1]])
    means = [[1, 0], [0, 1], [0.6, 0.8]]
    scores = metrics.Scores(
        labels,
        metrics.score(lambda rows: rows, logits, labels, [2, 3]),
        metrics.score(lambda rows: rows, corrected_logits, labels, [2, 3]),
        metrics.score(lambda rows: exemplar.mean_scores(rows, means), features, labels, [2, 3]))
    lines, write = recorded()
    log.write_scores(write, increment(1), 'test', scores)
    log.write_confusion(write, increment(1), scores, [2, 3])
    same = dict(increment=1)
    assert lines == [
        ('eval', dict(same, split='test', correction='off', images=4, top1=0.5, top5=1.0)),
        ('eval', dict(same, split='test', correction='on', images=4, top1=0.75, top5=1.0)),
        ('nme', dict(same, images=4, top1=0.75, top5=1.0)),
        ('matrix', dict(same, correction='off', top1_by_increment=[0.5, 0.5])),
        ('confusion', dict(same, correction='off', true=0, predicted=[1, 1])),
        ('confusion', dict(same, correction='off', true=1, predicted=[1, 1])),
        ('matrix', dict(same, correction='on', top1_by_increment=[1.0, 0.5])),
        ('confusion', dict(same, correction='on', true=0, predicted=[2, 0])),
        ('confusion', dict(same, correction='on', true=1, predicted=[1, 1]))]


@pytest.mark.parametrize('at_bound', [False, True])
def test_lines_of_a_fit(at_bound):
    fit = bic_layer.BiasFit(0.5, -0.25, 2.0, 1.5, at_bound)
    lines, write = recorded()
    log.write_bias(write, increment(1), fit, 30)
    assert lines[0] == ('bias', dict(increment=1, beta=0.5, gamma=-0.25, loss_before=2.0,
                                     loss_after=1.5, at_bound=at_bound, val=30))
    notes = [line for line in lines[1:] if 'increment 1: beta is at its bound: 30 valid' in line]
    assert len(notes) == len(lines) - 1 == at_bound


def test_a_meter_by_hand():
    """The first step is not timed. Hours left are those at the speed since the beginning."""
    meter = log.Meter(types.SimpleNamespace(BATCH_SIZE=10), 100, [dict(loss=5.0)])
    meter.add(dict(loss=3.0), 0.5, 10, 7.0)
    means, times = meter.read()
    assert means == dict(loss=4.0)
    assert all(math.isnan(value) for value in times.values())
    meter.add(dict(loss=2.0), 0.5, 10, 1.0)
    assert meter.read()[1] == pytest.approx(
        dict(images_per_sec=10, input_wait=0.5, hours_left=98 * 10 / 10 / 3600))
    meter.add(dict(loss=1.0), 0.0, 10, 3.0)
    means, times = meter.read()
    assert means == dict(loss=1.0)
    assert times == pytest.approx(
        dict(images_per_sec=10 / 3, input_wait=0, hours_left=97 * 10 / 5 / 3600))


@pytest.mark.parametrize('path, name, reason', [
    ('log', 'log', 'it was deleted'),
    (None, 'standard output', 'No space left on device'),
    ('/dev/full', '/dev/full', 'No space left on device')])
def test_a_log_that_cannot_be_written(path, name, reason, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Fault) as fault, monkeypatch.context() as patch:
        with contextlib.closing(log.Log(path)) as write:
            if path == 'log':
                os.remove(path)
            elif not path:
                full = io.TextIOWrapper(open('/dev/full', 'wb', 0), write_through=True)
                patch.setattr('sys.stdout', full)
            write.text('a line')
    assert str(fault.value) == (
        '%s: cannot be written (%s); the same command resumes from the last checkpoint'
        % (name, reason))


def test_no_event_file_can_be_made(tmp_path):
    (tmp_path / 'run').write_text('')
    with pytest.raises(Fault, match='run: cannot be written .*; the same command resumes from the '
                                    'last checkpoint'):
        events.Events(str(tmp_path / 'run'), [0], [2], 0, 0)


@pytest.mark.parametrize('steps_before, starts', [([0, 3], []), ([0, 30], [31])])
def test_results_stay_in_tensorboard(steps_before, starts, tmp_path):
    """A start makes TensorBoard drop all points from its step on.

    The first increment's results are at step 20, the classes seen. A run that is resumed after 3
    training steps must not drop them.
    """
    events.Events(str(tmp_path), steps_before, [20, 40], 1, 0).close()
    path, = tmp_path.iterdir()
    found = [event.step for event in tf.train.summary_iterator(str(path))
             if event.session_log.status == tf.SessionLog.START]
    assert found == starts


def test_two_runs_begin_in_the_same_second(tmp_path):
    names = [log._make_new(str(tmp_path / 'logs'), 'log-x') for _ in range(3)]
    assert names == ['log-x', 'log-x-2', 'log-x-2-2']
    assert sorted(os.listdir(str(tmp_path / 'logs'))) == ['run-x', 'run-x-2', 'run-x-2-2']


FEW = 'the correction is fitted on 20 validation images or fewer; with fewer than 30 it'
UNSETTLED = 'BATCH_NORM_DECAY=0.99: moving averages need about 300 steps, and an increment has 65; '


@pytest.mark.parametrize('settings, notes', [
    ({}, []),
    (dict(VAL_FRACTION='0.1'), [FEW]),
    (dict(VAL_FRACTION='0.1', METHOD='distill'), []),
    (dict(BATCH_NORM_DECAY='0.99'), [UNSETTLED]),
    (dict(CLASSES_PER_INCREMENT='8', EPOCHS='16', MEMORY_SIZE='600'),
     ['in increment 1 the memory holds all images of the old classes, so the run is not']),
    (dict(CLASSES_PER_INCREMENT='3', FIRST_INCREMENT_CLASSES='1', EPOCHS='16'),
     ['the first increment has one class, which teaches the network nothing; ']),
    (dict(CLASSES_PER_INCREMENT='0', FIRST_INCREMENT_CLASSES='0'),
     ['all classes come at once, so nothing is incremental; '])])
def test_notes(settings, notes, digits, tmp_path, capsys):
    """The demonstration's first increment has 257 images.

    8 epochs in batches of 32 are 65 steps, and 1 - 3 / 65 is 0.953.
    """
    overrides = ['--%s=%s' % pair for pair in settings.items()]
    imagenet_main.main(['--DATA_DIR=%s' % digits, '--MODEL_DIR=%s' % tmp_path, '--PLAN_ONLY=True']
                       + overrides)
    output = capsys.readouterr().out.split('\n')
    lines = [line[10:] for line in output if line.startswith('[note]')]
    assert [line[:len(note)] for line, note in zip(lines, notes)] == notes
    assert len(lines) == len(notes)
    if notes == [UNSETTLED]:
        assert lines[0].endswith('EPOCHS or BATCH_NORM_DECAY=0.95 would do')
