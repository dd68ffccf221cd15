"""All that a run reads: settings, list files, images."""

# Settings that may change from one part of a run to the next, for they do not affect results; what was learnt stays. The class
# order, too, stands from its beginning. SCALE_BATCH shows in BATCH_SIZE and LEARNING_RATE.
FREE = ('MODEL_DIR', 'LOG_DIR', 'LOG_STEPS', 'PLAN_ONLY', 'PREDICT', 'KEEP_GB', 'DECODE_ALL', 'LEAVE_OUT_BROKEN', 'DATA_DIR',
        'NUM_CLASSES', 'HEADLINE', 'CHECKPOINT_EPOCHS', 'CHECKPOINT_MINUTES', 'FIRST_INCREMENT_FROM', 'REPLICAS',
        'SCALE_BATCH', 'WORKER_MINUTES')


class Fault(ValueError):
    """What the user, the data or the machine did wrong: one line per fault, each with value, rule and remedy.

    The program ends with this message alone; any other exception is a fault of the program and keeps its traceback.
    """
