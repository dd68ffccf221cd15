"""Whether each device gets enough of every batch."""
import types

import resnet_model
from data import devices, settings

# Values per channel that batch normalisation needs on each device. Between two or three, a
# deviation is often almost nothing, and the gradient of dividing by it almost infinite.
_MIN_VALUES = 4


def check(s, plan, faults):
    """Adds why the batches of some increments cannot be trained on.

    Args:
        s: settings.
        plan: list of exemplar.Increment.
        faults: data.Faults.
    """
    total = devices.count(s)
    for now in plan:
        if now.num_train < s.BATCH_SIZE:
            faults.add('BATCH_SIZE=%d: increment %d has only %d training images'
                       % (s.BATCH_SIZE, now.index, now.num_train), 'BATCH_SIZE', blocking=False)
    if s.BATCH_SIZE % total:
        faults.add('BATCH_SIZE=%d: cannot be shared by %d devices equally; %d would do'
                   % (s.BATCH_SIZE, total, -(-s.BATCH_SIZE // total) * total),
                   'BATCH_SIZE', blocking=False)
    too_small = _small_batches(s, plan)
    if not too_small:
        return
    advice = 'change BATCH_SIZE, EPOCHS, IMAGE_SIZE or the number of images'
    other = types.SimpleNamespace(**vars(s))
    for other.BATCH_SIZE in range(s.BATCH_SIZE, min(now.num_train for now in plan) + 1):
        if other.BATCH_SIZE % total == 0 and not _small_batches(other, plan):
            advice = 'BATCH_SIZE=%d or other numbers of images would do' % other.BATCH_SIZE
            break
    for batch, num_images, num_values in too_small:
        faults.add('BATCH_SIZE=%d: %s (images: %d, devices: %d) has too few values per channel for '
                   'batch normalisation: %d, and %d are needed; %s'
                   % (s.BATCH_SIZE, batch, num_images, total, num_values, _MIN_VALUES, advice),
                   'BATCH_SIZE', blocking=False)


def _small_batches(s, plan):
    """Batches that leave a device too few values per channel.

    Returns:
        list of (name of the batch, number of images, number of values).
    """
    total = devices.count(s)
    pixels = resnet_model.last_side(s.RESNET_DEPTH, s.IMAGE_SIZE) ** 2
    batches = [('each batch', s.BATCH_SIZE)]
    for now in plan:
        last = settings.batch_size(s, now.num_train, settings.num_steps(s, now.num_train) - 1)
        if last < s.BATCH_SIZE:
            batches.append(('the last batch of increment %d' % now.index, last))
    values = [(name, num_images, num_images // total * pixels) for name, num_images in batches]
    return [batch for batch in values if batch[2] < _MIN_VALUES]
