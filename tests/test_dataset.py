"""Which images are trained on, held out and tested on, in a new run and in a resumed one; and which plans are refused."""
import os
import shutil
import types

import common
import numpy as np
import PIL.Image
import pytest

import exemplar
from data import Fault, dataset, prepare_digits


def settings_of(folder, **values):
    """Two classes per increment. A third of the images is for the test. The memory has room for 6 images of each of 4 classes."""
    given = dict(dict(
        DATASET='folder', DATA_DIR=folder, MODEL_DIR='%s-model' % folder, LOG_DIR='%s-logs' % folder, TEST_FRACTION=0.34,
        FIRST_INCREMENT_CLASSES=2, CLASSES_PER_INCREMENT=2, MEMORY_SIZE=24, VAL_FRACTION=0.2, REPLICAS=1, BATCH_SIZE=2, EPOCHS=1,
        IMAGE_SIZE=40), **values)
    return common.settings_of(['--%s=%s' % pair for pair in given.items()])


def add(folder, name, numbers):
    os.makedirs(os.path.join(str(folder), name), exist_ok=True)
    for number in numbers:
        PIL.Image.new('RGB', (3, 5), (number, 0, 0)).save(os.path.join(str(folder), name, '%02d.png' % number))


@pytest.fixture(name='folder')
def folder_(tmp_path):
    """Four classes of twelve images: 4 for the test, 1 held out, 7 to train on."""
    for name in 'dbca':
        add(tmp_path / 'images', name, range(12))
    return tmp_path / 'images'


def begun(s, learnt, kept):
    """Returns the data, and the state after some increments, as if `kept` images of each learnt class had been chosen."""
    data, exemplars, plan, missing = common.read(s)
    assert missing == [] and exemplars == []
    return data, dict(sizes=[now.num_seen - now.num_old for now in plan], classes=data.classes(),
                      exemplars=[data.relative(images[::-1][:kept]) for images in data.train[:learnt]])


def paths(data, parts):
    return [path for images in parts for path in data.relative(images)]


def assert_apart(data):
    """No image has two uses."""
    used = paths(data, data.train + data.held + data.test)
    assert len(used) == len(set(used))


def test_class_folders_that_change_before_a_run_is_resumed(folder):
    """After increment 0, images and a class are added, and images that are not needed are deleted."""
    s = settings_of(folder)
    before, state = begun(s, learnt=2, kept=3)
    assert_apart(before)
    assert sorted(paths(before, before.train + before.held + before.test)) == sorted(
        '%s/%02d.png' % (name, number) for name in 'abcd' for number in range(12))
    assert [[len(images) for images in part] for part in (before.train, before.held, before.test)] == [[7] * 4, [1] * 4, [4] * 4]
    trained = set(paths(before, before.train[:2]))
    gone = sorted(trained - set(sum(state['exemplars'], [])))[:3]
    for path in gone:
        os.remove(str(folder / path))
    for name in before.names[:2]:
        add(folder, name, range(12, 30))
    add(folder, 'aa', range(9))
    data, exemplars, plan, missing = common.read(s, state)
    assert missing == [] and data.names == before.names + ['aa'] and [now.num_seen for now in plan] == [2, 4, 5]
    assert [data.relative(images) for images in exemplars] == state['exemplars']
    for label in range(4):
        assert data.relative(data.held[label]) == state['classes'][label]['held']
        assert data.relative(data.test[label]) == state['classes'][label]['test']
    assert_apart(data)
    assert not set(paths(data, data.test)) & trained
    # All that is there may be trained on, but only exemplars of learnt classes are: 3 each, then 7 of each new class.
    there = set(paths(data, data.train[:2]))
    assert there >= trained - set(gone) and not there & set(gone) and len(there) > len(trained)
    train, val, test = data.images(plan[1], exemplars)
    assert sorted(data.relative(train)) == sorted(sum(state['exemplars'], []) + paths(before, before.train[2:]))
    assert sorted(data.relative(val)) == sorted(paths(before, before.held)) and len(test) == plan[1].test == 16
    assert plan[1].train == len(train) == 20
    assert [len(part[4]) for part in (data.train, data.held, data.test)] == [5, 1, 3]  # of 9: int(0.34 * 9), int(0.2 * 6)
    # Classes that are planned are trained on as they were when the run began; METHOD=joint needs the learnt ones, too.
    add(folder, before.names[3], range(12, 30))
    wrong = ('%s: the images of class %%s to train on are not those that this run began with; put them back, or begin a new run '
             'in another MODEL_DIR' % folder)
    assert common.read(s, state)[3] == [wrong % before.names[3]]
    assert common.read(settings_of(folder, METHOD='joint'), state)[3] == [wrong % before.names[label] for label in (0, 1, 3)]


