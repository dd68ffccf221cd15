"""The report, against tables worked out by hand, the authors' published rows, and the committed logs' own closing tables."""
import csv
import os
import subprocess
import sys

import numpy as np
import pytest

from data import Fault
from logs import read, report, tables

LOGS = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), 'logs')
DIGITS = [os.path.join(LOGS, 'log-digits' + seed) for seed in ('', '-seed2', '-seed3', '-seed4', '-seed5')]


def log(method='bic', seed=1, dataset='cifar100', top1=(0.9, 0.7), begin=0, **settings):
    """A log of two increments of 20 classes, ten test images per increment."""
    settings = dict(dict(DATASET=dataset, METHOD=method, SEED=seed, HEADLINE='top1', MODEL_DIR='model'), **settings)
    lines = ['[env]     git=1 python=3'] + ['[config]  %s=%s' % setting for setting in settings.items()]
    lines += ['[plan]    increment=%d new_classes=20 seen_classes=%d train=90 val=5 test=%d steps=8'
              % (k, 20 * k + 20, 10 * k + 10) for k in range(begin, 2)]
    if begin == 1:
        lines.append('[resume]  increment=1 seen_classes=20 step=0 dir=model/cifar100/increment-0')
    for k in range(begin, 2):
        lines += ['[train]   increment=%d step=%d lr=0.1 loss=%d.5 loss_class=1 loss_distill=%d loss_l2=0.1' % (k, step, step, k)
                  for step in (4, 8)]
        lines += ['[matrix]  increment=%d correction=on top1_by_increment=%s' % (k, '1.0000,0.5000'[:7 * k + 6])]
        lines += ['[confusion] increment=%d correction=%s true=%d predicted=%s' % (k, correction, true, predicted)
                  for correction, table in (('off', (['10'], ['4,6', '1,9'])), ('on', (['10'], ['8,2', '3,7'])))
                  for true, predicted in enumerate(table[k])]
        lines += ['[nme]     increment=%d images=10 top1=0.6000 top5=0.9000' % k,
                  '[result]  increment=%d seen_classes=%d top1=%s top5=1.0 top1_before=0.5 top5_before=1.0 beta=%s gamma=0.0'
                  % (k, 20 * k + 20, top1[k], 1 - k / 4), '[save]    increment=%d dir=model/cifar100/increment-%d' % (k, k)]
    return '\n'.join(lines) + '\n'


def authors(increments):
    """In the form of the authors' logs: the published numbers of ImageNet-100, standard output late and cut in mid-line."""
    said = 'Loading all data\n'
    shown = "{'loss': 0.5, %s'global_step': 7, 'accuracy': %s}\n"
    fits = []
    for k, (images, before, after, beta, gamma) in enumerate(increments):
        said += 'Batch of classes number %d arrives ...\n%s, #training: %d, #val: %d, #test: %d\n' % (
            (k + 1, 'incremental iteras' if k else 'first itera') + images)
        said += shown % ("'accuracy_before': 0.1, ", 0.2) if k else ''  # of the validation split
        said += shown % ("'accuracy_before': %s, " % before if before else '', after)
        fits.append((beta, gamma, after))
        for name, values in zip(('beta    : ', 'gamma   : ', 'accuracy: '), zip(*fits)):
            said += ' '.join([name] + ['[%s]' % value for value in values]) + '\n'
    warned = ''
    for k in range(len(increments)):
        for network in ('classifier', 'bias')[:1 + (k > 0)]:
            warned += 'INFO:tensorflow:Saving checkpoints for 1 into ./model/%d_%s/model.ckpt.\n' % (k, network)
            for step in (1, 101):
                warned += ('INFO:tensorflow:train_accuracy = 0.5, learning_rate = 1e-05, cross_entropy = 2.%d (72.6 sec)\n'
                           'INFO:tensorflow:step = %d, loss = 3.5 (72.6 sec)\n' % (k, step))
            warned += 'INFO:tensorflow:Saving checkpoints for 150 into ./model/%d_%s/model.ckpt.\n' % (k, network)
    middle = said.index('#training: 14417') + 12
    return warned + said[:middle] + '2019-08-24 09:00:00.158179: I tensorflow/core/gpu: device\n' + said[middle:]


