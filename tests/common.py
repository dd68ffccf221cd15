"""What tests of whole runs share: the arguments of a small run, its log, its networks."""
import glob
import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
import types

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import imagenet_main
import resnet_model
from data import Faults, dataset, devices, settings
from logs import checkpoint
from logs.run import Run

SCRIPT = os.path.abspath(imagenet_main.__file__)
# ResNet-18's last feature map then has 4 pixels.
SIZE_33 = ['--IMAGE_SIZE=33', '--RESIZE_SIDE_MIN=33', '--RESIZE_SIDE_MAX=36']
FOLDERS = ['--NUM_CLASSES=0', '--FIRST_INCREMENT_CLASSES=2', '--CLASSES_PER_INCREMENT=2',
           '--EPOCHS=1', '--LR_DROP_EPOCHS=', *SIZE_33]
NOT_FILES = (tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE,
             tarfile.CHRTYPE)  # in an archive
# 11 and 13 steps; checkpoints after steps 4, 8, 11 and 5, 9, 13, however fast the machine is.
WHOLE = ['--CHECKPOINT_EPOCHS=1', '--CHECKPOINT_MINUTES=1000', '--EPOCHS=3', '--LOG_STEPS=2']


def arguments(data, folder, *more):
    """A run of the handful: 5 and 3 classes, batches of 7, 2 epochs: 7 and 9 steps.

    Of equal names the last one counts.
    """
    given = ['--DATA_DIR=%s' % data, '--MODEL_DIR=%s/model' % folder, '--LOG_DIR=%s/logs' % folder,
             '--NUM_CLASSES=8', '--FIRST_INCREMENT_CLASSES=5', '--CLASSES_PER_INCREMENT=3',
             '--MEMORY_SIZE=22', '--VAL_FRACTION=0.1', '--BATCH_SIZE=7', '--EPOCHS=2',
             '--LR_DROP_EPOCHS=1', '--LEARNING_RATE=0.01', '--IMAGE_SIZE=16',
             '--RESIZE_SIDE_MIN=16', '--RESIZE_SIDE_MAX=20', '--LOG_STEPS=1', '--RESNET_DEPTH=8',
             *more]
    return list({argument.split('=')[0]: argument for argument in given}.values())


def class_folders(digits, folder, digit_of_name):
    """Adds class folders of nine training and nine test digits each to folder/data; its path."""
    for name, digit in digit_of_name.items():
        for part in ('train', 'val'):
            source = os.path.join(digits, part, str(digit))
            target = folder / 'data' / part / name
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
    """The bytes of an archive. files, change: dict from name to bytes, or to a NOT_FILES type."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as archive:
        for name, content in dict(files, **dict(change)).items():
            member = tarfile.TarInfo(name)
            if content in NOT_FILES:
                member.type = content
                member.linkname = 'readme'
                content = b''
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return out.getvalue()


def linear(images, depth, num_classes, training, decay, data_format):
    """In place of resnet_model.resnet: a network of each image's mean colour, redone by hand."""
    kernel = resnet_model.decayed_variable('dense/kernel', [3, num_classes])
    bias = resnet_model.decayed_variable('dense/bias', [num_classes])
    features = tf.reduce_mean(images, [1, 2]) / 100
    return features, tf.matmul(features, kernel) + bias


def settings_of(given):
    """The settings of one run. given: list of overrides."""
    faults = Faults()
    s, = settings.read(vars(imagenet_main), imagenet_main.RECIPES, given, faults)
    faults.raise_any()
    return s


def read(s, known=None):
    """What dataset.read returns, as a namespace, with the `faults`."""
    faults = Faults()
    data, memory, sizes, plan = dataset.read(s, faults, known)
    return types.SimpleNamespace(
        data=data, memory=memory, sizes=sizes, plan=plan, faults=faults.lines)


def run_main(data, folder, *more):
    """Runs to the end; rows and the text of its one log."""
    rows = imagenet_main.main(arguments(data, folder, *more))
    return rows, log_of(folder)


def run_at(increment, model, data, copy, *more):
    """A Run that is about to begin an increment, from another run's checkpoints before it.

    Args:
        increment: int.
        model: str, MODEL_DIR/DATASET of the other run.
        data: str, DATA_DIR.
        copy: str, a folder, to which the checkpoints are copied.
        more: overrides.
    """
    s = settings_of(arguments(data, copy, *more))
    for k in range(increment):
        name = 'increment-%d' % k
        shutil.copytree(os.path.join(model, name), os.path.join(s.MODEL_DIR, s.DATASET, name))
    faults = Faults()
    run = Run(s, faults, devices.ONE)
    faults.raise_any()
    return run


def log_of(folder):
    path, = glob.glob('%s/logs/log-digits-*' % folder)
    with open(path, encoding='utf-8') as file:
        return file.read()


def started(data, folder, *more, **options):
    """The same in a process of its own, as typed."""
    return subprocess.Popen(
        [sys.executable, SCRIPT] + arguments(data, folder, *more), cwd=str(folder),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True, **options)


def events(text, tag):
    """The lines of a tag, each a dict from key to text."""
    found = []
    for line in text.split('\n'):
        if line.startswith('[%s]' % tag):
            found.append(dict(pair.split('=', 1) for pair in line.split()[1:]))
    return found


def without_times(text):
    return re.sub(r' (images_per_sec|input_wait|hours|hours_left|seconds|dir|time)=\S*', '', text)


def stored(folder, name):
    """A checkpoint's arrays and State. name: below MODEL_DIR/digits."""
    return checkpoint.read(os.path.join(str(folder), 'model', 'digits', name))


def newest_state(folder):
    return checkpoint.newest(os.path.join(str(folder), 'model', 'digits')).state


def assert_same_end(folder, other, increments=2):
    """Networks, bit by bit, and states of two runs, times and folders aside."""
    for k in range(increments):
        ours, our_state = stored(folder, 'increment-%d' % k)
        theirs, their_state = stored(other, 'increment-%d' % k)
        assert sorted(ours) == sorted(theirs)
        for name in ours:
            np.testing.assert_array_equal(ours[name], theirs[name])
    for state in (our_state, their_state):
        state.hours = 0.0
        state.log = ''
    np.testing.assert_equal(vars(our_state), vars(their_state))  # of two nan it says: equal


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
