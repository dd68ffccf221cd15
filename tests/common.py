"""What tests of whole runs share: the arguments of a small run, its log as events, its networks as arrays."""
import glob
import inspect
import io
import os
import re
import subprocess
import sys
import tarfile
import types

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import imagenet_main
from data import Fault, dataset, settings, sources
from logs import checkpoint

SCRIPT = os.path.abspath(imagenet_main.__file__)
SIZE_33 = ['--IMAGE_SIZE=33', '--RESIZE_SIDE_MIN=33', '--RESIZE_SIDE_MAX=36']  # ResNet-18's last feature map has 4 pixels
FOLDERS = ['--NUM_CLASSES=0', '--FIRST_INCREMENT_CLASSES=2', '--CLASSES_PER_INCREMENT=2', '--EPOCHS=1'] + SIZE_33
NOT_FILES = (tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE)  # in an archive
# 11 and 13 steps; checkpoints after steps 4, 8, 11 and 5, 9, 13, however fast the machine is.
WHOLE = ['--CHECKPOINT_EPOCHS=1', '--CHECKPOINT_MINUTES=1000', '--EPOCHS=3', '--LOG_STEPS=2']


def arguments(data, folder, *more):
    """A run of the handful: 5 and 3 classes, batches of 7, 2 epochs: 8 and 9 steps. Of equal names the last one counts."""
    given = ['--DATA_DIR=%s' % data, '--MODEL_DIR=%s/model' % folder, '--LOG_DIR=%s/logs' % folder, '--NUM_CLASSES=8',
             '--FIRST_INCREMENT_CLASSES=5', '--CLASSES_PER_INCREMENT=3', '--MEMORY_SIZE=22', '--VAL_FRACTION=0.1',
             '--BATCH_SIZE=7', '--EPOCHS=2', '--LR_DROP_EPOCHS=1', '--LEARNING_RATE=0.01',
             '--IMAGE_SIZE=16', '--RESIZE_SIDE_MIN=16', '--RESIZE_SIDE_MAX=20', '--LOG_STEPS=1', '--RESNET_DEPTH=8', *more]
    return list({argument.split('=')[0]: argument for argument in given}.values())


def class_folders(digits, folder, digit_of_name):
    """Adds class folders of nine training and nine test digits each to folder/data, which is returned."""
    for name, digit in digit_of_name.items():
        for part in ('train', 'val'):
            source, target = os.path.join(digits, part, str(digit)), folder / 'data' / part / name
            target.mkdir(parents=True)
            for image in sorted(os.listdir(source))[:9]:
                (target / image).symlink_to(os.path.join(source, image))
    return str(folder / 'data')


def write(folder, files):
    """files: dict from path below the folder to bytes; None: no such file."""
    for name, content in files.items():
        if content is not None:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)


def tar(files, change=(), mode='w'):
    """The bytes of an archive. files, change: dict from name to bytes, or to one of NOT_FILES."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as archive:
        for name, content in dict(files, **dict(change)).items():
            member = tarfile.TarInfo(name)
            if content in NOT_FILES:
                member.type, member.linkname, content = content, 'readme', b''
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return out.getvalue()


def listed(folder, num_classes=3, test_fraction=0.25):
    """What `sources.read` finds there."""
    return sources.read(types.SimpleNamespace(DATA_DIR=str(folder), NUM_CLASSES=num_classes, TEST_FRACTION=test_fraction))


def recorded(monkeypatch, module, name):
    """Has a function's calls noted: a list that grows by a dict for each, its arguments by name and what it `returned`."""
    original, calls = getattr(module, name), []

    def wrapper(*args, **kwargs):
        call = dict(inspect.signature(original).bind(*args, **kwargs).arguments)
        calls.append(call)
        call['returned'] = original(*args, **kwargs)
        return call['returned']

    monkeypatch.setattr(module, name, wrapper)
    return calls


def linear(images, depth, num_classes, training, decay, data_format):
    """In place of resnet_model.resnet, a network that can be redone by hand: of each image's mean colour alone."""
    kernel = tf.get_variable('dense/kernel', [3, num_classes], use_resource=True)
    bias = tf.get_variable('dense/bias', [num_classes], use_resource=True)
    features = tf.reduce_mean(images, [1, 2]) / 100
    return features, tf.matmul(features, kernel) + bias


def settings_of(given):
    """The settings of one run. given: list of overrides."""
    (s, faults), = settings.read(vars(imagenet_main), imagenet_main.RECIPES, given)
    if faults:
        raise Fault('\n'.join(faults.values()))
    return s


def read(s, known=dataset.NEW):
    """Data, exemplars, plan and what is missing."""
    return dataset.read(s, {}, {}, known)


def run_main(data, folder, *more):
    """Runs to the end; rows and the text of its one log."""
    rows = imagenet_main.main(arguments(data, folder, *more))
    return rows, log_of(folder)


def log_of(folder):
    path, = glob.glob('%s/logs/log-digits-*' % folder)
    with open(path, encoding='utf-8') as file:
        return file.read()


def started(data, folder, *more, **options):
    """The same in a process of its own, as typed."""
    return subprocess.Popen([sys.executable, SCRIPT] + arguments(data, folder, *more), cwd=str(folder), stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, universal_newlines=True, **options)


def events(text, tag):
    """The lines of a tag, each a dict from key to text."""
    return [dict(pair.split('=', 1) for pair in line.split()[1:]) for line in text.split('\n') if line.startswith('[%s]' % tag)]


def without_times(text):
    return re.sub(r' (images_per_sec|input_wait|hours|hours_left|seconds|dir|time)=\S*', '', text)


def stored(folder, *names):
    """The arrays of a checkpoint; names: below MODEL_DIR/digits."""
    with np.load(os.path.join(str(folder), 'model', 'digits', *names, 'network.npz')) as archive:
        return {name: archive[name] for name in archive.files}


def newest_state(folder):
    return checkpoint.newest(os.path.join(str(folder), 'model', 'digits'))[1]


def assert_same_end(folder, other, increments=2):
    """Networks, bit by bit, and states of two runs, times and folders aside."""
    for k in range(increments):
        ours, theirs = (stored(where, 'increment-%d' % k) for where in (folder, other))
        assert sorted(ours) == sorted(theirs)
        for name in ours:
            np.testing.assert_array_equal(ours[name], theirs[name])
    ours, theirs = (newest_state(where) for where in (folder, other))
    assert ({key: ours[key] for key in ours if key not in ('hours', 'log')}
            == {key: theirs[key] for key in theirs if key not in ('hours', 'log')})


def sign(path):
    """Writes a checkpoint's SHA256SUMS anew, after its files were changed. path: str."""
    sums = subprocess.check_output(['sha256sum', 'network.npz', 'state.json'], cwd=path)
    with open(os.path.join(path, 'SHA256SUMS'), 'wb') as file:
        file.write(sums)


@pytest.fixture(name='whole', scope='session')
def whole_(handful, tmp_path_factory):
    """The folder of a run that nothing happened to."""
    folder = tmp_path_factory.mktemp('whole')
    run_main(handful, folder, *WHOLE)
    return folder
