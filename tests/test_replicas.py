"""Several devices, in one process and in two, against one device; and what is wrong with a cluster."""
import json
import os
import shutil
import signal
import subprocess
import sys
import types

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from test_main import SCRIPT, SIZE_33, arguments, events, run_main, stored
from test_workers import free

import bic_layer
import imagenet_main
import resnet_model
from data import Fault, replicas, settings, workers
from logs import checkpoint

SMALL = ['--EPOCHS=3', '--IMAGE_SIZE=16', '--LOG_STEPS=1', '--BATCH_SIZE=14', '--CHECKPOINT_EPOCHS=1']


@pytest.mark.parametrize('count, local', [(1, 3), (2, 1), (3, 2)])
def test_every_image_is_one_workers(count, local):
    """Two epochs of 25 images in batches of 12: shares of equal size, of the last two images and before, each once."""
    positions, all_of = np.arange(50), []
    for index in range(count):
        devices = replicas.Replicas(None, local, workers.Workers(['host:%d' % n for n in range(count)], index))
        mine = devices.mine(positions, 50, 12)
        all_of.append(mine)
        assert [mine[begin:begin + 12].sum() for begin in range(0, 48, 12)] == [12 // count] * 4
    assert (np.sum(all_of, axis=0) == 1).all()


def linear(images, depth, num_classes, training, decay, data_format):
    """A network without batch normalisation."""
    kernel = tf.get_variable('dense/kernel', [3, num_classes], use_resource=True)
    bias = tf.get_variable('dense/bias', [num_classes], use_resource=True)
    features = tf.reduce_mean(images, [1, 2]) / 100
    return features, tf.matmul(features, kernel) + bias


def test_two_devices_do_what_one_does(handful, tmp_path, monkeypatch):
    """Losses and weights after four steps of the second increment, the last of which has five images; and the evaluation."""
    monkeypatch.setattr(resnet_model, 'resnet', linear)
    of_count = []
    for count in (1, 2):
        s, faults = settings.read(vars(imagenet_main), imagenet_main.RECIPES, arguments(
            handful, tmp_path, '--BATCH_SIZE=10', '--EPOCHS=1', '--REPLICAS=%d' % count, '--WEIGHT_DECAY=0.01', *SIZE_33))
        data, plan, missing = imagenet_main.protocol.read(s, faults, {})
        assert not missing
        train = np.concatenate(data.train)[:35]
        devices = replicas.of_machine(s)
        assert (devices.total, bool(devices.strategy)) == (count, count == 2)
        with tf.Graph().as_default():
            with devices.scope():
                fits = [bic_layer.Fit(0.6, -0.3, 0, 0, False)]
                model = imagenet_main.build(s, plan, plan[1]._replace(train=35), fits, 0, devices)
            with tf.Session(config=devices.config(s)) as session:
                weights = {'dense/kernel': np.random.RandomState(0).normal(size=(3, 8)), 'dense/bias': np.arange(8) / 10}
                session.run(model.initializer, resnet_model.first_weights(model.networks, weights, 1))
                session.run(model.train_batches.initializer, imagenet_main.batches.training_feed(s, model, data, train))
                losses = [session.run(model.losses, {model.rate: 0.1, model.count: images}) for images in (10, 10, 10, 5)]
                values = session.run(model.values)
                outputs = list(imagenet_main.results.evaluate(s, session, model, plan[1], data, train))
        of_count.append((losses, values, outputs))
    (losses, values, outputs), (two_losses, two_values, two_outputs) = of_count
    for one, two in zip(losses, two_losses):
        assert two == pytest.approx(one, abs=1e-5) and one['loss_distill'] > 0
    assert sorted(values) == sorted(two_values)
    for name in values:
        np.testing.assert_allclose(two_values[name], values[name], atol=1e-5)
    for one, two in zip(outputs, two_outputs):
        for part in range(3):
            np.testing.assert_allclose(two[part], one[part], atol=1e-4)


@pytest.fixture(name='pair', scope='session')
def pair_(handful, tmp_path_factory):
    """A whole run of two devices in one process: folder and log."""
    folder = tmp_path_factory.mktemp('pair')
    return str(folder), run_main(handful, folder, *SMALL, '--REPLICAS=2')[1]


def test_one_device_goes_on_where_two_were(pair, handful, tmp_path):
    """At the end of training: with equal weights the correction, the results and the exemplars are the same ones."""
    shutil.copytree(pair[0] + '/model', str(tmp_path / 'model'))
    shutil.rmtree(str(tmp_path / 'model' / 'digits' / 'increment-1'))
    _, text = run_main(handful, tmp_path, *SMALL)
    assert not events(text, 'train') and 'replicas=2' in pair[1] and 'replicas=1' in text
    states = [checkpoint.read('%s/model/digits/increment-1' % folder)[1] for folder in (pair[0], tmp_path)]
    assert states[0]['exemplars'] == states[1]['exemplars']
    np.testing.assert_allclose(states[0]['fits'][1][:4], states[1]['fits'][1][:4], atol=1e-4)
    for key, value in states[0]['results'][1].items():
        assert states[1]['results'][1][key] == pytest.approx(value, abs=1e-4)


def started(handful, folder, *more):
    """The program as both of two workers, each with settings of its own; the processes."""
    addresses, processes = free(2), []
    for index in range(2):
        config = dict(cluster=dict(worker=addresses), task=dict(type='worker', index=index))
        processes.append(subprocess.Popen(
            [sys.executable, SCRIPT] + arguments(handful, folder, *SMALL) + list(more[index] if more else ()),
            env=dict(os.environ, TF_CONFIG=json.dumps(config)), cwd=str(folder), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            universal_newlines=True))
    return processes


def test_two_workers(pair, handful, tmp_path):
    """They do what two devices do, until one is killed in mid-epoch; both go on, are stopped, and one alone or both finish."""
    chief, other = started(handful, tmp_path)
    for line in chief.stdout:
        if line.startswith('[train]   increment=1 epoch=1 step=5'):    # of seven; it was saved after four
            other.kill()
            break
    _, err = chief.communicate(timeout=120)
    assert chief.returncode == 1 and 'worker 1 (localhost:' in err and ') is gone; its own output says why, or it' in err
    other.communicate(timeout=120)
    path, = (tmp_path / 'logs').glob('log-*')
    losses = [[float(event['loss']) for event in events(text, 'train')][:4] for text in (path.read_text(), pair[1])]
    assert len(losses[0]) == len(losses[1]) == 4
    np.testing.assert_allclose(*losses, atol=1e-3)

    (chief, other), begun = started(handful, tmp_path), ''
    for line in chief.stdout:
        begun += line
        if line.startswith('[train]'):
            other.send_signal(signal.SIGTERM)
            break
    (out, _), (quiet, _) = chief.communicate(timeout=120), other.communicate(timeout=120)
    assert (chief.returncode, other.returncode) == (75, 75) and '[save]' in out and not quiet
    resume, = events(begun, 'resume')
    assert resume['increment'] == '1' and int(resume['step']) > 0

    shutil.copytree(str(tmp_path / 'model'), str(tmp_path / 'copy'))
    rows, text = run_main(handful, tmp_path / 'alone', *SMALL, '--MODEL_DIR=%s/copy' % tmp_path)
    assert [row['classes'] for row in rows] == [5, 8] and events(text, 'resume')[0]['increment'] == '1'

    # What may differ must not part them: when each would save by itself, and how often it would write.
    processes = started(handful, tmp_path, [], ['--CHECKPOINT_EPOCHS=2', '--LOG_STEPS=5'])
    (out, err), (quiet, _) = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], err
    assert not quiet and events(out, 'env')[0]['replicas'] == '2' and len(events(out, 'result')) == 1
    assert sorted(stored(tmp_path, 'increment-1', 'network.npz')) == sorted(stored(pair[0], 'increment-1', 'network.npz'))


