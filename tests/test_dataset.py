"""Which images are trained on, held out and tested on, in a new run and in a resumed one."""
import os
import shutil
import types

import common
import numpy as np
import PIL.Image
import pytest

import exemplar
from data import Fault, Faults, batch_sizes, dataset, prepare_digits


def settings_of(folder, **values):
    """Two classes per increment. A third of the images is for the test.

    The memory has room for 6 images of each of 4 classes.
    """
    given = dict(
        DATASET='folder', DATA_DIR=folder, MODEL_DIR='%s-model' % folder,
        LOG_DIR='%s-logs' % folder, TEST_FRACTION=0.34, FIRST_INCREMENT_CLASSES=2,
        CLASSES_PER_INCREMENT=2, MEMORY_SIZE=24, VAL_FRACTION=0.2, REPLICAS=1, BATCH_SIZE=2,
        EPOCHS=1, IMAGE_SIZE=40)
    given.update(values)
    return common.settings_of(['--%s=%s' % pair for pair in given.items()])


def add(folder, name, numbers):
    os.makedirs(os.path.join(str(folder), name), exist_ok=True)
    for number in numbers:
        path = os.path.join(str(folder), name, '%02d.png' % number)
        PIL.Image.new('RGB', (3, 5), (number, 0, 0)).save(path)


@pytest.fixture(name='folder')
def folder_(tmp_path):
    """Four classes of twelve images: 4 for the test, 1 held out, 7 to train on."""
    for name in 'dbca':
        add(tmp_path / 'images', name, range(12))
    return tmp_path / 'images'


def begun(s, learnt, kept):
    """The data, and what a run knows after some increments.

    It is as if `kept` images of each learnt class had been chosen.
    """
    run = common.read(s)
    assert run.faults == [] and run.memory == []
    chosen = [run.data.relative(images[::-1][:kept]) for images in run.data.train[:learnt]]
    return run.data, dataset.Known(run.sizes, run.data.classes(), chosen)


def paths(data, parts):
    found = []
    for images in parts:
        found += data.relative(images)
    return found


def assert_apart(data):
    """No image has two uses."""
    used = paths(data, data.train + data.held + data.test)
    assert len(used) == len(set(used))


def test_class_folders_that_change_before_a_run_is_resumed(folder):
    """After increment 0, images and a class are added, and images not needed are deleted."""
    s = settings_of(folder)
    before, known = begun(s, learnt=2, kept=3)
    assert_apart(before)
    everything = ['%s/%02d.png' % (name, number) for name in 'abcd' for number in range(12)]
    assert sorted(paths(before, before.train + before.held + before.test)) == everything
    for part, size in ((before.train, 7), (before.held, 1), (before.test, 4)):
        assert [len(images) for images in part] == [size] * 4
    trained = set(paths(before, before.train[:2]))
    kept = known.exemplars[0] + known.exemplars[1]
    gone = sorted(trained - set(kept))[:3]
    for path in gone:
        os.remove(str(folder / path))
    for name in before.names[:2]:
        add(folder, name, range(12, 30))
    add(folder, 'aa', range(9))

    run = common.read(s, known)
    data = run.data
    assert run.faults == [] and data.names == before.names + ['aa']
    assert run.sizes == [2, 2, 1] and [now.num_seen for now in run.plan] == [4, 5]
    assert [data.relative(images) for images in run.memory] == known.exemplars
    for label in range(4):
        assert data.relative(data.held[label]) == known.classes[label]['held']
        assert data.relative(data.test[label]) == known.classes[label]['test']
    assert_apart(data)
    assert not set(paths(data, data.test)) & trained
    # All that is there may be trained on, but only exemplars of learnt classes are: 3 each, then 7
    # of each new class.
    there = set(paths(data, data.train[:2]))
    assert there >= trained - set(gone) and not there & set(gone) and len(there) > len(trained)
    now = run.plan[0]
    train, val, test = data.split(now, run.memory)
    assert sorted(data.relative(train)) == sorted(kept + paths(before, before.train[2:]))
    assert sorted(data.relative(val)) == sorted(paths(before, before.held))
    assert len(test) == now.num_test == 16
    assert now.num_train == len(train) == 20
    # Of 9: int(0.34 * 9) to test on, int(0.2 * 6) held out.
    assert [len(part[4]) for part in (data.train, data.held, data.test)] == [5, 1, 3]

    # Classes that are planned are trained on as they were when the run began; METHOD=joint needs
    # the learnt ones, too.
    add(folder, before.names[3], range(12, 30))
    wrong = ('%s: the images of class %%s to train on are not those that this run began with; put '
             'them back, or begin a new run in another MODEL_DIR' % folder)
    assert common.read(s, known).faults == [wrong % before.names[3]]
    joint = common.read(settings_of(folder, METHOD='joint'), known)
    assert joint.faults == [wrong % before.names[label] for label in (0, 1, 3)]