def test_new_classes_are_shuffled_among_themselves(folder):
    s = settings_of(folder)
    before, state = begun(s, learnt=4, kept=3)
    new = ['a%d' % i for i in range(8)]
    for name in new:
        add(folder, name, range(9))
    order = exemplar.class_order(8, np.random.RandomState([1993, 4]), 'random')
    s.MEMORY_SIZE = 80
    assert common.read(s, state)[0].names == before.names + [new[i] for i in order]
    s.CLASS_ORDER = str(folder) + '.txt'
    with open(s.CLASS_ORDER, 'w') as file:
        file.write('\n'.join(new[::-1] + ['c', 'a', 'b', 'd']))
    assert common.read(s, state)[0].names == before.names + new[::-1]
    s.MEMORY_SIZE = 7
    with pytest.raises(Fault, match='MEMORY_SIZE=7, .*of 4 old classes; MEMORY_SIZE=8 would do, in a new run with another MODEL'):
        common.read(s, state)
    shutil.rmtree(str(folder / 'b'))
    with pytest.raises(Fault, match='images: class b is not there any more, and this run began with it; put it back'):
        common.read(s, state)


def lists(folder, root=''):
    """Writes list files of the four classes, with ten images to train on and two to test on."""
    for part, numbers in (('train', range(10)), ('val', range(10, 12))):
        with open(str(folder / (part + '.txt')), 'w') as file:
            file.writelines('%s%s/%02d.png %d\n' % (root, name, number, label)
                            for label, name in enumerate('abcd') for number in numbers)


@pytest.mark.parametrize('way', ['absolute', 'here', 'elsewhere', 'folders here'])
def test_however_the_folder_is_called(way, folder, monkeypatch):
    """A relative folder with absolute paths in its lists; the current folder; a folder that was moved after the run began."""
    if way != 'folders here':
        lists(folder, '%s/' % folder if way == 'absolute' else '')
    s = settings_of(folder, NUM_CLASSES=0 if way == 'folders here' else 4)
    monkeypatch.chdir(str(folder.parent) if way == 'absolute' else str(folder))
    s.DATA_DIR = 'images' if way == 'absolute' else '.'
    before, state = begun(s, learnt=2, kept=3)
    if way == 'elsewhere':
        s.DATA_DIR = shutil.copytree(str(folder), str(folder) + '2')
    data, exemplars, plan, missing = common.read(s, state)
    assert missing == [] and data.classes(state) == state['classes']
    assert plan[1].train == sum(map(len, before.train[2:])) + 2 * 3
    for part in ('train', 'held', 'test'):
        assert paths(data, getattr(data, part)) == paths(before, getattr(before, part))
    np.testing.assert_array_equal(exemplars[1], before.train[1][::-1][:3])


def test_an_image_of_another_class_now(folder):
    """A test image of a learnt class must not become a training image of a later class."""
    lists(folder)
    s = settings_of(folder, NUM_CLASSES=4)
    before, state = begun(s, learnt=2, kept=3)
    path = before.relative(before.test[0])[0]
    old, new = ('abcd'.index(before.names[label]) for label in (0, 2))
    train, val = ((folder / name).read_text() for name in ('train.txt', 'val.txt'))
    (folder / 'train.txt').write_text(train + '%s %d\n' % (path, new))
    (folder / 'val.txt').write_text(val.replace('%s %d\n' % (path, old), ''))
    assert common.read(s, state)[3] == [
        '%s: this run needs it, an exemplar, a validation or a test image of class %s, and it is not there any more; put it back'
        % (folder / path, before.names[0]),
        '%s: the images of class %s to train on are not those that this run began with; put them back, or begin a new run in '
        'another MODEL_DIR' % (folder, before.names[2])]


