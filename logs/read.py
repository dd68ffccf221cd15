"""Log files -> runs. Reads this project's logs, also unfinished ones, and the authors' published.

Needs no TensorFlow. A run is a dict:
    name        str
    settings    dict from name to text
    rows        list of dict, one per increment that was evaluated: `increment`, `classes`, and what
                its lines say
    train       list of dict, one per [train] line, in the order of training
    steps       dict from increment to the steps of its training
    drops       dict from increment to the steps, counted from 0, after which its learning rate
                drops; from [plan] lines
    matrix      dict from (increment, correction) to list of float, accuracy on the classes of each
                increment
    confusion   dict from (increment, correction) to float array [true increment, predicted
                increment], images
    predictions dict from increment to int array [images, 3]: class, prediction before and after the
                correction
    names       list of str, the classes by label, as far as they are known
"""
import csv
import math
import os
import re

import numpy as np

from data import Fault
from logs import authors

_EVENT = re.compile(r'\[(\w+)\]\s+(.*)')
_PAIR = re.compile(r'(\w+)=(.*?)(?=\s+\w+=|\s*$)')
_WHOLE = re.compile(r'[0-9]{1,9}$')
_LARGEST = 1e30  # a number beyond it cannot be drawn
_LARGEST_INCREMENT = 9999
# The keys that this file and the pictures use: whole numbers, and numbers. A line without one of
# them, or with another kind of value, is damaged. What else a line says is taken as it is.
_WHOLE_KEYS = {
    'plan': 'increment seen_classes train val test steps',
    'train': 'increment step',
    'bias': 'increment',
    'eval': 'increment',
    'nme': 'increment',
    'matrix': 'increment',
    'confusion': 'increment true',
    'result': 'increment seen_classes',
    'resume': 'increment step',
    'save': '',
}
_NUMBER_KEYS = {
    'train': 'lr loss',
    'bias': 'beta gamma',
    'eval': 'top1 top5',
    'nme': 'top1 top5',
    'result': 'top1 top5 top1_before top5_before beta gamma',
}
_TEXT_KEYS = {
    'eval': 'split correction',
    'matrix': 'correction top1_by_increment',
    'confusion': 'correction predicted',
    'resume': 'dir',
    'save': 'dir',
}
_LISTS = ('top1_by_increment', 'predicted', 'lr_drops')
_SUFFIXES = {('test', 'on'): '', ('test', 'off'): '_before',
             ('val', 'on'): '_val', ('val', 'off'): '_val_before'}


def runs(paths, say):
    """Reads the runs in log files.

    Args:
        paths: list of str.
        say: function that takes a line of text and reports it.

    Returns:
        runs: list of dict, see above.
        useless: list of str, paths of the logs with nothing to show.
    """
    all_runs = []
    useless = []
    for path in paths:
        try:
            all_runs += _runs_of(path, all_runs, say)
        except OSError as error:
            say('%s: cannot be read (%s)' % (path, error.strerror))
            useless.append(path)
        except Fault as fault:
            say(str(fault))
            useless.append(path)
    names = [run['name'] for run in all_runs]
    for position, run in enumerate(all_runs):
        if names.count(names[position]) > 1:
            run['name'] += '-%d' % names[:position + 1].count(names[position])
        _check(run, say)
    return all_runs, useless


def _runs_of(path, earlier_runs, say):
    """The runs in one log file, list of dict. Raises a Fault if there is nothing to show."""
    text = _text(path, say)
    if re.search(r'^\[env\]', text, re.M):
        new_runs = _own(path, text, say)
    elif authors.is_log(text):
        new_runs = authors.runs(text, new_run)
    else:
        raise Fault('%s: is no log: no line begins with [env], nor is it one of the authors\''
                    % path)
    new_runs = [run for run in new_runs if run['rows'] or run['train']]
    if not new_runs:
        raise Fault('%s: nothing to show: no complete [train] or [result] line' % path)
    known = [(run['log'], run['settings']) for run in earlier_runs]
    if any((run['log'], run['settings']) in known for run in new_runs):
        raise Fault('%s: is the same run as in another file; it is shown once' % path)
    name = _name(path)
    for number, run in enumerate(new_runs, 1):
        run['name'] = name if len(new_runs) == 1 else '%s-%d' % (name, number)
    if len(new_runs) == 1:  # else the files beside it may be of any
        _read_beside(path, new_runs[0], say)
    return new_runs


