"""Tests the report.

Against tables worked out by hand, the authors' published rows, and closing tables of committed
logs.
"""
import csv
import io
import os

import numpy as np
import pytest
from matplotlib import image

from data import Fault
from logs import draw, plot, read, report, tables

PROJECT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
LOGS = os.path.join(PROJECT, 'logs', 'runs')
DIGITS = [os.path.join(LOGS, 'log-digits' + seed)
          for seed in ('', '-seed2', '-seed3', '-seed4', '-seed5')]
OF_ONE_RUN = (draw.training, draw.matrix, draw.confusion)
OF_SEVERAL = (draw.accuracy, draw.bias, draw.new_classes)


# ---- Logs ----------------------------------------------------------------------------------------
def log(method='bic', seed=1, dataset='cifar100', top1=(0.9, 0.7)):
    """A log of two increments of 20 classes, with ten test images per increment."""
    settings = dict(DATASET=dataset, METHOD=method, SEED=seed, HEADLINE='top1', MODEL_DIR='model')
    lines = ['[env]     git=1 python=3']
    lines += ['[config]  %s=%s' % setting for setting in settings.items()]
    lines += [plan_line(0), plan_line(1)]
    lines += increment_lines(0, top1) + increment_lines(1, top1)
    return '\n'.join(lines) + '\n'


def plan_line(k):
    return ('[plan]    increment=%d new_classes=20 seen_classes=%d train=90 val=5 test=%d steps=8 '
            'lr_drops=5' % (k, 20 * k + 20, 10 * k + 10))


def increment_lines(k, top1):
    lines = []
    for step, rate in ((4, 0.1), (8, 0.01)):
        lines.append('[train]   increment=%d step=%d lr=%s loss=%d.5 loss_class=1 loss_distill=%d '
                     'loss_l2=0.1' % (k, step, rate, step, k))
    fractions = ('1.0000', '1.0000,0.5000')[k]
    lines.append('[matrix]  increment=%d correction=on top1_by_increment=%s' % (k, fractions))
    before = (['10'], ['4,6', '1,9'])[k]
    after = (['10'], ['8,2', '3,7'])[k]
    for correction, counts in (('off', before), ('on', after)):
        for true, predicted in enumerate(counts):
            lines.append('[confusion] increment=%d correction=%s true=%d predicted=%s'
                         % (k, correction, true, predicted))
    lines.append('[nme]     increment=%d images=10 top1=0.6000 top5=0.9000' % k)
    lines.append('[result]  increment=%d seen_classes=%d top1=%s top5=1.0 top1_before=0.5 '
                 'top5_before=1.0 beta=%s gamma=0.0 forgetting_top1=%s'
                 % (k, 20 * k + 20, top1[k], 1 - k / 4, ('nan', 0.25)[k]))
    lines.append('[save]    increment=%d dir=model/cifar100/increment-%d' % (k, k))
    return lines


def authors_log(increments):
    """A log of the authors' code. Standard output is late, and cut in mid-line.

    Args:
        increments: list of tuples: images to train on, of the validation split, and to test on;
            accuracy before the correction, or None; accuracy; beta; gamma.
    """
    out = 'Loading all data\n'
    evaluated = "{'loss': 0.5, %s'global_step': 7, 'accuracy': %s}\n"
    fits = []
    for k, (images, before, after, beta, gamma) in enumerate(increments):
        kind = 'incremental iteras' if k else 'first itera'
        out += ('Batch of classes number %d arrives ...\n%s, #training: %d, #val: %d, #test: %d\n'
                % ((k + 1, kind) + images))
        if k:
            out += evaluated % ("'accuracy_before': 0.1, ", 0.2)  # of the validation split
        out += evaluated % ("'accuracy_before': %s, " % before if before else '', after)
        fits.append((beta, gamma, after))
        for name, values in zip(('beta    : ', 'gamma   : ', 'accuracy: '), zip(*fits)):
            out += ' '.join([name] + ['[%s]' % value for value in values]) + '\n'
    middle = out.index('#training: 14417') + 12
    interrupting = '2019-08-24 09:00:00.158179: I tensorflow/core/gpu: device\n'
    return authors_errors(len(increments)) + out[:middle] + interrupting + out[middle:]


