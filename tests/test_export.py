"""Compares the exported model with evaluation and NumPy, and tests what `--PREDICT` prints.

Sizes are odd: batches of 7, 5 old and 3 new classes of 10, images of several formats.
"""
import os
import resource
import shutil
import subprocess
import sys
import types

import common
import numpy as np
import PIL.Image
import pytest
import tensorflow.compat.v1 as tf

import bic_layer
import imagenet_main
import resnet_model
from data import Fault, batches, devices
from logs import checkpoint, export

NAMES = ['Apfel', 'zwei Wörter', '数字', '"quoted"', 'b\\n', 'naïve café', 'Ünïcödé',
         'not UTF-8 \udcff']
S = types.SimpleNamespace(
    RESNET_DEPTH=20, IMAGE_SIZE=23, RESIZE_SIDE_MIN=27, STANDARDIZE=False, BATCH_NORM_DECAY=0.9,
    BATCH_SIZE=7, SEED=1, DETERMINISTIC=False)
# Without the project, by TensorFlow 2's way to load a model, which TensorFlow 1.15 has as well.
ALONE = """
import sys
import numpy as np
import tensorflow as tf
tf.compat.v1.enable_v2_behavior()
folder, *files = sys.argv[1:]
predict = tf.compat.v2.saved_model.load(folder).signatures['serving_default']
contents = [open(file, 'rb').read() for file in files]
arrays = []
for batch in (contents, contents[:1]):
    result = predict(image_bytes=tf.constant(batch))
    arrays += [result['classes'].numpy().astype('S'), result['probabilities'].numpy()]
np.savez('results.npz', *arrays)
"""


def network(seed):
    """A network for ten classes, by its variables' names. No variable has its initial value."""
    random = np.random.RandomState(seed)
    with tf.Graph().as_default():
        resnet_model.network('resnet', tf.zeros([1, 23, 23, 3]), S, 10, False)
        variables = resnet_model.variables('resnet')
        shapes = {name: variable.shape.as_list() for name, variable in variables.items()}
    arrays = {}
    for name, shape in shapes.items():
        arrays[name] = random.uniform(0.5, 1.5, shape).astype(np.float32)
    return dict(arrays, **resnet_model.initial_weights(shapes, seed))


def correction_of(arrays):
    """The last layer of 5 old and 3 new classes, corrected."""
    kernel, bias = resnet_model.last_layer(arrays, 8)
    return bic_layer.corrected(kernel, bias, 5, 0.55, -0.31)


@pytest.fixture(name='files', scope='module')
def files_(tmp_path_factory):
    """Seven images in RGB, grey and CMYK, of four formats.

    Some are wide, some high, and one is smaller than the crop.
    """
    random = np.random.RandomState(0)
    folder = tmp_path_factory.mktemp('files')
    paths = []
    for number, (kind, mode, size) in enumerate([
            ('jpg', 'RGB', (61, 40)), ('JPEG', 'L', (33, 50)), ('jpg', 'CMYK', (27, 31)),
            ('png', 'RGB', (30, 41)), ('png', 'RGBA', (12, 15)), ('gif', 'L', (40, 29)),
            ('bmp', 'RGB', (55, 28))]):
        paths.append(str(folder / ('%d %s.%s' % (number, mode, kind))))
        pixels = random.randint(0, 256, (9, 7, 3)).astype(np.uint8)
        PIL.Image.fromarray(pixels).resize(size).convert(mode).save(paths[-1])
    return paths


@pytest.fixture(name='exported', scope='module')
def exported_(tmp_path_factory):
    """The folder of version 1."""
    folder = export.path_of(str(tmp_path_factory.mktemp('exported')), 1)
    export.write(folder, S, NAMES, network(1), correction_of(network(1)))
    return folder


