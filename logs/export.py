"""The trained network to use: a SavedModel, which needs no file of this project; and `--PREDICT`, from a checkpoint."""
import os
import shutil
import types

import numpy as np
import tensorflow.compat.v1 as tf

import bic_layer
import exemplar
import resnet_model
from data import Fault, batches, images, reason, sources
from logs import checkpoint, log

_PARALLEL = 32  # images of a batch that are decoded at a time, on as many threads as there are processors
_SHOWN = 5      # classes that `predict` names


def path_of(folder, increment):
    """The folder of an increment's SavedModel, str. folder: str, MODEL_DIR/DATASET. increment: int."""
    return os.path.join(folder, 'export', str(increment))


def write(folder, s, now, names, weights, fit):
    """Writes the SavedModel export/<k>/, a version that TensorFlow Serving loads from `export/`; an older one is replaced.

    Both signatures have the input image_bytes, string [batch], contents of JPEG, PNG, GIF or BMP files. The model includes the
    preprocessing of evaluation, in float32, and the correction.
        serving_default: classes, string [batch, num_seen], UTF-8, and probabilities, float32 [batch, num_seen], the most probable
            class first; among equal ones the lower label.
        features: features, float32 [batch, 512, 2048 or 64], the input of herding and of the last layer.

    Args:
        folder: str, MODEL_DIR/DATASET. now: the increment that is done. names: list of str, the classes by label.
        weights: dict from a variable's name, as in `resnet_model.variables`, to float32 array. fit: bic_layer.Fit.
    """
    path = path_of(folder, now.increment)
    partial = path + '.partial'  # not a number: TensorFlow Serving ignores it
    try:
        shutil.rmtree(partial, ignore_errors=True)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with tf.Graph().as_default(), batches.host_session() as session:
            given, outputs = _network(session, s, now, names, weights, fit)
            inputs, features = {'image_bytes': given}, {'features': outputs.pop('features')}
            builder = tf.saved_model.Builder(partial)
            builder.add_meta_graph_and_variables(session, ['serve'], {
                'serving_default': tf.saved_model.predict_signature_def(inputs, outputs),
                'features': tf.saved_model.predict_signature_def(inputs, features)}, strip_default_attrs=True)
            builder.save()
        checkpoint.put(partial, path)
    except (OSError, tf.errors.OpError) as error:
        raise Fault('%s: cannot be written (%s); free space or fix it, and the same command resumes from the last checkpoint'
                    % (path, reason(error)))


def _network(session, s, now, names, weights, fit):
    """Builds a network for seen classes, with the correction in its last layer; returns image_bytes and outputs, see `write`."""
    tf.set_random_seed(s.SEED)  # DETERMINISTIC requires one; the drawn values are never used
    kernel, bias = weights['dense/kernel'][:, :now.num_seen], weights['dense/bias'][None, :now.num_seen]
    kernel = bic_layer.corrected_logits(kernel, now.num_old, fit.beta, 0.0)
    bias = bic_layer.corrected_logits(bias, now.num_old, fit.beta, fit.gamma)[0]
    weights = dict(weights, **{'dense/kernel': kernel.astype(np.float32), 'dense/bias': bias.astype(np.float32)})
    given = tf.placeholder(tf.string, [None], 'image_bytes')

    def image(content):
        return batches.centred(lambda window: batches.of_contents(content, window), s)

    with tf.device('/cpu:0'):
        pixels = tf.map_fn(image, given, tf.float32, _PARALLEL)  # [batch, IMAGE_SIZE, IMAGE_SIZE, 3]
    with tf.variable_scope('resnet'):
        features, logits = resnet_model.resnet(pixels, s.RESNET_DEPTH, now.num_seen, False, s.BATCH_NORM_DECAY)
    variables = resnet_model.variables('resnet')
    session.run([variable.initializer for variable in variables.values()], resnet_model.feeds(variables, weights))
    logits, labels = tf.nn.top_k(logits, now.num_seen)  # of equal ones the lower label first
    # Folders may have names that are no Unicode: terminals and JSON show them with backslashes.
    encoded = tf.constant([name.encode('utf-8', 'backslashreplace') for name in names[:now.num_seen]])
    return given, dict(classes=tf.gather(encoded, labels), probabilities=tf.nn.softmax(logits), features=features)


def predict(folder, path):
    """Prints each image's path and, one per line, its most probable classes by the newest model. Runs on the CPU.

    The network is built from a checkpoint, which is only data: nothing in the folder is executed.

    Args: folder: str, MODEL_DIR/DATASET. path: str, an image, or a folder: all files in it at any depth, except hidden ones.

    Raises: Fault: there is no model or no image; or some images cannot be decoded, after all others were shown.
    """
    arrays, state, where, damaged = checkpoint.newest(folder, within=False)
    if not where:
        raise Fault('%s: no checkpoint of an increment is there; train a model first, or set MODEL_DIR and DATASET to those of a '
                    'run' % folder)
    num_seen, num_old = len(state['exemplars']), sum(state['sizes'][:len(state['results']) - 1])
    now = exemplar.Increment(len(state['results']) - 1, num_old, num_seen, *[0] * 6)
    weights, last_layer = checkpoint.network(arrays)
    names, (paths, faults) = [of_class['name'] for of_class in state['classes']], _image_files(path)
    show, broken = log.Log(None), images.broken(paths)
    for line in damaged:
        show.text('[left_out] %s' % line)
    with tf.Graph().as_default(), batches.host_session() as session:
        try:
            given, outputs = _network(session, types.SimpleNamespace(**state['settings']), now, names,
                                      dict(weights, **last_layer), bic_layer.Fit(*state['fits'][-1]))
        except ValueError as error:
            raise Fault('%s: %s; restore it, or delete the checkpoint' % (where, error))
        show.text('[model]   dir=%s' % where)
        for image in paths:
            try:
                if image in broken:
                    raise ValueError(broken[image])
                with open(image, 'rb') as file:
                    found = session.run(outputs, {given: [file.read()]})
            except (OSError, ValueError, tf.errors.OpError) as error:
                why = 'cannot be decoded' if isinstance(error, tf.errors.OpError) else error
                faults.append('%s: %s' % (sources.shown(image), why))
                continue
            show.text('[image]   path=%s' % sources.shown(image))
            for name, probability in zip(found['classes'][0][:_SHOWN], found['probabilities'][0]):
                show.text('[class]   probability=%.4f name=%s' % (probability, sources.shown(name)))
    if faults:
        raise Fault('\n'.join(faults))


def _image_files(path):
    """The image files, list of bytes, and why others cannot be read, list of str."""
    if not os.path.isdir(path):
        irregular = sources.irregular(path)
        if irregular:
            raise Fault('PREDICT=%s: %s' % (path, irregular))
        return [os.fsencode(path)], []
    found, errors, seen = [], [], set()
    for place, folders, files in os.walk(path, onerror=errors.append, followlinks=True):
        # Links may lead back to a folder: each is read once.
        if os.path.realpath(place) in seen:
            folders[:], files = [], []
        seen.add(os.path.realpath(place))
        folders[:] = [name for name in folders if not name.startswith('.')]
        found += [os.fsencode(os.path.join(place, name)) for name in files if not name.startswith('.')]
    faults = ['%s: cannot be read (%s)' % (sources.shown(error.filename), error.strerror) for error in errors]
    if not found:
        raise Fault('\n'.join(faults or ['PREDICT=%s: no file is there that is not hidden' % path]))
    return sorted(found), faults
