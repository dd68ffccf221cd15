"""Compares the exported model with the evaluation path and NumPy, and tests what `--PREDICT` prints for good and bad images.
Sizes are odd: batches of 7, 5 old and 3 new classes of 10, images of several formats."""
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
import exemplar
import imagenet_main
import resnet_model
from data import Fault, batches
from logs import checkpoint, export

NAMES = ['Apfel', 'zwei Wörter', '数字', '"quoted"', 'b\\n', 'naïve café', 'Ünïcödé', '한국어', 'unseen', 'not UTF-8 \udcff']
NOW = exemplar.Increment(1, 5, 8, 0, 0, 0, 0, 0, 0)
FIT = bic_layer.Fit(0.55, -0.31, 0, 0, False)
S = types.SimpleNamespace(RESNET_DEPTH=20, IMAGE_SIZE=23, RESIZE_SIDE_MIN=27, STANDARDIZE=False, BATCH_NORM_DECAY=0.9,
                          BATCH_SIZE=7, SEED=1)
# Without the project, by TensorFlow 2's way to load a model, which TensorFlow 1.15 has as well.
ALONE = """
import sys
import numpy as np
import tensorflow as tf
tf.compat.v1.enable_v2_behavior()
folder, *files = sys.argv[1:]
predict = tf.compat.v2.saved_model.load(folder).signatures['serving_default']
contents = [open(file, 'rb').read() for file in files]
results = [predict(image_bytes=tf.constant(batch)) for batch in (contents, contents[:1])]
np.savez('results.npz', *[array for result in results for array in (
    result['classes'].numpy().astype('S'), result['probabilities'].numpy())])
"""


def network(seed):
    """A network for ten classes, by the names in network.npz. No variable has its initial value."""
    random = np.random.RandomState(seed)
    with tf.Graph().as_default():
        with tf.variable_scope('resnet'):
            resnet_model.resnet(tf.zeros([1, 23, 23, 3]), 20, 10, False, 0.9)
        shapes = {name: variable.shape.as_list() for name, variable in resnet_model.variables('resnet').items()}
    weights = {name: random.uniform(0.5, 1.5, shape).astype(np.float32) for name, shape in shapes.items()}
    return dict(weights, **resnet_model.initial_weights(shapes, seed))


@pytest.fixture(name='files', scope='module')
def files_(tmp_path_factory):
    """Seven images in RGB, grey and CMYK, of four formats; some wide, some high, and one smaller than the crop."""
    random, folder, paths = np.random.RandomState(0), tmp_path_factory.mktemp('files'), []
    for number, (kind, mode, size) in enumerate([
            ('jpg', 'RGB', (61, 40)), ('JPEG', 'L', (33, 50)), ('jpg', 'CMYK', (27, 31)), ('png', 'RGB', (30, 41)),
            ('png', 'RGBA', (12, 15)), ('gif', 'L', (40, 29)), ('bmp', 'RGB', (55, 28))]):
        paths.append(str(folder / ('%d %s.%s' % (number, mode, kind))))
        pixels = random.randint(0, 256, (9, 7, 3)).astype(np.uint8)
        PIL.Image.fromarray(pixels).resize(size).convert(mode).save(paths[-1])
    return paths


@pytest.fixture(name='exported', scope='module')
def exported_(tmp_path_factory):
    """The folder of version 1."""
    folder = tmp_path_factory.mktemp('exported')
    export.write(str(folder), S, NOW, NAMES, network(1), FIT)
    return str(folder / 'export' / '1')


@pytest.fixture(name='evaluated', scope='module')
def evaluated_(files):
    """Returns the images as evaluation has them, the logits for all ten classes before the correction, and the features."""
    weights = network(1)
    with tf.Graph().as_default(), tf.Session() as session:
        images, _ = tf.data.make_one_shot_iterator(batches.evaluation_batches(files, [0] * 7, S)).get_next()
        with tf.variable_scope('resnet'):
            features, logits = resnet_model.resnet(images, 20, 10, False, 0.9)
        variables = resnet_model.variables('resnet')
        session.run(tf.global_variables_initializer(), {variables[name].initial_value: weights[name] for name in weights})
        return session.run([images, logits, features])


def loaded(session, folder, name='serving_default'):
    """Loads a model into the session's graph. Returns the input tensor and the output tensors of a signature."""
    signature = tf.saved_model.load(session, ['serve'], folder).signature_def[name]
    tensor = session.graph.get_tensor_by_name
    return tensor(signature.inputs['image_bytes'].name), {key: tensor(signature.outputs[key].name) for key in signature.outputs}