def new_run():
    """An empty run."""
    return dict(settings={}, rows=[], train=[], steps={}, drops={}, matrix={}, confusion={},
                predictions={}, names=[], log=[])


def _name(path):
    """A run's name: of its log file, or of its folder if that names settings, as METHOD=bic."""
    folder = os.path.basename(os.path.dirname(os.path.abspath(path)))
    return folder if '=' in folder else os.path.basename(path)


def _text(path, say):
    """A file's text up to its last whole line."""
    if os.path.exists(path) and not os.path.isfile(path):
        raise Fault('%s: is no regular file' % path)
    with open(path, 'rb') as file:
        content = file.read()
    if not content:
        raise Fault('%s: is empty' % path)
    if b'\0' in content:
        raise Fault('%s: is no log but a binary file' % path)
    text = content.decode('utf-8', 'replace').replace('\r\n', '\n')
    whole, newline, cut = text.rpartition('\n')
    if cut:
        say('%s: the last line is cut off and skipped: %s' % (path, cut[:60]))
    return whole + newline


def _own(path, text, say):
    """The runs in one of this project's logs.

    After a [resume] line, repeated steps replace the earlier ones.
    """
    found = []
    resume = None
    for number, line in enumerate(text.split('\n'), 1):
        event = _EVENT.match(line)
        tag, rest = event.groups() if event else (None, None)
        if tag == 'env':
            _begin(found, resume, path, say)
            resume = None
        elif tag == 'config' and found:
            name, _, value = rest.partition('=')
            found[-1]['settings'][name] = value
        elif tag in _WHOLE_KEYS and (found or tag == 'resume'):
            try:
                values = _values(tag, rest)
            except ValueError as error:
                say('%s: line %d is damaged and skipped (%s): %s'
                    % (path, number, error, line[:60]))
                continue
            if tag == 'resume':
                resume = values
            elif tag == 'save':
                found[-1]['saved'].add(values['dir'])
            else:
                found[-1]['log'].append(line)
                found[-1]['lines'][_place(tag, values)] = values
    for run in found:
        run['settings'].setdefault('METHOD', 'bic')  # logs from before there were others
        run['settings'].setdefault('EXEMPLAR_SELECTION', 'herding')
        _sort(run, run.pop('lines'))
    return found


def _begin(found, resume, path, say):
    """Begins a new run at an [env] line, or goes on with the one that was resumed.

    Args:
        found: list of dict, the runs so far; the last one is the present one.
        resume: dict, the values of the [resume] line before it, or None.
        path: str, of the log.
        say: as for `runs`.
    """
    earlier = [run for run in found if resume and resume['dir'] in run['saved']]
    if not earlier:
        if resume:
            say('%s: continues a run whose beginning is not in this file; the rest is shown' % path)
        found.append(dict(new_run(), lines={}, saved=set()))
        return
    run = earlier[-1]
    found.remove(run)
    found.append(run)
    at = resume['increment'], resume['step']
    for place in [place for place in run['lines'] if place[:2] > at]:
        del run['lines'][place]


def _place(tag, values):
    """What a line is about: a later line about the same replaces it. Sorts in order of the run."""
    steps = {'train': values.get('step'), 'plan': 0}
    step = steps.get(tag, math.inf)
    details = [values.get(key) for key in ('split', 'correction', 'true')]
    return (values['increment'], step, tag, *details)


def _values(tag, text):
    """The keys and values of a line, dict: numbers, lists of numbers, and texts.

    Raises:
        ValueError: a key that is needed is missing, or its value is of no use.
    """
    # A folder is the last value but the time, and the only one that may have spaces.
    text, _, folder = (' ' + text).partition(' dir=')
    values = {}
    for key, value in _PAIR.findall(text):
        values[key] = _list(value) if key in _LISTS else _number(value)
    if folder:
        values['dir'] = re.sub(r'\s+time=\S*$', '', folder.rstrip())
    whole_keys = _WHOLE_KEYS[tag].split()
    number_keys = _NUMBER_KEYS.get(tag, '').split()
    needed = whole_keys + number_keys + _TEXT_KEYS.get(tag, '').split()
    missing = [key for key in needed if values.get(key, '') in ('', [])]
    if missing:
        raise ValueError('without %s' % ', '.join(missing))
    for key, value in values.items():
        is_number = isinstance(value, (int, float))
        if key in whole_keys and type(value) is not int or key in number_keys and not is_number:
            raise ValueError('%s=%s' % (key, value))
        if is_number and _LARGEST < abs(value) < math.inf:
            raise ValueError('%s=%s' % (key, value))
    if values.get('increment', 0) > _LARGEST_INCREMENT:
        raise ValueError('increment=%d' % values['increment'])
    if tag == 'matrix' and len(values['top1_by_increment']) != values['increment'] + 1:
        raise ValueError('%d accuracies after increment %d'
                         % (len(values['top1_by_increment']), values['increment']))
    return values


