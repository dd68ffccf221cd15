"""What must be set before TensorFlow is loaded. imagenet_main.py calls it first."""
import importlib.util
import os
import signal
import sys

ENVIRONMENT = {
    'TF_CPP_MIN_LOG_LEVEL': '3',   # 0 shows what TensorFlow finds, e.g. why it uses no GPU
    'TF_GPU_THREAD_MODE': 'gpu_private',  # input threads must not keep a GPU's kernels waiting
    'TF_ENABLE_ONEDNN_OPTS': '1',  # off in TensorFlow 2 without AVX-512: 3.6 times slower
}


def load_tensorflow(as_program):
    """Sets the environment and loads TensorFlow, or ends the process with one line.

    Args:
        as_program: bool, whether this is the user's command. Then Ctrl-C ends it without a
            traceback while TensorFlow is being loaded.
    """
    if importlib.util.find_spec('fcntl') is None:
        sys.exit('this program needs Linux or macOS: it locks its checkpoints with fcntl')
    own_handler = signal.getsignal(signal.SIGINT)
    is_python = own_handler is signal.default_int_handler
    if as_program and is_python:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        importlib.import_module('numpy')
        importlib.import_module('tensorflow.compat.v1')
    except (ImportError, MemoryError, OSError) as error:  # missing, or no memory for its libraries
        # TensorFlow 1.15 puts a whole traceback into the message.
        reason = str(error).strip().split('Error: ')[-1].split('\n')[0]
        sys.exit('TensorFlow and NumPy cannot be loaded (%s); README says how to install them'
                 % (reason or 'out of memory'))
    finally:
        if as_program and is_python:
            signal.signal(signal.SIGINT, own_handler)
