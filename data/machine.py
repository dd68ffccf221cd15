"""The machine: what it has, and how TensorFlow is set up for it."""
import ctypes
import multiprocessing

import tensorflow
import tensorflow.compat.v1 as tf
from tensorflow.core.protobuf.rewriter_config_pb2 import RewriterConfig


def session_config(s):
    config = tf.ConfigProto(allow_soft_placement=True, gpu_options=tf.GPUOptions(allow_growth=True))
    if s.XLA:
        config.graph_options.optimizer_options.global_jit_level = tf.OptimizerOptions.ON_1
    if precision(s) == 'bfloat16':
        config.graph_options.rewrite_options.auto_mixed_precision_onednn_bfloat16 = RewriterConfig.ON
    return config


def set_up(s):
    """Readies the process for training: kernels as DETERMINISTIC says; on a CPU it keeps what it frees, for to give memory back
    and to fetch it anew takes up to a third of a step."""
    if s.DETERMINISTIC:
        tensorflow.config.experimental.enable_op_determinism()
    if num_gpus():
        return
    try:
        mallopt = ctypes.CDLL('libc.so.6').mallopt
    except (OSError, AttributeError):  # another C library, with ways of its own
        return
    for option, value in ((-4, 0), (-1, -1)):  # M_MMAP_MAX: no block is mapped by itself; M_TRIM_THRESHOLD: none is trimmed
        mallopt(option, value)


def let_memory_grow():
    """For whoever asks TensorFlow for its GPUs before the first session does, whose configuration says so, too."""
    for gpu in tf.config.experimental.list_physical_devices('GPU'):
        tf.config.experimental.set_memory_growth(gpu, True)


def precision(s):
    """What convolutions and products compute in: float16 on GPUs from Volta on, bfloat16 on CPUs made for it (TensorFlow 2)."""
    if not s.MIXED_PRECISION:
        return 'float32'
    if num_gpus():
        return 'float16'
    try:
        with open('/proc/cpuinfo') as file:
            units = {'avx512_bf16', 'amx_bf16'} & set(file.read().split())
    except OSError:
        units = set()
    return 'bfloat16' if units and hasattr(RewriterConfig(), 'auto_mixed_precision_onednn_bfloat16') else 'float32'


def described(s):
    """What the [env] line says of it, beside versions; dict."""
    return dict(device='gpu:%d' % num_gpus() if num_gpus() else 'cpu:%d' % multiprocessing.cpu_count(), precision=precision(s))


def num_gpus():
    return len(tf.config.experimental.list_physical_devices('GPU'))
