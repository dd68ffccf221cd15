"""Random input either works or raises a Fault, and never another error."""
import json
import os
import types

import hypothesis
import numpy as np
import PIL.Image
import tensorflow.compat.v1 as tf
from hypothesis import strategies as st

import imagenet_main
from data import Fault, Faults, batches, images, numerics, settings

EXAMPLES = int(os.environ.get('EXAMPLES', 60))
hypothesis.settings.register_profile(
    'quick', deadline=None, max_examples=EXAMPLES, derandomize=True, database=None,
    suppress_health_check=list(hypothesis.HealthCheck))
hypothesis.settings.load_profile('quick')
NUMBERS = st.lists(st.integers(), max_size=4).map(lambda row: ','.join(map(str, row)))
TEXT = st.text(max_size=8) | st.floats().map(str) | NUMBERS


def assert_about(names, faults):
    """There are faults, one line each, and each names a setting or a file."""
    assert faults
    for line in faults:
        assert any(name in line for name in [*names, 'more like the one above']), line
        assert line.splitlines() == [line]


def read_settings(arguments, faults):
    return settings.read(vars(imagenet_main), imagenet_main.RECIPES, arguments, faults)


NAMES = sorted(vars(read_settings([], Faults())[0]))
OVERRIDES = st.builds('--{}={}'.format, st.sampled_from(NAMES), TEXT)


@hypothesis.given(st.lists(TEXT | OVERRIDES, max_size=4))
def test_settings(given):
    """Values are legal, and increments and schedule follow from them; or there are faults."""
    faults = Faults()
    try:
        runs = read_settings(given, faults)
        faults.raise_any()
    except Fault as fault:
        other = ['no such setting', 'an override is written --NAME=value',
                 'is given more than once']
        return assert_about(NAMES + other, str(fault).split('\n'))
    for s in runs:
        stored = json.loads(json.dumps(settings.fixed(s)))
        settings.changes(s, stored, 'state', faults)
        assert not faults.lines
        if s.NUM_CLASSES:
            assert sum(settings.increment_sizes(s, s.NUM_CLASSES)) == s.NUM_CLASSES
        assert all(0 < epoch < s.EPOCHS for epoch in s.LR_DROP_EPOCHS)
        assert s.IMAGE_SIZE <= s.RESIZE_SIDE_MIN <= s.RESIZE_SIDE_MAX
        assert 0 <= settings.learning_rate(s, 1000, 7) < 1e39
        steps = settings.num_steps(s, 7)
        assert 1 <= settings.batch_size(s, 7, steps - 1) <= s.BATCH_SIZE


def test_image_bytes(tmp_path):
    """Some bytes are changed, and the end is cut off.

    Whatever can be decoded, evaluation and training can read.
    """
    random = np.random.RandomState(0)
    for number in range(4 * EXAMPLES):
        kind = ('jpg', 'png', 'gif', 'bmp')[number % 4]
        path = tmp_path / ('%d.%s' % (number, kind))
        pixels = random.randint(0, 256, (13, 19, 3)).astype(np.uint8)
        PIL.Image.fromarray(pixels).save(str(path))
        content = bytearray(path.read_bytes())
        for place in random.randint(0, len(content), random.randint(4)):
            content[place] = random.randint(256)
        end = random.choice([len(content), random.randint(len(content))])
        path.write_bytes(content[:end])
    folder = os.fsencode(str(tmp_path))
    paths = [os.path.join(folder, name) for name in os.listdir(folder)]
    s = types.SimpleNamespace(
        IMAGE_SIZE=8, RESIZE_SIDE_MIN=8, RESIZE_SIDE_MAX=12, PADDING=0, RANDOM_FLIP=True,
        STANDARDIZE=False)
    good = set(paths) - set(images.broken(paths, True))
    assert EXAMPLES // 4 < len(good) < 4 * EXAMPLES
    with tf.Graph().as_default(), numerics.host_session() as session:
        path = tf.placeholder(tf.string, [])
        draw = tf.constant([11, 0.3, 0.8, 0.2], tf.float64)

        def read(window):
            return batches.of_file(path, window)

        both = batches.centred(read, s), batches.augmented(read, draw, s)
        for name in good:
            for pixels in session.run(both, {path: name}):
                assert pixels.shape == (8, 8, 3) and np.isfinite(pixels).all()
