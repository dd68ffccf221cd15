"""Compares several devices in one process with one device: shares, losses, weights and moving averages. And wrong REPLICAS."""
import json

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from common import SIZE_33, arguments, linear, read, settings_of

import bic_layer
import imagenet_main
import resnet_model
from data import Fault, batches
from data import devices as devices_module
from data.devices import Devices
from logs import results


def process_of(index, num_workers, local):
    """The devices of one of several processes, without a strategy."""
    made = Devices()
    made.strategy, made.local, made.first, made.total = True, local, local * index, local * num_workers
    return made


@pytest.mark.parametrize('num_workers, local', [(1, 3), (2, 1), (3, 2)])
@pytest.mark.parametrize('total_images, batch_size', [(50, 12), (35, 6), (37, 18)])
def test_every_image_is_one_devices(num_workers, local, total_images, batch_size):
    """Over processes and devices, a batch is shared evenly and in its order. The weighted means add up to the batch's mean."""
    order = np.random.RandomState(0).permutation(total_images)
    processes = [process_of(index, num_workers, local) for index in range(num_workers)]
    with tf.Graph().as_default(), tf.Session() as session:
        numbers, count = tf.placeholder(tf.int64, [None]), tf.placeholder(tf.int32, [])
        shares = [[process.share(replica, (numbers, -numbers), count) for replica in range(local)] for process in processes]
        for begin in range(0, total_images, batch_size):
            batch, taken, mean = order[begin:begin + batch_size], [], 0.0
            for process, of_process in zip(processes, shares):
                part = batch[process.mine(begin + np.arange(len(batch)), total_images, batch_size)]
                assert len(part) == process.part(batch_size) or len(batch) < batch_size
                for images, labels, share in session.run(of_process, {numbers: part, count: len(batch)}):
                    assert labels.tolist() == (-images).tolist() and (len(images) or share == 0)
                    taken.append(images)
                    mean += share * images.mean() if len(images) else 0
            assert np.concatenate(taken).tolist() == batch.tolist() and mean == pytest.approx(batch.mean(), rel=1e-5)
            assert max(map(len, taken)) - min(map(len, taken)) <= (len(batch) < batch_size)


def trained(handful, folder, count, weights, *more):
    """Four steps on `count` devices: losses, what `read` returns, each device's moving averages before and after it, outputs."""
    s = settings_of(arguments(handful, folder, '--BATCH_SIZE=10', '--EPOCHS=1', '--REPLICAS=%d' % count,
                              '--WEIGHT_DECAY=0.01', *more))
    data, _, plan, missing = read(s)
    train, of_run = np.concatenate(data.train)[:35], Devices(s)
    assert not missing and (of_run.total, bool(of_run.strategy)) == (count, count > 1)
    with of_run.graph():
        model = imagenet_main.build(s, plan, plan[1]._replace(train=35), [bic_layer.Fit(0.6, -0.3, 0, 0, False)], 0, of_run)
        moving = {name: of_run.strategy.experimental_local_results(variable) for name, variable in model.variables.items()
                  if 'moving' in name} if of_run.strategy else {}
        with of_run.session(s) as session:
            session.run(model.initializer, resnet_model.first_weights(model.networks, weights, 1))
            session.run(model.train_batches.initializer, batches.feed(model, data, train))
            losses = [session.run(model.losses, {model.rate: 0.1, model.count: images}) for images in (10, 10, 10, 5)]
            before = session.run(moving)
            values = of_run.read(session, model)
            copies = before, session.run(moving)
            outputs = list(results.evaluate(session, model, plan[1], data, train[:31]))
    return losses, values, copies, outputs


def test_two_devices_do_what_one_does(handful, tmp_path, monkeypatch):
    """Losses, weights and evaluation agree, without batch normalisation, which depends on the share."""
    monkeypatch.setattr(resnet_model, 'resnet', linear)
    weights = {'dense/kernel': np.random.RandomState(0).normal(size=(3, 8)), 'dense/bias': np.arange(8) / 10}
    (losses, values, _, outputs), (two_losses, two_values, _, two_outputs) = [
        trained(handful, tmp_path, count, weights, *SIZE_33) for count in (1, 2)]
    for one, two in zip(losses, two_losses):
        assert two == pytest.approx(one, abs=1e-5) and one['loss_distill'] > 0
    assert sorted(values) == sorted(two_values)
    for name in values:
        np.testing.assert_allclose(two_values[name], values[name], atol=1e-5)
    assert [len(labels) for _, _, labels in outputs] == [10, 10, 10, 1]
    for one, two in zip(outputs, two_outputs):
        for part in range(3):
            np.testing.assert_allclose(two[part], one[part], atol=1e-4)


def test_moving_averages(handful, tmp_path):
    """Each device has its own. Reading returns their mean and gives it to every device."""
    _, values, (before, after), _ = trained(handful, tmp_path, 2, None)
    student = [name for name in before if name.startswith('resnet/')]
    assert len(student) >= 14
    for name in student:
        first, second = before[name]
        assert np.abs(first - second).max() > 0
        for value in (values[name], *after[name]):
            np.testing.assert_allclose(value, (first + second) / 2, rtol=1e-6, atol=1e-7)


def test_devices_that_are_not_there(monkeypatch):
    monkeypatch.setattr(devices_module, 'num_gpus', lambda: 2)
    with pytest.raises(Fault, match='REPLICAS=3: there are 2 GPUs'):
        Devices(settings_of(['--REPLICAS=3']))
    monkeypatch.setenv('TF_CONFIG', json.dumps(dict(cluster=dict(worker=['a:1', 'b:2']), task=dict(type='worker', index=1))))
    with pytest.raises(Fault, match='REPLICAS=2: TF_CONFIG names several workers'):
        Devices(settings_of(['--REPLICAS=2']))
    assert devices_module.count(settings_of([])) == 4
