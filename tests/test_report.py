"""Tests the report against tables by hand, the authors' published rows, and committed logs."""

import csv
import io
import os

import numpy as np
import pytest

from data import Fault
from logs import draw, plot, read, report, tables

LOGS = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), 'logs', 'runs')
DIGITS = [
    os.path.join(LOGS, 'log-digits' + seed) for seed in ('', '-seed2', '-seed3', '-seed4', '-seed5')
]


def log(method='bic', seed=1, dataset='cifar100', top1=(0.9, 0.7)):
    """A log of two increments of 20 classes, with ten test images per increment."""
    settings = dict(DATASET=dataset, METHOD=method, SEED=seed, HEADLINE='top1', MODEL_DIR='model')
    lines = ['[env]     git=1 python=3'] + [
        '[config]  %s=%s' % setting for setting in settings.items()
    ]
    lines += [plan_line(k) for k in range(2)]
    return '\n'.join(lines + increment(0, top1) + increment(1, top1)) + '\n'


def plan_line(k):
    return (
        '[plan]    increment=%d new_classes=20 seen_classes=%d train=90 val=5 test=%d steps=8 '
        'lr_drops=5'
        % (k, 20 * k + 20, 10 * k + 10)
    )


def increment(k, top1):
    lines = [
        '[train]   increment=%d step=%d lr=%s loss=%d.5 loss_class=1 loss_distill=%d loss_l2=0.1'
        % (k, step, rate, step, k)
        for step, rate in ((4, 0.1), (8, 0.01))
    ]
    lines += [
        '[matrix]  increment=%d correction=on top1_by_increment=%s'
        % (k, '1.0000,0.5000'[: 7 * k + 6])
    ]
    lines += [
        '[confusion] increment=%d correction=%s true=%d predicted=%s'
        % (k, correction, true, predicted)
        for correction, table in (
            ('off', (['10'], ['4,6', '1,9'])),
            ('on', (['10'], ['8,2', '3,7'])),
        )
        for true, predicted in enumerate(table[k])
    ]
    return lines + [
        '[nme]     increment=%d images=10 top1=0.6000 top5=0.9000' % k,
        '[result]  increment=%d seen_classes=%d top1=%s top5=1.0 top1_before=0.5 '
        'top5_before=1.0 beta=%s gamma=0.0 '
        'forgetting_top1=%s' % (k, 20 * k + 20, top1[k], 1 - k / 4, (float('nan'), 0.25)[k]),
        '[save]    increment=%d dir=model/cifar100/increment-%d' % (k, k),
    ]


def authors(increments):
    """A log of the authors' code with ImageNet-100's published numbers.

    Standard output is late and cut in mid-line.
    """
    said = 'Loading all data\n'
    shown = "{'loss': 0.5, %s'global_step': 7, 'accuracy': %s}\n"
    fits = []
    for k, (images, before, after, beta, gamma) in enumerate(increments):
        said += (
            'Batch of classes number %d arrives ...\n%s, #training: %d, #val: %d, #test: %d\n'
            % ((k + 1, 'incremental iteras' if k else 'first itera') + images)
        )
        said += shown % ("'accuracy_before': 0.1, ", 0.2) if k else ''  # of the validation split
        said += shown % ("'accuracy_before': %s, " % before if before else '', after)
        fits.append((beta, gamma, after))
        for name, values in zip(('beta    : ', 'gamma   : ', 'accuracy: '), zip(*fits)):
            said += ' '.join([name] + ['[%s]' % value for value in values]) + '\n'
    warned = ''
    for k in range(len(increments)):
        for network in ['classifier', 'bias'] if k else ['classifier']:
            warned += (
                'INFO:tensorflow:Saving checkpoints for 1 into ./model/%d_%s/model.ckpt.\n'
                % (k, network)
            )
            for step in (
                1,
                101,
            ):  # on ImageNet-100 and on ImageNet-1000 the keys have another order
                keys = ['train_accuracy = 0.5', 'learning_rate = 1e-05', 'cross_entropy = 2.%d' % k]
                warned += (
                    'INFO:tensorflow:%s (72.6 sec)\n'
                    'INFO:tensorflow:step = %d, loss = 3.5 (72.6 sec)\n'
                    % (', '.join(keys[::-1] if k == 1 else keys), step)
                )
            warned += (
                'INFO:tensorflow:Saving checkpoints for 150 into ./model/%d_%s/model.ckpt.\n'
                % (k, network)
            )
    middle = said.index('#training: 14417') + 12
    return (
        warned
        + said[:middle]
        + '2019-08-24 09:00:00.158179: I tensorflow/core/gpu: device\n'
        + said[middle:]
    )


