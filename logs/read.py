"""Log files -> runs. Reads this project's logs, also unfinished ones, and the authors' published ones; needs no TensorFlow.

A run is a dict:
    name        str
    settings    dict from name to text
    rows        list of dict, one per increment that was evaluated: `increment`, `classes`, and what its lines say
    train       list of dict, one per [train] line, in the order of training
    steps       dict from increment to the steps of its training
    drops       dict from increment to the steps, counted from 0, after which its learning rate drops; from [plan] lines
    matrix      dict from (increment, correction) to list of float, accuracy on the classes of each increment
    confusion   dict from (increment, correction) to float array [true increment, predicted increment], images
    predictions dict from increment to int array [images, 3]: class, prediction before and after the correction
    names       list of str, the classes by label, as far as they are known
"""
import csv
import math
import os
import re

import numpy as np

from data import Fault

_EVENT = re.compile(r'\[(\w+)\]\s+(.*)')
_PAIR = re.compile(r'(\w+)=(.*?)(?=\s+\w+=|\s*$)')
_WORDS = ('split', 'correction', 'dir', 'at_bound', 'time')
_LISTS = ('top1_by_increment', 'predicted', 'lr_drops')
_WHOLE = {'increment': 4, 'true': 4, 'seen_classes': 9, 'step': 9, 'steps': 9, 'train': 9, 'val': 9, 'test': 9}  # digits at most
_LARGEST = 1e30  # a number beyond it cannot be drawn
# What a line must have to be of use.
_NEEDS = {
    'plan': 'increment seen_classes train val test steps',
    'train': 'increment step lr loss',
    'bias': 'increment beta gamma',
    'eval': 'increment split correction top1 top5',
    'nme': 'increment top1 top5',
    'matrix': 'increment correction top1_by_increment',
    'confusion': 'increment correction true predicted',
    'result': 'increment seen_classes top1 top5 top1_before top5_before beta gamma',
    'resume': 'increment step dir',
    'save': 'dir',
}
_OF_SPLIT = {('test', 'on'): '', ('test', 'off'): '_before', ('val', 'on'): '_val', ('val', 'off'): '_val_before'}
# The authors' standard error, in the order of training: which network, its step, then rate and losses.
_NUMBER = r'([-+]?(?:\d+\.?\d*(?:e[-+]?\d+)?|nan|inf))'
_SAVED = re.compile(r'Saving checkpoints for (\d{1,9}) into \S*?(\d{1,4})_(classifier|bias)/')
_TRAINED = re.compile(r"INFO:tensorflow:[^\n]*learning_rate = [^\n]*\nINFO:tensorflow:step = [^\n]*")
_STDERR_LINE = re.compile(r'(?:INFO:tensorflow:|WARNING:tensorflow:|\d{4}-\d\d-\d\d [\d:.]+: [IWE] )[^\n]*\n')


def runs(paths, say):
    """Reads the runs in log files.

    Args: paths: list of str. say: function that takes a line of text and reports it.

    Returns: runs: list of dict, see above. useless: list of str, paths of the logs with nothing to show.
    """
    found, useless = [], []
    for path in paths:
        try:
            text = _text(path, say)
            if re.search(r'^\[env\]', text, re.M):
                of_path = _own(path, text, say)
            elif 'INFO:tensorflow:' in text or 'Batch of classes number' in text:
                of_path = _authors(text)
            else:
                raise Fault('%s: is no log: no line begins with [env], nor is it one of the authors\'' % path)
            of_path = [run for run in of_path if run['rows'] or run['train']]
            if not of_path:
                raise Fault('%s: nothing to show: no complete [train] or [result] line' % path)
            if any(run['log'] == other['log'] and run['settings'] == other['settings'] for run in of_path for other in found):
                raise Fault('%s: is the same run as in another file; it is shown once' % path)
        except OSError as error:
            say('%s: cannot be read (%s)' % (path, error.strerror))
            useless.append(path)
        except Fault as fault:
            say(str(fault))
            useless.append(path)
        else:
            name = _name(path)
            for number, run in enumerate(of_path, 1):
                run['name'] = name if len(of_path) == 1 else '%s-%d' % (name, number)
            if len(of_path) == 1:  # else the files beside it may be of any
                _read_beside(path, of_path[0], say)
            found += of_path
    names = [run['name'] for run in found]
    for position, run in enumerate(found):
        if names.count(names[position]) > 1:
            run['name'] += '-%d' % names[:position + 1].count(names[position])
        _check(run, say)
    return found, useless


def _new_run():
    return dict(settings={}, rows=[], train=[], steps={}, drops={}, matrix={}, confusion={}, predictions={}, names=[], log=[])


