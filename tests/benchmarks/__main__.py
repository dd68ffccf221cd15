"""Times what the tests do not assert, and prints ratios of processor time, of interleaved runs.

    python tests/benchmarks IMAGES

IMAGES is a folder of JPEG files, best as large as ImageNet's. It takes some minutes, in which nothing else should run. GPUs
are not used: what they do is not processor time.
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

import bic_layer
import exemplar
from data import batches
from data.devices import ONE, precision, set_up

BATCH = 32
STEPS = 3  # of one call
IMAGENET = ['--DATASET=imagenet100', '--BATCH_SIZE=%d' % BATCH, '--EPOCHS=1']


def settings(*overrides):
    (s, _), = main.settings.read(vars(main), main.RECIPES, list(overrides))
    return s


def compare(what, rounds, one, other):
    """Runs two functions in turn, after a first round that does not count, and prints the ratio of their processor times.

    Wall time is less steady: on a shared machine a short run sometimes gets only one of two processors.
    """
    ratios = []
    for _ in range(rounds + 1):
        times = [time.process_time()]
        for function in (one, other):
            function()
            times.append(time.process_time())
        ratios.append((times[1] - times[0]) / (times[2] - times[1]))
    print('| %s | %.2f | %.2f .. %.2f |' % (what, np.median(ratios[1:]), min(ratios[1:]), max(ratios[1:])), flush=True)


def trainer(s, paths=None):
    """Returns a function that trains some steps with an old network: on images, or on one batch in memory."""
    plan = [exemplar.Increment(k, 10 * k, 10 * k + 10, k, 1, 1, 10 ** 6, 1, 1) for k in (0, 1)]
    with ONE.graph():
        original = batches.training_batches
        if paths is None:
            pixels = np.random.RandomState(0).normal(0, 60, (s.BATCH_SIZE, s.IMAGE_SIZE, s.IMAGE_SIZE, 3)).astype(np.float32)
            batch = tf.constant(pixels), tf.range(s.BATCH_SIZE) % 20
            batches.training_batches = lambda *_: tf.data.Dataset.from_tensors(batch).repeat()
        model = main.build(s, plan, plan[1]._replace(train=len(paths) if paths is not None else 1), [bic_layer.IDENTITY])
        batches.training_batches = original
        session = ONE.session(s)
        session.run(model.initializer, main.resnet_model.first_weights(model.networks, None, s.SEED))
    feed = {}
    if paths is not None:
        data = types.SimpleNamespace(paths=paths, labels=np.arange(len(paths)) % 20)
        feed = batches.feed(model, data, np.arange(len(paths)))

    def train():
        session.run(model.train_batches.initializer, feed)
        for _ in range(STEPS):
            session.run(model.losses, {model.rate: 0.01, model.count: s.BATCH_SIZE})
    return train


def reader(load, paths, draws):
    """Returns a function that reads all images in batches."""
    graph = tf.Graph()
    with graph.as_default():
        dataset = tf.data.Dataset.from_tensor_slices((tf.constant(list(paths)), tf.constant(draws)))
        iterator = tf.data.make_initializable_iterator(
            dataset.map(load, tf.data.experimental.AUTOTUNE).batch(BATCH).prefetch(tf.data.experimental.AUTOTUNE))
        batch = iterator.get_next()
        session = tf.Session(graph=graph)

    def read():
        session.run(iterator.initializer)
        for _ in range(0, len(paths), BATCH):
            session.run(batch.op)
    return read


def reading_and_training(paths):
    s, random, many = settings(*IMAGENET), np.random.RandomState(0), np.tile(paths, -(-640 // len(paths)))
    draws = np.column_stack([random.randint(256, 513, len(many)), random.random_sample((len(many), 3))])
    whole = reader(lambda path, draw: plain(path, draw, s), many, draws)
    part = reader(lambda path, draw: batches.augmented(lambda window: batches.of_file(path, window), draw, s), many, draws)
    compare('Input: all of the image decoded and resized / only what the crop needs', 7, whole, part)
    compare('ResNet-18 at 224 px, training step: with reading its images / from one batch in memory', 5,
            trainer(s, np.resize(paths, STEPS * BATCH)), trainer(s))  # no more than that, or prefetching would read it


def mixed_precision():
    for what, overrides in (('ResNet-18 at 224 px', IMAGENET), ('ResNet-32 of `cifar100`', ['--DATASET=cifar100']),
                            ('ResNet-18 of `digits`', ['--DATASET=digits'])):
        made = [settings(*overrides, '--MIXED_PRECISION=%s' % mixed) for mixed in (False, True)]
        compare('%s, training step: float32 / %s' % (what, precision(made[1])), 5, *map(trainer, made))


if __name__ == '__main__':
    set_up(settings(*IMAGENET))
    if len(sys.argv) != 2 or not os.path.isdir(sys.argv[1]):
        sys.exit(__doc__)
    found = sorted(glob.glob(os.path.join(glob.escape(sys.argv[1]), '*.[jJ][pP]*[gG]')))
    if not found:
        sys.exit('%s: no JPEG file is there' % sys.argv[1])
    files = np.array(list(map(os.fsencode, found)), object)
    print('| Ratio of processor time, TensorFlow %s | median | range |\n|---|---:|---:|' % tf.__version__)
    reading_and_training(files)
    mixed_precision()
