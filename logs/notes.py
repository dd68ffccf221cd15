"""The [note] lines of a log: what is legal in a run but may be a mistake."""
import math

from data import numerics, settings

_FEW = 30     # validation images
_SETTLED = 3  # time constants after which 5 % of a moving average's initial value is left


def on(run):
    """The notes on a run that begins, list of str, without their tag.

    run: logs.run.Run.
    """
    return _on_protocol(run) + _on_computing(run)


def _on_protocol(run):
    """Notes on classes, memory and files."""
    notes = []
    if len(run.ends) == 1:
        notes.append('all classes come at once, so nothing is incremental; CLASSES_PER_INCREMENT '
                     'divides them')
    elif run.ends[0] == 1:
        notes.append('the first increment has one class, which teaches the network nothing; '
                     'FIRST_INCREMENT_CLASSES=2 or more does')
    kept_whole = [now.index for now in run.remaining if _keeps_everything(run, now)]
    if kept_whole:
        notes.append('in increment %s the memory holds all images of the old classes, so the run '
                     'is not incremental; a smaller MEMORY_SIZE makes it so'
                     % ', '.join(map(str, kept_whole)))
    few = [now.num_val for now in run.remaining if now.num_old and now.num_val < _FEW]
    if few and run.s.METHOD == 'bic':
        notes.append('the correction is fitted on %d validation images or fewer; with fewer than '
                     '%d it may do harm; in a new run, a larger MEMORY_SIZE or VAL_FRACTION gives '
                     'more' % (max(few), _FEW))
    skipped = run.data.skipped
    if skipped:
        notes.append('%d files in class folders are skipped: their names do not end like an '
                     'image\'s: %s%s' % (len(skipped), ', '.join(skipped[:3]),
                                         ' ..' if len(skipped) > 3 else ''))
    return notes


def _keeps_everything(run, now):
    """Whether an increment has all images of its old classes, though its method needs it not."""
    if not now.num_old or settings.METHODS[run.s.METHOD].trains_on_all:
        return False
    num_images = [len(class_images) for class_images in run.data.train[:now.num_old]]
    return max(num_images) <= now.exemplars_per_class


def _on_computing(run):
    """Notes on steps and number types."""
    s = run.s
    notes = []
    steps = min(settings.num_steps(s, now.num_train) for now in run.remaining)
    if steps * (1 - s.BATCH_NORM_DECAY) < _SETTLED:
        remedy = 'more EPOCHS'
        if steps >= 2 * _SETTLED:
            low = math.floor(100 * (1 - _SETTLED / steps)) / 100
            remedy += ' or BATCH_NORM_DECAY=%g' % low
        notes.append('BATCH_NORM_DECAY=%g: moving averages need about %.0f steps, and an increment '
                     'has %d; unsettled ones make the test and the correction worse; in a new run, '
                     '%s would do'
                     % (s.BATCH_NORM_DECAY, _SETTLED / (1 - s.BATCH_NORM_DECAY), steps, remedy))
    if s.MIXED_PRECISION and numerics.precision(s) == 'float32':
        notes.append('MIXED_PRECISION=True computes in float32 here: there is no GPU, and this '
                     'processor or TensorFlow has no bfloat16')
    return notes
