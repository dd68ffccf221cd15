"""Tests the driver: one increment's graph against NumPy, `main()` on a handful of images, and the demonstration."""
import os
import re
import shutil
import signal
import subprocess
import sys
import types

import common
import numpy as np
import PIL.Image
import pytest
import tensorflow.compat.v1 as tf
from common import FOLDERS, SIZE_33, arguments, events, read, recorded, run_main, settings_of, stored, without_times

import bic_layer
import exemplar
import imagenet_main
import resnet_model
from data import Fault, batches, devices, prepare_digits, settings
from logs import checkpoint, needed, results

THREE = ['--FIRST_INCREMENT_CLASSES=3', '--CLASSES_PER_INCREMENT=2,3']


def test_learning_rate_drops_after_the_boundaries():
    """The rate drops where the 0-based step exceeds 1500 3000 4000 4500, or, with 14,417 images, 1689.49 (30 epochs)."""
    s = types.SimpleNamespace(LEARNING_RATE=0.1, BATCH_SIZE=256, LR_DROP_EPOCHS=(30, 60, 80, 90))
    steps = [0, 1500, 1501, 3000, 3001, 4000, 4001, 4500, 4501, 4999]
    assert [settings.learning_rate(s, 12800, step) for step in steps] == pytest.approx(np.repeat(0.1 ** np.arange(1, 6), 2))
    assert [settings.learning_rate(s, 14417, step) for step in (1689, 1690)] == pytest.approx([0.1, 0.01])


# ---- One increment's graph -----------------------------------------------------------------------------------------------
def log_softmax(logits):
    return logits - np.log(np.sum(np.exp(logits), axis=1, keepdims=True))


@pytest.mark.parametrize('scale', [True, False])
def test_two_steps_of_the_third_increment(scale, handful, tmp_path, monkeypatch):
    """Redoes losses and momentum steps in NumPy, with a linear network on each image's mean colour. Of four increments of 2
    classes, the old network knows 4 classes; its correction applies to the newer 2; weight decay is multiplied by 4 / 3. Soft
    targets are normalised over classes, not over the batch. There is no factor T * T, and the old network does not change."""
    monkeypatch.setattr(resnet_model, 'resnet', common.linear)
    networks = recorded(monkeypatch, resnet_model, 'resnet')
    s = settings_of(arguments(handful, tmp_path, '--FIRST_INCREMENT_CLASSES=2', '--CLASSES_PER_INCREMENT=2',
                              '--WEIGHT_DECAY=0.01', '--SCALE_WEIGHT_DECAY=%s' % scale, *SIZE_33))
    data, _, plan, _ = read(s)
    train, fit = np.concatenate(data.train[:6]), bic_layer.Fit(0.6, -0.3, 0, 0, False)
    with devices.ONE.graph():
        model = imagenet_main.build(s, plan, plan[2]._replace(train=len(train)), [bic_layer.IDENTITY, fit])
        assert [network['training'] for network in networks] == [True, False, False]  # not the old one, nor the one to evaluate
        with devices.ONE.session(s) as session:
            session.run(model.initializer)
            session.run(model.train_batches.initializer, batches.feed(model, data, train))
            values, steps = [session.run(model.networks)], []
            for _ in range(2):
                steps.append(session.run([model.losses, model.train_batch], {model.rate: 0.1}))
                values.append(session.run(model.networks))
    weight_decay, momentum = 0.01 * (4 / 3 if scale else 1), 0
    for before, (losses, (images, labels)), after in zip(values, steps, values[1:]):
        kernel, bias = before['resnet']['dense/kernel'].astype(float), before['resnet']['dense/bias']
        features = images.astype(float).mean(axis=(1, 2)) / 100
        logits = (features.dot(kernel) + bias)[:, :6]
        old = (features.dot(before['resnet_old']['dense/kernel']) + before['resnet_old']['dense/bias'])[:, :4]
        old[:, 2:] = 0.6 * old[:, 2:] - 0.3
        targets = np.exp(log_softmax(old / 2))
        loss_distill = -np.mean(np.sum(targets * log_softmax(logits[:, :4] / 2), axis=1))
        loss_class = -np.mean(log_softmax(logits)[np.arange(7), labels])
        loss_l2 = weight_decay * (np.sum(kernel ** 2) + np.sum(bias ** 2)) / 2
        assert losses == pytest.approx(dict(
            loss_distill=loss_distill, loss_class=loss_class, loss_l2=loss_l2, top1=np.mean(logits.argmax(axis=1) == labels),
            loss=2 / 3 * loss_distill + 1 / 3 * loss_class + loss_l2), rel=1e-4)
        gradient = np.zeros((7, 8))
        gradient[:, :6] = 1 / 3 * (np.exp(log_softmax(logits)) - np.eye(6)[labels])
        gradient[:, :4] += 2 / 3 * (np.exp(log_softmax(logits[:, :4] / 2)) - targets) / 2
        momentum = 0.9 * momentum + features.T.dot(gradient) / 7 + weight_decay * kernel
        np.testing.assert_allclose(after['resnet']['dense/kernel'], kernel - 0.1 * momentum, rtol=1e-4, atol=1e-5)
        np.testing.assert_equal(after['resnet_old'], before['resnet_old'])