def authors_errors(num_increments):
    """What their code writes to standard error."""
    lines = []
    for k in range(num_increments):
        for network in ['classifier', 'bias'] if k else ['classifier']:
            saved = 'Saving checkpoints for %%d into ./model/%d_%s/model.ckpt.' % (k, network)
            lines.append(saved % 1)
            for step in (1, 101):
                keys = ['train_accuracy = 0.5', 'learning_rate = 1e-05', 'cross_entropy = 2.%d' % k]
                if k == 1:  # on ImageNet-100 and on ImageNet-1000 they have another order
                    keys.reverse()
                lines.append(', '.join(keys) + ' (72.6 sec)')
                lines.append('step = %d, loss = 3.5 (72.6 sec)' % step)
            lines.append(saved % 150)
    return ''.join('INFO:tensorflow:%s\n' % line for line in lines)


def files(tmp_path, **texts):
    """Writes files of these names, and returns their paths."""
    for name, text in texts.items():
        content = text if isinstance(text, bytes) else text.encode()
        (tmp_path / name).write_bytes(content)
    return [str(tmp_path / name) for name in texts]


def read_all(tmp_path, **texts):
    """The runs, the useless paths and the messages of logs of these names."""
    messages = []
    runs, useless = read.runs(files(tmp_path, **texts), messages.append)
    return runs, useless, '\n'.join(messages)


def read_one(tmp_path, **texts):
    """The only run, and the messages."""
    (run,), useless, messages = read_all(tmp_path, **texts)
    assert not useless
    return run, messages


# ---- What is shown -------------------------------------------------------------------------------
def cells(text, row):
    """The cells of the Markdown table's row with that name."""
    matching = []
    for line in text.split('\n'):
        if line.startswith('|') and line.split('|')[1].strip() == row:
            matching.append([cell.strip() for cell in line.split('|')[2:-1]])
    only, = matching
    return only


def compared(runs):
    """The comparison of runs that were read, Markdown."""
    return tables.comparison([(run.settings, run.rows) for run in runs], 'top1')


def drawn(axes):
    """The named curves, dict from name to [x, y]."""
    curves = {}
    for container in axes.containers:
        x, y = container[0].get_data()
        curves[container.get_label()] = [list(x), list(y)]
    return curves


def csv_rows(path):
    with open(str(path), newline='') as file:
        return list(csv.DictReader(file))


# ---- Tables --------------------------------------------------------------------------------------
def run_by_hand(method, seed, top1, **last):
    """Settings and rows. The last row has `last`, too."""
    rows = []
    for k, accuracy in enumerate(top1):
        rows.append(dict(
            increment=k, classes=20 * k + 20, top1=accuracy, top5=1.0, top1_nme=accuracy / 2))
    rows[-1].update(last)
    settings = dict(
        METHOD=method, SEED=seed, MODEL_DIR='model-%s' % seed, LR_DROP_EPOCHS=(4, 6))
    return settings, rows


def test_comparison_by_hand():
    runs = [
        run_by_hand('bic', 1, [0.9, 0.6, 0.3], forgetting_top1=0.1),
        run_by_hand('finetune', 1, [0.8, 0.2, 0.2]),
        run_by_hand('bic', 2, [0.8, 0.5, 0.5], forgetting_top1=0.3),
    ]
    text = tables.comparison(runs, 'top1')
    assert cells(text, 'top1, %') == [
        '20', '40', '60', 'average', 'without first', 'forgetting', 'nearest mean', 'runs']
    assert cells(text, 'bic') == [
        '85.00 ± 7.07', '55.00 ± 7.07', '40.00 ± 14.14', '60.00 ± 0.00', '47.50 ± 3.54',
        '20.00 ± 14.14', '20.00 ± 7.07', '2']
    assert cells(text, 'finetune') == [
        '80.00', '20.00', '20.00', '40.00', '20.00', '-', '10.00', '1']
    assert text.split('\n')[3].startswith('| finetune |        80.00 |')


def test_comparison_of_unfinished_runs():
    finished = run_by_hand('bic', 1, [0.9, 0.6, 0.3])
    text = tables.comparison([finished, run_by_hand('joint', 1, [0.9])], 'top1')
    assert cells(text, 'joint') == ['90.00', '-', '-', '-', '-', '-', '-', '1']
    text = tables.comparison([run_by_hand('bic', 1, [0.5])], 'top1')
    assert cells(text, 'bic') == ['50.00', '50.00', '-', '-', '25.00', '1']


def test_averages_of_the_log():
    """They are of accuracies that were not rounded."""
    run = run_by_hand('bic', 1, [0.5, 0.25], avg_top1=0.3751, avg_top1_excl_first=0.2504)
    assert cells(tables.comparison([run], 'top1'), 'bic')[2:4] == ['37.51', '25.04']