@pytest.fixture(name='evaluated', scope='module')
def evaluated_(files):
    """The images as evaluation has them, their logits of all ten classes, and their features."""
    arrays = network(1)
    data = types.SimpleNamespace(
        paths=np.array([os.fsencode(file) for file in files], object), labels=np.zeros(7, int))
    with tf.Graph().as_default(), tf.Session() as session:
        stream = batches.evaluation_stream(S, devices.ONE)
        features, logits = resnet_model.network('resnet', stream.images, S, 10, False)
        variables = resnet_model.variables('resnet')
        feed = {variables[name].initial_value: array for name, array in arrays.items()}
        session.run(tf.global_variables_initializer(), feed)
        stream.start(session, data, np.arange(7))
        return session.run([stream.images, logits, features])


def loaded(session, folder, name='serving_default'):
    """Loads a model into the session's graph.

    Returns the input tensor and the output tensors of a signature.
    """
    model = tf.saved_model.load(session, ['serve'], folder)
    signature = model.signature_def[name]
    tensor = session.graph.get_tensor_by_name
    outputs = {key: tensor(signature.outputs[key].name) for key in signature.outputs}
    return tensor(signature.inputs['image_bytes'].name), outputs


def contents(files):
    return [open(file, 'rb').read() for file in files]


def test_without_the_project(exported, files, evaluated, tmp_path):
    """Batches of seven and of one give the softmax of the corrected logits, sorted, and names."""
    subprocess.check_call([sys.executable, '-c', ALONE, exported] + files, cwd=str(tmp_path),
                          stderr=subprocess.DEVNULL)
    logits = evaluated[1][:, :8].astype(float)
    logits[:, 5:] = 0.55 * logits[:, 5:] - 0.31
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    order = np.argsort(-expected, axis=1)
    assert len(set(map(tuple, order))) > 1 and (order[:, 0] != order[:, 0].min()).any()
    shown = [name.encode('utf-8', 'backslashreplace').decode() for name in NAMES]
    with np.load(str(tmp_path / 'results.npz')) as archive:
        arrays = [archive['arr_%d' % i] for i in range(len(archive.files))]
    for count, classes, probabilities in zip((7, 1), arrays[::2], arrays[1::2]):
        assert len(classes) == count and probabilities.dtype == np.float32
        for row, labels in zip(classes, order):
            assert [name.decode() for name in row] == [shown[label] for label in labels]
        sorted_values = np.take_along_axis(expected, order, 1)[:count]
        np.testing.assert_allclose(probabilities, sorted_values, rtol=1e-4, atol=1e-7)


