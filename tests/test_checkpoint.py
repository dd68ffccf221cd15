"""What one scope stores, another one gets; anything missing is an error."""
import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from data import Fault
from logs import checkpoint


def made(scope, shape=(3, 5), names=('conv1/kernel', 'bn/moving_mean')):
    with tf.variable_scope(scope):
        return [tf.get_variable(name, shape, use_resource=True) for name in names]


@pytest.fixture(name='saved')
def saved_(tmp_path):
    path = str(tmp_path / 'model' / 'increment-0' / 'model.ckpt')
    with tf.Graph().as_default(), tf.Session() as session:
        made('resnet')
        made('resnet_old', (7,))   # its name begins like the other one's
        session.run(tf.global_variables_initializer())
        checkpoint.save(session, 'resnet', path)
        values = session.run(checkpoint.variables('resnet'))
    return path, values


def test_one_file_restores_into_both_networks(saved):
    path, values = saved
    assert sorted(values) == ['bn/moving_mean', 'conv1/kernel']
    with tf.Graph().as_default(), tf.Session() as session:
        made('resnet')
        made('resnet_old')
        session.run(tf.global_variables_initializer())
        for scope in ('resnet', 'resnet_old'):
            checkpoint.restore(session, scope, path)
            restored = session.run(checkpoint.variables(scope))
            for name in values:
                np.testing.assert_array_equal(restored[name], values[name])


@pytest.mark.parametrize('change, message', [
    (dict(names=('conv1/kernel',)), 'first bn/moving_mean: .* in the file, missing in the network'),
    (dict(names=('conv1/kernel', 'bn/moving_mean', 'dense/bias')), 'first dense/bias: missing in the file'),
    (dict(shape=(5, 3)), r'first bn/moving_mean: \[3, 5\] in the file, \[5, 3\] in the network')])
def test_other_network(saved, change, message):
    with tf.Graph().as_default(), tf.Session() as session:
        made('resnet', **change)
        with pytest.raises(Fault, match=message):
            checkpoint.restore(session, 'resnet', saved[0])


def test_no_checkpoint(tmp_path):
    with tf.Graph().as_default(), tf.Session() as session:
        with pytest.raises(Fault, match='no such checkpoint'):
            checkpoint.restore(session, 'resnet', str(tmp_path / 'model.ckpt'))
