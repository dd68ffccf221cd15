"""Lets the tests import the project's files from anywhere; the images that runs are made of."""
import os
import sys

import pytest

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
os.environ.setdefault('TF_ENABLE_ONEDNN_OPTS', '1')  # as in data/startup.py


@pytest.fixture(autouse=True)
def no_models(request, monkeypatch):
    """Writing the model to use after each increment takes time: only where it is looked at."""
    from logs import export  # not before the path and the environment are set
    if request.module.__name__ not in ('test_export', 'test_methods'):
        monkeypatch.setattr(export, 'write', lambda folder, s, names, network, correction: None)


@pytest.fixture(name='digits', scope='session')
def digits_(tmp_path_factory):
    """The digits as the demonstration prepares them."""
    from data import prepare_digits  # not before the path and the environment are set
    folder = str(tmp_path_factory.mktemp('digits') / 'dataDigits')
    prepare_digits.prepare(folder)
    return folder


@pytest.fixture(name='handful', scope='session')
def handful_(digits, tmp_path_factory):
    """Six training and three test images of each of eight classes."""
    folder = tmp_path_factory.mktemp('handful')
    for part, count in (('train', 6), ('val', 3)):
        os.symlink(os.path.join(digits, part), str(folder / part))
        with open(os.path.join(digits, part + '.txt')) as file:
            lines = file.read().split('\n')
        kept = []
        for digit in range(8):
            kept += [line for line in lines if line.endswith(' %d' % digit)][:count]
        (folder / (part + '.txt')).write_text('\n'.join(kept) + '\n')
    return str(folder)