def _name(path):
    """A run's name: that of its log file, or of its folder if that names settings, as METHOD=bic,SEED=1."""
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
    whole, newline, cut = content.decode('utf-8', 'replace').replace('\r\n', '\n').rpartition('\n')
    if cut:
        say('%s: the last line is cut off and skipped: %s' % (path, cut[:60]))
    return whole + newline


def _own(path, text, say):
    """The runs in one of this project's logs. After a [resume] line, repeated steps replace the earlier ones."""
    found, resume = [], None
    for number, line in enumerate(text.split('\n'), 1):
        event = _EVENT.match(line)
        tag, values = event.groups() if event else (None, None)
        if tag == 'env':
            earlier = [run for run in found if resume and resume['dir'] in run['saved']]
            if earlier:
                found.remove(earlier[-1])
                found.append(earlier[-1])
                at = resume['increment'], resume['step']
                earlier[-1]['lines'] = {key: values for key, values in earlier[-1]['lines'].items() if (key[0], key[1]) <= at}
            else:
                if resume:
                    say('%s: continues a run whose beginning is not in this file; the rest is shown' % path)
                found.append(dict(_new_run(), lines={}, saved=set()))
            resume = None
        elif tag == 'config' and found:
            name, _, value = values.partition('=')
            found[-1]['settings'][name] = value
        elif tag in _NEEDS and (found or tag == 'resume'):
            try:
                values = _values(tag, values)
            except ValueError as error:
                say('%s: line %d is damaged and skipped (%s): %s' % (path, number, error, line[:60]))
                continue
            if tag == 'resume':
                resume = values
            elif tag == 'save':
                found[-1]['saved'].add(values['dir'])
            else:
                found[-1]['log'].append(line)
                step = values['step'] if tag == 'train' else math.inf if tag != 'plan' else 0
                found[-1]['lines'][values['increment'], step, tag, values.get('split'), values.get('correction'),
                                   values.get('true')] = values
    for run in found:
        run['settings'].setdefault('METHOD', 'bic')  # logs from before there were others
        run['settings'].setdefault('EXEMPLAR_SELECTION', 'herding')
        _sort(run, run.pop('lines'))
    return found


def _values(tag, text):
    text, _, folder = (' ' + text).partition(' dir=')  # the last value but the time; the only one that may have spaces
    values = dict(_PAIR.findall(text), **({'dir': re.sub(r'\s+time=\S*$', '', folder.rstrip())} if folder else {}))
    missing = [key for key in _NEEDS[tag].split() if not values.get(key)]
    if missing:
        raise ValueError('without %s' % ', '.join(missing))
    for key in set(_WHOLE) & set(values):
        if not re.match(r'[0-9]{1,%d}$' % _WHOLE[key], values[key]):
            raise ValueError('%s=%s' % (key, values[key]))
    for key, value in values.items():
        if key in _LISTS:
            values[key] = [float(one) for one in value.split(',') if one]
        elif key not in _WORDS:
            values[key] = int(value) if key in _WHOLE else float(value or 'nan')
            if _LARGEST < abs(values[key]) < math.inf:
                raise ValueError('%s=%s' % (key, value))
    if tag == 'matrix' and len(values['top1_by_increment']) != values['increment'] + 1:
        raise ValueError('%d accuracies after increment %d' % (len(values['top1_by_increment']), values['increment']))
    return values


def _sort(run, lines):
    """Sorts lines into a run's fields. lines: dict as `_own` makes it."""
    rows, counts = {}, {}
    for (k, _, tag, *_), values in sorted(lines.items(), key=lambda line: line[0][:2]):
        row = rows.setdefault(k, dict(increment=k))
        if tag == 'train':
            run['train'].append(values)
            run['steps'][k] = max(run['steps'].get(k, 0), values['step'])
        elif tag == 'matrix':
            run['matrix'][k, values['correction']] = values['top1_by_increment']
        elif tag == 'confusion':
            counts.setdefault((k, values['correction']), {})[values['true']] = values['predicted']
        elif tag == 'eval':
            suffix = _OF_SPLIT.get((values['split'], values['correction']), '_other')
            row.update({metric + suffix: values[metric] for metric in ('top1', 'top5')})
        elif tag == 'nme':
            row.update(top1_nme=values['top1'], top5_nme=values['top5'])
        else:  # plan, bias, result
            row.update({'fitted' if key == 'val' and tag == 'bias' else key: value for key, value in values.items()})
            row.update(classes=row.get('seen_classes'))
            if tag == 'plan':
                run['steps'][k], run['drops'][k] = values['steps'], values.get('lr_drops', [])
    run['rows'] = [rows[k] for k in sorted(rows) if 'top1' in rows[k] and rows[k].get('classes')]
    run['confusion'] = {(k, correction): np.array([of_true[true] for true in range(k + 1)])
                        for (k, correction), of_true in counts.items()
                        if {true: len(predicted) for true, predicted in of_true.items()} == dict.fromkeys(range(k + 1), k + 1)}


