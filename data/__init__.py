"""All that a run reads: settings, list files, images."""


class Fault(ValueError):
    """What the user, the data or the machine did wrong: one line per fault, each with value, rule and remedy.

    The program ends with this message alone; any other exception is a fault of the program and keeps its traceback.
    """