def test_new_classes_are_shuffled_among_themselves(folder):
    s = settings_of(folder)
    before, known = begun(s, learnt=4, kept=3)
    new = ['a%d' % i for i in range(8)]
    for name in new:
        add(folder, name, range(9))
    order = exemplar.class_order(8, np.random.RandomState([1993, 4]), 'random')
    s.MEMORY_SIZE = 80
    assert common.read(s, known).data.names == before.names + [new[i] for i in order]
    s.CLASS_ORDER = str(folder) + '.txt'
    with open(s.CLASS_ORDER, 'w') as file:
        file.write('\n'.join(new[::-1] + ['c', 'a', 'b', 'd']))
    assert common.read(s, known).data.names == before.names + new[::-1]
    s.MEMORY_SIZE = 7
    with pytest.raises(Fault, match='MEMORY_SIZE=7, .*of 4 old classes; MEMORY_SIZE=8 would do, in '
                                    'a new run with another MODEL'):
        common.read(s, known)
    shutil.rmtree(str(folder / 'b'))
    with pytest.raises(Fault, match='images: class b is not there any more, and this run began '
                                    'with it; put it back'):
        common.read(s, known)


def lists(folder, root=''):
    """Writes list files of the four classes: ten images to train on, two to test on."""
    for part, numbers in (('train', range(10)), ('val', range(10, 12))):
        with open(str(folder / (part + '.txt')), 'w') as file:
            for label, name in enumerate('abcd'):
                for number in numbers:
                    file.write('%s%s/%02d.png %d\n' % (root, name, number, label))


@pytest.mark.parametrize('way', ['absolute', 'here', 'elsewhere', 'folders here'])
def test_however_the_folder_is_called(way, folder, monkeypatch):
    """A relative folder with absolute paths in its lists; the current folder; a moved folder."""
    if way != 'folders here':
        lists(folder, '%s/' % folder if way == 'absolute' else '')
    s = settings_of(folder, NUM_CLASSES=0 if way == 'folders here' else 4)
    monkeypatch.chdir(str(folder.parent) if way == 'absolute' else str(folder))
    s.DATA_DIR = 'images' if way == 'absolute' else '.'
    before, known = begun(s, learnt=2, kept=3)
    if way == 'elsewhere':
        s.DATA_DIR = shutil.copytree(str(folder), str(folder) + '2')
    run = common.read(s, known)
    assert run.faults == [] and run.data.classes(known) == known.classes
    assert run.plan[0].num_train == sum(map(len, before.train[2:])) + 2 * 3
    for part in ('train', 'held', 'test'):
        assert paths(run.data, getattr(run.data, part)) == paths(before, getattr(before, part))
    np.testing.assert_array_equal(run.memory[1], before.train[1][::-1][:3])


def test_an_image_of_another_class_now(folder):
    """A test image of a learnt class must not become a training image of a later class."""
    lists(folder)
    s = settings_of(folder, NUM_CLASSES=4)
    before, known = begun(s, learnt=2, kept=3)
    path = before.relative(before.test[0])[0]
    old = 'abcd'.index(before.names[0])
    new = 'abcd'.index(before.names[2])
    train = (folder / 'train.txt').read_text()
    val = (folder / 'val.txt').read_text()
    (folder / 'train.txt').write_text(train + '%s %d\n' % (path, new))
    (folder / 'val.txt').write_text(val.replace('%s %d\n' % (path, old), ''))
    assert common.read(s, known).faults == [
        '%s: this run needs it, an exemplar, a validation or a test image of class %s, and it is '
        'not there any more; put it back' % (folder / path, before.names[0]),
        '%s: the images of class %s to train on are not those that this run began with; put them '
        'back, or begin a new run in another MODEL_DIR' % (folder, before.names[2])]