def _authors(text):
    """The runs in a log of the authors' code.

    Its standard output comes late and in cut blocks between lines of standard error; without these lines it is whole again.
    """
    found = []
    for section in re.split(r'(?=Batch of classes number [1-9]\d{0,3} arrives)', _STDERR_LINE.sub('', text))[1:]:
        k = int(re.match(r'\D+(\d+)', section).group(1)) - 1
        if k == 0 or not found:
            found.append(_new_run())
        images = re.search(r'#training: (\d+), #val: (\d+), #test: (\d+)\n', section)
        evaluated = [dict(re.findall(r"'(\w+)': " + _NUMBER, line)) for line in re.findall(r"\{.*'accuracy': \d.*\}", section)]
        fit = [re.search(r'%s *: .*\[ *%s\]\n' % (name, _NUMBER), section) for name in ('beta', 'gamma')]
        if images and len(evaluated) > (k > 0) and all(fit):  # first on the validation split, which increment 0 does without
            train, val, test = map(int, images.groups())
            row = dict(increment=k, classes=test // 50, train=train, val=val, test=test,  # ILSVRC2012 has 50 of each class
                       beta=float(fit[0].group(1)), gamma=float(fit[1].group(1)), top5=float(evaluated[-1]['accuracy']))
            if 'accuracy_before' in evaluated[-1]:
                row.update(top5_before=float(evaluated[-1]['accuracy_before']))
            found[-1]['rows'] = [other for other in found[-1]['rows'] if other['increment'] != k] + [row]
    position, is_bias, k = -1, False, 0
    for line in re.finditer('%s|%s' % (_SAVED.pattern, _TRAINED.pattern), text):
        if line.group(1):
            saved, k, is_bias = int(line.group(1)), int(line.group(2)), line.group(3) == 'bias'
            if not is_bias:
                if saved == 1 and (k == 0 or position < 0):
                    position += 1
                    found += [_new_run()] if position == len(found) else []
                found[position]['steps'][k] = saved
        elif not is_bias and position >= 0:
            said = {key: float(value) for key, value in re.findall(r'(\w+) = ' + _NUMBER, line.group())}
            if {'step', 'learning_rate', 'loss'} <= set(said):
                found[position]['train'].append(dict(
                    increment=k, step=int(said['step']), lr=said['learning_rate'], loss=said['loss'],
                    loss_class=said.get('cross_entropy', np.nan), top1=said.get('train_accuracy', np.nan)))
    for run in found:
        dataset = 'imagenet%d' % (10 * run['rows'][0]['classes']) if run['rows'] else 'imagenet'  # ten equal increments
        run['settings'].update(METHOD='bic (authors)', DATASET=dataset, HEADLINE='top5')
        run['log'] = [repr(run['rows']), repr(run['train'])]
    return found


def _read_beside(path, run, say):
    """Reads predictions.csv and classes.csv from the folder beside a log, if they exist."""
    folder, name = os.path.split(path)
    folder = os.path.join(folder, re.sub('^log-', 'run-', name))
    try:
        of_increment = {}
        for line in _csv_lines(os.path.join(folder, 'predictions.csv')):
            labels = [int(line[key]) for key in ('class', 'before', 'after')]
            of_increment.setdefault(int(line['increment']), []).append(labels)
        found = {k: np.array(lines) for k, lines in of_increment.items()}
        if any(lines.min() < 0 for lines in found.values()):
            raise ValueError('a label below 0')
        names = {int(line['label']): line['name'] for line in _csv_lines(os.path.join(folder, 'classes.csv'))}
        run['predictions'], run['names'] = found, [names.get(label, str(label)) for label in range(len(names))]
    except (OSError, KeyError, TypeError, ValueError, csv.Error) as error:
        say('%s: predictions.csv and classes.csv cannot be used (%s); logs/README.md has their columns' % (folder, error))


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
        say('%s: no [result] line of increment %s' % (run['name'], ', '.join(map(str, absent[:5]))))
    for row in run['rows']:
        broken = [key for key in ('top1', 'top5', 'top1_before', 'top5_before', 'beta', 'gamma') if math.isnan(row.get(key, 0))]
        if broken:
            say('%s: increment %d: %s: not a number' % (run['name'], row['increment'], ', '.join(broken)))
