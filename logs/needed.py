"""Lists the images that a run still needs: python -m logs.needed MODEL_DIR/DATASET

Prints their paths relative to DATA_DIR, one a line, so that others can be deleted: of each class
learnt its exemplars, held-out and test images. All images of classes that are still to come are
needed as well, as are all images with METHOD=joint and joint_last.
"""
import sys

from data import Fault, settings
from logs import checkpoint


def needed(folder):
    """Paths of the images that a run needs to resume or to learn more classes.

    Args:
        folder: str, MODEL_DIR/DATASET.

    Returns:
        list of str, relative to DATA_DIR.

    Raises:
        Fault: there is no checkpoint after an increment; classes are still to come; the method
            learns from all images.
    """
    saved = checkpoint.newest(folder, within=False)
    if not saved:
        raise Fault('%s: no checkpoint of an increment is there; give MODEL_DIR/DATASET of a run'
                    % folder)
    state = saved.state
    to_come = state.classes[len(state.exemplars):]
    if to_come:
        raise Fault('%s: %d classes are still to come (%s ..), and all of their images are needed; '
                    'ask when the run is finished'
                    % (saved.path, len(to_come), to_come[0]['name']))
    method = state.settings['METHOD']
    if settings.METHODS[method].needs_all:
        raise Fault('%s: METHOD=%s learns from all images of all classes' % (saved.path, method))
    paths = []
    for entry, exemplars in zip(state.classes, state.exemplars):
        paths += exemplars + entry['held'] + entry['test']
    return paths


if __name__ == '__main__':
    if len(sys.argv) != 2 or sys.argv[1].startswith('-'):
        sys.exit('usage: python -m logs.needed MODEL_DIR/DATASET')
    # The names' own bytes, whatever the locale says.
    sys.stdout.reconfigure(encoding='utf-8', errors='surrogateescape')
    try:
        print('\n'.join(needed(sys.argv[1])), flush=True)
    except Fault as fault:
        sys.exit(str(fault))
    except BrokenPipeError:  # the reader, such as head, has closed it
        sys.stdout = None
