"""Compares several devices in one process with one: shares, losses, weights, moving averages."""
import json

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from common import SIZE_33, arguments, linear, settings_of

import imagenet_main
import resnet_model
from data import Fault, Faults, numerics
from data import devices as devices_module
from data.devices import Devices
from logs.run import Run


def process_of(index, num_workers, local):
    """The devices of one of several processes, without a strategy."""
    devices = Devices()
    devices.strategy = True
    devices.local = local
    devices.first = local * index
    devices.total = local * num_workers
    return devices


@pytest.mark.parametrize('num_workers, local', [(1, 3), (2, 1), (3, 2)])
@pytest.mark.parametrize('total_images, batch_size', [(50, 12), (35, 6), (37, 18)])
def test_every_image_is_one_devices(num_workers, local, total_images, batch_size):
    """Over processes and devices, a batch is shared evenly and in its order.

    The weighted means add up to the batch's mean.
    """
    order = np.random.RandomState(0).permutation(total_images)
    processes = [process_of(index, num_workers, local) for index in range(num_workers)]
    with tf.Graph().as_default(), tf.Session() as session:
        numbers = tf.placeholder(tf.int64, [None])
        count = tf.placeholder(tf.int32, [])
        shares = []
        for process in processes:
            shares.append([process.share(replica, (numbers, -numbers), count)
                           for replica in range(local)])
        for begin in range(0, total_images, batch_size):
            batch = order[begin:begin + batch_size]
            positions = begin + np.arange(len(batch))
            taken = []
            mean = 0.0
            for process, shares_of_process in zip(processes, shares):
                part = batch[process.mine(positions, total_images, batch_size)]
                assert len(part) == process.part(batch_size) or len(batch) < batch_size
                feed = {numbers: part, count: len(batch)}
                for images, labels, share in session.run(shares_of_process, feed):
                    assert labels.tolist() == (-images).tolist()
                    assert len(images) or share == 0
                    taken.append(images)
                    mean += share * images.mean() if len(images) else 0
            assert np.concatenate(taken).tolist() == batch.tolist()
            assert mean == pytest.approx(batch.mean(), rel=1e-5)
            sizes = [len(images) for images in taken]
            assert max(sizes) - min(sizes) <= (len(batch) < batch_size)


def trained(handful, folder, count, arrays, *more):
    """Four steps of the second increment on `count` devices.

    Args:
        arrays: dict from name to array, the variables to start from.

    Returns:
        losses: list of dict.
        values: dict from name to array, what `average_and_read` returns.
        copies: two dicts from name to each device's moving average: before and after it.
        features: float array [31, features], of the first images.
    """
    s = settings_of(arguments(
        handful, folder, '--BATCH_SIZE=10', '--EPOCHS=1', '--LR_DROP_EPOCHS=',
        '--REPLICAS=%d' % count, '--WEIGHT_DECAY=0.01', *more))
    devices = Devices(s)
    assert (devices.total, bool(devices.strategy)) == (count, count > 1)
    faults = Faults()
    run = Run(s, faults, devices)
    assert not faults.lines
    train = np.concatenate(run.data.train)[:35]
    now = run.remaining[1]._replace(num_train=35)
    with devices.graph():
        net = imagenet_main.build(s, now, run.ends, 0, devices)
        moving = {}
        if devices.strategy:
            for name, variable in net.variables.items():
                if 'moving' in name:
                    moving[name] = devices.strategy.experimental_local_results(variable)
        with devices.session(s) as net.session:
            devices.initialize(net.session, net, arrays)
            net.training.start(net.session, run.data, train)
            losses = [imagenet_main.train_step(run, net, step, 0.1)[0] for step in range(4)]
            before = net.session.run(moving)
            values = devices.average_and_read(net.session, net)
            after = net.session.run(moving)
            features, labels = imagenet_main.extract_features(run, net, train[:31])
    assert labels.tolist() == run.data.labels[train[:31]].tolist()
    return losses, values, (before, after), features


def test_two_devices_do_what_one_does(handful, tmp_path, monkeypatch):
    """Losses, weights and evaluation agree: batches of 10, the last of 5, and 1 in evaluation.

    The network has no batch normalisation, which depends on the share.
    """
    monkeypatch.setattr(resnet_model, 'resnet', linear)
    random = np.random.RandomState(0)
    arrays = {}
    for scope in ('resnet/', 'resnet_old/'):
        arrays[scope + 'dense/kernel'] = random.normal(size=(3, 8)).astype(np.float32)
        arrays[scope + 'dense/bias'] = random.normal(size=8).astype(np.float32)
    losses, values, _, features = trained(handful, tmp_path, 1, arrays, *SIZE_33)
    two_losses, two_values, _, two_features = trained(handful, tmp_path, 2, arrays, *SIZE_33)
    for losses_of_step, two_losses_of_step in zip(losses, two_losses):
        assert two_losses_of_step == pytest.approx(losses_of_step, abs=1e-5)
        assert losses_of_step['loss_distill'] > 0
    assert sorted(values) == sorted(two_values)
    for name in values:
        np.testing.assert_allclose(two_values[name], values[name], atol=1e-5)
    moved = values['resnet/dense/kernel'] - arrays['resnet/dense/kernel']
    assert np.abs(moved).max() > 1e-3
    assert features.shape == (31, 3)
    np.testing.assert_allclose(two_features, features, atol=1e-4)


def test_moving_averages(handful, tmp_path):
    """Each device has its own. Reading returns their mean and gives it to every device."""
    _, values, (before, after), _ = trained(handful, tmp_path, 2, {})
    student = [name for name in before if name.startswith('resnet/')]
    assert len(student) == 14
    for name in student:
        first, second = before[name]
        assert np.abs(first - second).max() > 0
        for value in (values[name], *after[name]):
            np.testing.assert_allclose(value, (first + second) / 2, rtol=1e-6, atol=1e-7)


def test_devices_that_are_not_there(monkeypatch):
    monkeypatch.setattr(numerics, 'num_gpus', lambda: 2)
    with pytest.raises(Fault, match='REPLICAS=3: there are 2 GPUs'):
        Devices(settings_of(['--REPLICAS=3']))
    cluster = dict(worker=['a:1', 'b:2'])
    task = dict(type='worker', index=1)
    monkeypatch.setenv('TF_CONFIG', json.dumps(dict(cluster=cluster, task=task)))
    with pytest.raises(Fault, match='REPLICAS=2: TF_CONFIG names several workers'):
        Devices(settings_of(['--REPLICAS=2']))
    assert devices_module.count(settings_of([])) == 4
