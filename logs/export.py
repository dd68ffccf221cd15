"""The network to use: a SavedModel, which needs no file of this project; and `--PREDICT`."""
import os
import shutil
import types

import tensorflow.compat.v1 as tf

import resnet_model
from data import Fault, Faults, batches, images, numerics, reason, shown, sources
from logs import checkpoint, log

_PARALLEL = 32  # images of a batch decoded at a time, on as many threads as there are processors
_SHOWN = 5      # classes that `predict` names


def path_of(folder, increment):
    """The folder of an increment's SavedModel, str.

    Args:
        folder: str, MODEL_DIR/DATASET.
        increment: int.
    """
    return os.path.join(folder, 'export', str(increment))


def write(folder, s, names, network, correction):
    """Writes the SavedModel export/<k>/ of the last increment. An older one is replaced.

    TensorFlow Serving loads it as a version from `export/`. Both signatures have the input
    image_bytes, string [batch], contents of JPEG, PNG, GIF or BMP files. The model includes the
    preprocessing of evaluation, in float32, and ends in the corrected last layer.
        serving_default: classes, string [batch, num_seen], UTF-8, and probabilities, float32
            [batch, num_seen], the most probable class first; among equal ones the lower label.
        features: features, float32 [batch, 512, 2048 or 64], the input of the last layer.

    Args:
        folder: str, path_of an increment.
        s: settings.
        names: list of str, the classes seen, by label.
        network: dict from name to array, as trained.
        correction: bic_layer.Correction.
    """
    partial = folder + '.partial'  # not a number: TensorFlow Serving ignores it
    try:
        shutil.rmtree(partial, ignore_errors=True)
        os.makedirs(os.path.dirname(folder), exist_ok=True)
        with tf.Graph().as_default(), numerics.host_session() as session:
            image_bytes, outputs = _build(session, s, names, network, correction)
            inputs = {'image_bytes': image_bytes}
            features = {'features': outputs.pop('features')}
            signatures = {
                'serving_default': tf.saved_model.predict_signature_def(inputs, outputs),
                'features': tf.saved_model.predict_signature_def(inputs, features),
            }
            builder = tf.saved_model.Builder(partial)
            builder.add_meta_graph_and_variables(
                session, ['serve'], signatures, strip_default_attrs=True)
            builder.save()
        checkpoint.put(partial, folder)
    except (OSError, tf.errors.OpError) as error:
        raise Fault('%s: cannot be written (%s); free space or fix it, and the same command '
                    'resumes from the last checkpoint' % (folder, reason(error)))


def _build(session, s, names, network, correction):
    """Builds the model to use in a session's graph.

    Returns:
        image_bytes: placeholder, string [batch].
        outputs: dict from name to tensor, see `write`.

    Raises:
        ValueError: an array does not fit its variable.
    """
    tf.set_random_seed(s.SEED)  # DETERMINISTIC requires one; the drawn values are never used
    num_seen = len(names)
    image_bytes = tf.placeholder(tf.string, [None], 'image_bytes')

    def load(contents):
        return batches.centred(lambda window: batches.of_contents(contents, window), s)

    with tf.device('/cpu:0'):
        pixels = tf.map_fn(load, image_bytes, tf.float32, _PARALLEL)
    features, logits = resnet_model.network('resnet', pixels, s, num_seen, training=False)
    arrays = resnet_model.with_last_layer(network, correction.kernel, correction.bias)
    variables = resnet_model.variables('resnet')
    feed = numerics.initial_values(variables, arrays)
    session.run([variable.initializer for variable in variables.values()], feed)

    logits, labels = tf.nn.top_k(logits, num_seen)  # of equal ones the lower label first
    # Folders may have names that are no Unicode: terminals and JSON show them with backslashes.
    encoded = tf.constant([name.encode('utf-8', 'backslashreplace') for name in names])
    outputs = dict(
        classes=tf.gather(encoded, labels),
        probabilities=tf.nn.softmax(logits),
        features=features)
    return image_bytes, outputs


def predict(folder, path):
    """Prints each image's path and its most probable classes by the newest model, on the CPU.

    The network is built from a checkpoint, which is only data: nothing in the folder is executed.

    Args:
        folder: str, MODEL_DIR/DATASET.
        path: str, an image, or a folder: all files in it at any depth, except hidden ones.

    Raises:
        Fault: there is no model or no image; or some images cannot be decoded, after all others
            were shown.
    """
    saved = checkpoint.newest(folder, within=False)
    if not saved:
        raise Fault('%s: no checkpoint of an increment is there; train a model first, or set '
                    'MODEL_DIR and DATASET to those of a run' % folder)
    faults = Faults()
    paths = _image_files(path, faults)
    broken = images.broken(paths)
    write = log.Log(None)
    for line in saved.damaged:
        write.text('[left_out] %s' % line)
    network, correction = checkpoint.split(saved.arrays)
    s = types.SimpleNamespace(**saved.state.settings)
    with tf.Graph().as_default(), numerics.host_session() as session:
        try:
            image_bytes, outputs = _build(
                session, s, saved.state.names_seen, network, correction)
        except ValueError as error:
            raise Fault('%s: network.npz does not fit: %s; restore it, or delete the checkpoint'
                        % (saved.path, error))
        write.text('[model]   dir=%s' % saved.path)
        for image in paths:
            try:
                if image in broken:
                    raise ValueError(broken[image])
                with open(image, 'rb') as file:
                    answer = session.run(outputs, {image_bytes: [file.read()]})
            except tf.errors.OpError:
                faults.add('%s: cannot be decoded' % shown(image))
            except (OSError, ValueError) as error:
                faults.add('%s: %s' % (shown(image), error))
            else:
                write.text('[image]   path=%s' % shown(image))
                names = answer['classes'][0][:_SHOWN]
                for name, probability in zip(names, answer['probabilities'][0]):
                    write.text('[class]   probability=%.4f name=%s' % (probability, shown(name)))
    faults.raise_any()


def _image_files(path, faults):
    """The image files at a path, list of bytes. Adds the folders that cannot be read to faults."""
    if not os.path.isdir(path):
        irregular = sources.irregular(path)
        if irregular:
            raise Fault('PREDICT=%s: %s' % (path, irregular))
        return [os.fsencode(path)]
    errors = []
    files = []
    seen = set()
    for folder, subfolders, names in os.walk(path, onerror=errors.append, followlinks=True):
        # Links may lead back to a folder: each is read once.
        if os.path.realpath(folder) in seen:
            subfolders[:] = []
            continue
        seen.add(os.path.realpath(folder))
        subfolders[:] = [name for name in subfolders if not name.startswith('.')]
        for name in names:
            if not name.startswith('.'):
                files.append(os.fsencode(os.path.join(folder, name)))
    for error in errors:
        faults.add('%s: cannot be read (%s)' % (shown(error.filename), error.strerror))
    if not files:
        faults.raise_any()
        raise Fault('PREDICT=%s: no file is there that is not hidden' % path)
    return sorted(files)
