"""The logs of the authors' code -> runs, logged.Run.

Their standard output comes late and in cut blocks between lines of standard error. Without those
lines it is whole again.
"""
import re

import numpy as np

from logs import logged

_NUMBER = r'([-+]?(?:\d+\.?\d*(?:e[-+]?\d+)?|nan|inf))'
# Standard error, in the order of training: which network, its step, then rate and losses.
_SAVED = re.compile(r'Saving checkpoints for (\d{1,9}) into \S*?(\d{1,4})_(classifier|bias)/')
_TRAINED = re.compile(
    r'INFO:tensorflow:[^\n]*learning_rate = [^\n]*\nINFO:tensorflow:step = [^\n]*')
_STDERR_LINE = re.compile(
    r'(?:INFO:tensorflow:|WARNING:tensorflow:|\d{4}-\d\d-\d\d [\d:.]+: [IWE] )[^\n]*\n')
_SECTION = re.compile(r'(?=Batch of classes number [1-9]\d{0,3} arrives)')
_TEST_IMAGES = 50  # of each class of ILSVRC2012


def is_log(text):
    """Whether a text is a log of the authors' code."""
    return 'INFO:tensorflow:' in text or 'Batch of classes number' in text


def runs(text):
    """The runs in a log.

    Args:
        text: str.

    Returns:
        list of logged.Run.
    """
    all_runs = _results(text)
    _add_training(text, all_runs)
    for run in all_runs:
        dataset = 'imagenet'
        if run.rows:  # ten equal increments
            dataset = 'imagenet%d' % (10 * run.rows[0]['classes'])
        run.settings.update(METHOD='bic (authors)', DATASET=dataset, HEADLINE='top5')
        run.lines = [repr(run.rows), repr(run.train)]
    return all_runs


def _results(text):
    """The runs with their rows, from standard output."""
    all_runs = []
    for section in _SECTION.split(_STDERR_LINE.sub('', text))[1:]:
        k = int(re.match(r'\D+(\d+)', section).group(1)) - 1
        if k == 0 or not all_runs:
            all_runs.append(logged.Run())
        row = _row(k, section)
        if row:
            others = [other for other in all_runs[-1].rows if other['increment'] != k]
            all_runs[-1].rows = others + [row]
    return all_runs


def _row(k, section):
    """The row of an increment, dict, or None if its section is not complete."""
    images = re.search(r'#training: (\d+), #val: (\d+), #test: (\d+)\n', section)
    evaluated = []
    for line in re.findall(r"\{.*'accuracy': \d.*\}", section):
        evaluated.append(dict(re.findall(r"'(\w+)': " + _NUMBER, line)))
    beta = re.search(r'beta *: .*\[ *%s\]\n' % _NUMBER, section)
    gamma = re.search(r'gamma *: .*\[ *%s\]\n' % _NUMBER, section)
    num_before_test = 1 if k else 0  # the validation split, which increment 0 does without
    if not images or len(evaluated) <= num_before_test or not beta or not gamma:
        return None
    train, val, test = map(int, images.groups())
    row = dict(
        increment=k,
        classes=test // _TEST_IMAGES,
        train=train,
        val=val,
        test=test,
        beta=float(beta.group(1)),
        gamma=float(gamma.group(1)),
        top5=float(evaluated[-1]['accuracy']))
    if 'accuracy_before' in evaluated[-1]:
        row['top5_before'] = float(evaluated[-1]['accuracy_before'])
    return row


def _add_training(text, all_runs):
    """Adds steps and losses, from standard error, to the runs."""
    position = -1
    k = 0
    is_bias = False
    for line in re.finditer('%s|%s' % (_SAVED.pattern, _TRAINED.pattern), text):
        saved, increment, network = line.groups()
        if saved:
            k = int(increment)
            is_bias = network == 'bias'
            if not is_bias:
                if int(saved) == 1 and (k == 0 or position < 0):
                    position += 1
                    if position == len(all_runs):
                        all_runs.append(logged.Run())
                all_runs[position].steps[k] = int(saved)
        elif not is_bias and position >= 0:
            values = {}
            for key, value in re.findall(r'(\w+) = ' + _NUMBER, line.group()):
                values[key] = float(value)
            if {'step', 'learning_rate', 'loss'} <= set(values):
                all_runs[position].train.append(dict(
                    increment=k,
                    step=int(values['step']),
                    lr=values['learning_rate'],
                    loss=values['loss'],
                    loss_class=values.get('cross_entropy', np.nan),
                    top1=values.get('train_accuracy', np.nan)))