def contents(files):
    return [open(file, 'rb').read() for file in files]


def test_without_the_project(exported, files, evaluated, tmp_path):
    """Batches of seven and of one give the softmax of the corrected logits of the classes seen, sorted, and the names."""
    subprocess.check_call([sys.executable, '-c', ALONE, exported] + files, cwd=str(tmp_path), stderr=subprocess.DEVNULL)
    logits = evaluated[1][:, :8].astype(float)
    logits[:, 5:] = 0.55 * logits[:, 5:] - 0.31
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    order = np.argsort(-expected, axis=1)
    assert len(set(map(tuple, order))) > 1 and (order[:, 0] != order[:, 0].min()).any()
    with np.load(str(tmp_path / 'results.npz')) as archive:
        arrays = [archive['arr_%d' % i] for i in range(len(archive.files))]
    for count, classes, probabilities in zip((7, 1), arrays[::2], arrays[1::2]):
        assert len(classes) == count and probabilities.dtype == np.float32
        assert [[name.decode() for name in row] for row in classes] == [[NAMES[label] for label in row] for row in order[:count]]
        np.testing.assert_allclose(probabilities, np.take_along_axis(expected, order, 1)[:count], rtol=1e-4, atol=1e-7)


def test_what_is_inside(exported, files, evaluated):
    """Images are preprocessed as in evaluation, and the features are the network's. Of ten columns, the last layer has the eight
    seen, with the correction in those of the new classes."""
    weights, scale = network(1), np.array([1] * 5 + [0.55] * 3)
    with tf.Graph().as_default() as graph, tf.Session() as session:
        given, _ = loaded(session, exported)
        kernel, bias = (session.run('resnet/dense/%s/Read/ReadVariableOp:0' % name) for name in ('kernel', 'bias'))
        first = [op for op in graph.get_operations() if op.type == 'Conv2D'][0]
        np.testing.assert_array_equal(session.run(first.inputs[0], {given: contents(files)}), evaluated[0])
        assert session.run(first.inputs[0], {given: []}).shape == (0, 23, 23, 3)
        given, outputs = loaded(session, exported, 'features')
        np.testing.assert_allclose(session.run(outputs, {given: contents(files)})['features'], evaluated[2], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(kernel, weights['dense/kernel'][:, :8] * scale, rtol=1e-6)
    np.testing.assert_allclose(bias, weights['dense/bias'][:8] * scale + ([0] * 5 + [-0.31] * 3), rtol=1e-6)
    with open(os.path.join(exported, 'saved_model.pb'), 'rb') as file:
        written = file.read()  # nothing but inference, and no path of this machine
    for unwanted in (os.path.dirname(common.SCRIPT), os.path.dirname(exported), '.py', 'Iterator', 'Momentum', 'Grad'):
        assert unwanted.encode() not in written, unwanted


def test_of_equal_classes_the_lower_label_comes_first(files, tmp_path, capfd):
    """Writing prints nothing, leaves the caller's graph alone, and removes what a killed process left behind."""
    weights = dict(network(1), **{'dense/kernel': np.zeros((64, 10), np.float32), 'dense/bias': np.ones(10, np.float32)})
    first = NOW._replace(increment=0, num_old=0)
    for left_over in ('0', '0.partial'):
        (tmp_path / 'export' / left_over / 'variables').mkdir(parents=True)
    capfd.readouterr()
    tf.get_logger().setLevel('ERROR')  # as the driver does
    with tf.Graph().as_default() as graph:
        export.write(str(tmp_path), S, first, NAMES[2:], weights, bic_layer.IDENTITY)
        assert tf.get_default_graph() is graph and not graph.get_operations()
    assert capfd.readouterr() == ('', '')
    assert os.listdir(str(tmp_path / 'export')) == ['0']
    with tf.Graph().as_default(), tf.Session() as session:
        given, outputs = loaded(session, str(tmp_path / 'export' / '0'))
        found = session.run(outputs, {given: contents(files)})
    assert (found['classes'] == [name.encode('utf-8', 'backslashreplace') for name in NAMES[2:]]).all()
    np.testing.assert_allclose(found['probabilities'], np.full((7, 8), 1 / 8), rtol=1e-6)


def test_a_model_that_cannot_be_written(tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200000, limits[1]))  # bytes; the variables are more than a million
    try:
        with pytest.raises(Fault, match='export/1: cannot be written .*File too large.; free space or fix it'):
            export.write(str(tmp_path), S, NOW, NAMES, network(1), FIT)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not os.path.exists(str(tmp_path / 'export' / '1'))