@pytest.mark.parametrize('more, message', [
    (['--REPLICAS=3'], 'BATCH_SIZE=7: cannot be shared by 3 devices equally; 9 would do'),
    (['--REPLICAS=2', '--BATCH_SIZE=8', '--EPOCHS=9'], 'EPOCHS=9: the last batch of increment 0 has 1 images, too few for 2'),
    (['--REPLICAS=2', '--BATCH_SIZE=10', '--EPOCHS=1', '--RESNET_DEPTH=18'],
     'the last batch of increment 0 has 5 images for 2 devices, too few')])
def test_batches_that_cannot_be_shared(more, message, handful, tmp_path):
    with pytest.raises(Fault) as fault:
        imagenet_main.main(arguments(handful, tmp_path, *more))
    assert message in str(fault.value)


def test_a_batch_that_grows_with_the_devices():
    """Four devices: batch 28 and rate 0.04, reached after five epochs of 70 images, 12.5 steps, from 0.01 on."""
    s, two = (settings.read(vars(imagenet_main), imagenet_main.RECIPES, [
        '--SCALE_BATCH=True', '--REPLICAS=%d' % count, '--BATCH_SIZE=7', '--LEARNING_RATE=0.01', '--EPOCHS=20',
        '--LR_DROP_EPOCHS=10'])[0] for count in (4, 2))
    assert (s.BATCH_SIZE, s.LEARNING_RATE) == (28, pytest.approx(0.04))
    rates = [settings.learning_rate(s, 70, step) for step in (0, 5, 12, 13, 25, 26)]
    assert rates == pytest.approx([0.01, 0.01 + 0.03 * 5 / 12.5, 0.01 + 0.03 * 12 / 12.5, 0.04, 0.04, 0.004])
    assert 'both depend on the number of devices, here 4' in settings.changes(s, settings.fixed(two), 'state')['BATCH_SIZE']
    alone = types.SimpleNamespace(LEARNING_RATE=0.01, BATCH_SIZE=7, LR_DROP_EPOCHS=(), SCALE_BATCH=False)
    assert settings.learning_rate(alone, 70, 0) == 0.01
