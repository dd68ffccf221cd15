"""What a run reads when it goes on: nothing learnt is asked for again, and no image is both trained and tested on."""
import os
import shutil
import types

import numpy as np
import PIL.Image
import pytest

import exemplar
from data import Fault, protocol, settings
from logs import checkpoint


def settings_of(folder, **values):
    """Two classes, then two at a time; a third of the images is tested on; memory for 6 images of each of 4 classes."""
    return types.SimpleNamespace(**dict(dict(
        DATASET='mine', DATA_DIR=str(folder), MODEL_DIR=str(folder) + '-model', LOG_DIR=str(folder) + '-logs', NUM_CLASSES=0,
        TEST_FRACTION=0.34, FIRST_INCREMENT_CLASSES=2, CLASSES_PER_INCREMENT=(2,), MEMORY_SIZE=24, VAL_FRACTION=0.2,
        METHOD='bic', REPLICAS=0, CLASS_ORDER='random', CLASS_ORDER_SEED=1993, DECODE_ALL=False, LEAVE_OUT_BROKEN=False,
        BATCH_SIZE=2, EPOCHS=1, IMAGE_SIZE=40, RESNET_DEPTH=18), **values))


def add(folder, name, numbers):
    os.makedirs(os.path.join(str(folder), name), exist_ok=True)
    for number in numbers:
        PIL.Image.new('RGB', (3, 5), (number, 0, 0)).save(os.path.join(str(folder), name, '%02d.png' % number))


@pytest.fixture(name='folder')
def folder_(tmp_path):
    """Four classes of twelve images."""
    for name in 'dbca':
        add(tmp_path / 'images', name, range(12))
    return tmp_path / 'images'


def begun(s, learnt, kept):
    """The state after the first increments, as if so many images of the learnt classes had been chosen."""
    data, plan, missing = protocol.read(s, {}, {})
    assert missing == []
    done = [now.num_seen for now in plan].index(learnt) + 1
    exemplars = [protocol.relative(s, data, images[::-1][:kept]) for images in data.train[:learnt]]
    return data, dict(checkpoint.NOTHING, sizes=[now.num_seen - now.num_old for now in plan], exemplars=exemplars,
                      classes=protocol.known_classes(s, data), results=[{}] * done)


def names(s, data, images):
    return sorted(protocol.relative(s, data, images))


def test_class_folders_that_change_between_two_parts_of_a_run(folder):
    """Increment 0 is done; then images and a class come, and images that are not needed go. None is trained and tested on."""
    s = settings_of(folder)
    before, state = begun(s, learnt=2, kept=3)
    learnt, planned = before.names[:2], before.names[2:]
    ever_trained = {path for label in (0, 1) for path in names(s, before, before.train[label])}
    for path in ever_trained - {path for paths in state['exemplars'] for path in paths}:
        os.remove(str(folder / path))
    gone = names(s, before, before.train[2])[0]
    os.remove(str(folder / gone))
    for name in learnt + planned:
        add(folder, name, range(12, 30))
    add(folder, 'aa', range(9))
    # A run that was stopped would train on other images than it began with.
    assert protocol.read(s, {}, {}, state)[2] == [
        '%s: the images of class %s to train on are not those that this run began with; put them back, or take what is there '
        'with LEAVE_OUT_BROKEN=True, or begin a new run in another MODEL_DIR' % (folder, name) for name in planned]
    s.LEAVE_OUT_BROKEN = True
    data, plan, missing = protocol.read(s, {}, {}, state)
    assert data.left_out == ['%s: the images of class %s to train on are not those that this run began with' % (folder, name)
                             for name in planned]
    assert missing == [] and data.names == before.names + ['aa'] and [now.num_seen for now in plan] == [2, 4, 5]
    for label in range(2):
        assert protocol.relative(s, data, data.train[label]) == state['exemplars'][label]
    for label in range(4):
        assert protocol.relative(s, data, data.held[label]) == state['classes'][label]['held']
        assert protocol.relative(s, data, data.test[label]) == state['classes'][label]['test']
    train, held, test = (set(names(s, data, np.concatenate(part))) for part in (data.train, data.held, data.test))
    assert not train & held and not train & test and not held & test and not ever_trained & test
    # What was to be trained on of the planned classes still is, and more.
    assert set(names(s, data, data.train[2])) >= set(names(s, before, before.train[2])) - {gone}
    assert len(data.train[3]) > len(before.train[3])
    assert (len(data.train[4]), len(data.held[4]), len(data.test[4])) == (5, 1, 3)    # 9: int(0.34 * 9), int(0.2 * 6)
    assert plan[2].train == sum(min(len(images), plan[2].exemplars) for images in data.train[:4]) + 5