def _number(text):
    """A number, int or float, or the text if it is none."""
    if _WHOLE.match(text):
        return int(text)
    try:
        return float(text)
    except ValueError:
        return text


def _list(text):
    """Numbers that are separated by commas, list of float."""
    return [float(element) for element in text.split(',') if element]


def _sort(run, lines):
    """Sorts lines into a run's fields. lines: dict from `_place` to values."""
    rows = {}
    confusion = {}
    for place in sorted(lines, key=lambda place: place[:2]):
        values = lines[place]
        k, _, tag = place[:3]
        row = rows.setdefault(k, dict(increment=k))
        if tag == 'train':
            run['train'].append(values)
            run['steps'][k] = max(run['steps'].get(k, 0), values['step'])
        elif tag == 'matrix':
            run['matrix'][k, values['correction']] = values['top1_by_increment']
        elif tag == 'confusion':
            of_true = confusion.setdefault((k, values['correction']), {})
            of_true[values['true']] = values['predicted']
        elif tag == 'eval':
            suffix = _SUFFIXES.get((values['split'], values['correction']), '_other')
            for metric in ('top1', 'top5'):
                row[metric + suffix] = values[metric]
        elif tag == 'nme':
            row['top1_nme'] = values['top1']
            row['top5_nme'] = values['top5']
        else:  # plan, bias, result
            if tag == 'bias' and 'val' in values:
                values['fitted'] = values.pop('val')
            if tag == 'plan':
                run['steps'][k] = values['steps']
                run['drops'][k] = values.pop('lr_drops', [])
            row.update(values)
            row['classes'] = row.get('seen_classes')
    run['rows'] = [rows[k] for k in sorted(rows) if 'top1' in rows[k] and rows[k].get('classes')]
    for (k, correction), of_true in confusion.items():
        predicted = [of_true.get(true, []) for true in range(k + 1)]
        if len(of_true) == k + 1 and all(len(counts) == k + 1 for counts in predicted):
            run['confusion'][k, correction] = np.array(predicted)


def _read_beside(path, run, say):
    """Reads predictions.csv and classes.csv from the folder beside a log, if they exist."""
    folder, name = os.path.split(path)
    folder = os.path.join(folder, re.sub('^log-', 'run-', name))
    try:
        labels = {}
        for line in _csv_lines(os.path.join(folder, 'predictions.csv')):
            image = [int(line[key]) for key in ('class', 'before', 'after')]
            labels.setdefault(int(line['increment']), []).append(image)
        predictions = {k: np.array(images) for k, images in labels.items()}
        if any(images.min() < 0 for images in predictions.values()):
            raise ValueError('a label below 0')
        names = {}
        for line in _csv_lines(os.path.join(folder, 'classes.csv')):
            names[int(line['label'])] = line['name']
    except (OSError, KeyError, TypeError, ValueError, csv.Error) as error:
        say('%s: predictions.csv and classes.csv cannot be used (%s); logs/README.md has their '
            'columns' % (folder, error))
        return
    run['predictions'] = predictions
    run['names'] = [names.get(label, str(label)) for label in range(len(names))]


def _csv_lines(path):
    if not os.path.isfile(path):
        return []
    with open(path, newline='', encoding='utf-8', errors='replace') as file:
        return list(csv.DictReader(file))


def _check(run, say):
    """Reports what a run lacks."""
    done = [row['increment'] for row in run['rows']]
    absent = sorted(set(range(max(done, default=0))) - set(done))
    if absent:
        names = ', '.join(map(str, absent[:5]))
        say('%s: no [result] line of increment %s' % (run['name'], names))
    for row in run['rows']:
        keys = ('top1', 'top5', 'top1_before', 'top5_before', 'beta', 'gamma')
        broken = [key for key in keys if math.isnan(row.get(key, 0))]
        if broken:
            say('%s: increment %d: %s: not a number'
                % (run['name'], row['increment'], ', '.join(broken)))
