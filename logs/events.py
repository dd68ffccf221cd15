"""Events for TensorBoard, `tensorboard --logdir logs`: the log's lines as curves, and pictures."""
import contextlib
import io
import numbers
import os
import platform
import time

import numpy as np
import tensorflow.compat.v1 as tf

from data import Fault, batches, images, numerics, png_folder, reason

try:
    from logs import draw, plot
except Exception:  # matplotlib is optional, whatever it raises
    draw = None

_GRID = 8  # rows and columns of a page of images, at most
_NO_CURVES = ('increment', 'epoch', 'step', 'hours_left')  # keys of log lines


class Events:
    """Writes an event file.

    A resumed run writes another one to the same folder; TensorBoard shows them as one run.

    Args:
        folder: str.
        steps_before: list of int, training steps before each increment.
        ends: list of int, classes seen after each increment.
        increment: int, where this process begins.
        step: int, likewise.
    """

    def __init__(self, folder, steps_before, ends, increment, step):
        self.folder = folder
        self._steps_before = steps_before
        self._ends = ends
        # tf.summary.FileWriter writes in a thread: Ctrl-C at the wrong moment makes its close()
        # wait for ever.
        name = 'events.out.tfevents.%010d.%s' % (time.time(), platform.node())
        self._path = os.path.join(folder, name)
        self._file = None
        self._write(file_version='brain.Event:2')
        first_step = steps_before[increment] + step + 1
        if first_step > max(ends[:increment], default=0):
            # TensorBoard then drops the points of earlier processes from this step on. Results,
            # whose steps are classes seen, must stay.
            start = tf.SessionLog(status=tf.SessionLog.START)
            self._write(step=first_step, session_log=start)

    def line(self, tag, values):
        """Adds a log line to the curves.

        Losses, rate and speed are drawn over training steps, the correction and the results over
        classes seen.

        Args:
            tag: str, of the line.
            values: dict, its keys and values.
        """
        if tag not in ('train', 'bias', 'result'):
            return
        k = values['increment']
        step = self._steps_before[k] + values['step'] if tag == 'train' else self._ends[k]
        points = []
        for key, value in values.items():
            is_point = isinstance(value, numbers.Real) and np.isfinite(value)
            if is_point and key not in _NO_CURVES:
                points.append(tf.Summary.Value(tag='%s/%s' % (tag, key), simple_value=value))
        self._write(step=step, summary=tf.Summary(value=points))

    def pictures(self, s, data, now, scores, memory):
        """Writes images of the newest classes, their exemplars, and the confusion matrices.

        Args:
            s: settings.
            data: dataset.Dataset.
            now: exemplar.Increment.
            scores: metrics.Scores of the test.
            memory: list by label of int arrays, in order of choice.
        """
        _, draws = next(batches.epochs(_GRID ** 2, now.index, s))
        newest = data.train[now.num_old:now.num_seen][-_GRID:]
        pages = {
            'training_images': _page(s, data, newest, draws),  # as training sees them
            'exemplars': _page(s, data, memory[-_GRID:]),
        }
        pictures = {}
        with png_folder.encoder() as encode:
            for name, pixels in pages.items():
                pictures[name] = encode(pixels)
        if draw:
            with contextlib.suppress(Exception):  # whatever matplotlib raises costs the picture
                pictures['confusion'] = self._confusion(data, now, scores)
        values = []
        for name, png in pictures.items():
            image = tf.Summary.Image(encoded_image_string=png)
            values.append(tf.Summary.Value(tag=name, image=image))
        self._write(step=now.num_seen, summary=tf.Summary(value=values))

    def _confusion(self, data, now, scores):
        """The picture of the confusion matrices, bytes of a PNG file."""
        content = io.BytesIO()
        predicted = [scores.before.predicted, scores.after.predicted]
        with plot.styled():
            figure = draw.confusion_by_class(
                scores.labels, predicted, data.names[:now.num_seen], self._ends[:now.index],
                now.num_seen)
            figure.savefig(content, format='png')
        return content.getvalue()

    def close(self):
        with contextlib.suppress(tf.errors.OpError):  # of a full disk, already reported
            self._file.close()

    def _write(self, **event):
        try:
            self._file = self._file or tf.io.TFRecordWriter(self._path)
            self._file.write(tf.Event(wall_time=time.time(), **event).SerializeToString())
            self._file.flush()
        except tf.errors.OpError as error:
            raise Fault('%s: cannot be written (%s); the same command resumes from the last '
                        'checkpoint' % (self.folder, reason(error)))


def _page(s, data, rows, draws=None):
    """A page of images.

    Args:
        s: settings.
        data: dataset.Dataset.
        rows: list of int arrays, the images of each row.
        draws: float64 array [images, 4], see batches.epochs: the images are augmented. None: they
            are as in evaluation.

    Returns:
        uint8 array [height, width, 3].
    """
    rows = [row[:_GRID] for row in rows]
    page = np.full([len(rows), s.IMAGE_SIZE, _GRID, s.IMAGE_SIZE, 3], 255, np.uint8)
    paths = data.paths[np.concatenate(rows)]
    with tf.Graph().as_default(), numerics.host_session() as session, images.explained(paths):
        path = tf.placeholder(tf.string, [])
        draw = tf.placeholder(tf.float64, [4])

        def load(window):
            return batches.of_file(path, window)

        if draws is None:
            draws = np.zeros([_GRID ** 2, 4])
            normalised = batches.centred(load, s)
        else:
            normalised = batches.augmented(load, draw, s)
        visible = tf.saturate_cast(batches.denormalised(normalised, s), tf.uint8)
        make_visible = session.make_callable(visible, [path, draw])
        number = 0
        for row, numbers_of_row in enumerate(rows):
            for column, image in enumerate(numbers_of_row):
                page[row, :, column] = make_visible(data.paths[image], draws[number])
                number += 1
    return page.reshape(len(rows) * s.IMAGE_SIZE, -1, 3)