def files(tmp_path, **texts):
    for name, text in texts.items():
        (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return [str(tmp_path / name) for name in texts]


def runs(tmp_path, **texts):
    said = []
    found, useless = read.runs(files(tmp_path, **texts), said.append)
    return found, useless, '\n'.join(said)


def cells(text, row):
    """The cells of the Markdown table's row with that name."""
    (line,) = [
        line
        for line in text.split('\n')
        if line.startswith('|') and line.split('|')[1].strip() == row
    ]
    return [cell.strip() for cell in line.split('|')[2:-1]]


def drawn(axes):
    """The named curves, dict from name to (x, y)."""
    return {
        container.get_label(): [list(data) for data in container[0].get_data()]
        for container in axes.containers
    }


def test_comparison_by_hand():
    def run(method, seed, *top1, **last):
        rows = [
            dict(increment=k, classes=20 * k + 20, top1=one, top5=1.0, top1_nme=one / 2)
            for k, one in enumerate(top1)
        ]
        rows[-1].update(last)
        return dict(
            METHOD=method, SEED=seed, MODEL_DIR='model-%s' % seed, LR_DROP_EPOCHS=(4, 6)
        ), rows

    several = [
        run('bic', 1, 0.9, 0.6, 0.3, forgetting_top1=0.1),
        run('finetune', 1, 0.8, 0.2, 0.2),
        run('bic', 2, 0.8, 0.5, 0.5, forgetting_top1=0.3),
    ]
    text = tables.comparison(several, 'top1')
    assert cells(text, 'top1, %') == [
        '20',
        '40',
        '60',
        'average',
        'without first',
        'forgetting',
        'nearest mean',
        'runs',
    ]
    assert cells(text, 'bic') == [
        '85.00 ± 7.07',
        '55.00 ± 7.07',
        '40.00 ± 14.14',
        '60.00 ± 0.00',
        '47.50 ± 3.54',
        '20.00 ± 14.14',
        '20.00 ± 7.07',
        '2',
    ]
    assert cells(text, 'finetune') == [
        '80.00',
        '20.00',
        '20.00',
        '40.00',
        '20.00',
        '-',
        '10.00',
        '1',
    ]
    assert text.split('\n')[3].startswith('| finetune |        80.00 |')
    unfinished = tables.comparison(several[:1] + [run('joint', 1, 0.9)], 'top1')
    assert cells(unfinished, 'joint') == ['90.00', '-', '-', '-', '-', '-', '-', '1']
    exact = tables.comparison(
        [run('bic', 1, 0.5, 0.25, avg_top1=0.3751, avg_top1_excl_first=0.2504)], 'top1'
    )
    assert cells(exact, 'bic')[2:4] == [
        '37.51',
        '25.04',
    ]  # as a log has it, of accuracies that were not rounded
    assert cells(tables.comparison([run('bic', 1, 0.5)], 'top1'), 'bic') == [
        '50.00',
        '50.00',
        '-',
        '-',
        '25.00',
        '1',
    ]


def test_without_a_correction(tmp_path, capsys):
    """Equal matrices are drawn once, and there is no line of beta and gamma.

    An unfinished run has no table.
    """
    same = log('finetune', top1=(0.5, 0.5)).replace('beta=0.75', 'beta=1.0')
    off = [
        line.replace('correction=off', 'correction=on')
        for line in same.split('\n')
        if 'confusion' in line and '=off' in line
    ]
    same = (
        '\n'.join(
            [line for line in same.split('\n') if 'confusion' not in line or '=off' in line] + off
        )
        + '\n'
    )
    found = read.runs(files(tmp_path, same=same, begun=log().split('[matrix]')[0]), pytest.fail)[0]
    report.print_tables(found)
    shown = capsys.readouterr().out
    assert (
        'beta' not in shown
        and 'before' not in shown
        and shown.count('No increment is finished.') == 1
    )
    assert len(draw.confusion(found[0]).axes) == 2  # with the colours' scale


def test_kinds():
    old, new, other = (
        dict(SEED=1, TEMPERATURE=2.0),
        dict(SEED=2, TEMPERATURE='2.0', DETERMINISTIC=False),
        dict(SEED=1, TEMPERATURE=4.0, DETERMINISTIC=False),
    )
    assert tables.kinds([old, new]) == {'all': [0, 1]}  # a setting younger than a log
    assert tables.kinds([old, other, new]) == {'TEMPERATURE=2.0': [0, 2], 'TEMPERATURE=4.0': [1]}
    small = [
        dict(SEED=seed, WEIGHT_DECAY=decay, LR_DROP_EPOCHS=(4, 6))
        for seed, decay in ((1, 1e-5), (2, 2e-5))
    ]
    assert tables.kinds(small) == {'WEIGHT_DECAY=1e-05': [0], 'WEIGHT_DECAY=2e-05': [1]}


def test_committed_logs():
    """The README's numbers: NumPy's mean and deviation of the accuracies in the closing tables."""
    accuracies = []
    for path in DIGITS:
        with open(path) as file:
            table = [
                line.split('|')
                for line in file
                if line.startswith('| ') and 'increment' not in line
            ]
        accuracies.append([float(line[4]) for line in table])
    found, useless = read.runs(DIGITS, pytest.fail)
    assert not useless
    row = cells(tables.comparison([(run['settings'], run['rows']) for run in found], 'top1'), 'bic')
    assert row[:5] == [
        '%.2f ± %.2f' % pair
        for pair in zip(100 * np.mean(accuracies, 0), 100 * np.std(accuracies, 0, ddof=1))
    ]
    averages = np.mean(accuracies, 1), np.mean(np.array(accuracies)[:, 1:], 1)
    for text, means in zip(row[5:7], averages):
        mean, deviation = map(float, text.split(' ± '))
        # The log's own averages are of accuracies that were not rounded.
        assert mean == pytest.approx(100 * np.mean(means), abs=0.011)
        assert deviation == pytest.approx(100 * np.std(means, ddof=1), abs=0.011)


def test_authors_log(tmp_path, capsys):
    (path,) = files(
        tmp_path,
        theirs=authors(
            [
                ((12800, 200, 500), None, 0.988, '1.', '0.'),
                ((14417, 400, 1000), 0.957, 0.961, 0.59001338, -0.44165498),
                ((14600, 300, 1500), 0.9306667, 0.95066667, 0.51406264, -0.54017776),
            ]
        ),
    )
    assert report.main(['--out=%s' % (tmp_path / 'out'), path]) == 0
    shown = capsys.readouterr().out
    assert 'imagenet100' in shown and cells(shown, 'classes') == ['10', '20', '30']
    assert cells(shown, 'accuracy, %') == ['98.80', '96.10', '95.07']
    assert cells(shown, 'before correction, %') == ['-', '95.70', '93.07']
    assert cells(shown, 'beta') == ['1.000000', '0.590013', '0.514063']
    assert cells(shown, 'gamma') == ['0.000000', '-0.441655', '-0.540178']
    assert cells(shown, 'samples') == ['12800', '14417', '14600']
    (run,) = read.runs([path], pytest.fail)[0]
    assert [
        (line['increment'], line['step'], line['loss'], line['loss_class'], line['lr'])
        for line in run['train']
    ] == [
        (k, step, 3.5, 2 + k / 10, 1e-5) for k in range(3) for step in (1, 101)
    ]  # without stage 2
    assert run['steps'] == {0: 150, 1: 150, 2: 150}
    rates = draw.training(run).axes[1].lines
    assert [list(rate.get_data()[0]) for rate in rates[:3]] == [
        [150 * k + 1, 150 * k + 101] for k in range(3)
    ]
    lines = drawn(draw.accuracy([run]).axes[0])
    assert lines['published (BiC)'][1][:3] == [98.4, 96.2, 94.0]
    assert lines['before correction'] == [[20, 30], [95.7, pytest.approx(93.06667)]]


def test_pictures_show_the_logs_numbers(tmp_path):
    (run,), _, said = runs(tmp_path, log=log())
    assert not said
    lines = drawn(draw.accuracy([run]).axes[0])
    assert lines['after correction'] == [[20, 40], [90, 70]] and lines[
        'nearest mean of exemplars'
    ] == [[20, 40], [60, 60]]
    assert lines['published (BiC)'] == [[20, 40, 60, 80, 100], [84.00, 74.69, 67.93, 61.25, 56.69]]
    (other,), _, _ = runs(
        tmp_path, other=log(dataset='imagenet100').replace('HEADLINE=top1', 'HEADLINE=top5')
    )
    assert 'published (BiC)' not in drawn(
        draw.accuracy([other]).axes[0]
    )  # it is of increments of ten classes
    assert drawn(draw.bias([run]).axes[0])['bic'] == [[0, 1], [1, 0.75]]
    lines = drawn(
        draw.new_classes([run]).axes[0]
    )  # of 20 images: 6 + 9 before, 2 + 7 after, 10 are of them
    assert lines == {
        'before correction': [[40], [75]],
        'after correction': [[40], [45]],
        'true share': [[40], [50]],
    }
    losses, rates = draw.training(run).axes
    loss = [
        list(map(list, line.get_data()))
        for line in losses.lines
        if line.get_color() == plot.COLORS[0]
    ]
    assert loss == [
        [[4, 8], [4.5, 8.5]],
        [[12, 16], [4.5, 8.5]],
    ]  # the second increment begins where the first ended
    # The rate drops after step 5, counted from 0: six steps of each eight have the first one.
    for k, rate in enumerate(rates.lines[:2]):
        np.testing.assert_allclose(
            rate.get_data(), [[8 * k, 8 * k + 6, 8 * k + 8], [0.1, 0.01, 0.01]]
        )
        assert rate.get_drawstyle() == 'steps-post'
    assert [text.get_text() for text in rates.get_yticklabels()] == ['0.01', '0.1']
    shown = draw.matrix(run).axes[0]
    np.testing.assert_array_equal(
        np.ma.filled(shown.images[0].get_array(), np.nan), [[100, np.nan], [100, 50]]
    )
    assert sorted(text.get_text() for text in shown.texts) == ['100', '100', '50']
    before, after = draw.confusion(run).axes[:2]
    np.testing.assert_allclose(before.images[0].get_array(), [[40, 60], [10, 90]])
    np.testing.assert_allclose(after.images[0].get_array(), [[80, 20], [30, 70]])


def test_confusion_by_class(tmp_path):
    (tmp_path / 'run-x').mkdir()

    def beside(text):
        (tmp_path / 'run-x' / 'predictions.csv').write_text(text)
        (run,), _, said = runs(tmp_path, **{'log-x': log()})
        return run, said

    head = 'increment,path,class,before,after\n'
    run, said = beside(head + '0,"a,b",0,5,5\n1,a,0,3,0\n1,b,0,0,0\n1,c,39,39,3\n')
    before, after = draw.confusion(run).axes[:2]
    assert not said and before.images[0].get_array().shape == (40, 40)
    assert before.images[0].get_array()[0, [0, 3]].tolist() == [50, 50]
    assert after.images[0].get_array()[[0, 39], [0, 3]].tolist() == [100, 100]
    for text, reason in (
        (head + '1,a,0,3,x\n', 'cannot be used'),
        ('a\n1\n', ''),
        (head + '1,a,-1,0,0\n', 'below 0'),
    ):
        run, said = beside(text)
        assert 'predictions.csv and classes.csv cannot be used' in said and reason in said
        assert draw.confusion(run).axes[0].images[0].get_array().shape == (2, 2)
    with pytest.raises(Fault, match='label 40 at increment 1, which has 40 classes'):
        draw.confusion(beside(head + '1,a,40,0,0\n')[0])


def test_names_and_many_classes():
    """Three classes have room for their names. Of 1,000 classes, two neighbours share a cell."""
    shown = draw.confusion_by_class(
        np.array([0, 1, 2]),
        np.array([[0, 1, 1], [0, 1, 2]]),
        ['ant', 'bee', 'a very long name'],
        [2],
        3,
    ).axes[0]
    assert [label.get_text() for label in shown.get_xticklabels()] == [
        'ant',
        'bee',
        'a very long..',
    ]
    image = (
        draw.confusion_by_class(np.array([998, 999]), np.array([[0, 1], [998, 2]]), [], [], 1000)
        .axes[1]
        .images[0]
    )
    assert image.get_array().shape == (500, 500) and image.get_array()[499, [499, 1]].tolist() == [
        50,
        50,
    ]
    assert list(image.get_extent()) == [-0.5, 999.5, 999.5, -0.5]


def test_several_kinds(tmp_path, capsys):
    paths = files(
        tmp_path, a=log(), b=log(seed=2, top1=(0.8, 0.5)), c=log('finetune', top1=(0.8, 0.2))
    )
    out = tmp_path / 'out'
    assert report.main(['--out=%s' % out] + paths) == 0
    shown = capsys.readouterr()
    assert cells(shown.out, 'bic') == [
        '85.00 ± 7.07',
        '60.00 ± 14.14',
        '72.50 ± 10.61',
        '60.00 ± 14.14',
        '25.00 ± 0.00',
        '60.00 ± 0.00',
        '2',
    ]
    assert shown.err == 'rows.csv and the pictures are in %s\n' % out
    found = read.runs(paths, pytest.fail)[0]
    lines = drawn(draw.accuracy(found).axes[0])
    assert lines['bic'] == [[20, 40], [85, 60]] and lines['finetune'] == [[20, 40], [80, 20]]
    names = ['accuracy', 'bias', 'new_classes']
    names += [
        run + '-' + picture for run in 'abc' for picture in ('training', 'matrix', 'confusion')
    ]
    assert sorted(os.listdir(str(out))) == sorted(
        ['rows.csv'] + [name + end for name in names for end in ('.png', '.svg', '.pdf')]
    )
    with open(str(out / 'rows.csv'), newline='') as file:
        rows = list(csv.DictReader(file))
        assert [
            tuple(row[key] for key in ('log', 'increment', 'top1', 'top1_nme', 'test'))
            for row in rows
        ] == [
            ('a', '0', '0.9', '0.6', '10'),
            ('a', '1', '0.7', '0.6', '20'),
            ('b', '0', '0.8', '0.6', '10'),
            ('b', '1', '0.5', '0.6', '20'),
            ('c', '0', '0.8', '0.6', '10'),
            ('c', '1', '0.2', '0.6', '20'),
        ]
    from matplotlib import image

    for name in names:
        pixels = image.imread(str(out / name) + '.png')
        assert (
            pixels.shape[1] == 990 and pixels[..., :3].std() > 0.05
        )  # 3.3 inches at 300 dpi, not blank


def test_a_resumed_run(tmp_path):
    """Repeated lines replace earlier ones. The resumed part alone can be shown, too."""
    head, tail = log().split('\n[plan]')[0], '\n'.join(increment(1, (0.9, 0.7))) + '\n'
    first = (
        '\n'.join(
            [head, plan_line(0), plan_line(1)]
            + increment(0, (0.9, 0.7))
            + ['[train]   increment=1 step=3 lr=0.1 loss=9']
        )
        + '\n'
    )
    again = (
        '[resume]  increment=1 seen_classes=20 step=0 dir=model/cifar100/increment-0\n'
        + head
        + '\n'
        + plan_line(1)
        + '\n'
    )
    (run,), useless, said = runs(tmp_path, both=first + again + tail)
    assert (
        not said
        and not useless
        and [row['top1'] for row in run['rows']] == [0.9, 0.7]
        and run['drops'] == {0: [5], 1: [5]}
    )
    assert [(line['increment'], line['step']) for line in run['train']] == [
        (0, 4),
        (0, 8),
        (1, 4),
        (1, 8),
    ]
    (run,), _, said = runs(
        tmp_path,
        **{
            'a folder': (first + again + tail)
            .replace('dir=model/', 'dir=a lr=1 b/')
            .replace('/increment-0\n', '/increment-0 time=2026-11-25T21:41:46\n')
        },
    )
    assert not said and [row['top1'] for row in run['rows']] == [0.9, 0.7]
    (run,), _, said = runs(tmp_path, b=again + tail)
    assert 'b: continues a run whose beginning is not in this file' in said and [
        row['increment'] for row in run['rows']
    ] == [1]


def test_bad_files(tmp_path, capsys):
    (tmp_path / 'folder').mkdir()
    os.mkfifo(str(tmp_path / 'pipe'))
    paths = files(
        tmp_path,
        empty='',
        text='hello\n',
        binary=b'[env]\0\n',
        fine=log(),
        copy=log(),
        begun=log().split('[plan]')[0],
    )
    paths += [str(tmp_path / name) for name in ('nothing', 'folder', 'pipe')]
    assert report.main(['--out=%s' % (tmp_path / 'out')] + paths) == 1
    shown = capsys.readouterr()
    for name, reason in (
        ('empty', 'is empty'),
        ('text', 'is no log'),
        ('binary', 'is no log but a binary file'),
        ('nothing', 'cannot be read (No such file'),
        ('folder', 'is no regular file'),
        ('pipe', 'is no regular file'),
        ('copy', 'is the same run as in another file'),
        ('begun', 'nothing to show'),
    ):
        assert '%s: %s' % (tmp_path / name, reason) in shown.err
    assert (
        cells(shown.out, 'accuracy, %') == ['90.00', '70.00']
        and (tmp_path / 'out' / 'matrix.png').exists()
    )
    assert report.main(['--out=%s' % (tmp_path / 'text' / 'x'), paths[3]]) == 2
    for wrong in (
        [],
        ['--out=x'],
        ['--other', paths[3]],
        ['--out=', paths[3]],
        ['--out=x', '--out=y', paths[3]],
    ):
        assert report.main(wrong) == 2
        assert 'usage' in capsys.readouterr().err


def test_faults_within_a_log(tmp_path):
    whole = log()
    (run,), _, said = runs(tmp_path, cut=whole[: whole.index('top1=0.7') + 6])
    assert 'cut: the last line is cut off' in said and [
        row['increment'] for row in run['rows']
    ] == [0]
    found, _, said = runs(tmp_path, both=whole + log(seed=2))
    assert [run['name'] for run in found] == ['both-1', 'both-2'] and not said
    (tmp_path / 'METHOD=bic,SEED=1').mkdir()
    assert (
        read.runs(files(tmp_path / 'METHOD=bic,SEED=1', log=whole), print)[0][0]['name']
        == 'METHOD=bic,SEED=1'
    )
    (run,), _, said = runs(
        tmp_path, gap='\n'.join(line for line in whole.split('\n') if 'increment=0' not in line)
    )
    assert 'gap: no [result] line of increment 0' in said
    assert drawn(draw.accuracy([run]).axes[0])['after correction'] == [[40], [70]]
    (run,), _, said = runs(tmp_path, nan=log(top1=(0.9, 'nan')))
    assert 'nan: increment 1: top1: not a number' in said
    assert np.isnan(drawn(draw.accuracy([run]).axes[0])['after correction'][1][1])
    damaged = whole.replace('top1=0.7 ', 'top1=much ').replace(
        'seen_classes=20 top1=0.9', 'x=20 x=1'
    )
    (run,), _, said = runs(tmp_path, word=damaged)
    assert said.count('is damaged and skipped') == 2 and not run['rows'] and len(run['train']) == 4
    for picture, tag in (
        ('training', 'train'),
        ('matrix', 'matrix'),
        ('confusion', 'confusion'),
        ('new_classes', 'confusion'),
        ('accuracy', 'result'),
        ('bias', 'bias'),
    ):
        less = [
            line
            for line in whole.replace('beta=0.75', 'beta=1.0').split('\n')
            if not line.startswith('[%s]' % tag)
        ]
        (run,), _, _ = runs(tmp_path, less='\n'.join(less))
        with pytest.raises(Fault, match=r'no (finished increment has a )?\[%s\]' % tag):
            getattr(draw, picture)(run if picture in ('training', 'matrix', 'confusion') else [run])


@pytest.mark.parametrize(
    'old, new',
    [
        ('lr=0.1', 'lr=nan'),
        ('lr=0.01', 'lr=0'),
        ('lr=0.1', 'lr=1e308'),
        ('loss=4.5', 'loss=-1e308'),
        ('loss=4.5', 'loss=inf'),
        ('loss=', 'loss=nan loss_x='),
        ('increment=1', 'increment=9999'),
        ('beta=0.75', 'beta=1e308'),
        ('steps=8', 'steps=999999999'),
        ('lr_drops=5', 'lr_drops='),
        ('lr_drops=5', 'lr_drops=nan,7'),
        ('top1=0.7', 'top1=inf'),
        ('predicted=8,2', 'predicted=-8,2'),
        ('seen_classes=40', 'seen_classes=999999999'),
    ],
)
def test_strange_numbers(old, new, tmp_path):
    """Whatever numbers a log has, the rest of it is drawn."""
    (run,), _, _ = runs(tmp_path, log=log().replace(old, new))
    report.print_tables([run])
    for picture, shown in [(draw.training, run), (draw.matrix, run), (draw.confusion, run)] + [
        (picture, [run]) for picture in (draw.accuracy, draw.bias, draw.new_classes)
    ]:
        try:
            picture(shown).savefig(io.BytesIO(), dpi=20)
        except Fault as fault:  # the line was skipped
            assert str(fault) in [
                'no finished increment has a [%s line' % line
                for line in ('confusion] correction=on', 'bias]')
            ]


def test_datasets_apart_and_runs_of_different_lengths(tmp_path, capsys):
    paths = files(tmp_path, a=log(), b=log(dataset='other'))
    assert report.main(['--out=%s' % (tmp_path / 'out')] + paths) == 0
    shown = capsys.readouterr()
    assert 'several datasets' in shown.err and 'Comparison' not in shown.out
    assert {'cifar100-accuracy.png', 'other-accuracy.png', 'other-matrix.png'} < set(
        os.listdir(str(tmp_path / 'out'))
    )
    found, _, said = runs(
        tmp_path, long=log(), short=log(seed=2, top1=(0.8, 0)).split('[train]   increment=1')[0]
    )
    assert [len(run['rows']) for run in found] == [2, 1] and not said
    assert drawn(draw.accuracy(found).axes[0])['after correction'] == [[20, 40], [85, 70]]
    assert cells(
        tables.comparison([(run['settings'], run['rows']) for run in found], 'top1'), 'bic'
    ) == ['85.00 ± 7.07', '70.00', '80.00', '70.00', '25.00', '60.00', '2']
