"""What is read may be anything: it is accepted, and then it works, or it is one of our faults. No other error comes out."""
import json
import os
import types

import hypothesis
import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from hypothesis import strategies as st

import imagenet_main
from data import Fault, batches, checks, lists, settings
from logs import checkpoint

hypothesis.settings.register_profile('quick', deadline=None, max_examples=int(os.environ.get('EXAMPLES', 60)), derandomize=True,
                                     suppress_health_check=list(hypothesis.HealthCheck), database=None)
hypothesis.settings.load_profile('quick')
ANY_VALUE = st.one_of(st.text(max_size=8), st.integers().map(str), st.floats().map(str),
                      st.lists(st.integers(-3, 300), max_size=4).map(lambda numbers: ','.join(map(str, numbers))))
JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
                    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3))
STATES = JSON | st.dictionaries(st.sampled_from(sorted(checkpoint.NOTHING)), JSON).map(lambda some: dict(some, format=2))


@hypothesis.given(st.lists(st.one_of(
    st.tuples(st.sampled_from(sorted(settings.RULES)), ANY_VALUE).map(lambda pair: '--%s=%s' % pair), st.text(max_size=12)),
    max_size=4))
def test_settings(arguments):
    """Values of the right kinds, or faults; with these the increments and the schedule can be worked out."""
    try:
        s, faults = settings.read(vars(imagenet_main), imagenet_main.RECIPES, arguments)
    except Fault:
        return
    assert all(isinstance(line, str) and '\n' not in line.strip('\n') or '=' in line for line in faults.values())
    if not faults and s.NUM_CLASSES:
        assert sum(settings.increment_sizes(s, s.NUM_CLASSES)) == s.NUM_CLASSES
        assert json.dumps(settings.fixed(s)) and settings.changes(s, settings.fixed(s), 'state') == {}
        rate = settings.learning_rate(s, 1000, 7)
        assert 0 <= rate < float('inf') and settings.num_steps(s, types.SimpleNamespace(train=1000)) >= 1


@hypothesis.given(st.lists(st.one_of(
    st.binary(max_size=12),
    st.sampled_from([b'a/0.png 0', b'a/1.png 1', b'a/2.png  1 ', b'\xef\xbb\xbfa/0.png 0', b'a/0.png 2', b'a/\xff.png 1',
                     b'a/0.png', b'\x00 1', b'/ 0', b'. 1', b'../a/1.png 0'])), max_size=8))
@pytest.mark.parametrize('name', ['train.txt', 'val.txt'])
def test_list_lines(name, tmp_path_factory, lines):
    folder = tmp_path_factory.mktemp('lists')
    (folder / 'a').mkdir()
    for number in range(3):
        (folder / 'a' / ('%d.png' % number)).write_bytes(b'')
    for other in ('train.txt', 'val.txt'):
        (folder / other).write_bytes(b'\n'.join(lines) if other == name else b'a/1.png 0\na/2.png 1\n')
    train, test, wrong, missing = lists.read(str(folder), 2)
    assert all(isinstance(line, str) for line in wrong + missing)
    if not wrong + missing:
        for images in (train, test):
            assert set(images.classes) == {0, 1} and all(os.path.exists(path) for path in images.paths)


@hypothesis.given(st.binary(max_size=40), STATES, st.booleans())
def test_states(tmp_path_factory, content, value, signed):
    """Random bytes, and JSON of any kind that has the right checksum."""
    folder = tmp_path_factory.mktemp('model')
    (folder / 'increment-0').mkdir()
    text = json.dumps(value).encode() if signed else content
    digest = checkpoint._digest(text).encode() if signed else b'0'
    (folder / 'increment-0' / 'state.json').write_bytes(text + b'\n' + digest + b'\n')
    with pytest.raises(Fault):
        checkpoint.load(str(folder))


@pytest.fixture(name='decoded', scope='module')
def decoded_():
    """A function from an image's path to what evaluation and training make of it."""
    s = types.SimpleNamespace(IMAGE_SIZE=8, RESIZE_SIDE_MIN=8, RESIZE_SIDE_MAX=12, PADDING=0, RANDOM_FLIP=True, STANDARDIZE=False)
    with tf.Graph().as_default():
        path, draw = tf.placeholder(tf.string, []), tf.constant([11, 0.3, 0.8, 0.2], tf.float64)
        both = (batches.centred(lambda window: batches.of_file(path, window), s),
                batches.augmented(lambda window: batches.of_file(path, window), draw, s))
        with batches.host_session() as session:
            yield lambda name: session.run(both, {path: name})


def images(folder):
    import PIL.Image
    noise = PIL.Image.fromarray(np.random.RandomState(0).randint(0, 256, (13, 19, 3)).astype(np.uint8))
    for name in ('a.jpg', 'b.png', 'c.gif', 'd.bmp'):
        noise.save(str(folder / name))
        yield (folder / name).read_bytes()


@hypothesis.given(st.integers(0, 3), st.lists(st.tuples(st.integers(0, 1500), st.integers(0, 255)), max_size=3),
                  st.integers(0, 3000), st.booleans())
def test_image_bytes(tmp_path_factory, decoded, kind, changes, length, cut):
    """Bytes changed and the end cut off: what DECODE_ALL passes, evaluation and training can read."""
    folder = tmp_path_factory.mktemp('image')
    content = bytearray(list(images(folder))[kind])
    for place, value in changes:
        content[place % len(content)] = value
    path = os.fsencode(str(folder / 'x'))
    with open(path, 'wb') as file:
        file.write(content[:length] if cut else content)
    if not checks.unreadable([path], True):
        for pixels in decoded(path):
            assert pixels.shape == (8, 8, 3) and np.isfinite(pixels).all()
