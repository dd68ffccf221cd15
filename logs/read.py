"""Log files -> runs. Reads this project's logs, whole, in parts or cut off, and the authors' published ones; no TensorFlow.

A run is a dict: `name`; `settings`, dict from name to text; `rows`, list of dict, one per increment that was evaluated, with
`increment`, `classes` and what the lines of that increment say; `train`, list of dict, one per [train] line, in the order of
training; `steps`, dict from increment to the steps of its training; `matrix`, dict from (increment, correction) to list of float;
`confusion`, dict from (increment, correction) to int array [true increment, predicted increment], images; `predictions`, dict
from increment to int array [images, 3]: class, prediction before and after the correction.
"""
import csv
import math
import os
import re

import numpy as np

from data import FREE, Fault

_EVENT = re.compile(r'\[(\w+)\]\s+(.*)')
_PAIR = re.compile(r'(\w+)=(.*?)(?=\s+\w+=|\s*$)')
_WORDS = ('split', 'correction', 'dir', 'at_bound')
_LISTS = ('top1_by_increment', 'predicted', 'lr_drops')
_WHOLE = {'increment': 4, 'true': 4, 'seen_classes': 9, 'step': 9, 'steps': 9, 'train': 9, 'val': 9, 'test': 9}  # digits at most
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
# The authors' standard error, in the order of training: which network, its step, the rate, the losses.
_NUMBER = r'([-+]?(?:\d+\.?\d*(?:e[-+]?\d+)?|nan|inf))'
_STDERR = re.compile(r'Saving checkpoints for (\d{1,9}) into \S*?(\d{1,4})_(classifier|bias)/|'
                     r'train_accuracy = %s, learning_rate = %s, cross_entropy = %s.*\n'
                     r'INFO:tensorflow:step = (\d{1,9}), loss = %s' % (4 * (_NUMBER,)))
_STDERR_LINE = re.compile(r'(?:INFO:tensorflow:|WARNING:tensorflow:|\d{4}-\d\d-\d\d [\d:.]+: [IWE] )[^\n]*\n')


def runs(paths, say):
    """The runs in log files.

    Args:
        paths: list of str. say: function that is given what is wrong, a line of text each.

    Returns:
        runs: list of dict, see above. useless: list of str, the paths of which nothing can be shown.
    """
    found, parts, useless = [], [], []
    for path in paths:
        try:
            text = _text(path, say)
            if re.search(r'^\[env\]', text, re.M):
                parts += _parts(path, text, say)
            elif 'INFO:tensorflow:' in text or 'Batch of classes number' in text:
                found += _authors(path, text, say)
            else:
                raise Fault('%s: is no log: no line begins with [env], nor is it one of the authors\'' % path)
        except OSError as error:
            say('%s: cannot be read (%s)' % (path, error.strerror))
            useless.append(path)
        except Fault as fault:
            say(str(fault))
            useless.append(path)
    found = [_replay(chain, say) for chain in _chains(parts, say)] + found
    found.sort(key=lambda run: paths.index(run['paths'][0]))
    for path in sorted({path for run in found for path in run['paths']}):
        if not any(path in run['paths'] and (run['rows'] or run['train']) for run in found):
            say('%s: nothing to show: no complete [train] or [result] line' % path)
            useless.append(path)
    found = [run for run in found if run['rows'] or run['train']]
    names = [_name(run['paths'][0]) for run in found]
    for position, run in enumerate(found):
        name = names[position]
        run['name'] = name if names.count(name) == 1 else '%s-%d' % (name, names[:position + 1].count(name))
        for path in run['paths']:
            folder, log = os.path.split(path)
            beside = os.path.join(folder, re.sub('^log-', 'run-', log), 'predictions.csv')
            if sum(path in other['paths'] for other in found) == 1:  # else the predictions may be of either
                run['predictions'].update(_predictions(beside, say))
        for line in run['train']:  # what [plan] lines do not say, the last line so far does
            if line['increment'] not in run['steps'] or line['step'] > run['steps'][line['increment']]:
                run['steps'][line['increment']] = line['step']
        _check(run, say)
    return found, useless


def _name(path):
    """What a run is called: its log, or its folder where that tells the run from others, as METHOD=bic,SEED=1."""
    folder = os.path.basename(os.path.dirname(os.path.abspath(path)))
    return folder if '=' in folder else os.path.basename(path)


