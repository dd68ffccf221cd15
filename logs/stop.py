"""Ctrl-C, SIGTERM, which schedulers send, and SIGHUP, of a lost terminal: the run ends where it can go on from; the same once
more ends it at once."""
import contextlib
import signal

STATUS = 75  # of the process then; EX_TEMPFAIL, "try again", in BSD's sysexits.h
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_asked = []


class Stopped(Exception):
    """The run was asked to stop; it can go on from its newest checkpoint."""


@contextlib.contextmanager
def watched():
    """Notes the first signal of each kind for `asked`; what is ignored from outside, as by nohup, stays so.

    Raises:
        Stopped: at its end, as was asked.
    """
    def note(number, _):
        _asked.append(number)
        signal.signal(number, signal.SIG_DFL)

    before = {number: signal.signal(number, note) for number in _SIGNALS if signal.getsignal(number) != signal.SIG_IGN}
    try:
        yield
        if _asked:
            raise Stopped()  # other runs of the same command must not begin
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _asked.clear()


def like_ctrl_c():
    """Has the other signals, too, end what comes before a run as Ctrl-C does; what is ignored from outside stays so."""
    for number in _SIGNALS[1:]:
        if signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, signal.default_int_handler)


def ask():
    """As a signal does: for what another process was asked."""
    _asked.append(signal.SIGTERM)


def asked():
    return bool(_asked)
