"""Times what the tests do not assert, and prints ratios of processor time, of interleaved runs.

    python tests/benchmarks IMAGES

IMAGES is a folder of JPEG files, best as large as ImageNet's. It takes some minutes, in which
nothing else should run. GPUs are not used: what they do is not processor time.
"""
import glob
import os
import sys
import time
import types

HERE = os.path.dirname(os.path.abspath(__file__))
os.environ['CUDA_VISIBLE_DEVICES'] = ''
sys.path[:0] = [os.path.dirname(os.path.dirname(HERE)), os.path.dirname(HERE)]

import imagenet_main as main  # first: it sets TensorFlow's environment
import numpy as np
import tensorflow.compat.v1 as tf
from test_batches import plain

import exemplar
from data import Faults, batches, numerics
from data.devices import ONE

BATCH = 32
STEPS = 3  # of one call
IMAGENET = ['--DATASET=imagenet100', '--BATCH_SIZE=%d' % BATCH, '--EPOCHS=1']
AUTOTUNE = tf.data.experimental.AUTOTUNE


def settings(*overrides):
    s, = main.settings.read(vars(main), main.RECIPES, list(overrides), Faults())
    return s


def compare(what, rounds, first, second):
    """Runs two functions in turn and prints the ratio of their processor times.

    A first round does not count. Wall time is less steady: on a shared machine a short run
    sometimes gets only one of two processors.
    """
    ratios = []
    for _ in range(rounds + 1):
        times = [time.process_time()]
        for function in (first, second):
            function()
            times.append(time.process_time())
        ratios.append((times[1] - times[0]) / (times[2] - times[1]))
    ratios = ratios[1:]
    print('| %s | %.2f | %.2f .. %.2f |' % (what, np.median(ratios), min(ratios), max(ratios)),
          flush=True)


def trainer(s, paths=None):
    """Makes a function that trains some steps with an old network.

    Args:
        s: settings.
        paths: object array of bytes, the images to train on. None: one batch in memory.
    """
    num_train = 10 ** 6 if paths is None else len(paths)
    now = exemplar.Increment(
        index=1, num_old=10, num_seen=20, exemplars_per_class=1, kept_per_class=1,
        val_per_class=1, num_train=num_train, num_val=1, num_test=1)
    with ONE.graph():
        original = batches.training_stream
        if paths is None:
            batches.training_stream = lambda *_: one_batch(s)
        net = main.build(s, now, [10, 20])
        batches.training_stream = original
        session = ONE.session(s)
        session.run(net.initializer)

    def train():
        if paths is not None:
            labels = np.arange(len(paths)) % 20
            data = types.SimpleNamespace(paths=paths, labels=labels)
            net.training.start(session, data, np.arange(len(paths)))
        for _ in range(STEPS):
            session.run(net.train_step, {net.rate: 0.01, net.count: s.BATCH_SIZE})
    return train


def one_batch(s):
    """In place of a batches.Stream: the same batch for ever."""
    shape = (s.BATCH_SIZE, s.IMAGE_SIZE, s.IMAGE_SIZE, 3)
    pixels = np.random.RandomState(0).normal(0, 60, shape).astype(np.float32)
    return types.SimpleNamespace(
        images=tf.constant(pixels), labels=tf.range(s.BATCH_SIZE) % 20, waited=tf.zeros([]))


def reader(load, paths, draws):
    """Makes a function that reads all images in batches."""
    graph = tf.Graph()
    with graph.as_default():
        elements = tf.constant(list(paths)), tf.constant(draws)
        dataset = tf.data.Dataset.from_tensor_slices(elements)
        dataset = dataset.map(load, AUTOTUNE).batch(BATCH).prefetch(AUTOTUNE)
        iterator = tf.data.make_initializable_iterator(dataset)
        batch = iterator.get_next()
        session = tf.Session(graph=graph)

    def read():
        session.run(iterator.initializer)
        for _ in range(0, len(paths), BATCH):
            session.run(batch.op)
    return read


def reading_and_training(paths):
    s = settings(*IMAGENET)
    many = np.tile(paths, -(-640 // len(paths)))
    random = np.random.RandomState(0)
    sides = random.randint(256, 513, len(many))
    draws = np.column_stack([sides, random.random_sample((len(many), 3))])

    def load_part(path, draw):
        return batches.augmented(lambda window: batches.of_file(path, window), draw, s)

    whole = reader(lambda path, draw: plain(path, draw, s), many, draws)
    part = reader(load_part, many, draws)
    compare('Input: all of the image decoded and resized / only what the crop needs', 7,
            whole, part)
    few = np.resize(paths, STEPS * BATCH)  # no more, or prefetching would read them, too
    compare('ResNet-18 at 224 px, training step: with reading its images / from one batch in '
            'memory', 5, trainer(s, few), trainer(s))


def mixed_precision():
    for what, overrides in (
            ('ResNet-18 at 224 px', IMAGENET),
            ('ResNet-32 of `cifar100`', ['--DATASET=cifar100']),
            ('ResNet-18 of `digits`', ['--DATASET=digits'])):
        exact = settings(*overrides, '--MIXED_PRECISION=False')
        mixed = settings(*overrides, '--MIXED_PRECISION=True')
        compare('%s, training step: float32 / %s' % (what, numerics.precision(mixed)), 5,
                trainer(exact), trainer(mixed))


if __name__ == '__main__':
    numerics.set_up(settings(*IMAGENET))
    if len(sys.argv) != 2 or not os.path.isdir(sys.argv[1]):
        sys.exit(__doc__)
    names = sorted(glob.glob(os.path.join(glob.escape(sys.argv[1]), '*.[jJ][pP]*[gG]')))
    if not names:
        sys.exit('%s: no JPEG file is there' % sys.argv[1])
    files = np.array(list(map(os.fsencode, names)), object)
    print('| Ratio of processor time, TensorFlow %s | median | range |\n|---|---:|---:|'
          % tf.__version__)
    reading_and_training(files)
    mixed_precision()
