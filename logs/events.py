"""Events for TensorBoard, `tensorboard --logdir logs`: what the log's lines say as curves, and pictures."""
import contextlib
import numbers
import os
import platform
import time

import numpy as np
import tensorflow.compat.v1 as tf

from data import Fault, batches, checks, png_folder

_GRID = 8      # a page of images has at most so many rows and columns
_CELLS = 500   # a confusion matrix has at most so many; with more classes, neighbours in the class order share one


class Events:
    """Writes one event file.

    Args:
        folder: str, made if need be. steps_before, seen: lists of int, training steps before each increment, classes after it.

    Raises:
        Fault: an event cannot be written.
    """

    def __init__(self, folder, steps_before, seen):
        self.folder, self._steps_before, self._seen = folder, steps_before, seen
        with self._explained():
            os.makedirs(folder, exist_ok=True)
            # tf.summary.FileWriter writes in a thread of its own, which a full disk ends without a word. The format is this.
            name = 'events.out.tfevents.%d.%s' % (time.time(), platform.node())
            self._file = tf.io.TFRecordWriter(os.path.join(folder, name))
        self._write(tf.Event(file_version='brain.Event:2'))

    def line(self, tag, values):
        """The curves of a log line: losses, rate and speed over steps; the correction and the results over classes seen."""
        if tag not in ('train', 'bias', 'result'):
            return
        k = values['increment']
        step = self._steps_before[k] + values['step'] if tag == 'train' else self._seen[k]
        self._add(step, [tf.Summary.Value(tag='%s/%s' % (tag, key), simple_value=value) for key, value in values.items()
                         if isinstance(value, numbers.Real) and np.isfinite(value)
                         and key not in ('increment', 'epoch', 'step', 'hours_left')])

    def pictures(self, s, data, now, train, labels, scores, exemplars):
        """An increment's images as training saw them first, its exemplars, and the confusion before and after the correction.

        Args:
            now: exemplar.Increment. train: int array, the images trained on. labels, scores: from `results.score` of the test.
            exemplars: list of int arrays, by label in order of choice.
        """
        pictures = {'training_images': _training_page(s, data, now, train), 'exemplars': _exemplar_page(s, data, exemplars)}
        for name in ('off', 'on'):
            pictures['confusion_%s' % name] = _confusion(labels, scores[name].predicted, now.num_seen)
        with png_folder.encoder() as encode:
            images = {name: tf.Summary.Image(height=pixels.shape[0], width=pixels.shape[1], colorspace=pixels.shape[2],
                                             encoded_image_string=encode(pixels)) for name, pixels in pictures.items()}
        self._add(now.num_seen, [tf.Summary.Value(tag=name, image=image) for name, image in images.items()])

    def close(self):
        with self._explained():
            self._file.close()

    def _add(self, step, values):
        self._write(tf.Event(step=step, summary=tf.Summary(value=values)))

    def _write(self, event):
        event.wall_time = time.time()
        with self._explained():
            self._file.write(event.SerializeToString())
            self._file.flush()

    @contextlib.contextmanager
    def _explained(self):
        try:
            yield
        except (OSError, tf.errors.OpError) as error:
            raise Fault('%s: cannot be written (%s); the same command goes on from the last checkpoint, with a new log'
                        % (self.folder, error))


def _training_page(s, data, now, train):
    """The first images of an increment as training sees them; uint8 array [height, width, 3]. train: int array, its images."""
    order, draws = next(batches.epochs(len(train), now.increment, s))
    return _page(s, data, [train[order[row:row + _GRID]] for row in range(0, _GRID ** 2, _GRID)], batches.augmented, draws)


def _exemplar_page(s, data, exemplars):
    """The first exemplars of the newest classes, a class in each row, in order of choice; uint8 array [height, width, 3]."""
    draws = np.zeros([_GRID ** 2, 4])  # not used
    return _page(s, data, [images[:_GRID] for images in exemplars[-_GRID:]], lambda image, _, s: batches.centred(image, s), draws)


def _page(s, data, rows, load, draws):
    page = np.full([len(rows), s.IMAGE_SIZE, _GRID, s.IMAGE_SIZE, 3], 255, np.uint8)
    with tf.Graph().as_default(), batches.host_session() as session, checks.explained(data.paths[np.concatenate(rows)]):
        path, draw = tf.placeholder(tf.string, []), tf.placeholder(tf.float64, [4])
        of_path = load(lambda window: batches.of_file(path, window), draw, s)
        visible = session.make_callable(tf.saturate_cast(batches.denormalised(of_path, s), tf.uint8), [path, draw])
        draws = iter(draws)
        for row, images in enumerate(rows):
            for column, image in enumerate(images):
                page[row, :, column] = visible(data.paths[image], next(draws))
    return page.reshape(len(rows) * s.IMAGE_SIZE, -1, 3)


def _confusion(labels, predicted, num_seen):
    """Rows the true classes, columns the predicted ones, black where all images of a class are; labels, predicted: int [images].

    Returns:
        uint8 array [height, width, 1].
    """
    cells = min(num_seen, _CELLS)
    counts = np.zeros([cells, cells])
    np.add.at(counts, (labels * cells // num_seen, predicted * cells // num_seen), 1)
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    zoom = -(-_CELLS // cells)
    return np.uint8(255 * (1 - share)).repeat(zoom, 0).repeat(zoom, 1)[:, :, None]