def three_steps(handful, folder, *more):
    """Returns the losses of three steps of the second increment, and the types of all operations in its graph."""
    s = settings_of(arguments(handful, folder, *SIZE_33, *more))
    data, _, plan, _ = read(s)
    with devices.ONE.graph():
        model = imagenet_main.build(s, plan, plan[1], [bic_layer.IDENTITY])
        built = {op.type for op in tf.get_default_graph().get_operations()}
        with devices.ONE.session(s) as session:
            session.run(model.initializer, resnet_model.first_weights(model.networks, None, s.SEED))
            session.run(model.train_batches.initializer, batches.feed(model, data, np.concatenate(data.train)[:plan[1].train]))
            return [session.run(model.losses['loss'], {model.rate: 0.01}) for _ in range(3)], built


def test_mixed_precision(handful, tmp_path, monkeypatch):
    """bfloat16 where the processor has it. Of float16, only the scaling is tested: its rewriting needs a GPU."""
    (exact, built), (rounded, _) = three_steps(handful, tmp_path), three_steps(handful, tmp_path, '--MIXED_PRECISION=True')
    assert (rounded == exact) == (devices.precision(types.SimpleNamespace(MIXED_PRECISION=True)) == 'float32')
    np.testing.assert_allclose(rounded, exact, rtol=0.05)
    monkeypatch.setattr(devices, 'precision', lambda s: 'float16')
    scaled, built_scaled = three_steps(handful, tmp_path)
    tf.train.experimental.disable_mixed_precision_graph_rewrite()
    assert 'IsFinite' in built_scaled - built
    np.testing.assert_allclose(scaled, exact, rtol=1e-3)


def test_the_graph_for_a_gpu(monkeypatch):
    """The graph is built, not run. Every layer is channels-first, and the number of classes does not change the operations,
    except initialisers: TensorFlow makes large zeros in another way than small ones."""
    for module in (imagenet_main, devices):
        monkeypatch.setattr(module, 'num_gpus', lambda: 1)
    s, names = settings_of(['--XLA=True']), []
    config = devices.session_config(s)
    assert config.gpu_options.allow_growth and config.graph_options.optimizer_options.global_jit_level == tf.OptimizerOptions.ON_1
    assert devices.precision(types.SimpleNamespace(MIXED_PRECISION=True)) == 'float16'
    for classes in (5, 5000):
        plan = [exemplar.Increment(k, k * classes, (k + 1) * classes, k, 1, 1, 1, 1, 1) for k in (0, 1)]
        with tf.Graph().as_default() as graph:
            imagenet_main.build(s, plan, plan[1], [bic_layer.IDENTITY])
        operations = graph.get_operations()
        names.append([op.name for op in operations if '/Initializer/' not in op.name])
        layers = [op for op in operations if op.type.startswith(('Conv2D', 'FusedBatchNorm', 'MaxPool'))]
        assert {layer.get_attr('data_format') for layer in layers} == {b'NCHW'}
    assert names[0] == names[1]