# ---- A run's models, and what they say of images ---------------------------------------------------------------------------
@pytest.fixture(name='run', scope='module')
def run_(handful, tmp_path_factory):
    """The folder of a run."""
    folder = tmp_path_factory.mktemp('run')
    common.run_main(handful, folder)
    return folder


def test_a_model_that_could_not_be_written_comes_at_the_next_start(handful, tmp_path, monkeypatch):
    """The increment's checkpoint exists by then, so nothing is trained again."""
    place = tmp_path / 'model' / 'digits' / 'export'
    place.parent.mkdir(parents=True)
    place.write_text('')
    with pytest.raises(Fault, match='export/0: cannot be written'):
        common.run_main(handful, tmp_path)
    place.unlink()
    trained = common.recorded(monkeypatch, imagenet_main, 'train_classifier')
    common.run_main(handful, tmp_path)
    assert sorted(os.listdir(str(place))) == ['0', '1'] and [call['now'].increment for call in trained] == [1]
    shutil.rmtree(str(place))
    with checkpoint.lock(str(place.parent), str(place.parent / 'increment-1')):
        with pytest.raises(Fault, match='another run is writing there'):  # and perhaps that very model
            common.run_main(handful, tmp_path)
    assert not place.exists()
    common.run_main(handful, tmp_path)
    assert os.listdir(str(place)) == ['1']


def command(run, path, *more):
    return ['--PREDICT=%s' % path, '--MODEL_DIR=%s/model' % run, '--DATA_DIR=/none', *more]


def predict(*arguments):
    imagenet_main.main(command(*arguments))


def test_predict(run, files, tmp_path, capsys):
    """A folder with good and bad images, from the command line. No data are needed, and each bad image is named."""
    folder = tmp_path / 'some images'
    (folder / 'below' / '.git').mkdir(parents=True)
    for place in ('zwei Wörter.jpg', 'below/数字', 'below/.hidden.jpg', 'below/.git/config.jpg'):
        shutil.copy(files[0], str(folder / place))
    whole = contents(files[:1])[0]
    (folder / 'cut.jpg').write_bytes(whole[:len(whole) // 2])
    (folder / 'middle.jpg').write_bytes(whole[:len(whole) // 2] + b'\xff\xd9')  # looks whole and is not
    done = subprocess.run([sys.executable, common.SCRIPT] + command(run, folder),
                          capture_output=True, env=dict(os.environ, PYTHONIOENCODING='utf-8'))
    assert done.returncode == 1
    lines = done.stdout.decode().split('\n')
    assert lines[0] == '[model]   dir=%s/model/digits/increment-1' % run
    assert [line for line in lines if line.startswith('[image]')] == ['[image]   path=%s' % (folder / name)
                                                                      for name in ('below/数字', 'zwei Wörter.jpg')]
    of_image = [line.split(' name=') for line in lines[2:7]]
    probabilities = [float(line.replace('[class]   probability=', '')) for line, _ in of_image]
    assert probabilities == sorted(probabilities, reverse=True) and 0 < sum(probabilities) <= 1
    assert len({name for _, name in of_image}) == 5 and {name for _, name in of_image} <= set('0123456789')
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
    with pytest.raises(Fault, match='/digits: no checkpoint of an increment is there; train a model first, or set MODEL_DIR and'):
        predict(tmp_path, tmp_path)
    with pytest.raises(Fault, match='SEED=-1: must be'):
        predict(run, tmp_path, '--SEED=-1')


def test_predict_from_another_checkpoint(run, files, tmp_path, capsys):
    """The previous one, if the newest is damaged; never one within an increment. A foreign checkpoint is refused."""
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
    assert '[left_out] %s/increment-1: network.npz is damaged\n[model]   dir=%s/increment-0\n' % (model, model) in out
    arrays, state = checkpoint.read(str(model / 'increment-0'))
    checkpoint.write(str(model), dict(arrays, **{'conv1/kernel': arrays['conv1/kernel'][1:]}), state)
    with pytest.raises(Fault, match='increment-0: network.npz has no conv1/kernel of shape'):
        predict(tmp_path, files[0])
