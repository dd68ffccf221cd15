"""Events for TensorBoard, `tensorboard --logdir logs`: the log's lines as curves, and pictures."""
import contextlib
import io
import numbers
import os
import platform
import time

import numpy as np
import tensorflow.compat.v1 as tf

from data import Fault, batches, images, png_folder, reason

try:
    from logs import draw
except ImportError:  # matplotlib is optional
    draw = None

_GRID = 8  # rows and columns of a page of images, at most
_NO_CURVES = ('increment', 'epoch', 'step', 'hours_left')  # keys of log lines


class Events:
    """Writes an event file. A resumed run writes another one to the same folder; TensorBoard shows them as one run.

    Args:
        steps_before, seen: lists of int, training steps before each increment, classes seen after it.
        increment, step: int, where this process begins. TensorBoard drops later points of earlier processes.
    """

    def __init__(self, folder, steps_before, seen, increment, step):
        self.folder, self._steps_before, self._seen = folder, steps_before, seen
        # tf.summary.FileWriter writes in a thread: Ctrl-C at the wrong moment makes its close() wait for ever.
        name = 'events.out.tfevents.%010d.%s' % (time.time(), platform.node())
        self._path, self._file = os.path.join(folder, name), None
        self._write(file_version='brain.Event:2')
        self._write(step=steps_before[increment] + step + 1, session_log=tf.SessionLog(status=tf.SessionLog.START))

    def line(self, tag, values):
        """Adds a log line to the curves: losses, rate and speed over steps; the correction and the results over classes seen."""
        if tag not in ('train', 'bias', 'result'):
            return
        k = values['increment']
        step = self._steps_before[k] + values['step'] if tag == 'train' else self._seen[k]
        self._write(step=step, summary=tf.Summary(value=[
            tf.Summary.Value(tag='%s/%s' % (tag, key), simple_value=value) for key, value in values.items()
            if isinstance(value, numbers.Real) and np.isfinite(value) and key not in _NO_CURVES]))

    def pictures(self, s, data, now, scores, exemplars):
        """Writes images of the newest classes as training sees them, their exemplars, and the confusion matrices.

        Args: scores: results.Scores of the test. exemplars: list of int arrays, by label in order of choice.
        """
        draws = next(batches.epochs(_GRID ** 2, now.increment, s))[1]
        newest = [of_class[:_GRID] for of_class in data.train[now.num_old:now.num_seen][-_GRID:]]
        pages = {'training_images': _page(s, data, newest, lambda image, draw: batches.augmented(image, draw, s), draws),
                 'exemplars': _page(s, data, [of_class[:_GRID] for of_class in exemplars[-_GRID:]],
                                    lambda image, _: batches.centred(image, s), draws)}
        with png_folder.encoder() as encode:
            encoded = {name: encode(pixels) for name, pixels in pages.items()}
        if draw:
            content = io.BytesIO()
            with draw.styled():
                draw.confusion_by_class(scores.labels, [scores.off.predicted, scores.on.predicted], data.names[:now.num_seen],
                                        self._seen[:now.increment], now.num_seen).savefig(content, format='png')
            encoded['confusion'] = content.getvalue()
        self._write(step=now.num_seen, summary=tf.Summary(value=[
            tf.Summary.Value(tag=name, image=tf.Summary.Image(encoded_image_string=png)) for name, png in encoded.items()]))

    def close(self):
        with contextlib.suppress(tf.errors.OpError):  # of a full disk, already reported
            self._file.close()

    def _write(self, **event):
        try:
            self._file = self._file or tf.io.TFRecordWriter(self._path)
            self._file.write(tf.Event(wall_time=time.time(), **event).SerializeToString())
            self._file.flush()
        except tf.errors.OpError as error:
            raise Fault('%s: cannot be written (%s); the same command resumes from the last checkpoint'
                        % (self.folder, reason(error)))


def _page(s, data, rows, load, draws):
    """A page of images, uint8 [height, width, 3]. load: from an image, as of `batches.augmented`, and a draw to a tensor."""
    page = np.full([len(rows), s.IMAGE_SIZE, _GRID, s.IMAGE_SIZE, 3], 255, np.uint8)
    with tf.Graph().as_default(), batches.host_session() as session, images.explained(data.paths[np.concatenate(rows)]):
        path, draw = tf.placeholder(tf.string, []), tf.placeholder(tf.float64, [4])
        of_path = load(lambda window: batches.of_file(path, window), draw)
        visible = session.make_callable(tf.saturate_cast(batches.denormalised(of_path, s), tf.uint8), [path, draw])
        draws = iter(draws)
        for row, of_row in enumerate(rows):
            for column, image in enumerate(of_row):
                page[row, :, column] = visible(data.paths[image], next(draws))
    return page.reshape(len(rows) * s.IMAGE_SIZE, -1, 3)