# ---- The whole run -------------------------------------------------------------------------------------------------------
@pytest.fixture(name='run', scope='module')
def run_(handful, tmp_path_factory):
    """One run: its rows, log and folder, and the calls of three functions, in order."""
    folder, patch = tmp_path_factory.mktemp('run'), pytest.MonkeyPatch()
    calls = dict(trained=recorded(patch, imagenet_main, 'train_classifier'), evaluated=recorded(patch, results, 'evaluate'),
                 remembered=recorded(patch, imagenet_main, 'update_memory'))
    rows, text = run_main(handful, folder, *THREE)
    patch.undo()
    return types.SimpleNamespace(rows=rows, text=text, folder=str(folder), **calls)


def test_sizes(run):
    """By hand. A class has five images to train on, one held out, three to test on. A memory of 22 gives 22 / 3 = 7.3: one to
    validate and min(8 - 1, 7 - 1) = 6 to train on, of which 5 exist; 22 / 5 = 4.4: min(5 - 1, 4 - 1) = 3; and for a fourth
    increment 22 / 8 = 2.75: min(3 - 1, 2 - 1) = 1. The steps are those of 30, 50 and 60 images in batches of 7."""
    keys = ('new_classes', 'seen_classes', 'train', 'val', 'test', 'exemplars_per_class', 'steps', 'lr_drops')
    plan = [[int(event[key]) for key in keys] for event in events(run.text, 'plan')]
    assert plan == [[3, 3, 15, 3, 9, 0, 5, 2], [2, 5, 25, 5, 15, 6, 8, 3], [3, 8, 30, 8, 24, 3, 9, 4]]
    assert [[row[key] for key in ('classes', 'train', 'val', 'test')] for row in run.rows] == [of_row[1:5] for of_row in plan]
    assert [len(events(run.text, 'train')), len(events(run.text, 'bias'))] == [5 + 8 + 9, 2]
    assert [event['exemplars'] for event in events(run.text, 'memory')] == ['15', '15', '8']


def test_each_image_is_used_as_the_method_says(run):
    """Validation and test images are never trained on. Of old classes, only exemplars are."""
    data, trained = run.trained[0]['run'].data, [set(call['train']) for call in run.trained]
    numbers = [list(call['numbers']) for call in run.evaluated]  # in the order of the run
    memory0, test0, val1, memory1, test1, val2, memory2, test2 = map(set, numbers)
    assert [memory0, memory1, memory2] == trained and not set.union(*trained) & (val1 | val2 | test0 | test1 | test2)
    assert (test0 < test1 < test2 and val1 < val2) and not val2 & test2
    assert [len(set(of_call)) for of_call in numbers] == [15, 9, 5, 25, 15, 8, 30, 24]
    assert [len(set(data.labels[of_call])) for of_call in numbers] == [3, 3, 5, 5, 5, 8, 8, 8]
    for call, before, after in zip(run.remembered, trained, trained[1:]):
        kept = np.concatenate(call['returned'][0])
        assert len(kept) == 15 and set(kept) == before & after