def test_without_a_correction(tmp_path, capsys):
    """Equal matrices are drawn once, and there is no line of beta and gamma."""
    lines = []
    for line in log('finetune', top1=(0.5, 0.5)).replace('beta=0.75', 'beta=1.0').split('\n'):
        is_confusion = line.startswith('[confusion]')
        if not is_confusion or 'correction=off' in line:
            lines.append(line)
        if is_confusion and 'correction=off' in line:
            lines.append(line.replace('correction=off', 'correction=on'))
    same = '\n'.join(lines)
    begun = log().split('[matrix]')[0]
    runs, _, messages = read_all(tmp_path, same=same, begun=begun)
    assert not messages
    report.print_tables(runs)
    out = capsys.readouterr().out
    assert 'beta' not in out and 'before' not in out
    assert out.count('No increment is finished.') == 1
    assert len(draw.confusion(runs[0]).axes) == 2  # with the colours' scale


def test_kinds():
    old = dict(SEED=1, TEMPERATURE=2.0)
    new = dict(SEED=2, TEMPERATURE='2.0', DETERMINISTIC=False)
    other = dict(SEED=1, TEMPERATURE=4.0, DETERMINISTIC=False)
    assert tables.kinds([old, new]) == {'all': [0, 1]}  # a setting younger than a log
    assert tables.kinds([old, other, new]) == {'TEMPERATURE=2.0': [0, 2], 'TEMPERATURE=4.0': [1]}
    small = [dict(SEED=1, WEIGHT_DECAY=1e-5, LR_DROP_EPOCHS=(4, 6)),
             dict(SEED=2, WEIGHT_DECAY=2e-5, LR_DROP_EPOCHS=(4, 6))]
    assert tables.kinds(small) == {'WEIGHT_DECAY=1e-05': [0], 'WEIGHT_DECAY=2e-05': [1]}


def test_committed_logs():
    """NumPy's mean and deviation of the accuracies in the closing tables: the README's numbers."""
    accuracies = []
    for path in DIGITS:
        with open(path) as file:
            lines = [line.split('|') for line in file if line.startswith('| ')]
        accuracies.append([float(line[4]) for line in lines[1:]])
    percent = 100 * np.array(accuracies)

    runs, useless = read.runs(DIGITS, pytest.fail)
    assert not useless
    row = cells(compared(runs), 'bic')
    assert row[:5] == ['%.2f ± %.2f' % (np.mean(values), np.std(values, ddof=1))
                       for values in percent.T]
    # The log's own averages are of accuracies that were not rounded.
    for text, averages in ((row[5], percent.mean(axis=1)), (row[6], percent[:, 1:].mean(axis=1))):
        mean, deviation = map(float, text.split(' ± '))
        assert mean == pytest.approx(np.mean(averages), abs=0.011)
        assert deviation == pytest.approx(np.std(averages, ddof=1), abs=0.011)


# ---- The authors' logs ---------------------------------------------------------------------------
@pytest.fixture
def published(tmp_path):
    """The path of a log with ImageNet-100's published numbers."""
    path, = files(tmp_path, theirs=authors_log([
        ((12800, 200, 500), None, 0.988, '1.', '0.'),
        ((14417, 400, 1000), 0.957, 0.961, 0.59001338, -0.44165498),
        ((14600, 300, 1500), 0.9306667, 0.95066667, 0.51406264, -0.54017776)]))
    return path


def test_table_of_an_authors_log(published, tmp_path, capsys):
    assert report.main(['--out=%s' % (tmp_path / 'out'), published]) == 0
    out = capsys.readouterr().out
    assert 'imagenet100' in out and cells(out, 'classes') == ['10', '20', '30']
    assert cells(out, 'accuracy, %') == ['98.80', '96.10', '95.07']
    assert cells(out, 'before correction, %') == ['-', '95.70', '93.07']
    assert cells(out, 'beta') == ['1.000000', '0.590013', '0.514063']
    assert cells(out, 'gamma') == ['0.000000', '-0.441655', '-0.540178']
    assert cells(out, 'samples') == ['12800', '14417', '14600']


