"""The trained network as a SavedModel: encoded images in, class names and probabilities out; no file of this project is needed
to use it."""
import os
import re
import shutil

import numpy as np
import tensorflow.compat.v1 as tf

import bic_layer
import resnet_model
from data import Fault, batches, images
from logs import checkpoint, log

_PARALLEL = 32  # images of a batch that are decoded at a time, on as many threads as there are processors
_SHOWN = 5      # classes that `predict` names


def write(folder, s, now, names, weights, fit):
    """Writes export/<k>/, a version that TensorFlow Serving takes from `export/`; an older one of that number is replaced.

    Its signature `serving_default` has the input image_bytes, string [batch], contents of JPEG, PNG, GIF or BMP files; and the
    outputs classes, string [batch, num_seen], UTF-8, and probabilities, float32 [batch, num_seen], both by falling probability,
    of equal ones the lower label first. The preprocessing of evaluation is inside, in float32, and so is the correction.

    Args:
        folder: str, MODEL_DIR/DATASET. s: settings. now: exemplar.Increment, the one that is done.
        names: list of str, the classes by label.
        weights: dict from a variable's name, as in `resnet_model.variables`, to float32 array.
        fit: bic_layer.Fit, of this increment.

    Raises:
        Fault: it cannot be written.
    """
    path = os.path.join(folder, 'export', str(now.increment))
    partial, old = path + '.partial', path + '.old'  # no numbers: Serving and `predict` pass them by
    try:
        for left_over in (partial, old):
            shutil.rmtree(left_over, ignore_errors=True)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        _save(partial, s, names[:now.num_seen], _corrected(weights, now, fit))
        for place, _, files in os.walk(partial):
            for written in files + ['']:
                checkpoint.sync(os.path.join(place, written))
        if os.path.exists(path):
            os.rename(path, old)
        os.rename(partial, path)
        checkpoint.sync(os.path.dirname(path))
        shutil.rmtree(old, ignore_errors=True)
    except (OSError, tf.errors.OpError) as error:
        raise Fault('%s: cannot be written (%s); free space or mend it, and the same command goes on from the last checkpoint'
                    % (path, str(error).split('\n')[0]))


def _corrected(weights, now, fit):
    """The weights with a dense layer of the seen classes alone, whose logits are corrected: they are linear in it."""
    kernel, bias = weights['dense/kernel'][:, :now.num_seen], weights['dense/bias'][None, :now.num_seen]
    kernel = bic_layer.corrected_logits(kernel, now.num_old, fit.beta, 0.0)
    bias = bic_layer.corrected_logits(bias, now.num_old, fit.beta, fit.gamma)[0]
    return dict(weights, **{'dense/kernel': kernel.astype(np.float32), 'dense/bias': bias.astype(np.float32)})


def _save(path, s, names, weights):
    with tf.Graph().as_default(), batches.host_session() as session:
        tf.set_random_seed(s.SEED)  # DETERMINISTIC asks for one; what is drawn is never used
        contents = tf.placeholder(tf.string, [None], 'image_bytes')

        def image(content):
            return batches.centred(lambda window: batches.of_contents(content, window), s)

        with tf.device('/cpu:0'):
            images = tf.map_fn(image, contents, tf.float32, _PARALLEL)  # [batch, IMAGE_SIZE, IMAGE_SIZE, 3]
        with tf.variable_scope('resnet'):
            _, logits = resnet_model.resnet(images, s.RESNET_DEPTH, len(names), False, s.BATCH_NORM_DECAY)
        logits, labels = tf.nn.top_k(logits, len(names))  # of equal ones the lower label first
        # Folders may have names that are no Unicode: terminals and JSON show them with backslashes.
        names = tf.constant([name.encode('utf-8', 'backslashreplace') for name in names])
        variables = resnet_model.variables('resnet')
        session.run([variable.initializer for variable in variables.values()],
                    {variable.initial_value: weights[name] for name, variable in variables.items()})
        signature = tf.saved_model.predict_signature_def(
            {'image_bytes': contents}, {'classes': tf.gather(names, labels), 'probabilities': tf.nn.softmax(logits)})
        builder = tf.saved_model.Builder(path)
        builder.add_meta_graph_and_variables(session, ['serve'], {'serving_default': signature}, strip_default_attrs=True)
        builder.save()


def predict(folder, path):
    """Prints what the newest model says of images, on the CPU: for each image its path, and a line for each of the first classes.

    Args:
        folder: str, MODEL_DIR/DATASET. path: str, an image, or a folder: all files in it and below count, except hidden ones.

    Raises:
        Fault: there is no model, no image, or images that cannot be decoded, after all others were shown.
    """
    version = _newest(os.path.join(folder, 'export'))
    paths, faults = _image_files(path)
    show, broken = log.Log(None), images.broken(paths)
    with tf.Graph().as_default(), batches.host_session() as session:
        try:
            model = tf.saved_model.load(session, ['serve'], version)
            signature = model.signature_def['serving_default']
        except (OSError, tf.errors.OpError, KeyError, ValueError, RuntimeError) as error:
            raise Fault('%s: cannot be loaded (%s); take the TensorFlow that wrote it, or if it is damaged, delete it, and the '
                        'increment before is taken' % (version, str(error).split('\n')[0]))
        contents, outputs = signature.inputs['image_bytes'].name, {key: signature.outputs[key].name for key in signature.outputs}
        show.text('[model]   dir=%s' % version)
        for image in paths:
            try:
                if image in broken:
                    raise ValueError(broken[image])
                with open(image, 'rb') as file:
                    found = session.run(outputs, {contents: [file.read()]})
            except (OSError, ValueError, tf.errors.OpError) as error:
                reason = 'cannot be decoded' if isinstance(error, tf.errors.OpError) else error
                faults.append('%s: %s' % (os.fsdecode(image), reason))
                continue
            show.text('[image]   path=%s' % os.fsdecode(image))
            for name, probability in list(zip(found['classes'][0], found['probabilities'][0]))[:_SHOWN]:
                show.text('[class]   probability=%.4f name=%s' % (probability, name.decode()))
    if faults:
        raise Fault('\n'.join(faults))


def _newest(folder):
    try:
        versions = [int(name) for name in os.listdir(folder) if re.fullmatch('[0-9]+', name)]
    except (FileNotFoundError, NotADirectoryError):
        versions = []
    except OSError as error:
        raise Fault('%s: cannot be read (%s)' % (folder, error.strerror))
    if not versions:
        raise Fault('%s: no model is there; train one first, or set MODEL_DIR and DATASET to those of a run' % folder)
    return os.path.join(folder, str(max(versions)))


def _image_files(path):
    """The image files, list of bytes, and what cannot be read, list of str."""
    if os.path.isfile(path):
        return [os.fsencode(path)], []
    if not os.path.isdir(path):
        raise Fault('PREDICT=%s: no such file or folder' % path)
    found, errors, seen = [], [], set()
    for place, folders, files in os.walk(path, onerror=errors.append, followlinks=True):
        # Links may lead to a folder again: each is looked into once.
        if os.path.realpath(place) in seen:
            folders[:], files = [], []
        seen.add(os.path.realpath(place))
        folders[:] = [name for name in folders if not name.startswith('.')]
        found += [os.fsencode(os.path.join(place, name)) for name in files if not name.startswith('.')]
    faults = ['%s: cannot be read (%s)' % (error.filename, error.strerror) for error in errors]
    if not found:
        raise Fault('\n'.join(faults or ['PREDICT=%s: no file is there that is not hidden' % path]))
    return sorted(found), faults
