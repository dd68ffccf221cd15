"""Random input either works or raises a Fault, and never another error."""
import json
import os
import shutil
import types

import common
import hypothesis
import numpy as np
import PIL.Image
import tensorflow.compat.v1 as tf
from hypothesis import strategies as st

import imagenet_main
from data import Fault, Faults, batches, devices, images, settings
from logs import log, results
from logs.run import Run

whole_, EXAMPLES = common.whole_, int(os.environ.get('EXAMPLES', 60))
hypothesis.settings.register_profile('quick', deadline=None, max_examples=EXAMPLES, derandomize=True, database=None,
                                     suppress_health_check=list(hypothesis.HealthCheck))
hypothesis.settings.load_profile('quick')
TEXT = st.text(max_size=8) | st.floats().map(str) | st.lists(st.integers(), max_size=4).map(lambda row: ','.join(map(str, row)))
JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
                    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3))


def assert_about(names, faults):
    """There are faults, one line each, and each names a setting or a file."""
    assert faults and all(any(name in line for name in [*names, 'more like the one above']) for line in faults), faults
    assert [line.splitlines() for line in faults] == [[line] for line in faults]


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


def changed(draw, value):
    """Returns the value with one part replaced, removed or repeated."""
    if not value or not isinstance(value, (dict, list)) or not draw(st.integers(0, 3)):
        return draw(JSON)
    items = sorted(value.items()) if isinstance(value, dict) else list(enumerate(value))
    place, times = draw(st.integers(0, len(items) - 1)), draw(st.sampled_from([0, 1, 1, 2]))
    key, item = items[place]
    items[place:place + 1] = [(key, changed(draw, item) if times == 1 else item)] * times
    return dict(items) if isinstance(value, dict) else [item for _, item in items]


@hypothesis.given(st.sampled_from(['increment-0', 'increment-1-step-9']), st.data())
def test_states(whole, handful, tmp_path_factory, name, data):
    """A random state of the right format with the right checksum: the run resumes, up to its first step, and saves."""
    folder = tmp_path_factory.mktemp('run')
    path, s = folder / 'model' / 'digits' / name, common.settings_of(common.arguments(handful, folder, *common.WHOLE))
    shutil.copytree(str(whole / 'model' / 'digits' / name), str(path))
    (path / 'state.json').write_text(json.dumps(changed(data.draw, json.loads((path / 'state.json').read_text()))))
    common.sign(str(path))
    try:
        run = Run(s, {}, {}, devices.ONE)
        run.check()
        with run.opened():
            now = run.plan[run.done]
            run.begin(now, run.data.images(now, run.exemplars)[0])
            log.Meter(s, run.steps_left, run.sums + [[1.0] * 5]).read()
            results.close(s, run.log, run.rows, run.matrix, 0.0, 0.0)
            run.save(now, run.weights or {}, run.step)
            assert len(run.fits) == len(run.matrix) == run.done and len(run.exemplars) == now.num_old
    except Fault as fault:
        assert_about([*NAMES, str(folder), handful], str(fault).split('\n'))


def test_image_bytes(tmp_path):
    """Some bytes are changed, and the end is cut off. Whatever can be decoded, evaluation and training can read."""
    random = np.random.RandomState(0)
    for number in range(4 * EXAMPLES):
        path = tmp_path / ('%d.%s' % (number, ['jpg', 'png', 'gif', 'bmp'][number % 4]))
        PIL.Image.fromarray(random.randint(0, 256, (13, 19, 3)).astype(np.uint8)).save(str(path))
        content = bytearray(path.read_bytes())
        for place in random.randint(0, len(content), random.randint(4)):
            content[place] = random.randint(256)
        path.write_bytes(content[:random.choice([len(content), random.randint(len(content))])])
    paths = [os.path.join(os.fsencode(str(tmp_path)), name) for name in os.listdir(os.fsencode(str(tmp_path)))]
    s = types.SimpleNamespace(IMAGE_SIZE=8, RESIZE_SIDE_MIN=8, RESIZE_SIDE_MAX=12, PADDING=0, RANDOM_FLIP=True, STANDARDIZE=False)
    with tf.Graph().as_default(), batches.host_session() as session:
        path = tf.placeholder(tf.string, [])
        both = (batches.centred(lambda window: batches.of_file(path, window), s),
                batches.augmented(lambda window: batches.of_file(path, window), tf.constant([11, 0.3, 0.8, 0.2], tf.float64), s))
        good = set(paths) - set(images.broken(paths, True))
        assert EXAMPLES // 4 < len(good) < 4 * EXAMPLES
        for name in good:
            for pixels in session.run(both, {path: name}):
                assert pixels.shape == (8, 8, 3) and np.isfinite(pixels).all()