def files(tmp_path, **texts):
    for name, text in texts.items():
        (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return [str(tmp_path / name) for name in texts]


def runs(tmp_path, **texts):
    said = []
    found, useless = read.runs(files(tmp_path, **texts), said.append)
    return found, useless, '\n'.join(said)


def cells(text, row):
    """The cells of a Markdown table's row that begins with that name."""
    line, = [line for line in text.split('\n') if line.startswith('|') and line.split('|')[1].strip() == row]
    return [cell.strip() for cell in line.split('|')[2:-1]]


def drawn(axes):
    """The lines with a name: dict from it to (x, y)."""
    return {container.get_label(): [list(data) for data in container[0].get_data()] for container in axes.containers}


def test_needs_neither_tensorflow_nor_for_its_tables_matplotlib():
    code = 'import sys; from logs import report, tables; print([m for m in ("tensorflow", "matplotlib") if m in sys.modules])'
    assert subprocess.check_output([sys.executable, '-c', code], cwd=os.path.dirname(LOGS)).decode().strip() == '[]'


def test_comparison_by_hand():
    def run(method, seed, *top1):
        return (dict(METHOD=method, SEED=seed, MODEL_DIR='model-%s' % seed, LR_DROP_EPOCHS=(4, 6)),
                [dict(classes=20 * k + 20, top1=one, top5=1.0) for k, one in enumerate(top1)])
    several = [run('bic', 1, 0.9, 0.6, 0.3), run('finetune', 1, 0.8, 0.2, 0.2), run('bic', 2, 0.8, 0.5, 0.5)]
    assert tables.comparison(several, 'top1') == '\n'.join([
        '|  top1, % |           20 |           40 |            60 |      average | without first | runs |',
        '|---------:|-------------:|-------------:|--------------:|-------------:|--------------:|-----:|',
        '|      bic | 85.00 ± 7.07 | 55.00 ± 7.07 | 40.00 ± 14.14 | 60.00 ± 0.00 |  47.50 ± 3.54 |    2 |',
        '| finetune |        80.00 |        20.00 |         20.00 |        40.00 |         20.00 |    1 |'])
    unfinished = tables.comparison(several[:1] + [run('joint', 1, 0.9)], 'top1')
    assert cells(unfinished, 'joint') == ['90.00', '-', '-', '-', '-', '1']
    assert cells(tables.comparison([run('bic', 1, 0.5)], 'top1'), 'bic') == ['50.00', '50.00', '-', '1']


def test_kinds():
    old, new, other = dict(SEED=1, TEMPERATURE=2.0), dict(SEED=2, TEMPERATURE='2.0', DETERMINISTIC=False), \
        dict(SEED=1, TEMPERATURE=4.0, DETERMINISTIC=False)
    assert tables.kinds([old, new]) == {'all': [0, 1]}   # a setting younger than a log
    assert tables.kinds([old, other, new]) == {'TEMPERATURE=2.0': [0, 2], 'TEMPERATURE=4.0': [1]}
    small = [dict(SEED=seed, WEIGHT_DECAY=decay, LR_DROP_EPOCHS=(4, 6)) for seed, decay in ((1, 1e-5), (2, 2e-5))]
    assert tables.kinds(small) == {'WEIGHT_DECAY=1e-05': [0], 'WEIGHT_DECAY=2e-05': [1]}


def test_committed_logs(capsys, tmp_path):
    """The README's numbers; mean and deviation as NumPy gives them for the accuracies in the closing tables."""
    assert report.main(['--out=%s' % tmp_path] + DIGITS[:1]) == 0
    shown = capsys.readouterr().out
    assert cells(shown, 'accuracy, %') == ['100.00', '97.18', '95.31', '90.46', '78.59']
    assert cells(shown, 'before correction, %') == ['100.00', '97.89', '97.18', '87.99', '76.62']
    assert cells(shown, 'beta') == ['1.000000', '0.466537', '1.744639', '0.609081', '0.484620']
    assert cells(shown, 'samples') == ['277', '369', '368', '366', '368']
    found, useless = read.runs(DIGITS, pytest.fail)
    assert not useless
    accuracies = []
    for path in DIGITS:
        with open(path) as file:
            accuracies.append([float(line.split('|')[4]) for line in file.read().split('\n') if line.startswith('| ')
                               and 'increment' not in line])
    row = cells(tables.comparison([(run['settings'], run['rows']) for run in found], 'top1'), 'bic')
    assert row[:5] == ['%.2f ± %.2f' % pair for pair in zip(100 * np.mean(accuracies, 0), 100 * np.std(accuracies, 0, ddof=1))]
    assert row[5:] == ['%.2f ± %.2f' % (100 * np.mean(averages), 100 * np.std(averages, ddof=1)) for averages in (
        np.mean(accuracies, 1), np.mean(np.array(accuracies)[:, 1:], 1))] + ['5']
    lines, = report.accuracy(found).axes
    np.testing.assert_allclose(drawn(lines)['after correction'], [[2, 4, 6, 8, 10], 100 * np.mean(accuracies, 0)])


def test_authors_log(tmp_path, capsys):
    path, = files(tmp_path, theirs=authors([
        ((12800, 200, 500), None, 0.988, '1.', '0.'), ((14417, 400, 1000), 0.957, 0.961, 0.59001338, -0.44165498),
        ((14600, 300, 1500), 0.9306667, 0.95066667, 0.51406264, -0.54017776)]))
    assert report.main(['--out=%s' % (tmp_path / 'out'), path]) == 0
    shown = capsys.readouterr().out
    assert 'imagenet100' in shown and cells(shown, 'classes') == ['10', '20', '30']
    assert cells(shown, 'accuracy, %') == ['98.80', '96.10', '95.07']
    assert cells(shown, 'before correction, %') == ['-', '95.70', '93.07']
    assert cells(shown, 'beta') == ['1.000000', '0.590013', '0.514063']
    assert cells(shown, 'gamma') == ['0.000000', '-0.441655', '-0.540178']
    assert cells(shown, 'samples') == ['12800', '14417', '14600']
    run, = read.runs([path], pytest.fail)[0]
    assert [(line['increment'], line['step'], line['loss'], line['loss_class'], line['lr']) for line in run['train']] == [
        (k, step, 3.5, 2 + k / 10, 1e-5) for k in range(3) for step in (1, 101)]   # stage 2 is left out
    assert run['steps'] == {0: 150, 1: 150, 2: 150}
    lines = drawn(report.accuracy([run]).axes[0])
    assert lines['published (BiC)'][1][:3] == [98.4, 96.2, 94.0]
    assert lines['before correction'] == [[20, 30], [95.7, pytest.approx(93.06667)]]


def test_pictures_show_the_logs_numbers(tmp_path):
    (run,), _, said = runs(tmp_path, log=log())
    assert not said
    lines = drawn(report.accuracy([run]).axes[0])
    assert lines['after correction'] == [[20, 40], [90, 70]] and lines['nearest mean of exemplars'] == [[20, 40], [60, 60]]
    assert lines['published (BiC)'] == [[20, 40, 60, 80, 100], [84.00, 74.69, 67.93, 61.25, 56.69]]
    assert drawn(report.bias([run]).axes[0])['bic'] == [[0, 1], [1, 0.75]]
    lines = drawn(report.new_classes([run]).axes[0])   # of 20 images: 6 + 9 before, 2 + 7 after, 10 are of them
    assert lines == {'before correction': [[1], [75]], 'after correction': [[1], [45]], 'true share': [[1], [50]]}
    losses, rates = report.training(run).axes
    loss = [list(map(list, line.get_data())) for line in losses.lines if line.get_color() == report.COLORS[0]]
    assert loss == [[[4, 8], [4.5, 8.5]], [[12, 16], [4.5, 8.5]]]   # the second increment goes on where the first ended
    assert [list(line.get_ydata()) for line in rates.lines[:2]] == [[0.1, 0.1]] * 2
    shown = report.matrix(run).axes[0]
    np.testing.assert_array_equal(np.ma.filled(shown.images[0].get_array(), np.nan), [[100, np.nan], [100, 50]])
    assert sorted(text.get_text() for text in shown.texts) == ['100', '100', '50']
    before, after = report.confusion(run).axes[:2]
    np.testing.assert_allclose(before.images[0].get_array(), [[40, 60], [10, 90]])
    np.testing.assert_allclose(after.images[0].get_array(), [[80, 20], [30, 70]])


def test_confusion_by_class(tmp_path):
    (tmp_path / 'run-x').mkdir()
    (tmp_path / 'run-x' / 'predictions.csv').write_text(
        'increment,path,class,before,after\n0,"a,b",0,5,5\n1,a,0,3,0\n1,b,0,0,0\n1,c,39,39,3\n')
    (run,), _, said = runs(tmp_path, **{'log-x': log()})
    before, after = report.confusion(run).axes[:2]
    assert not said and before.images[0].get_array().shape == (40, 40)
    assert before.images[0].get_array()[0, [0, 3]].tolist() == [50, 50] and after.images[0].get_array()[0, 0] == 100
    assert after.images[0].get_array()[39, 3] == 100
    for text, reason in (('increment,path,class,before,after\n1,a,0,3,x\n', 'cannot be used'), ('a\n1\n', 'cannot be used'),
                         ('increment,path,class,before,after\n1,a,-1,0,0\n', 'below 0')):
        (tmp_path / 'run-x' / 'predictions.csv').write_text(text)
        (run,), _, said = runs(tmp_path, **{'log-x': log()})
        assert 'predictions.csv' in said and reason in said
        assert report.confusion(run).axes[0].images[0].get_array().shape == (2, 2)
    (tmp_path / 'run-x' / 'predictions.csv').write_text('increment,path,class,before,after\n1,a,40,0,0\n')
    with pytest.raises(Fault, match='label 40 at increment 1, which has 40 classes'):
        report.confusion(runs(tmp_path, **{'log-x': log()})[0][0])


def test_several_kinds(tmp_path, capsys):
    paths = files(tmp_path, a=log(), b=log(seed=2, top1=(0.8, 0.5)), c=log('finetune', top1=(0.8, 0.2)))
    out = tmp_path / 'out'
    assert report.main(['--out=%s' % out] + paths) == 0
    shown = capsys.readouterr()
    assert cells(shown.out, 'bic') == ['85.00 ± 7.07', '60.00 ± 14.14', '72.50 ± 10.61', '60.00 ± 14.14', '2']
    assert shown.err == ''
    found = read.runs(paths, pytest.fail)[0]
    lines = drawn(report.accuracy(found).axes[0])
    assert lines['bic'] == [[20, 40], [85, 60]] and lines['finetune'] == [[20, 40], [80, 20]]
    names = ['accuracy', 'bias', 'new_classes']
    names += [run + '-' + picture for run in 'abc' for picture in ('training', 'matrix', 'confusion')]
    assert sorted(os.listdir(str(out))) == sorted(['rows.csv'] + [name + end for name in names for end in ('.png', '.svg')])
    with open(str(out / 'rows.csv'), newline='') as file:
        lines = list(csv.DictReader(file))
    assert [(line['log'], line['increment'], line['top1'], line['top1_nme'], line['test']) for line in lines] == [
        ('a', '0', '0.9', '0.6', '10'), ('a', '1', '0.7', '0.6', '20'), ('b', '0', '0.8', '0.6', '10'),
        ('b', '1', '0.5', '0.6', '20'), ('c', '0', '0.8', '0.6', '10'), ('c', '1', '0.2', '0.6', '20')]
    from matplotlib import image
    for name in names:
        pixels = image.imread(str(out / name) + '.png')
        assert pixels.shape[1] == 990 and pixels[..., :3].std() > 0.05   # 3.3 inches at 300 dpi, not blank


def test_parts_of_a_run(tmp_path):
    first = log(MODEL_DIR='elsewhere').split('[plan]    increment=1')[0] + ''.join(
        line + '\n' for line in log().split('\n') if 'increment=0' in line and 'plan' not in line)
    first += '[train]   increment=1 step=3 lr=0.1 loss=9\n'   # done again by the second part
    second = log(begin=1)
    for texts in (dict(a=first, b=second), dict(b=second, a=first), dict(both=first + second)):
        (run,), useless, said = runs(tmp_path, **texts)
        assert not said and not useless and [row['top1'] for row in run['rows']] == [0.9, 0.7]
        assert [(line['increment'], line['step']) for line in run['train']] == [(0, 4), (0, 8), (1, 4), (1, 8)]
    (run,), _, said = runs(tmp_path, b=second)
    assert 'b: goes on from an earlier part' in said and [row['increment'] for row in run['rows']] == [1]
    found, _, said = runs(tmp_path, a=first, b=second.replace('SEED=1', 'SEED=2'))   # another run's checkpoint, same name
    assert len(found) == 2 and 'goes on from an earlier part' in said


def test_bad_logs(tmp_path, capsys):
    (tmp_path / 'folder').mkdir()
    paths = files(tmp_path, empty='', text='hello\n', binary=b'[env]\0\n', fine=log()) + [
        str(tmp_path / 'nothing'), str(tmp_path / 'folder')]
    assert report.main(['--out=%s' % (tmp_path / 'out')] + paths) == 1
    shown = capsys.readouterr()
    for name, reason in (('empty', 'is empty'), ('text', 'is no log'), ('binary', 'is no log but a binary file'),
                         ('nothing', 'cannot be read (No such file'), ('folder', 'cannot be read (Is a directory')):
        assert '%s: %s' % (tmp_path / name, reason) in shown.err
    assert cells(shown.out, 'accuracy, %') == ['90.00', '70.00'] and (tmp_path / 'out' / 'matrix.png').exists()
    assert report.main(['--out=%s' % (tmp_path / 'text' / 'x'), paths[3]]) == 2
    for wrong in ([], ['--out=x'], ['--other', paths[3]], ['--out=', paths[3]], ['--out=x', '--out=y', paths[3]]):
        assert report.main(wrong) == 2
        assert 'usage' in capsys.readouterr().err


def test_faults_within_a_log(tmp_path):
    whole = log()
    (run,), _, said = runs(tmp_path, cut=whole[:whole.index('top1=0.7') + 6])
    assert 'cut: the last line is cut off' in said and [row['increment'] for row in run['rows']] == [0]
    found, _, said = runs(tmp_path, both=whole + log(seed=2))
    assert [run['name'] for run in found] == ['both-1', 'both-2'] and not said
    (run,), _, said = runs(tmp_path, one=whole, copy=whole)
    assert 'copy: is the same run' in said
    with open(DIGITS[0]) as file:   # whose first line of training has nan
        (run,), _, said = runs(tmp_path, **{'log-digits': file.read(), 'again': open(DIGITS[0]).read()})
    assert 'again: is the same run' in said
    (tmp_path / 'METHOD=bic,SEED=1').mkdir()
    assert read.runs([files(tmp_path / 'METHOD=bic,SEED=1', log=whole)[0]], print)[0][0]['name'] == 'METHOD=bic,SEED=1'
    found, _, said = runs(tmp_path, killed=whole[:-20] + log(seed=2))
    assert len(found) == 2 and 'is cut off' in said and len(found[1]['rows']) == 2
    (run,), _, said = runs(tmp_path, gap='\n'.join(line for line in whole.split('\n') if 'increment=0' not in line))
    assert 'gap: no [result] line of increment 0' in said
    assert drawn(report.accuracy([run]).axes[0])['after correction'] == [[40], [70]]
    (run,), _, said = runs(tmp_path, nan=log(top1=(0.9, 'nan')))
    assert 'nan: increment 1: top1: not a number' in said
    assert np.isnan(drawn(report.accuracy([run]).axes[0])['after correction'][1][1])
    damaged = whole.replace('top1=0.7 ', 'top1=much ').replace('seen_classes=20 top1=0.9', 'x=20 x=1')
    (run,), _, said = runs(tmp_path, word=damaged)
    assert said.count('is damaged and left out') == 2 and not run['rows'] and len(run['train']) == 4
    _, useless, said = runs(tmp_path, begun=whole.split('[plan]')[0])
    assert len(useless) == 1 and 'begun: nothing to show' in said
    for picture, tag in (('training', 'train'), ('matrix', 'matrix'), ('confusion', 'confusion'), ('new_classes', 'confusion'),
                         ('accuracy', 'result'), ('bias', 'bias')):
        less = [line for line in whole.replace('beta=0.75', 'beta=1.0').split('\n') if not line.startswith('[%s]' % tag)]
        (run,), _, _ = runs(tmp_path, less='\n'.join(less))
        with pytest.raises(Fault, match=r'no \[%s\]' % tag):
            getattr(report, picture)(run if picture in ('training', 'matrix', 'confusion') else [run])


def test_datasets_apart_and_runs_of_different_lengths(tmp_path, capsys):
    paths = files(tmp_path, a=log(), b=log(dataset='other'))
    assert report.main(['--out=%s' % (tmp_path / 'out')] + paths) == 0
    shown = capsys.readouterr()
    assert 'several datasets' in shown.err and 'Comparison' not in shown.out
    assert {'cifar100-accuracy.png', 'other-accuracy.png', 'other-matrix.png'} < set(os.listdir(str(tmp_path / 'out')))
    found, _, said = runs(tmp_path, long=log(), short=log(seed=2, top1=(0.8, 0)).split('[plan]    increment=1')[0] + '\n'.join(
        line for line in log(seed=2, top1=(0.8, 0)).split('\n') if 'increment=0' in line and 'plan' not in line) + '\n')
    assert [len(run['rows']) for run in found] == [2, 1] and not said
    assert drawn(report.accuracy(found).axes[0])['after correction'] == [[20, 40], [85, 70]]
    assert cells(tables.comparison([(run['settings'], run['rows']) for run in found], 'top1'), 'bic') == [
        '85.00 ± 7.07', '70.00', '80.00', '70.00', '2']