def _text(path, say):
    """A file's text up to its last whole line."""
    with open(path, 'rb') as file:
        content = file.read()
    if not content:
        raise Fault('%s: is empty' % path)
    if b'\0' in content:
        raise Fault('%s: is no log but a binary file' % path)
    whole, newline, cut = content.decode('utf-8', 'replace').replace('\r\n', '\n').rpartition('\n')
    if cut:
        say('%s: the last line is cut off and left out: %s' % (path, cut[:60]))
    return whole + newline


def _parts(path, text, say):
    """The parts of runs in one file: list of dict with `path`, `settings`, `events`, (tag, values) in order, their `lines`."""
    parts = []
    for number, line in enumerate(text.split('\n'), 1):
        before, env, rest = line.partition('[env] ')
        if env and before:  # a part was killed within a line, and the next one went on there
            say('%s: line %d is cut off and left out: %s' % (path, number, before[:60]))
            line = env + rest
        event = _EVENT.match(line)
        tag, values = event.groups() if event else (None, None)
        if tag == 'env':
            parts.append(dict(path=path, settings={}, events=[], lines=[]))
        elif tag == 'config' and parts:
            name, _, value = values.partition('=')
            parts[-1]['settings'][name] = value
        elif tag in _NEEDS and parts:
            parts[-1]['lines'].append(line)
            try:
                parts[-1]['events'].append((tag, _values(tag, values)))
            except ValueError as error:
                say('%s: line %d is damaged and left out (%s): %s' % (path, number, error, line[:60]))
    for part in parts:  # logs from before there were others
        part['settings'].setdefault('METHOD', 'bic')
        part['settings'].setdefault('EXEMPLAR_SELECTION', 'herding')
    return parts


def _values(tag, text):
    values = dict(_PAIR.findall(text))
    missing = [key for key in _NEEDS[tag].split() if not values.get(key)]
    if missing:
        raise ValueError('without %s' % ', '.join(missing))
    for key in set(_WHOLE) & set(values):
        if not re.match(r'[0-9]{1,%d}$' % _WHOLE[key], values[key]):
            raise ValueError('%s=%s' % (key, values[key]))
    return {key: value if key in _WORDS else [float(one) for one in value.split(',')] if key in _LISTS and value
            else int(value) if key in _WHOLE else float(value or 'nan') for key, value in values.items()}


def _chains(parts, say):
    """Puts parts of the same run behind each other: one that has [resume] dir= follows the one that has [save] dir=.

    Returns:
        list of lists of parts.
    """
    chains, candidates = [], []
    for position, part in enumerate(parts):
        if any(part['lines'] == other['lines'] and part['settings'] == other['settings'] for other in parts[:position]):
            say('%s: is the same run as in another file, or in this one, and left out' % part['path'])
            continue
        begin = next((values for tag, values in part['events'] if tag == 'resume'), None)
        if begin is None:
            chains.append([part])
        else:
            candidates.append((part, [other for other in parts if other is not part and _fixed(other) == _fixed(part)
                                      and any((tag, values.get('dir')) == ('save', begin['dir'])
                                              for tag, values in other['events'])]))
    # Two parts may have saved under the same name; a part is continued once, so those with one candidate take it first.
    for part, earlier in sorted(candidates, key=lambda candidate: len(candidate[1])):
        part['after'] = next((other for other in earlier if 'next' not in other and not _follows(other, part)), None)
        if part['after']:
            part['after']['next'] = part
        else:
            say('%s: goes on from an earlier part of the run, whose log is not here; the rest is shown' % part['path'])
            chains.append([part])
    for chain in chains:
        while 'next' in chain[-1]:
            chain.append(chain[-1]['next'])
    return chains


def _fixed(part):
    return {name: value for name, value in part['settings'].items() if name not in FREE}


def _follows(part, earlier):
    while part is not None and part is not earlier:
        part = part.get('after')
    return part is earlier


