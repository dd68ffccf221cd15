"""Ctrl-C, SIGTERM and SIGHUP: how they end a run."""
import contextlib
import os
import signal
import sys
import threading

STATUS = 75  # of a stopped process that can be resumed; EX_TEMPFAIL in BSD's sysexits.h
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # Ctrl-C; schedulers; a lost terminal
_INTERRUPTS = []  # signals that raised KeyboardInterrupt, see `raise_lost`


def like_ctrl_c():
    """Makes signals raise KeyboardInterrupt. Those ignored at the start, as by nohup, stay so."""
    for number in _SIGNALS:
        if signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, _interrupt)


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

        before = {}
        for number in _SIGNALS:
            if signal.getsignal(number) != signal.SIG_IGN:
                before[number] = signal.signal(number, note)
        try:
            with heard(at_once=False):
                yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
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