def test_the_third_increment_begins_with_the_second_network_and_its_memory(run, handful):
    """Student and old network start with its weights. The first losses show that its own beta and gamma correct the old network.
    Herding is redone with features that are computed one image at a time."""
    s = settings_of(arguments(handful, run.folder, *THREE))
    data, _, plan, _ = read(s)
    weights = stored(run.folder, 'increment-1')
    assert len(weights) == 10 + 7 * 4 + 2  # convolutions, variables of normalisations, dense layer: the student alone
    assert all(np.abs(weights[name]).max() > 0 for name in weights if name.endswith('moving_mean'))  # they were updated
    with devices.ONE.graph():
        fit = bic_layer.Fit(run.rows[1]['beta'], run.rows[1]['gamma'], 0, 0, False)
        model = imagenet_main.build(s, plan, plan[2], [bic_layer.IDENTITY, fit])
        with devices.ONE.session(s) as session:
            session.run(model.initializer, resnet_model.first_weights(model.networks, weights, s.SEED))
            for network in session.run(model.networks).values():
                np.testing.assert_equal(network, weights)
            candidates = run.remembered[0]['returned'][0] + data.train[3:5]
            for of_class, chosen in zip(candidates, run.remembered[1]['returned'][0]):
                features = [next(results.evaluate(session, model, plan[2], data, [image]))[0][0] for image in of_class]
                assert list(chosen) == list(of_class[exemplar.herding(features, 3)])
            session.run(model.train_batches.initializer, batches.feed(model, data, run.trained[2]['train']))
            losses, (line,) = session.run(model.losses, {model.rate: 0}), events(run.text, 'train')[13:14]
            assert losses == pytest.approx({key: float(line[key]) for key in losses}, abs=1e-4) and fit.beta != 1


def test_lines_agree_with_each_other(run):
    for event in events(without_times(run.text), 'train'):
        k, value = int(event['increment']), {key: float(text) for key, text in event.items()}
        assert value['lambda'] == [0, 0.6, 0.625][k]
        expected = value['lambda'] * value['loss_distill'] + (1 - value['lambda']) * value['loss_class'] + value['loss_l2']
        assert value['loss'] == pytest.approx(expected, abs=2e-4)
        assert value['lr'] == pytest.approx(0.01 if value['step'] - 1 <= [2, 3, 4][k] else 0.001)
    rows, evals = run.rows, events(run.text, 'eval')
    last, bias = events(run.text, 'result')[-1], events(run.text, 'bias')[-1]
    assert [last[key] for key in ('top1_before', 'top1', 'beta', 'gamma')] == [
        evals[-2]['top1'], evals[-1]['top1'], bias['beta'], bias['gamma']]
    for key, of_rows in (('avg_top1', rows), ('avg_top1_excl_first', rows[1:])):
        assert float(last[key]) == pytest.approx(np.mean([row['top1'] for row in of_rows]), abs=1e-4)
    matrix = [[float(x) for x in event['top1_by_increment'].split(',')] for event in events(run.text, 'matrix')[1::2]]
    lost = max(matrix[0][0], matrix[1][0]) - matrix[2][0], matrix[1][1] - matrix[2][1]
    assert float(last['forgetting_top1']) == pytest.approx(np.mean(lost), abs=1.1e-4)
    # The authors' closing lines, in their format.
    closing = re.findall(r'^(?:beta    |gamma   |accuracy): .*$', run.text, re.M)
    for line, title, key in ((closing[6], 'beta    :  [1.] ', 'beta'), (closing[8], 'accuracy:  %s ' % closing[2][11:], 'top1')):
        assert line == title + ' '.join(str(np.float32([row[key]])) for row in rows[1:])


def test_first_losses_are_the_same_on_both_tensorflows(handful, tmp_path):
    """NumPy draws weights, order and augmentation. TensorFlow 2.21 gave these losses of ResNet-18 on an AMD processor."""
    _, text = run_main(handful, tmp_path, '--RESNET_DEPTH=18', '--FIRST_INCREMENT_CLASSES=8', '--EPOCHS=1', '--LR_DROP_EPOCHS=')
    losses = [float(event['loss']) for event in events(text, 'train')]
    assert losses[:4] == pytest.approx([2.6379, 2.8549, 2.0678, 1.0842], abs=1e-3)