def _replay(chain, say):
    """A run from its parts, in their order: what a part did again replaces what the part before it had done."""
    rows, train, steps, matrix, confusion = {}, {}, {}, {}, {}
    for part in chain:
        for tag, values in part['events']:
            k = values.get('increment')
            row = rows.setdefault(k, dict(increment=k)) if tag in ('plan', 'bias', 'eval', 'nme', 'result') else None
            if tag == 'resume':
                train = {at: line for at, line in train.items() if at <= (k, values['step'])}
                rows = {done: line for done, line in rows.items() if done < k}
            elif tag == 'train':
                train[k, values['step']] = values
            elif tag == 'matrix':
                matrix[k, values['correction']] = values['top1_by_increment']
            elif tag == 'confusion':
                confusion.setdefault((k, values['correction']), {})[values['true']] = values['predicted']
            elif tag == 'eval':
                suffix = {('test', 'on'): '', ('test', 'off'): '_before', ('val', 'on'): '_val', ('val', 'off'): '_val_before'}
                row.update({metric + suffix.get((values['split'], values['correction']), '_other'): values[metric]
                            for metric in ('top1', 'top5')})
            elif tag == 'nme':
                row.update(top1_nme=values['top1'], top5_nme=values['top5'])
            elif row is not None:
                row.update({'fitted' if key == 'val' and tag == 'bias' else key: value for key, value in values.items()})
                row.update(classes=row.get('seen_classes'))
                if tag == 'plan':
                    steps[k] = values['steps']
    rows = [rows[k] for k in sorted(rows, key=lambda k: -1 if k is None else k) if 'top1' in rows[k] and rows[k].get('classes')]
    square = {(k, correction): np.array([lines[true] for true in range(k + 1)]) for (k, correction), lines in confusion.items()
              if {true: len(predicted) for true, predicted in lines.items()} == {true: k + 1 for true in range(k + 1)}}
    return dict(paths=[part['path'] for part in chain], settings=chain[-1]['settings'], rows=rows, matrix=matrix,
                confusion=square, steps=steps, train=[train[at] for at in sorted(train)], predictions={})


def _authors(path, text, say):
    """The runs in a log of the authors' code.

    Its standard output was buffered in blocks, which stand among the lines of standard error, late and cut in mid-line: without
    standard error's lines they are whole again. The two are in order each, but not with each other.
    """
    found = []
    for section in re.split(r'(?=Batch of classes number [1-9]\d{0,3} arrives)', _STDERR_LINE.sub('', text))[1:]:
        k = int(re.match(r'\D+(\d+)', section).group(1)) - 1
        if k == 0 or not found:
            found.append(_authors_run(path))
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
    position, bias = -1, False
    for saved, k, network, top1, rate, cross_entropy, step, loss in _STDERR.findall(text):
        if saved:
            bias, now = network == 'bias', int(k)
            if not bias:
                if int(saved) == 1 and (now == 0 or position < 0):
                    position += 1
                    found += [_authors_run(path)] if position == len(found) else []
                found[position]['steps'][now] = int(saved)
        elif not bias and position >= 0:
            found[position]['train'].append(dict(increment=now, step=int(step), lr=float(rate), loss=float(loss),
                                                 loss_class=float(cross_entropy), top1=float(top1)))
    for run in found:
        if run['rows']:
            run['settings']['DATASET'] = 'imagenet%d' % (10 * run['rows'][0]['classes'])  # ten equal increments
    return found


def _authors_run(path):
    return dict(paths=[path], settings=dict(METHOD='bic (authors)', DATASET='imagenet', HEADLINE='top5'), rows=[], train=[],
                steps={}, matrix={}, confusion={}, predictions={})


def _predictions(path, say):
    """The predictions beside a log: dict from increment to int array [images, 3]; empty where there are none."""
    if not os.path.exists(path):
        return {}
    try:
        with open(path, newline='', encoding='utf-8', errors='replace') as file:
            of_increment = {}
            for line in csv.DictReader(file):
                labels = [int(line[key]) for key in ('class', 'before', 'after')]
                of_increment.setdefault(int(line['increment']), []).append(labels)
        found = {k: np.array(lines) for k, lines in of_increment.items()}
        if any(lines.min() < 0 for lines in found.values()):
            raise ValueError('a label below 0')
        return found
    except (OSError, KeyError, TypeError, ValueError, csv.Error) as error:
        say('%s: cannot be used (%s); it should have the columns increment,path,class,before,after' % (path, error))
        return {}


def _check(run, say):
    """Says what a run lacks."""
    done = [row['increment'] for row in run['rows']]
    for k in sorted(set(range(max(done, default=0))) - set(done)):
        say('%s: no [result] line of increment %d' % (run['name'], k))
    for row in run['rows']:
        broken = [key for key in ('top1', 'top5', 'top1_before', 'top5_before', 'beta', 'gamma') if math.isnan(row.get(key, 0))]
        if broken:
            say('%s: increment %d: %s: not a number' % (run['name'], row['increment'], ', '.join(broken)))