def test_training_of_an_authors_log(published):
    """The lines of stage 2 are left out."""
    (run,), _ = read.runs([published], pytest.fail)
    lines = [(line['increment'], line['step'], line['loss'], line['loss_class'], line['lr'])
             for line in run.train]
    assert lines == [
        (0, 1, 3.5, 2.0, 1e-5), (0, 101, 3.5, 2.0, 1e-5),
        (1, 1, 3.5, 2.1, 1e-5), (1, 101, 3.5, 2.1, 1e-5),
        (2, 1, 3.5, 2.2, 1e-5), (2, 101, 3.5, 2.2, 1e-5)]
    assert run.steps == {0: 150, 1: 150, 2: 150}
    rates = draw.training(run).axes[1].lines
    steps = [list(rate.get_data()[0]) for rate in rates[:3]]
    assert steps == [[1, 101], [151, 251], [301, 401]]


def test_accuracy_of_an_authors_log(published):
    (run,), _ = read.runs([published], pytest.fail)
    curves = drawn(draw.accuracy([run]).axes[0])
    assert curves['published (BiC)'][1][:3] == [98.4, 96.2, 94.0]
    assert curves['before correction'] == [[20, 30], [95.7, pytest.approx(93.06667)]]


# ---- Pictures ------------------------------------------------------------------------------------
@pytest.fixture
def run(tmp_path):
    run, messages = read_one(tmp_path, log=log())
    assert not messages
    return run


def test_accuracy_and_bias(run, tmp_path):
    curves = drawn(draw.accuracy([run]).axes[0])
    assert curves['after correction'] == [[20, 40], [90, 70]]
    assert curves['before correction'] == [[20, 40], [50, 50]]
    assert curves['nearest mean of exemplars'] == [[20, 40], [60, 60]]
    assert curves['published (BiC)'] == [
        [20, 40, 60, 80, 100], [84.00, 74.69, 67.93, 61.25, 56.69]]
    of_imagenet = log(dataset='imagenet100').replace('HEADLINE=top1', 'HEADLINE=top5')
    other, _ = read_one(tmp_path, other=of_imagenet)
    # The published curve is of increments of ten classes.
    assert 'published (BiC)' not in drawn(draw.accuracy([other]).axes[0])
    assert drawn(draw.bias([run]).axes[0])['bic'] == [[0, 1], [1, 0.75]]
    assert drawn(draw.bias([run]).axes[1])['bic'] == [[0, 1], [0, 0]]


def test_new_classes(run):
    """Of 20 images, 10 are of the newest classes: 6 + 9 before, 2 + 7 after the correction."""
    assert drawn(draw.new_classes([run]).axes[0]) == {
        'before correction': [[40], [75]], 'after correction': [[40], [45]],
        'true share': [[40], [50]]}


def test_training(run):
    """The second increment begins where the first ended."""
    losses, rates = draw.training(run).axes
    curves = []
    for line in losses.lines:
        if line.get_color() == plot.COLORS[0]:
            curves.append([list(data) for data in line.get_data()])
    assert curves == [[[4, 8], [4.5, 8.5]], [[12, 16], [4.5, 8.5]]]
    # The rate drops after step 5, counted from 0: six steps of each eight have the first one.
    for k, rate in enumerate(rates.lines[:2]):
        np.testing.assert_allclose(
            rate.get_data(), [[8 * k, 8 * k + 6, 8 * k + 8], [0.1, 0.01, 0.01]])
        assert rate.get_drawstyle() == 'steps-post'
    assert [text.get_text() for text in rates.get_yticklabels()] == ['0.01', '0.1']


def test_matrix_and_confusion(run):
    axes = draw.matrix(run).axes[0]
    percent = np.ma.filled(axes.images[0].get_array(), np.nan)
    np.testing.assert_array_equal(percent, [[100, np.nan], [100, 50]])
    assert sorted(text.get_text() for text in axes.texts) == ['100', '100', '50']
    before, after = draw.confusion(run).axes[:2]
    np.testing.assert_allclose(before.images[0].get_array(), [[40, 60], [10, 90]])
    np.testing.assert_allclose(after.images[0].get_array(), [[80, 20], [30, 70]])


def with_predictions(tmp_path, text):
    """The run of a log with this predictions.csv beside it, and the messages."""
    folder = tmp_path / 'run-x'
    folder.mkdir(exist_ok=True)
    (folder / 'predictions.csv').write_text(text)
    return read_one(tmp_path, **{'log-x': log()})


HEAD = 'increment,path,class,before,after\n'


def test_confusion_by_class(tmp_path):
    run, messages = with_predictions(
        tmp_path, HEAD + '0,"a,b",0,5,5\n1,a,0,3,0\n1,b,0,0,0\n1,c,39,39,3\n')
    assert not messages
    before, after = [axes.images[0].get_array() for axes in draw.confusion(run).axes[:2]]
    assert before.shape == (40, 40)
    assert before[0, [0, 3]].tolist() == [50, 50]
    assert after[[0, 39], [0, 3]].tolist() == [100, 100]