def test_what_is_inside(exported, files, evaluated):
    """Images are preprocessed as in evaluation, and the features are the network's.

    Of ten columns, the last layer has the eight seen, with the correction in the new classes.
    """
    arrays = network(1)
    scale = np.array([1] * 5 + [0.55] * 3)
    shift = np.array([0] * 5 + [-0.31] * 3)
    with tf.Graph().as_default() as graph, tf.Session() as session:
        image_bytes, _ = loaded(session, exported)
        kernel = session.run('resnet/dense/kernel/Read/ReadVariableOp:0')
        bias = session.run('resnet/dense/bias/Read/ReadVariableOp:0')
        first = [op for op in graph.get_operations() if op.type == 'Conv2D'][0]
        pixels = session.run(first.inputs[0], {image_bytes: contents(files)})
        np.testing.assert_array_equal(pixels, evaluated[0])
        assert session.run(first.inputs[0], {image_bytes: []}).shape == (0, 23, 23, 3)
        image_bytes, outputs = loaded(session, exported, 'features')
        features = session.run(outputs['features'], {image_bytes: contents(files)})
        np.testing.assert_allclose(features, evaluated[2], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(kernel, arrays['dense/kernel'][:, :8] * scale, rtol=1e-6)
    np.testing.assert_allclose(bias, arrays['dense/bias'][:8] * scale + shift, rtol=1e-6)
    with open(os.path.join(exported, 'saved_model.pb'), 'rb') as file:
        written = file.read()  # nothing but inference, and no path of this machine
    for unwanted in (os.path.dirname(common.SCRIPT), os.path.dirname(exported), '.py', 'Iterator',
                     'Momentum', 'Grad'):
        assert unwanted.encode() not in written, unwanted


def test_of_equal_classes_the_lower_label_comes_first(files, tmp_path, capfd):
    """Writing prints nothing, leaves the caller's graph alone, and removes what was left behind."""
    kernel = np.zeros((64, 8), np.float32)
    correction = bic_layer.Correction(kernel, np.ones(8, np.float32))
    for left_over in ('0', '0.partial'):
        (tmp_path / 'export' / left_over / 'variables').mkdir(parents=True)
    capfd.readouterr()
    tf.get_logger().setLevel('ERROR')  # as the driver does
    folder = export.path_of(str(tmp_path), 0)
    with tf.Graph().as_default() as graph:
        export.write(folder, S, NAMES, network(1), correction)
        assert tf.get_default_graph() is graph and not graph.get_operations()
    assert capfd.readouterr() == ('', '')
    assert os.listdir(str(tmp_path / 'export')) == ['0']
    with tf.Graph().as_default(), tf.Session() as session:
        image_bytes, outputs = loaded(session, folder)
        answer = session.run(outputs, {image_bytes: contents(files)})
    names = [name.encode('utf-8', 'backslashreplace') for name in NAMES]
    assert (answer['classes'] == names).all()
    np.testing.assert_allclose(answer['probabilities'], np.full((7, 8), 1 / 8), rtol=1e-6)


def test_a_model_that_cannot_be_written(tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    # Bytes; the variables are more than a million.
    resource.setrlimit(resource.RLIMIT_FSIZE, (200000, limits[1]))
    folder = export.path_of(str(tmp_path), 1)
    try:
        with pytest.raises(Fault, match='export/1: cannot be written .*File too large.; free space '
                                        'or fix it'):
            export.write(folder, S, NAMES, network(1), correction_of(network(1)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not os.path.exists(folder)


# ---- A run's models, and what they say of images -------------------------------------------------
@pytest.fixture(name='run', scope='module')
def run_(handful, tmp_path_factory):
    """The folder of a run."""
    folder = tmp_path_factory.mktemp('run')
    common.run_main(handful, folder)
    return folder


def test_a_model_that_could_not_be_written_comes_at_the_next_start(handful, tmp_path):
    """The increment's checkpoint exists by then, so nothing is trained again."""
    place = tmp_path / 'model' / 'digits' / 'export'
    place.parent.mkdir(parents=True)
    place.write_text('')
    with pytest.raises(Fault, match='export/0: cannot be written'):
        common.run_main(handful, tmp_path)
    place.unlink()
    _, text = common.run_main(handful, tmp_path)
    assert sorted(os.listdir(str(place))) == ['0', '1']
    trained = [event['increment'] for event in common.events(text, 'train')]
    assert trained == ['0'] * 7 + ['1'] * 9
    shutil.rmtree(str(place))
    with checkpoint.lock(str(place.parent), str(place.parent / 'increment-1')):
        # And perhaps that very model.
        with pytest.raises(Fault, match='another run is writing there'):
            common.run_main(handful, tmp_path)
    assert not place.exists()
    common.run_main(handful, tmp_path)
    assert os.listdir(str(place)) == ['1']


def command(run, path, *more):
    return ['--PREDICT=%s' % path, '--MODEL_DIR=%s/model' % run, '--DATA_DIR=/none', *more]


def predict(*arguments):
    imagenet_main.main(command(*arguments))


def test_predict(run, files, tmp_path, capsys):
    """A folder with good and bad images, from the command line.

    No data are needed, and each bad image is named.
    """
    folder = tmp_path / 'some images'
    (folder / 'below' / '.git').mkdir(parents=True)
    for place in ('zwei Wörter.jpg', 'below/数字', 'below/.hidden.jpg', 'below/.git/config.jpg'):
        shutil.copy(files[0], str(folder / place))
    whole = contents(files[:1])[0]
    (folder / 'cut.jpg').write_bytes(whole[:len(whole) // 2])
    # This one looks whole and is not.
    (folder / 'middle.jpg').write_bytes(whole[:len(whole) // 2] + b'\xff\xd9')
    done = subprocess.run([sys.executable, common.SCRIPT] + command(run, folder),
                          capture_output=True, env=dict(os.environ, PYTHONIOENCODING='utf-8'))
    assert done.returncode == 1
    lines = done.stdout.decode().split('\n')
    assert lines[0] == '[model]   dir=%s/model/digits/increment-1' % run
    assert [line for line in lines if line.startswith('[image]')] == [
        '[image]   path=%s' % (folder / name) for name in ('below/数字', 'zwei Wörter.jpg')]
    pairs = [line.split(' name=') for line in lines[2:7]]
    probabilities = [float(line.replace('[class]   probability=', '')) for line, _ in pairs]
    assert probabilities == sorted(probabilities, reverse=True) and 0 < sum(probabilities) <= 1
    names = {name for _, name in pairs}
    assert len(names) == 5 and names <= set('0123456789')
    assert lines[2:7] == lines[8:13] and len(lines) == 14
    assert done.stderr.decode().split('\n')[-3:] == [
        '%s/cut.jpg: is cut off' % folder, '%s/middle.jpg: cannot be decoded' % folder, '']
    capsys.readouterr()
    predict(run, files[3])  # one file, and nothing wrong
    assert capsys.readouterr().out.count('\n') == 7
    # Links that lead back do not multiply images, and what is no file is skipped.
    loop = tmp_path / 'loop'
    loop.mkdir()
    shutil.copy(files[3], str(loop / 'three.png'))
    os.symlink(str(loop), str(loop / 'a'))
    predict(run, loop)
    assert capsys.readouterr().out.count('[image]') == 1


def test_predict_finds_nothing(run, tmp_path):
    with pytest.raises(Fault, match='PREDICT=%s/none: no such file' % tmp_path):
        predict(run, tmp_path / 'none')
    (tmp_path / '.hidden').write_text('')
    with pytest.raises(Fault, match='PREDICT=%s: no file is there that is not hidden' % tmp_path):
        predict(run, tmp_path)
    with pytest.raises(Fault, match='/digits: no checkpoint of an increment is there; train a '
                                    'model first, or set MODEL_DIR and'):
        predict(tmp_path, tmp_path)
    with pytest.raises(Fault, match='SEED=-1: must be'):
        predict(run, tmp_path, '--SEED=-1')


def test_predict_from_another_checkpoint(run, files, tmp_path, capsys):
    """The previous one, if the newest is damaged; never one within an increment.

    A foreign checkpoint is refused.
    """
    model = tmp_path / 'model' / 'digits'
    shutil.copytree(str(run / 'model'), str(tmp_path / 'model'))
    shutil.rmtree(str(model / 'export'))
    (model / 'increment-1').rename(model / 'increment-1-step-3')
    predict(tmp_path, files[0])
    assert '[model]   dir=%s/increment-0\n' % model in capsys.readouterr().out
    (model / 'increment-1-step-3').rename(model / 'increment-1')
    os.truncate(str(model / 'increment-1' / 'network.npz'), 100)
    predict(tmp_path, files[0])
    out = capsys.readouterr().out
    assert ('[left_out] %s/increment-1: network.npz is damaged\n[model]   dir=%s/increment-0\n'
            % (model, model)) in out
    arrays, state = checkpoint.read(str(model / 'increment-0'))
    arrays['conv1/kernel'] = arrays['conv1/kernel'][1:]
    checkpoint.write(str(model), arrays, state)
    with pytest.raises(Fault, match='increment-0: network.npz does not fit: conv1/kernel has not '
                                    'the shape'):
        predict(tmp_path, files[0])
