"""All that a run reads: settings, list files, images; and the devices it runs on."""
import re


class Fault(Exception):
    """A fault of the user, the data or the machine: one line per fault, each with value, rule and remedy.

    The program ends with this message alone. Any other exception is a fault of the program and keeps its traceback.
    Whatever reads, writes or checks something for the user may raise it.
    """


def reason(error):
    """The first line of an error's message, str, without the source lines that TensorFlow 2 puts before it."""
    text = getattr(error, 'strerror', None) or str(error)
    return re.sub(r'(?s)^Graph execution error:.*?\nNode: [^\n]*\n(From [^\n]*\n)?', '', text).split('\n')[0]