@pytest.mark.parametrize('text, reason', [
    (HEAD + '1,a,0,3,x\n', 'invalid literal'), ('a\n1\n', "'class'"),
    (HEAD + '1,a,-1,0,0\n', 'a label below 0')])
def test_damaged_predictions(text, reason, tmp_path):
    """The confusion matrix is by increment."""
    run, messages = with_predictions(tmp_path, text)
    assert 'predictions.csv and classes.csv cannot be used (' + reason in messages
    assert draw.confusion(run).axes[0].images[0].get_array().shape == (2, 2)


def test_predictions_of_too_many_classes(tmp_path):
    run, _ = with_predictions(tmp_path, HEAD + '1,a,40,0,0\n')
    with pytest.raises(Fault, match='label 40 at increment 1, which has 40 classes'):
        draw.confusion(run)


def test_names_and_many_classes():
    """Three classes have room for their names. Of 1,000 classes, two neighbours share a cell."""
    names = ['ant', 'bee', 'a very long name']
    figure = draw.confusion_by_class(
        np.array([0, 1, 2]), np.array([[0, 1, 1], [0, 1, 2]]), names, [2], 3)
    labels = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert labels == ['ant', 'bee', 'a very long..']
    figure = draw.confusion_by_class(
        np.array([998, 999]), np.array([[0, 1], [998, 2]]), [], [], 1000)
    after = figure.axes[1].images[0]
    assert after.get_array().shape == (500, 500)
    assert after.get_array()[499, [499, 1]].tolist() == [50, 50]
    assert list(after.get_extent()) == [-0.5, 999.5, 999.5, -0.5]


# ---- Several runs --------------------------------------------------------------------------------
@pytest.fixture
def three(tmp_path):
    """Paths of the logs of two kinds of runs."""
    return files(tmp_path, a=log(), b=log(seed=2, top1=(0.8, 0.5)),
                 c=log('finetune', top1=(0.8, 0.2)))


def test_curves_of_several_kinds(three):
    runs, _ = read.runs(three, pytest.fail)
    curves = drawn(draw.accuracy(runs).axes[0])
    assert curves['bic'] == [[20, 40], [85, 60]]
    assert curves['finetune'] == [[20, 40], [80, 20]]
    for picture in OF_SEVERAL:
        label = picture(runs).axes[-1].get_xlabel()
        assert label.endswith('; bars: standard deviation of 2 seeds')
    assert 'bars' not in draw.accuracy(runs[1:]).axes[0].get_xlabel()


def test_names_are_no_formulas():
    """What stands between two dollars would be drawn as one, or fail."""
    figure = draw.confusion_by_class(
        np.array([0, 1]), np.array([[0, 1], [0, 1]]), ['$x$', '$^$'], [], 2)
    labels = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert labels == [r'\$x\$', r'\$^\$']
    figure.savefig(io.BytesIO(), dpi=20)


def test_files_of_several_kinds(three, tmp_path, capsys):
    out = tmp_path / 'out'
    assert report.main(['--out=%s' % out] + three) == 0
    shown = capsys.readouterr()
    assert cells(shown.out, 'bic') == [
        '85.00 ± 7.07', '60.00 ± 14.14', '72.50 ± 10.61', '60.00 ± 14.14', '25.00 ± 0.00',
        '60.00 ± 0.00', '2']
    assert shown.err == 'rows.csv and the pictures are in %s\n' % out
    names = ['accuracy', 'bias', 'new_classes']
    for name in 'abc':
        names += [name + '-training', name + '-matrix', name + '-confusion']
    expected = ['rows.csv']
    for name in names:
        expected += [name + '.png', name + '.svg', name + '.pdf']
    assert sorted(os.listdir(str(out))) == sorted(expected)
    for name in names:
        pixels = image.imread(str(out / name) + '.png')
        assert pixels.shape[1] == 990  # 3.3 inches at 300 dpi
        assert pixels[..., :3].std() > 0.05  # not blank


