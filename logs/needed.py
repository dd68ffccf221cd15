"""Lists the images that a run still needs, so that others can be deleted: python -m logs.needed MODEL_DIR/DATASET

Prints their paths relative to DATA_DIR, one a line: of each class learnt its exemplars, held-out and test images. All images of
classes that are still to come are needed as well, as are all images with METHOD=joint and joint_last.
"""
import sys

from data import Fault
from logs import checkpoint


def needed(folder):
    """Paths, relative to DATA_DIR, of the images that a run needs to resume or to learn more classes: list of str.

    Args: folder: str, MODEL_DIR/DATASET.

    Raises: Fault: there is no checkpoint after an increment; classes are still to come; METHOD learns from all images.
    """
    state, path = checkpoint.newest(folder, within=False)[1:3]
    if not path:
        raise Fault('%s: no checkpoint of an increment is there; give MODEL_DIR/DATASET of a run' % folder)
    to_come = [of_class['name'] for of_class in state['classes'][len(state['exemplars']):]]
    if to_come:
        raise Fault('%s: %d classes are still to come (%s ..), and all of their images are needed; ask when the run is finished'
                    % (path, len(to_come), to_come[0]))
    if state['settings']['METHOD'].startswith('joint'):
        raise Fault('%s: METHOD=%s learns from all images of all classes' % (path, state['settings']['METHOD']))
    return [image for of_class, exemplars in zip(state['classes'], state['exemplars'])
            for image in exemplars + of_class['held'] + of_class['test']]


if __name__ == '__main__':
    if len(sys.argv) != 2 or sys.argv[1].startswith('-'):
        sys.exit('usage: python -m logs.needed MODEL_DIR/DATASET')
    sys.stdout.reconfigure(errors='surrogateescape')  # names in bytes as they are
    try:
        print('\n'.join(needed(sys.argv[1])), flush=True)
    except Fault as fault:
        sys.exit(str(fault))
    except BrokenPipeError:  # the reader, such as head, has closed it
        sys.stdout = None