def test_all_that_is_wrong_with_a_run_is_told(folder, tmp_path):
    os.truncate(str(folder / 'a' / '03.png'), 40)
    (tmp_path / 'file').write_text('')
    assert common.read(settings_of(folder))[3] == ['%s/a/03.png: is cut off; fix or remove it' % folder]
    assert common.read(settings_of(folder, LOG_DIR=tmp_path / 'file' / 'x'))[3] == [
        'LOG_DIR=%s/file/x: %s/file is no folder that can be written to' % (tmp_path, tmp_path)]
    with pytest.raises(Fault, match='CLASS_ORDER=none: is neither one of random icarl sorted nor a file of class names'):
        common.read(settings_of(folder, CLASS_ORDER='none'))
    with pytest.raises(Fault, match='mistyped: no such folder; data/README.md says'):  # only the recipe's own folder is prepared
        dataset.read(settings_of(tmp_path / 'mistyped'), {}, {str(tmp_path / 'digits'): prepare_digits})
    with pytest.raises(Fault, match='^SEED=x$'):  # a folder that the recipe will prepare is no fault
        dataset.read(settings_of(tmp_path / 'digits'), {'SEED': 'SEED=x'}, {str(tmp_path / 'digits'): prepare_digits})
    assert sorted(os.listdir(str(tmp_path))) == ['file', 'images']


def test_runs_on_the_same_images_open_them_once(folder, monkeypatch):
    opened, seen = common.recorded(monkeypatch, dataset.images, 'broken'), {}
    each = [settings_of(folder, **more) for more in (dict(SEED=1), dict(SEED=2), dict(TEST_FRACTION=0.5))]
    found = [dataset.read(s, {}, {}, seen=seen)[0] for s in each]
    assert len(opened) == 2  # another TEST_FRACTION divides them anew
    for s, data in zip(each, found):
        assert list(map(list, data.test)) == list(map(list, common.read(s)[0].test))


# Images of each batch, of the last one (0: as the others), devices; and the values per device where they are too few, or None.
@pytest.mark.parametrize('depth, size, cases', [
    (18, 32, [(4, 0, 1, None), (3, 0, 1, 3), (8, 0, 2, None), (6, 0, 2, 3), (7, 4, 1, None), (7, 3, 1, 3), (8, 7, 2, 3)]),
    (18, 33, [(1, 0, 1, None), (7, 1, 1, None), (8, 1, 2, 0), (8, 2, 2, None)]), (18, 64, [(8, 3, 2, None), (8, 1, 2, 0)]),
    (32, 32, [(1, 0, 1, None), (8, 1, 2, 0)]), (32, 33, [(8, 2, 2, None), (8, 1, 2, 0)]), (32, 64, [(8, 1, 2, 0)])])
def test_values_for_batch_normalisation(depth, size, cases):
    """Each device needs four values: its images, rounded down, times the pixels of the last feature map."""
    for batch, last, total, values in cases:
        s = types.SimpleNamespace(RESNET_DEPTH=depth, IMAGE_SIZE=size, BATCH_SIZE=batch, REPLICAS=total, EPOCHS=1)
        faults = dataset._batch_faults(s, [exemplar.Increment(1, 5, 8, 0, 0, 0, train=5 * batch + last, val=0, test=0)])
        name = 'the last batch of increment 1 (images: %d,' % last if last else 'each batch (images: %d,' % batch
        assert len(faults) == (values is not None)
        for fault in faults:
            assert 'BATCH_SIZE=%d: %s devices: %d)' % (batch, name, total) in fault
            assert 'too few values per channel for batch normalisation: %d, and 4 are needed' % values in fault
    s = types.SimpleNamespace(RESNET_DEPTH=18, IMAGE_SIZE=32, BATCH_SIZE=14, REPLICAS=2, EPOCHS=3)  # 153 and 174 images in all
    plan = [exemplar.Increment(k, 0, 8, 0, 0, 0, train=count, val=0, test=0) for k, count in enumerate((51, 58))]
    fault, = dataset._batch_faults(s, plan)  # 153 = 10 * 14 + 13, 174 = 12 * 14 + 6; by 16 they leave 9 and 14
    assert fault.endswith('increment 1 (images: 6, devices: 2) has too few values per channel for batch normalisation: 3, and 4 '
                          'are needed; BATCH_SIZE=16 or other numbers of images would do')
    s = types.SimpleNamespace(RESNET_DEPTH=20, IMAGE_SIZE=32, BATCH_SIZE=8, REPLICAS=3, EPOCHS=3)
    assert dataset._batch_faults(s, [exemplar.Increment(1, 5, 8, 0, 0, 0, train=7, val=0, test=0)]) == [
        'BATCH_SIZE=8: increment 1 has only 7 training images',
        'BATCH_SIZE=8: cannot be shared by 3 devices equally; 9 would do']
