"""Ctrl-C, SIGTERM and SIGHUP: how they end a run."""
import contextlib
import os
import signal
import sys
import threading

STATUS = 75  # of a stopped process that can be resumed; EX_TEMPFAIL in BSD's sysexits.h
# Ctrl-C; what schedulers send, Slurm the last one; a lost terminal.
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
_INTERRUPTS = []  # signals that raised KeyboardInterrupt, see `raise_lost`


@contextlib.contextmanager
def like_ctrl_c():
    """A context in which signals raise KeyboardInterrupt.

    Those that were ignored at the start, as by nohup, stay ignored. Afterwards the process, which
    may be an interactive one, has its own handlers again.
    """
    with _handled_by(_interrupt):
        try:
            yield
        finally:
            _INTERRUPTS.clear()


@contextlib.contextmanager
def _handled_by(handler):
    """A context in which a function handles the signals that are not ignored."""
    before = {}
    for number in _SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:
            before[number] = signal.signal(number, handler)
    try:
        yield
    finally:
        for number, own_handler in before.items():
            signal.signal(number, own_handler)


def _interrupt(number, _):
    _INTERRUPTS.append(number)
    raise KeyboardInterrupt


def raise_lost():
    """Raises a KeyboardInterrupt that Python dropped, as it does while an object is deleted."""
    if _INTERRUPTS:
        raise KeyboardInterrupt


class Request:
    """Whether a signal has asked the training to stop.

    Attributes:
        stop: bool.
    """

    def __init__(self):
        self.stop = False

    @contextlib.contextmanager
    def noted(self):
        """A context in which a signal sets `stop`; the same one again ends the process at once.

        Raises:
            KeyboardInterrupt: at its end, if there was a signal.
        """
        def note(number, _):
            self.stop = True

        with _handled_by(note), heard(at_once=False):
            yield
        if self.stop:
            raise KeyboardInterrupt


@contextlib.contextmanager
def heard(at_once):
    """A context for long calls of TensorFlow, in which Python runs no signal handlers.

    A thread answers the signals.

    Args:
        at_once: bool. True: a signal ends the process. False: the second one of a kind does; at
            the first, a message is printed.
    """
    numbers, wakeup = os.pipe()
    os.set_blocking(wakeup, False)

    def answer():
        seen = set()
        while True:
            number = os.read(numbers, 1)  # of a signal; nothing when this context ends
            if not number:
                break
            if at_once or number in seen:
                print('stopped; the same command resumes', file=sys.stderr, flush=True)
                os._exit(STATUS)
            seen.add(number)
            print('stopping after this training step; the same signal again stops at once',
                  file=sys.stderr, flush=True)
        os.close(numbers)

    before = signal.set_wakeup_fd(wakeup)
    threading.Thread(target=answer, daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.close(wakeup)