@pytest.mark.slow
def test_a_run_resumes_between_two_increments(run, handful, tmp_path, monkeypatch):
    """It ends with the same rows, and with weights that are identical to the bit."""
    shutil.copytree(run.folder + '/model', str(tmp_path / 'model'), ignore=shutil.ignore_patterns('increment-2*'))
    trained = recorded(monkeypatch, imagenet_main, 'train_classifier')
    assert imagenet_main.main(arguments(handful, tmp_path, *THREE)) == run.rows
    assert [call['now'].increment for call in trained] == [2]
    common.assert_same_end(tmp_path, run.folder, 3)


def test_a_loss_that_is_not_finite_ends_the_run(handful, tmp_path):
    with pytest.raises(Fault, match=r'increment=0 epoch=\d step=\d+: loss=(nan|inf)'):
        run_main(handful, tmp_path, '--LEARNING_RATE=1e30')


def test_a_finished_run_continues_with_new_class_folders(handful, tmp_path, monkeypatch, capsys):
    """All images of old classes are deleted, except those that the run needs. Network, memory, results and log stay."""
    data = common.class_folders(handful, tmp_path, {'Apfel': 0, 'zwei Wörter': 1, '"quoted"': 2, '数字': 3})
    rows, text = run_main(data, tmp_path, *FOLDERS)
    state, network = common.newest_state(tmp_path), stored(tmp_path, 'increment-1')
    learnt, kept = [of_class['name'] for of_class in state['classes']], state['exemplars']
    assert re.findall(r'^\[class\] .* name=(.*)$', text, re.M) == learnt
    assert imagenet_main.main(arguments(data, tmp_path, *FOLDERS)) == rows  # nothing is left to do
    assert '| %.4f |' % rows[1]['top1'] in capsys.readouterr().out.split('this run is finished')[1]
    listed = needed.needed('%s/model/digits' % tmp_path)
    assert sorted(listed) == sorted(sum(kept, [path for one in state['classes'] for path in one['held'] + one['test']]))
    for path in ['train/%s/%s' % (name, image) for name in learnt for image in os.listdir('%s/train/%s' % (data, name))]:
        if path not in listed:
            os.remove(os.path.join(data, path))
    common.class_folders(handful, tmp_path, {'a': 4, 'cc': 5, 'f': 6})  # among the old ones in sorted order
    with pytest.raises(Fault, match='SEED=2: .*increment-1 has 1; another MODEL_DIR begins a new run'):
        run_main(data, tmp_path, *FOLDERS, '--SEED=2')
    checkpoint.write(str(tmp_path / 'model' / 'digits'), network, dict(state, hours=5.0))
    starts = recorded(monkeypatch, resnet_model, 'first_weights')
    grown, longer = run_main(data, tmp_path, *FOLDERS)
    more = longer[len(text):]
    assert longer.startswith(text) and grown[:2] == rows
    assert [[row[key] for key in ('classes', 'train', 'val', 'test')] for row in grown[2:]] == [[7, 4 * 4 + 3 * 8, 7, 7 * 9]]
    assert events(more, 'resume')[0]['increment'] == '2' and 5 <= float(events(more, 'result')[0]['hours']) < 5.1
    after, new = starts[0]['weights'], starts[0]['weights']['dense/kernel'][:, 4:]
    for name in network:
        np.testing.assert_array_equal(after[name][..., :4] if name.startswith('dense') else after[name], network[name])
    assert new.shape == (64, 3) and np.abs(new).max() > 0.05 and stored(tmp_path, 'increment-2')['dense/bias'].shape == (7,)


def test_the_program_ends_with_the_message_alone(tmp_path, capsys):
    """The exit status is not 0; there is one line per fault, no traceback, and no file. --help shows overridden values."""
    done = subprocess.run([sys.executable, common.SCRIPT, '--EPOCH=3', '--SEED=x'], cwd=str(tmp_path), capture_output=True)
    assert (done.returncode, done.stdout, os.listdir(str(tmp_path)), b'Traceback' in done.stderr) == (1, b'', [], False)
    assert b'--EPOCH: no such setting; near it: EPOCHS\nSEED=x: must be a whole number' in done.stderr
    assert imagenet_main.main(['--help', '--EPOCHS=3']) == []
    assert "\n--EPOCHS=3\n    passes over an increment's training set\n" in capsys.readouterr().out