def test_all_that_is_wrong_with_a_run_is_told(folder, tmp_path, monkeypatch):
    """A folder that the recipe will prepare is no fault; it is prepared only if nothing is."""
    os.truncate(str(folder / 'a' / '03.png'), 40)
    (tmp_path / 'file').write_text('')
    assert common.read(settings_of(folder)).faults == [
        '%s/a/03.png: is cut off; fix or remove it' % folder]
    blocked = settings_of(folder, LOG_DIR=tmp_path / 'file' / 'x')
    assert common.read(blocked).faults == [
        'LOG_DIR=%s/file/x: %s/file is no folder that can be written to' % (tmp_path, tmp_path)]
    with pytest.raises(Fault, match='CLASS_ORDER=none: is neither one of random icarl sorted nor a '
                                    'file of class names'):
        common.read(settings_of(folder, CLASS_ORDER='none'))
    monkeypatch.setitem(dataset.PREPARED, str(tmp_path / 'digits'), prepare_digits)
    with pytest.raises(Fault, match='mistyped: no such folder; data/README.md says'):
        common.read(settings_of(tmp_path / 'mistyped'))
    faults = Faults()
    faults.add('SEED=x', 'SEED')
    with pytest.raises(Fault, match='^SEED=x$'):
        dataset.read(settings_of(tmp_path / 'digits'), faults)
    assert sorted(os.listdir(str(tmp_path))) == ['file', 'images']


def test_runs_on_the_same_images_open_them_once(folder):
    """What is found to be broken is remembered. Another TEST_FRACTION divides the images anew."""
    cache = dataset.Cache()
    for changes in (dict(SEED=1), dict(SEED=2), dict(TEST_FRACTION=0.5)):
        s = settings_of(folder, **changes)
        data = dataset.read(s, Faults(), None, cache)[0]
        alone = common.read(s).data
        assert list(map(list, data.test)) == list(map(list, alone.test))
    os.truncate(str(folder / 'a' / '03.png'), 40)
    faults = Faults()
    dataset.read(settings_of(folder, SEED=3), faults, None, cache)
    assert faults.lines == []  # it was not opened again


def increment(num_train, index=1):
    return exemplar.Increment(
        index=index, num_old=5, num_seen=8, exemplars_per_class=0, kept_per_class=0,
        val_per_class=0, num_train=num_train, num_val=0, num_test=0)


def batch_faults(s, *plan):
    faults = Faults()
    batch_sizes.check(s, list(plan), faults)
    return faults.lines


# Images of each batch, of the last one (0: as the others), devices; and the values per device where
# they are too few, or None.
@pytest.mark.parametrize('depth, size, cases', [
    (18, 32, [(4, 0, 1, None), (3, 0, 1, 3), (8, 0, 2, None), (6, 0, 2, 3), (7, 4, 1, None),
              (7, 3, 1, None), (8, 7, 2, 3)]),
    (18, 33, [(1, 0, 1, None), (12, 5, 6, 0), (12, 6, 6, None)]),
    (18, 64, [(12, 5, 6, 0), (12, 6, 6, None)]),
    (32, 32, [(1, 0, 1, None), (12, 5, 6, 0), (12, 3, 6, None)]),
    (32, 33, [(12, 6, 6, None), (12, 5, 6, 0)]),
    (32, 64, [(12, 5, 6, 0)])])
def test_values_for_batch_normalisation(depth, size, cases):
    """Each device needs four values: its images, rounded down, times the last map's pixels.

    A last batch of one to three images is left out.
    """
    for batch, last, total, values in cases:
        s = types.SimpleNamespace(
            RESNET_DEPTH=depth, IMAGE_SIZE=size, BATCH_SIZE=batch, REPLICAS=total, EPOCHS=1)
        faults = batch_faults(s, increment(5 * batch + last))
        name = 'each batch (images: %d,' % batch
        if last:
            name = 'the last batch of increment 1 (images: %d,' % last
        assert len(faults) == (values is not None)
        for fault in faults:
            assert 'BATCH_SIZE=%d: %s devices: %d)' % (batch, name, total) in fault
            assert ('too few values per channel for batch normalisation: %d, and 4 are needed'
                    % values) in fault


def test_advice_on_batches():
    """153 and 174 images: 10 * 14 + 13, 12 * 14 + 6. In batches of 16 they leave 9 and 14."""
    s = types.SimpleNamespace(
        RESNET_DEPTH=18, IMAGE_SIZE=32, BATCH_SIZE=14, REPLICAS=2, EPOCHS=3)
    fault, = batch_faults(s, increment(51, 0), increment(58, 1))
    assert fault.endswith('increment 1 (images: 6, devices: 2) has too few values per channel for '
                          'batch normalisation: 3, and 4 are needed; BATCH_SIZE=16 or other '
                          'numbers of images would do')
    s = types.SimpleNamespace(RESNET_DEPTH=20, IMAGE_SIZE=32, BATCH_SIZE=8, REPLICAS=3, EPOCHS=3)
    assert batch_faults(s, increment(7)) == [
        'BATCH_SIZE=8: increment 1 has only 7 training images',
        'BATCH_SIZE=8: cannot be shared by 3 devices equally; 9 would do']