def test_rows_of_several_kinds(three, tmp_path):
    runs, _ = read.runs(three, pytest.fail)
    report.write_rows(runs, str(tmp_path / 'rows.csv'))
    keys = ('log', 'METHOD', 'SEED', 'increment', 'classes', 'top1', 'top1_nme', 'test', 'lr_drops')
    assert [tuple(row[key] for key in keys) for row in csv_rows(tmp_path / 'rows.csv')] == [
        ('a', 'bic', '1', '0', '20', '0.9', '0.6', '10', '5'),
        ('a', 'bic', '1', '1', '40', '0.7', '0.6', '20', '5'),
        ('b', 'bic', '2', '0', '20', '0.8', '0.6', '10', '5'),
        ('b', 'bic', '2', '1', '40', '0.5', '0.6', '20', '5'),
        ('c', 'finetune', '1', '0', '20', '0.8', '0.6', '10', '5'),
        ('c', 'finetune', '1', '1', '40', '0.2', '0.6', '20', '5')]


def test_several_datasets(tmp_path, capsys):
    paths = files(tmp_path, a=log(), b=log(dataset='other'))
    assert report.main(['--out=%s' % (tmp_path / 'out')] + paths) == 0
    shown = capsys.readouterr()
    assert 'several datasets' in shown.err and 'Comparison' not in shown.out
    expected = {'cifar100-accuracy.png', 'other-accuracy.png', 'other-matrix.png'}
    assert expected < set(os.listdir(str(tmp_path / 'out')))


def test_runs_of_different_lengths(tmp_path):
    short = log(seed=2, top1=(0.8, 0)).split('[train]   increment=1')[0]
    runs, _, messages = read_all(tmp_path, long=log(), short=short)
    assert [len(run.rows) for run in runs] == [2, 1] and not messages
    curves = drawn(draw.accuracy(runs).axes[0])
    assert curves['after correction'] == [[20, 40], [85, 70]]
    assert cells(compared(runs), 'bic') == [
        '85.00 ± 7.07', '70.00', '80.00', '70.00', '25.00', '60.00', '2']


# ---- What a log may say --------------------------------------------------------------------------
def test_a_resumed_run(tmp_path):
    """Repeated lines replace earlier ones. The resumed part alone can be shown, too."""
    head = log().split('\n[plan]')[0]
    first = '\n'.join([head, plan_line(0), plan_line(1)] + increment_lines(0, (0.9, 0.7))
                      + ['[train]   increment=1 step=3 lr=0.1 loss=9']) + '\n'
    resume = ('[resume]  increment=1 seen_classes=20 step=0 dir=model/cifar100/increment-0\n'
              + head + '\n' + plan_line(1) + '\n')
    rest = '\n'.join(increment_lines(1, (0.9, 0.7))) + '\n'
    run, messages = read_one(tmp_path, both=first + resume + rest)
    assert not messages
    assert [row['top1'] for row in run.rows] == [0.9, 0.7]
    assert run.lr_drops == {0: [5], 1: [5]}
    steps = [(line['increment'], line['step']) for line in run.train]
    assert steps == [(0, 4), (0, 8), (1, 4), (1, 8)]

    # The name of a folder may have spaces, and look like keys.
    renamed = (first + resume + rest).replace('dir=model/', 'dir=a lr=1 b/')
    renamed = renamed.replace('/increment-0\n', '/increment-0 time=2026-11-25T21:41:46\n')
    run, messages = read_one(tmp_path, **{'a folder': renamed})
    assert not messages
    assert [row['top1'] for row in run.rows] == [0.9, 0.7]

    run, messages = read_one(tmp_path, b=resume + rest)
    assert 'b: continues a run whose beginning is not in this file' in messages
    assert [row['increment'] for row in run.rows] == [1]


def test_a_run_resumed_within_an_increment(tmp_path):
    """Lines up to the checkpoint's step stay, later ones go. Of two runs, it is the one named."""
    head = log().split('\n[plan]')[0].replace('SEED=1', 'SEED=%d') + '\n'
    plan = plan_line(0) + '\n'
    train = '[train]   increment=0 step=%d lr=0.1 loss=%d\n'
    lines = [head % 1, plan, train % (2, 1), '[save]    increment=0 dir=m/increment-0-step-2\n',
             train % (4, 2), train % (5, 2),
             head % 2, plan, train % (3, 7),
             '[resume]  increment=0 seen_classes=0 step=2 dir=m/increment-0-step-2\n',
             head % 1, plan, train % (4, 3)]
    runs, _, messages = read_all(tmp_path, log=''.join(lines))
    assert not messages
    losses = {}
    for run in runs:
        losses[run.settings['SEED']] = [(line['step'], line['loss']) for line in run.train]
    assert losses == {'1': [(2, 1), (4, 3)], '2': [(3, 7)]}


