"""Ctrl-C and SIGTERM, which schedulers send: the run ends where it can go on from, and a second one ends it at once."""
import contextlib
import signal

STATUS = 75  # of the process then; EX_TEMPFAIL, "try again", in BSD's sysexits.h
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_asked = []


class Stopped(Exception):
    """The run was asked to stop; it can go on from its newest checkpoint."""


@contextlib.contextmanager
def watched():
    """Notes the first signal for `asked`."""
    def note(number, _):
        _asked.append(number)
        for each in _SIGNALS:
            signal.signal(each, signal.SIG_DFL)

    before = {number: signal.signal(number, note) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _asked.clear()


def asked():
    return bool(_asked)