def test_any_standard_output(digits, tmp_path):
    """A terminal that knows ASCII alone; none at all."""
    data = common.class_folders(digits, tmp_path, {'\u00e9': 0, 'b': 1})
    given = common.FOLDERS + ['--CLASSES_PER_INCREMENT=0', '--CLASS_ORDER=sorted', '--PLAN_ONLY=True']
    one = common.started(data, tmp_path, *given, env=dict(os.environ, PYTHONIOENCODING='ascii'))
    assert 'test=9 name=\\xe9\n' in one.communicate()[0] and one.returncode == 0
    none = common.started(data, tmp_path, *given, preexec_fn=lambda: os.close(1))
    assert none.communicate()[0] == '' and none.returncode == 0


@pytest.mark.parametrize('fails, status, message', [
    ("raise ImportError('Traceback:\\nImportError: lib.so: no such file\\nSee https://..')", 1, 'lib.so: no such file'),
    ('raise MemoryError', 1, 'out of memory'), ('import os; os.kill(os.getpid(), 2)', -signal.SIGINT, None)])
def test_tensorflow_cannot_be_loaded(fails, status, message, tmp_path):
    """The program prints one line, or none after Ctrl-C, and no traceback."""
    (tmp_path / 'tensorflow').mkdir()
    (tmp_path / 'tensorflow' / '__init__.py').write_text(fails)
    done = subprocess.run([sys.executable, common.SCRIPT], env=dict(os.environ, PYTHONPATH=str(tmp_path)), capture_output=True,
                          preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL), text=True)
    expected = 'TensorFlow and NumPy cannot be loaded (%s); README says how to install them\n' % message if message else ''
    assert (done.returncode, done.stdout, done.stderr) == (status, '', expected)


# ---- The demonstration ---------------------------------------------------------------------------------------------------
def test_digits_are_written_once(digits):
    """There are 1,797 images with scikit-learn's pixels. Every fifth image of a class is a test image."""
    from sklearn.datasets import load_digits
    truth, seen = load_digits(), []
    for part in ('train', 'val'):
        with open('%s/%s.txt' % (digits, part)) as file:
            for name, label in map(str.split, file):
                seen.append(int(os.path.basename(name)[:-4]))
                position = list(np.flatnonzero(truth.target == int(label))).index(seen[-1])
                assert (position % 5 == 4) == (part == 'val')
        np.testing.assert_allclose(PIL.Image.open(os.path.join(digits, name)), truth.images[seen[-1]] * 255 / 16, atol=0.5)
    assert sorted(seen) == list(range(1797))
    with pytest.raises(Fault, match='exists already'):
        prepare_digits.prepare(digits)


@pytest.mark.slow
def test_the_correction_helps_in_the_demonstration(digits, tmp_path):
    """The default job, some five minutes. At the end the correction raises the accuracy to far above chance, which is 0.1. The
    median over seeds counts: rounding acts like another seed. TensorFlow 1.15, which is slower, gets one seed."""
    rows = imagenet_main.main(['--DATA_DIR=%s' % digits, '--MODEL_DIR=%s/model' % tmp_path, '--LOG_DIR=%s/logs' % tmp_path,
                               '--SEED=' + ('1,2,3' if tf.__version__[0] == '2' else '1')])
    last = [of_run[-1] for of_run in (rows if isinstance(rows[0], list) else [rows])]
    before, after = (np.median([row[key] for row in last]) for key in ('top1_before', 'top1'))
    assert [row['classes'] for row in last] == [10] * len(last) and after > max(before, 0.7)
