"""All that a run reads: settings, list files, images; and the devices it runs on."""
import re

_SHOWN = 5  # faults of one kind that are shown in full; the others are counted
_UNPRINTABLE = re.compile('[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]')


class Fault(Exception):
    """A fault of the user, the data or the machine: one line per fault.

    Each line has the value, the rule and the remedy. The program ends with this message alone. Any
    other exception is a fault of the program and keeps its traceback. Whatever reads, writes or
    checks something for the user may raise it.
    """


class Faults:
    """Collects what is wrong before a run begins, so that all of it is reported together.

    Attributes:
        lines: list of str, one per fault, each different.
        blocking: bool, whether one of them leaves nothing to plan.
    """

    def __init__(self):
        self.lines = []
        self.blocking = False
        self._settings = set()

    def add(self, line, setting=None, blocking=True):
        """Adds one fault.

        Args:
            line: str, with value, rule and remedy.
            setting: str or None, the setting whose value is wrong: checks that need it are skipped.
            blocking: bool. False: the run can still be planned, though not carried out.
        """
        if line not in self.lines:
            self.lines.append(line)
        self.blocking = self.blocking or blocking
        if setting:
            self._settings.add(setting)

    def add_all(self, lines, blocking=True):
        """Adds faults of one kind: the first few in full, then how many more there are."""
        known = len(self.lines)
        for line in lines[:_SHOWN]:
            self.add(line, blocking=blocking)
        rest = len(lines) - _SHOWN
        if rest > 0 and len(self.lines) > known:  # else another run has added them
            self.lines.append('... and %d more like the one above' % rest)

    def concern(self, *settings):
        """Whether the value of one of these settings is wrong."""
        return not self._settings.isdisjoint(settings)

    def raise_any(self):
        """Raises a Fault with all lines, if there are any."""
        if self.lines:
            raise Fault('\n'.join(self.lines))


def name_of(path):
    """A name or path, bytes, as text: UTF-8 in every locale, so that names never depend on it.

    Bytes that are not UTF-8 become lone surrogates.
    """
    return path.decode('utf-8', 'surrogateescape')


def bytes_of(name):
    """The reverse of `name_of`."""
    return name.encode('utf-8', 'surrogateescape')


def shown(name):
    """A name or path, str or bytes, for messages: one line, whatever is in it.

    Control characters, and bytes that are not UTF-8, are written as escapes.
    """
    def escape(match):
        return match.group().encode('unicode_escape').decode()

    return _UNPRINTABLE.sub(escape, name_of(name) if isinstance(name, bytes) else name)


def reason(error):
    """The first line of an error's message, str, without the source lines of TensorFlow 2."""
    text = getattr(error, 'strerror', None) or str(error)
    source_lines = r'(?s)^Graph execution error:.*?\nNode: [^\n]*\n(From [^\n]*\n)?'
    return re.sub(source_lines, '', text).split('\n')[0]