def with_new_keys(text):
    """A log whose lines say more."""
    more = {
        '[plan]': 'order=3,1,2',
        '[train]': 'loss_sparse=0.25 optimizer=sgd loss_kind=focal',
        '[nme]': 'top10=0.95',
        '[result]': 'calibration=0.125 sampler=per_class flops=1e+40 version=1_2',
    }
    lines = []
    for line in text.splitlines():
        tag = line.split(' ')[0]
        lines.append('%s %s' % (line, more[tag]) if tag in more else line)
    return '\n'.join(lines) + '\n'


def test_new_keys(tmp_path):
    """What else a line says, numbers or text, is a column of rows.csv."""
    run, messages = read_one(tmp_path, log=with_new_keys(log()))
    assert not messages
    report.write_rows([run], str(tmp_path / 'rows.csv'))
    for row in csv_rows(tmp_path / 'rows.csv'):
        keys = ('order', 'top10_nme', 'calibration', 'sampler', 'flops', 'version')
        assert [row[key] for key in keys] == [
            '3,1,2', '0.95', '0.125', 'per_class', '1e+40', '1_2']


def test_an_increment_of_another_run(tmp_path):
    """It has no [train] lines. What comes after it keeps its steps."""
    kept = [line for line in log().split('\n') if not line.startswith('[train]   increment=0')]
    run, _ = read_one(tmp_path, log='\n'.join(kept))
    losses = draw.training(run).axes[0]
    assert [text.get_text() for text in losses.texts] == ['trained by another run']
    assert list(losses.lines[0].get_xdata()) == [12, 16]


def test_a_new_loss(tmp_path):
    """It is drawn with its key as its name. A text is not drawn."""
    run, messages = read_one(tmp_path, log=with_new_keys(log()))
    assert not messages
    assert [line['optimizer'] for line in run.train] == ['sgd'] * 4
    axes = draw.training(run).axes[0]
    assert axes.get_legend_handles_labels()[1] == [
        'loss', 'classification, not weighted', 'distillation, not weighted', 'weight decay',
        'loss_sparse']
    lines = [line for line in axes.lines if line.get_color() == plot.COLORS[4]]
    assert [list(line.get_ydata()) for line in lines] == [[0.25, 0.25], [0.25, 0.25]]


def test_bad_files(tmp_path, capsys):
    (tmp_path / 'folder').mkdir()
    os.mkfifo(str(tmp_path / 'pipe'))
    fine, *paths = files(
        tmp_path, fine=log(), empty='', text='hello\n', binary=b'[env]\0\n', copy=log(),
        begun=log().split('[plan]')[0])
    paths += [str(tmp_path / name) for name in ('nothing', 'folder', 'pipe')]
    assert report.main(['--out=%s' % (tmp_path / 'out'), fine] + paths) == 1
    shown = capsys.readouterr()
    for name, reason in (
            ('empty', 'is empty'), ('text', 'is no log'), ('binary', 'is no log but a binary file'),
            ('nothing', 'cannot be read (No such file'), ('folder', 'is no regular file'),
            ('pipe', 'is no regular file'), ('copy', 'is the same run as in another file'),
            ('begun', 'nothing to show')):
        assert '%s: %s' % (tmp_path / name, reason) in shown.err
    assert cells(shown.out, 'accuracy, %') == ['90.00', '70.00']
    assert (tmp_path / 'out' / 'matrix.png').exists()
    assert report.main(['--out=%s' % (tmp_path / 'text' / 'x'), fine]) == 2


@pytest.mark.parametrize('options', [
    ['--out=x'], ['--other', 'LOG'], ['--out=', 'LOG'], ['--out=x', '--out=y', 'LOG'], []])
def test_wrong_usage(options, tmp_path, capsys):
    path, = files(tmp_path, fine=log())
    assert report.main([path if option == 'LOG' else option for option in options]) == 2
    assert 'usage' in capsys.readouterr().err


def test_names_of_runs(tmp_path):
    runs, _, messages = read_all(tmp_path, both=log() + log(seed=2))
    assert [run.name for run in runs] == ['both-1', 'both-2'] and not messages
    folder = tmp_path / 'METHOD=bic,SEED=1'
    folder.mkdir()
    run, _ = read_one(folder, log=log())
    assert run.name == 'METHOD=bic,SEED=1'


