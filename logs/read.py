"""Log files -> runs, logged.Run. Needs no TensorFlow.

Reads this project's logs, also unfinished ones, and the authors' published ones.
"""
import csv
import itertools
import math
import os
import re

import numpy as np

from data import Fault
from logs import authors, logged

_EVENT = re.compile(r'\[(\w+)\]\s+(.*)')
_PAIR = re.compile(r'(\w+)=(.*?)(?=\s+\w+=|\s*$)')
_WHOLE = re.compile(r'[0-9]{1,9}')
_NUMBER = re.compile(r'[-+]?([0-9]+(\.[0-9]*)?(e[-+]?[0-9]+)?|nan|inf)')
_LARGEST = 1e30  # a finite number beyond it cannot be drawn

# What a line must have to be of use. The reader takes all other keys as they come.
_NEEDED = {
    'plan': 'increment seen_classes steps',
    'train': 'increment step lr loss',
    'bias': 'increment beta gamma',
    'eval': 'increment split correction top1 top5',
    'nme': 'increment top1 top5',
    'matrix': 'increment correction top1_by_increment',
    'confusion': 'increment correction true predicted',
    'result': 'increment seen_classes top1 top5',
    'resume': 'increment step dir',
    'save': 'dir',
}
# The kinds of the values that tables and pictures compute with. Other keys may have any value.
_WHOLE_KEYS = 'increment true seen_classes step steps train'.split()
_NUMBER_KEYS = (
    'lr loss beta gamma top1 top5 top1_before top5_before top1_nme top5_nme avg_top1 avg_top5 '
    'avg_top1_excl_first avg_top5_excl_first forgetting_top1').split()
_LIST_KEYS = 'top1_by_increment predicted lr_drops'.split()


def runs(paths, say):
    """Reads the runs in log files.

    Args:
        paths: list of str.
        say: function that takes a line of text and reports it.

    Returns:
        runs: list of logged.Run.
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
    names = [run.name for run in all_runs]
    for position, run in enumerate(all_runs):
        if names.count(names[position]) > 1:
            run.name += '-%d' % names[:position + 1].count(names[position])
        _check(run, say)
    return all_runs, useless


def _runs_of(path, earlier_runs, say):
    """The runs in one log file.

    Args:
        path: str.
        earlier_runs: list of logged.Run, of other files.
        say: as for `runs`.

    Returns:
        list of logged.Run.

    Raises:
        Fault: there is nothing to show, or the same as in another file.
    """
    text = _text(path, say)
    if re.search(r'^\[env\]', text, re.M):
        new_runs = _own(path, text, say)
    elif authors.is_log(text):
        new_runs = authors.runs(text)
    else:
        raise Fault('%s: is no log: no line begins with [env], nor is it one of the authors\''
                    % path)
    new_runs = [run for run in new_runs if run.rows or run.train]
    if not new_runs:
        raise Fault('%s: nothing to show: no complete [train] or [result] line' % path)
    known = [(run.lines, run.settings) for run in earlier_runs]
    if any((run.lines, run.settings) in known for run in new_runs):
        raise Fault('%s: is the same run as in another file; it is shown once' % path)
    name = _name(path)
    for number, run in enumerate(new_runs, 1):
        run.name = name if len(new_runs) == 1 else '%s-%d' % (name, number)
    if len(new_runs) == 1:  # else the files beside it may be of any
        _read_beside(path, new_runs[0], say)
    return new_runs


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
    """The runs in one of this project's logs."""
    sections = []
    current = None
    resume = None  # a [resume] line, until the [env] line after it
    for number, line in enumerate(text.split('\n'), 1):
        event = _EVENT.match(line)
        tag, rest = event.groups() if event else (None, None)
        if tag == 'env':
            current = _resumed(sections, resume)
            if not current:
                if resume:
                    say('%s: continues a run whose beginning is not in this file; the rest is shown'
                        % path)
                current = _Section()
                sections.append(current)
            resume = None
        elif tag == 'config' and current:
            name, _, value = rest.partition('=')
            current.run.settings[name] = value
        elif tag in _NEEDED and (current or tag == 'resume'):
            try:
                values = _values(tag, rest)
            except ValueError as error:
                say('%s: line %d is damaged and skipped (%s): %s'
                    % (path, number, error, line[:60]))
                continue
            if tag == 'resume':
                resume = values
            elif tag == 'save':
                current.saved.add(values['dir'])
            else:
                current.run.lines.append(line)
                current.values[_place(tag, values)] = values
    return [_finished(section) for section in sections]


class _Section:
    """A run whose lines are being read.

    Attributes:
        run: logged.Run.
        values: dict from the place of a line, see `_place`, to its values.
        saved: set of str, the checkpoints that the run wrote.
    """

    def __init__(self):
        self.run = logged.Run()
        self.values = {}
        self.saved = set()


def _resumed(sections, resume):
    """The run that goes on after a [resume] line, or None. What it repeats is removed.

    Args:
        sections: list of _Section, the runs so far.
        resume: dict, the values of the line, or None if there is none.
    """
    if not resume:
        return None
    for section in reversed(sections):
        if resume['dir'] in section.saved:
            last_step = (resume['increment'], resume['step'])
            for place in list(section.values):
                if place[:2] > last_step:
                    del section.values[place]
            return section
    return None


