"""Checkpoints: a network's variables, stored without their scope, so that one file restores into student and teacher."""
import os

import tensorflow.compat.v1 as tf

from data import Fault


def save(session, scope, path):
    """Stores the variables of a scope.

    Args:
        session: tf.Session. scope: str, without '/' at its end. path: str, prefix of the files; its folder is made.
    """
    os.makedirs(os.path.dirname(path), exist_ok=True)
    _saver(scope).save(session, path, write_meta_graph=False, write_state=False)


def restore(session, scope, path):
    """Fills the variables of a scope from what `save` stored.

    Raises:
        Fault: the file is missing, or its variables' names or shapes are not those of the scope.
    """
    if not os.path.exists(path + '.index'):
        raise Fault('%s.index: no such checkpoint' % path)
    stored = tf.train.NewCheckpointReader(path).get_variable_to_shape_map()
    wanted = {name: variable.shape.as_list() for name, variable in variables(scope).items()}
    wrong = sorted(name for name in set(stored) | set(wanted) if stored.get(name) != wanted.get(name))
    if wrong:
        raise Fault('%s: %d variables differ from the network, first %s: %s in the file, %s in the network'
                    % (path, len(wrong), wrong[0], stored.get(wrong[0], 'missing'), wanted.get(wrong[0], 'missing')))
    _saver(scope).restore(session, path)


def variables(scope):
    """dict from a variable's name without its scope to the variable, in order of creation."""
    # The '/' matters: get_collection matches prefixes, and 'resnet' is one of 'resnet_old'.
    return {v.op.name[len(scope) + 1:]: v for v in tf.get_collection(tf.GraphKeys.GLOBAL_VARIABLES, scope=scope + '/')}


def _saver(scope):
    return tf.train.Saver(variables(scope))