def test_an_unchanged_folder_gives_what_it_gave(folder):
    s = settings_of(folder)
    before, state = begun(s, learnt=2, kept=99)
    data, plan, missing = protocol.read(s, {}, {}, state)
    for label in (2, 3):
        np.testing.assert_array_equal(data.train[label], before.train[label])
    assert plan[1] == protocol.read(s, {}, {})[1][1]


def test_new_classes_are_shuffled_among_themselves(folder):
    s = settings_of(folder)
    before, state = begun(s, learnt=4, kept=3)
    new = ['a%d' % i for i in range(8)]
    for name in new:
        add(folder, name, range(9))
    order = exemplar.class_order(8, np.random.RandomState([1993, 4]), 'random')
    s.MEMORY_SIZE = 80
    assert protocol.read(s, {}, {}, state)[0].names == before.names + [new[i] for i in order]
    with open(str(folder) + '.txt', 'w') as file:
        file.write('\n'.join(new[::-1] + ['c', 'a', 'b', 'd']))
    s.CLASS_ORDER = str(folder) + '.txt'
    assert protocol.read(s, {}, {}, state)[0].names == before.names + new[::-1]


def test_a_memory_too_small_for_more_classes(folder):
    s = settings_of(folder, MEMORY_SIZE=7)
    _, state = begun(s, learnt=4, kept=1)
    add(folder, 'e', range(9))
    with pytest.raises(Fault, match='MEMORY_SIZE=7, .*of 4 old classes; MEMORY_SIZE=8 would do, in a new run with another MODEL'):
        protocol.read(s, {}, {}, state)


def lists(folder, root=''):
    """List files of the four classes: ten images to train on and two to test on."""
    for part, numbers in (('train', range(10)), ('val', range(10, 12))):
        with open(str(folder / (part + '.txt')), 'w') as file:
            file.writelines('%s%s/%02d.png %d\n' % (root, name, number, label)
                            for label, name in enumerate('abcd') for number in numbers)


@pytest.mark.parametrize('way', ['absolute', 'here', 'elsewhere', 'folders here'])
def test_however_the_folder_is_called(way, folder, monkeypatch):
    """A relative folder and absolute lines; the current folder; another folder than when the run began."""
    if way != 'folders here':
        lists(folder, '%s/' % folder if way == 'absolute' else '')
    s = settings_of(folder, NUM_CLASSES=0 if way == 'folders here' else 4)
    monkeypatch.chdir(str(folder.parent) if way == 'absolute' else str(folder))
    s.DATA_DIR = 'images' if way == 'absolute' else '.'
    before, state = begun(s, learnt=2, kept=3)
    if way == 'elsewhere':
        s.DATA_DIR = shutil.copytree(str(folder), str(folder) + '2')
    data, plan, missing = protocol.read(s, {}, {}, state)
    assert missing == []
    for label in range(4):
        np.testing.assert_array_equal(data.test[label], before.test[label])
    np.testing.assert_array_equal(data.train[1], before.train[1][::-1][:3])


def test_an_image_of_another_class_now(folder):
    """A test image of a class that is learnt may not be trained on as one of a class to come."""
    lists(folder)
    s = settings_of(folder, NUM_CLASSES=4)
    before, state = begun(s, learnt=2, kept=3)
    path = protocol.relative(s, before, before.test[0])[0]
    old, new = ('abcd'.index(before.names[label]) for label in (0, 2))
    (folder / 'val.txt').write_text((folder / 'val.txt').read_text().replace('%s %d\n' % (path, old), ''))
    (folder / 'train.txt').write_text((folder / 'train.txt').read_text() + '%s %d\n' % (path, new))
    missing = protocol.read(s, {}, {}, state)[2]
    assert missing == ['%s: this run needs it, an exemplar, a validation or a test image of class %s, and it is broken or not '
                       'there any more; put it back, or do without with LEAVE_OUT_BROKEN=True' % (folder / path, before.names[0]),
                       '%s: the images of class %s to train on are not those that this run began with; put them back, or take '
                       'what is there with LEAVE_OUT_BROKEN=True, or begin a new run in another MODEL_DIR'
                       % (folder, before.names[2])]


def test_a_folder_that_cannot_be_read(folder, monkeypatch):
    def denied(path):
        raise PermissionError(13, 'Permission denied', path)

    monkeypatch.setattr(os, 'listdir', denied)
    with pytest.raises(Fault, match='images/a: cannot be read .Permission denied'):
        protocol.read(settings_of(folder), {}, {})


def test_an_estimate_is_of_what_is_still_to_be_done(folder):
    s = settings_of(folder)
    data, plan, _ = protocol.read(s, {}, {})
    whole, rest = (protocol.estimate(s, data, plan, done) for done in (0, 1))
    # Networks: four and two after increments, nine within one.
    assert rest['disk_gb'] == pytest.approx(whole['disk_gb'] * 11 / 13) and rest['network_gb'] == whole['network_gb']


def test_settings_have_what_the_protocol_asks_for():
    assert set(vars(settings_of('x'))) <= set(settings.RULES)
