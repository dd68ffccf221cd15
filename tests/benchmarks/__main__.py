"""What is timed, not asserted: ratios from interleaved runs, on the machine that it runs on.

    python tests/benchmarks IMAGES

IMAGES is a folder of JPEG files, best as large as ImageNet's. Takes some minutes; nothing else should run meanwhile.
"""
import glob
import os
import resource
import sys
import time
import types

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.dirname(os.path.dirname(HERE)), os.path.dirname(HERE)]

import imagenet_main as main  # first: it sets TensorFlow's environment
import numpy as np
import tensorflow.compat.v1 as tf
from test_batches import plain
from test_exemplar import literal_herding

import bic_layer
import exemplar
from data import batches, devices as machine

BATCH = 32
STEPS = 3  # at a time


def settings(**values):
    """Those of ImageNet-100 in batches of 32."""
    (s, _), = main.settings.read(vars(main), main.RECIPES, ['--DATASET=imagenet100', '--BATCH_SIZE=%d' % BATCH])
    return types.SimpleNamespace(**dict(vars(s), **values))


def interleaved(rounds, *functions):
    """Wall seconds and processor seconds of each function in turn, after a first round: float [rounds, functions, 2]."""
    taken = []
    for _ in range(rounds + 1):
        taken.append([])
        for function in functions:
            before, began = resource.getrusage(resource.RUSAGE_SELF), time.time()
            function()
            after = resource.getrusage(resource.RUSAGE_SELF)
            taken[-1].append((time.time() - began, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime))
    return np.array(taken[1:])


def report(what, ratios):
    print('| %s | %.2f | %.2f .. %.2f |' % (what, np.median(ratios), np.min(ratios), np.max(ratios)), flush=True)


def compare(what, rounds, one, other, clock=0):
    """Reports the ratio of two functions' seconds and returns them. clock: 0, the wall's; 1, the processor's."""
    taken = interleaved(rounds, one, other)
    report(what, taken[:, 0, clock] / taken[:, 1, clock])
    return taken


def increments(classes):
    """Two of so many classes each."""
    return [exemplar.Increment(0, 0, classes, 0, 1, 1, 10 ** 6, 1, 1),
            exemplar.Increment(1, classes, 2 * classes, 1, 1, 1, 10 ** 6, 1, 1)]


def trainer(s, paths=None, classes=10):
    """A function that trains some steps, teacher included; on images, or on one batch that is there already."""
    plan, devices = increments(classes), machine.Devices(s)
    with devices.graph():
        original = batches.training_batches
        if paths is None:
            pixels = np.random.RandomState(0).normal(0, 60, (BATCH, s.IMAGE_SIZE, s.IMAGE_SIZE, 3)).astype(np.float32)
            batch = tf.constant(pixels), tf.range(BATCH) % (2 * classes)
            batches.training_batches = lambda *_: tf.data.Dataset.from_tensors(batch).repeat()
        model = main.build(s, plan, plan[1]._replace(train=len(paths) if paths is not None else 1), [bic_layer.IDENTITY],
                           devices=devices)
        batches.training_batches = original
        session = devices.session(s)
        session.run(model.initializer, main.resnet_model.first_weights(model.networks, None, s.SEED))
    feed = {}
    if paths is not None:
        data = types.SimpleNamespace(paths=paths, labels=np.arange(len(paths)) % (2 * classes))
        feed = batches.feed(model, data, np.arange(len(paths)))

    def train():
        session.run(model.train_batches.initializer, feed)
        for _ in range(STEPS):
            session.run(model.losses, {model.rate: 0.01, model.count: BATCH})
        session.run(model.train_batches.initializer, feed)  # stops the reading ahead, which would burden what is measured next
    return train


def reader(load, paths, draws):
    """A function that reads all images, some of them at a time."""
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
    s, random, many = settings(), np.random.RandomState(0), np.tile(paths, -(-640 // len(paths)))
    draws = np.column_stack([random.randint(256, 513, len(many)), random.random_sample((len(many), 3))])
    whole = reader(lambda path, draw: plain(path, draw, s), many, draws)
    part = reader(lambda path, draw: batches.augmented(lambda window: batches.of_file(path, window), draw, s), many, draws)
    reading = compare('Input: images per processor second, ours / all of the image decoded and resized', 7,
                      whole, part, clock=1)
    training = compare('ResNet-18 at 224 px, training step: with reading its images / from one batch that is there', 5,
                       trainer(s, np.tile(paths, 20)), trainer(s))
    seconds_per_batch = np.median(reading[:, 1, 1]) / len(many) * BATCH
    report('.. processor time of reading a batch / of training on it', seconds_per_batch * STEPS / training[:, 1, 1])


def precision():
    for size in (224, 32):
        made = [settings(MIXED_PRECISION=mixed, IMAGE_SIZE=size) for mixed in (False, True)]
        compare('ResNet-18 at %d px, training step: float32 / %s' % (size, machine.precision(made[1])), 5, *map(trainer, made))


def herding():
    features, picks = np.random.RandomState(0).gamma(1.0, size=(1280, 512)).astype(np.float32), []
    compare('Herding, 180 of 1,280 images x 512 features: literal loop / ours', 1,
            lambda: picks.append(list(literal_herding(features, 180))),
            lambda: picks.append(list(exemplar.herding(features, 180))), clock=1)
    assert all(pick == picks[0] for pick in picks)


def classes():
    few, many = (trainer(settings(IMAGE_SIZE=64), classes=classes) for classes in (5, 5000))
    compare('ResNet-18 at 64 px, training step: 10,000 classes / 10', 5, many, few)


def devices():
    """On the same processors: what it costs to share a batch, and to sum the gradients in memory."""
    compare('ResNet-18 at 64 px, training step: shared by two parts of the CPU / by one', 9,
            *[trainer(settings(IMAGE_SIZE=64, REPLICAS=replicas)) for replicas in (2, 1)])


if __name__ == '__main__':
    machine.set_up(settings())
    if len(sys.argv) != 2 or not os.path.isdir(sys.argv[1]):
        sys.exit(__doc__)
    files = np.array([os.fsencode(path) for path in sorted(glob.glob(os.path.join(sys.argv[1], '*.[jJ][pP]*[gG]')))], object)
    print('| Ratio, TensorFlow %s | median | range |\n|---|---:|---:|' % tf.__version__)
    reading_and_training(files)
    precision()
    herding()
    classes()
    devices()
