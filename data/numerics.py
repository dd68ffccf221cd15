"""How a run computes: number types, the optimizer, determinism, memory."""
import ctypes

import numpy as np
import tensorflow
import tensorflow.compat.v1 as tf
from tensorflow.core.protobuf.rewriter_config_pb2 import RewriterConfig

from data import Fault

_BFLOAT16_UNITS = {'avx512_bf16', 'amx_bf16'}  # of processors, in /proc/cpuinfo
_MMAP_MAX = -4        # mallopt: blocks that are mapped by themselves
_TRIM_THRESHOLD = -1  # mallopt: free memory above which some is returned to the system


def num_gpus():
    """Number of visible GPUs, int."""
    return len(tf.config.experimental.list_physical_devices('GPU'))


def precision(s):
    """The number type of convolutions: 'float32', 'float16' on GPUs, 'bfloat16' on CPUs.

    Of CPUs, MIXED_PRECISION needs one that is made for bfloat16, and TensorFlow 2.
    """
    if not s.MIXED_PRECISION:
        return 'float32'
    if num_gpus():
        return 'float16'
    try:
        with open('/proc/cpuinfo') as file:
            has_units = not _BFLOAT16_UNITS.isdisjoint(file.read().split())
    except OSError:
        has_units = False
    has_rewriter = hasattr(RewriterConfig(), 'auto_mixed_precision_onednn_bfloat16')
    return 'bfloat16' if has_units and has_rewriter else 'float32'


def optimizer(s, rate):
    """SGD with momentum. With float16 it scales the loss: small gradients would round to 0.

    Args:
        s: settings.
        rate: float scalar tensor, the learning rate.
    """
    sgd = tf.train.MomentumOptimizer(rate, s.MOMENTUM)
    if precision(s) == 'float16':
        return tf.train.experimental.enable_mixed_precision_graph_rewrite(sgd)
    return sgd


def session_config(s):
    """The tf.ConfigProto of a session on one device."""
    gpu_options = tf.GPUOptions(allow_growth=True)
    config = tf.ConfigProto(allow_soft_placement=True, gpu_options=gpu_options)
    if s.XLA:
        config.graph_options.optimizer_options.global_jit_level = tf.OptimizerOptions.ON_1
    if precision(s) == 'bfloat16':
        rewrites = config.graph_options.rewrite_options
        rewrites.auto_mixed_precision_onednn_bfloat16 = RewriterConfig.ON
    return config


def host_session():
    """A session that uses no GPU.

    The first session of a process fixes how all of them take GPU memory.
    """
    return tf.Session(config=tf.ConfigProto(device_count={'GPU': 0}))


def initial_values(variables, arrays):
    """What to feed the initialisers of variables with.

    Args:
        variables: dict from name to variable.
        arrays: dict from name to array, of all or some of them.

    Returns:
        dict from initial_value tensor to array.

    Raises:
        ValueError: an array has no variable, or another shape or kind of number than its own.
    """
    feed = {}
    for name, array in arrays.items():
        if name not in variables:
            raise ValueError('%s is no variable of this network' % name)
        variable = variables[name]
        shape = tuple(variable.shape.as_list())
        kind = np.dtype(variable.dtype.base_dtype.as_numpy_dtype).kind
        if (array.shape, array.dtype.kind) != (shape, kind):
            raise ValueError('%s has not the shape %s' % (name, shape))
        feed[variable.initial_value] = array
    return feed


def set_up(s):
    """Prepares the process for training.

    Raises:
        Fault: DETERMINISTIC needs a later TensorFlow.
    """
    if s.DETERMINISTIC:
        if not hasattr(tensorflow.config.experimental, 'enable_op_determinism'):
            raise Fault('DETERMINISTIC=True: needs TensorFlow 2.9 or later, and this is %s'
                        % tf.__version__)
        tensorflow.config.experimental.enable_op_determinism()
    if num_gpus():
        if precision(s) != 'float16':  # an earlier run in this process may have had it
            tf.train.experimental.disable_mixed_precision_graph_rewrite()
    else:
        _keep_freed_memory()


def _keep_freed_memory():
    """Keeps freed memory in the process.

    Returning it to the system costs up to a third of a training step on a CPU.
    """
    try:
        mallopt = ctypes.CDLL('libc.so.6').mallopt
    except (OSError, AttributeError):  # another C library
        return
    mallopt(_MMAP_MAX, 0)
    mallopt(_TRIM_THRESHOLD, -1)
