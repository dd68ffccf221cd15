"""All that a run reads: settings, list files, images; and the devices it runs on."""


class Fault(ValueError):
    """A fault of the user, the data or the machine: one line per fault, each with value, rule and remedy.

    The program ends with this message alone. Any other exception is a fault of the program and keeps its traceback.
    """