def _place(tag, values):
    """What a line is about. A later line about the same replaces it.

    Returns:
        tuple. Its first two elements, increment and step, are those of the run's order.
    """
    step = math.inf  # after training
    if tag == 'plan':
        step = 0
    elif tag == 'train':
        step = values['step']
    details = [values.get(key) for key in ('split', 'correction', 'true')]
    return (values['increment'], step, tag, *details)


def _values(tag, text):
    """The values of a line, dict.

    Raises:
        ValueError: a key that is needed is missing, or has a value of another kind.
    """
    # A folder is the last value but the time, and the only one that may have spaces.
    text, _, folder = (' ' + text).partition(' dir=')
    texts = dict(_PAIR.findall(text))
    if folder:
        texts['dir'] = re.sub(r'\s+time=\S*$', '', folder.rstrip())
    missing = [key for key in _NEEDED[tag].split() if not texts.get(key)]
    if missing:
        raise ValueError('without %s' % ', '.join(missing))
    values = {}
    for key, value in texts.items():
        if value:
            values[key] = _list(value) if key in _LIST_KEYS else _value(value)
            if not _is_usable(key, values[key]):
                raise ValueError('%s=%s' % (key, value))
    if tag == 'matrix' and len(values['top1_by_increment']) != values['increment'] + 1:
        raise ValueError('%d accuracies after increment %d'
                         % (len(values['top1_by_increment']), values['increment']))
    return values


def _value(text):
    """A number, a list of numbers that are separated by commas, or the text if it is neither."""
    if _WHOLE.fullmatch(text):
        return int(text)
    if _NUMBER.fullmatch(text):
        number = float(text)
        return text if _LARGEST < abs(number) < math.inf else number
    if ',' in text:
        return _list(text) or text
    return text


def _list(text):
    """Numbers that are separated by commas, or None if one of them is no number."""
    values = [_value(element) for element in text.split(',') if element]
    return None if any(isinstance(value, str) for value in values) else values


def _is_usable(key, value):
    """Whether a value is of the kind that its key must have, bool."""
    if key in _WHOLE_KEYS:
        return isinstance(value, int)
    if key in _NUMBER_KEYS:
        return isinstance(value, (int, float))
    if key in _LIST_KEYS:
        return value is not None
    if key == 'correction':
        return value in ('off', 'on')
    return True


def _finished(section):
    """The run with all that its lines say, logged.Run."""
    run = section.run
    run.settings.setdefault('METHOD', 'bic')  # logs from before there were others
    run.settings.setdefault('EXEMPLAR_SELECTION', 'herding')
    rows = {}
    counts = {'off': {}, 'on': {}}  # by increment and true increment
    for place in sorted(section.values, key=lambda place: place[:2]):
        values = section.values[place]
        k, _, tag = place[:3]
        if tag == 'train':
            run.train.append(values)
            run.steps[k] = max(run.steps.get(k, 0), values['step'])
        elif tag == 'matrix':
            if values['correction'] == 'on':
                run.matrix[k] = values['top1_by_increment']
        elif tag == 'confusion':
            by_true = counts[values['correction']].setdefault(k, {})
            by_true[values['true']] = values['predicted']
        else:
            row = rows.setdefault(k, dict(increment=k))
            row.update(_part_of_row(tag, values))
            if tag == 'plan':
                run.steps[k] = values['steps']
                run.lr_drops[k] = values.get('lr_drops', [])
    run.rows = [rows[k] for k in sorted(rows) if 'top1' in rows[k] and rows[k].get('classes')]
    run.confusion_before = _complete(counts['off'])
    run.confusion_after = _complete(counts['on'])
    return run


def _part_of_row(tag, values):
    """What a [plan], [eval], [nme], [bias] or [result] line adds to the row of its increment."""
    if tag == 'eval':
        suffix = '' if values['split'] == 'test' else '_' + values['split']
        if values['correction'] == 'off':
            suffix += '_before'
    elif tag == 'nme':
        suffix = '_nme'
    else:
        names = {'seen_classes': 'classes'}  # as in the closing table
        return {names.get(key, key): value for key, value in values.items()}
    return {key + suffix: value for key, value in values.items() if key.startswith('top')}


def _complete(counts):
    """The confusion matrices of which all rows are there, dict from increment to array.

    Args:
        counts: dict from increment to dict from true increment to list of numbers.
    """
    matrices = {}
    for k, by_true in counts.items():
        has_all_rows = len(by_true) == k + 1 and max(by_true) == k
        if has_all_rows and all(len(predicted) == k + 1 for predicted in by_true.values()):
            matrices[k] = np.array([by_true[true] for true in range(k + 1)])
    return matrices


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
    run.predictions = predictions
    run.names = [names.get(label, str(label)) for label in range(len(names))]


def _csv_lines(path):
    if not os.path.isfile(path):
        return []
    with open(path, newline='', encoding='utf-8', errors='replace') as file:
        return list(csv.DictReader(file))


def _check(run, say):
    """Reports what a run lacks."""
    done = [row['increment'] for row in run.rows]
    absent = (k for k in range(max(done, default=0)) if k not in done)
    first_absent = list(itertools.islice(absent, 5))
    if first_absent:
        say('%s: no [result] line of increment %s'
            % (run.name, ', '.join(map(str, first_absent))))
    for row in run.rows:
        keys = ('top1', 'top5', 'top1_before', 'top5_before', 'beta', 'gamma')
        broken = [key for key in keys if math.isnan(row.get(key, 0))]
        if broken:
            say('%s: increment %d: %s: not a number'
                % (run.name, row['increment'], ', '.join(broken)))