def test_incomplete_logs(tmp_path):
    whole = log()
    run, messages = read_one(tmp_path, cut=whole[:whole.index('top1=0.7') + 6])
    assert 'cut: the last line is cut off' in messages
    assert [row['increment'] for row in run.rows] == [0]

    lines = [line for line in whole.split('\n') if 'increment=0' not in line]
    run, messages = read_one(tmp_path, gap='\n'.join(lines))
    assert 'gap: no [result] line of increment 0' in messages
    assert drawn(draw.accuracy([run]).axes[0])['after correction'] == [[40], [70]]

    run, messages = read_one(tmp_path, nan=log(top1=(0.9, 'nan')))
    assert 'nan: increment 1: top1: not a number' in messages
    assert np.isnan(drawn(draw.accuracy([run]).axes[0])['after correction'][1][1])


def test_damaged_lines(tmp_path):
    damaged = log().replace('top1=0.7 ', 'top1=much ').replace(
        'seen_classes=20 top1=0.9', 'x=20 x=1')
    run, messages = read_one(tmp_path, word=damaged)
    assert messages.count('is damaged and skipped') == 2
    assert 'damaged and skipped (top1=much)' in messages
    assert 'damaged and skipped (without seen_classes, top1)' in messages
    assert not run.rows and len(run.train) == 4


@pytest.mark.parametrize('picture, tag', [
    (draw.training, 'train'), (draw.matrix, 'matrix'), (draw.confusion, 'confusion'),
    (draw.new_classes, 'confusion'), (draw.accuracy, 'result'), (draw.bias, 'bias')])
def test_missing_lines(picture, tag, tmp_path):
    lines = log().replace('beta=0.75', 'beta=1.0').split('\n')
    kept = [line for line in lines if not line.startswith('[%s]' % tag)]
    run, _ = read_one(tmp_path, less='\n'.join(kept))
    with pytest.raises(Fault, match=r'no (finished increment has a )?\[%s\]' % tag):
        picture(run if picture in OF_ONE_RUN else [run])


CONFUSION = (draw.confusion, draw.new_classes)
RESULT = (draw.accuracy, draw.bias)


@pytest.mark.parametrize('old, new, num_damaged, not_drawn', [
    ('lr=0.1', 'lr=nan', 0, ()),
    ('lr=0.01', 'lr=0', 0, ()),
    ('lr=0.1', 'lr=1e308', 2, ()),
    ('loss=4.5', 'loss=-1e308', 2, ()),
    ('loss=4.5', 'loss=inf', 0, ()),
    ('loss=', 'loss=nan loss_x=', 0, ()),
    ('loss_l2=0.1', 'loss_l2=1e308', 0, ()),
    ('loss_l2=0.1', 'loss_l2=x', 0, ()),
    ('loss_l2=0.1', 'loss_l2=1,2', 0, ()),
    ('lr_drops=5', 'lr_drops=', 0, ()),
    ('lr_drops=5', 'lr_drops=nan,7', 0, ()),
    ('lr_drops=5', 'lr_drops=x', 2, ()),
    ('steps=8', 'steps=999999999', 0, ()),
    ('train=90', 'train=many', 2, ()),
    ('seen_classes=40', 'seen_classes=999999999', 0, ()),
    ('top1=0.7', 'top1=inf', 0, ()),
    ('beta=0.75', 'beta=1e308', 1, (draw.bias,)),
    ('top1_before=0.5', 'top1_before=x', 2, RESULT),
    ('forgetting_top1=', 'forgetting_top1=x', 2, RESULT),
    ('increment=1', 'increment=9999', 1, (draw.new_classes,)),
    ('increment=1', 'increment=999999999', 1, (draw.new_classes,)),
    ('true=1', 'true=999999999', 0, (draw.new_classes,)),
    ('predicted=8,2', 'predicted=-8,2', 0, ()),
    ('predicted=8,2', 'predicted=8,x', 1, CONFUSION),
    ('correction=on', 'correction=half', 5, (draw.matrix, *CONFUSION)),
])
@pytest.mark.filterwarnings('ignore:invalid value')  # the deviation of infinite numbers
def test_strange_values(old, new, num_damaged, not_drawn, tmp_path):
    """Whatever a line says, the rest of the log is drawn."""
    assert old in log()
    run, messages = read_one(tmp_path, log=log().replace(old, new))
    assert messages.count('is damaged and skipped') == num_damaged
    report.print_tables([run, run])
    for picture in OF_ONE_RUN + OF_SEVERAL:
        shown = run if picture in OF_ONE_RUN else [run]
        if picture in not_drawn:
            with pytest.raises(Fault, match='^no '):
                picture(shown)
        else:
            picture(shown).savefig(io.BytesIO(), dpi=20)
