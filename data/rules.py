"""What the value of a setting must be: its kind, its limits, and the words for both."""
import math
import numbers
import typing

from data import shown


class Rule(typing.NamedTuple):
    """What the value of a setting must be.

    Attributes:
        kind: bool, int, float, str, tuple, or numbers.Real: int or float, which differ in meaning.
        holds: function from a value of this kind to bool, whether it is legal.
        words: str, the rule in words: '.. must be <words>'.
    """
    kind: type
    holds: typing.Callable
    words: str

    def allows(self, value):
        """Whether a value is of this kind and legal. Where a float is asked for, an int will do."""
        kinds = (int, float) if self.kind in (float, numbers.Real) else (self.kind,)
        return type(value) in kinds and self.holds(value)

    def parsed(self, text):
        """The value that a text of the command line stands for. Nothing is evaluated.

        Returns:
            value of this kind, or the text itself if it is none.
        """
        if self.kind is bool:
            return {'True': True, 'False': False}.get(text, text)
        if self.kind is tuple:
            parts = [part.strip() for part in text.strip('()[] ').split(',')]
            return tuple(_number(part, (int, float)) for part in parts if part)
        number_kinds = {int: (int,), float: (float,), numbers.Real: (int, float)}
        return _number(text, number_kinds.get(self.kind, ()))


def _number(text, kinds):
    """The text as a number of the first of these kinds that it fits, or the text itself."""
    for kind in kinds:
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def whole(low, high=10 ** 6):
    """The Rule of a whole number from low to high."""
    words = 'a whole number from %d to %d' % (low, high)
    return Rule(int, lambda value: low <= value <= high, words)


def number(low, high):
    """The Rule of a number from low to high."""
    words = 'a number from %g to %g' % (low, high)
    return Rule(float, lambda value: low <= value <= high, words)


def half_open(low, high):
    """The Rule of a number from low to below high."""
    words = 'a number from %g to below %g' % (low, high)
    return Rule(float, lambda value: low <= value < high, words)


def between(low, high):
    """The Rule of a number above low and below high."""
    words = 'a number between %g and %g, both excluded' % (low, high)
    return Rule(float, lambda value: low < value < high, words)


def one_of(texts):
    """The Rule of a text that is one of these."""
    return Rule(str, lambda value: value in texts, 'one of ' + ' '.join(texts))


def _are_class_counts(values):
    """Whether these can be the new classes of later increments. A single 0 means all at once."""
    counts = all(type(value) is int and 0 < value <= 10 ** 6 for value in values)
    return values == (0,) or counts and len(values) > 0


def _are_drops(values):
    """Whether these rise, and each is an epoch, int, or a share of EPOCHS, float."""
    epochs = [value for value in values if type(value) is int and 0 < value <= 10 ** 6]
    shares = [value for value in values if type(value) is float and 0 < value < 1]
    return len(epochs + shares) == len(values) and list(values) == sorted(set(values))


def _is_side(value):
    """Whether this can be a side in pixels, int, or a multiple of IMAGE_SIZE, float."""
    return 1 <= value <= (10 ** 4 if type(value) is int else 100)


def _is_printable(text):
    """Whether a text has no control characters and, if it came as bytes, was UTF-8."""
    return text == shown(text)


TEXT = Rule(str, _is_printable, 'a text in UTF-8 without control characters')
NOT_EMPTY = Rule(str, lambda text: text != '' and _is_printable(text),
                 TEXT.words + ', and not empty')
CLASS_COUNTS = Rule(
    tuple, _are_class_counts,
    'a whole number, several separated by commas, or 0: all classes at once')
DROPS = Rule(
    tuple, _are_drops,
    'epochs, whole numbers above 0, or shares of EPOCHS, between 0 and 1, rising: on the command '
    'line 4,6 or 0.5,0.75 or nothing, in the file (4, 6), (0.5, 0.75), (4,) or ()')
SIDE = Rule(
    numbers.Real, _is_side,
    'a whole number of pixels from 1 to 10000, or a multiple of IMAGE_SIZE from 1.0 to 100.0')

# What follows from the kind of a value alone, for settings without a rule of their own.
_BY_KIND = {
    bool: Rule(bool, lambda value: True, 'True or False'),
    int: Rule(int, lambda value: True, 'a whole number'),
    float: Rule(float, lambda value: -math.inf < value < math.inf, 'a number'),
    str: TEXT,
    tuple: Rule(tuple, lambda values: all(type(value) is int for value in values),
                'whole numbers: 4,6 on the command line, (4, 6) in the file'),
}
_NO_KIND = Rule(type(None), lambda value: False, 'True or False, a number, a text or whole numbers')


def of_kind(value):
    """The Rule that allows all values of the same kind as this one."""
    return _BY_KIND.get(type(value), _NO_KIND)
