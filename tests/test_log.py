"""Log lines and the table, in the format that others parse."""
import math

import numpy as np

from logs import log, tables


def test_lines(tmp_path, capsys):
    write = log.Log(str(tmp_path / 'log'))
    write('plan', increment=1, train=14417)
    write('train', increment=0, lr=0.1 ** 5, loss=np.float32(2.11394), images_per_sec=412.66, hours_left=12.345)
    write('bias', beta=0.5900134, gamma=np.float64(-0.44165498), at_bound=False)
    write('matrix', correction='on', top1_by_increment=[0.79, 0.772])
    write('result', forgetting_top1=math.nan)
    write.text('| a | b |')
    write.close()
    lines = (tmp_path / 'log').read_text(encoding='utf-8')
    assert lines == '''[plan]    increment=1 train=14417
[train]   increment=0 lr=0.000010 loss=2.1139 images_per_sec=412.7 hours_left=12.35
[bias]    beta=0.590013 gamma=-0.441655 at_bound=False
[matrix]  correction=on top1_by_increment=0.7900,0.7720
[result]  forgetting_top1=nan
| a | b |
'''
    assert capsys.readouterr().out == lines


def test_no_progress_bar_without_a_terminal(tmp_path, capsys):
    write = log.Log(str(tmp_path / 'log'))
    assert list(write.progress(range(3), 'title')) == [0, 1, 2]
    write.close()
    captured = capsys.readouterr()
    assert captured.out == captured.err == ''


def test_table():
    assert tables.table([dict(increment=0, top1=1.0), dict(increment=10, top1=0.51234)]) == '\n'.join([
        '| increment |   top1 |',
        '|----------:|-------:|',
        '|         0 | 1.0000 |',
        '|        10 | 0.5123 |'])
