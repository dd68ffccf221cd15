"""A run as its log tells it: what logs/read.py reads, and tables and pictures show."""
import dataclasses


@dataclasses.dataclass
class Run:
    """A run as its log tells it. What a log does not say is empty.

    Attributes:
        name: str.
        settings: dict from name to text.
        rows: list of dict, one per increment that was tested: `increment`, `classes` (seen), and
            what else its lines say, as numbers, lists of numbers, or text.
        train: list of dict, one per [train] line, in the order of training.
        steps: dict from increment to its number of training steps.
        lr_drops: dict from increment to list of the steps, counted from 0, after which its
            learning rate drops. Only [plan] lines have them.
        matrix: dict from increment to list of float, top-1 after the correction on the classes of
            each increment so far.
        confusion_before: dict from increment to array [increments, increments], test images by
            true (row) and predicted (column) increment, before the correction.
        confusion_after: the same after the correction.
        predictions: dict from increment to int array [images, 3]: the label, and the labels
            predicted before and after the correction.
        names: list of str, the classes by label, as far as they are known.
        lines: list of str. Two files with the same lines and settings have the same run.
    """
    name: str = ''
    settings: dict = dataclasses.field(default_factory=dict)
    rows: list = dataclasses.field(default_factory=list)
    train: list = dataclasses.field(default_factory=list)
    steps: dict = dataclasses.field(default_factory=dict)
    lr_drops: dict = dataclasses.field(default_factory=dict)
    matrix: dict = dataclasses.field(default_factory=dict)
    confusion_before: dict = dataclasses.field(default_factory=dict)
    confusion_after: dict = dataclasses.field(default_factory=dict)
    predictions: dict = dataclasses.field(default_factory=dict)
    names: list = dataclasses.field(default_factory=list)
    lines: list = dataclasses.field(default_factory=list)

    @property
    def dataset(self):
        return self.settings.get('DATASET', 'unknown')

    @property
    def headline(self):
        """The metric of tables and pictures, 'top1' or 'top5'."""
        return self.settings.get('HEADLINE', 'top1')

    @property
    def has_bias_fit(self):
        """Whether beta and gamma are other than 1 and 0 after any increment, bool."""
        return any(row.get('beta', 1) != 1 or row.get('gamma', 0) != 0 for row in self.rows)

    @property
    def is_corrected(self):
        """Whether a correction changed anything, bool."""
        after = self.curve(self.headline)
        before = self.curve(self.headline + '_before')
        return self.has_bias_fit or any(after.get(x) != before[x] for x in before)

    def curve(self, key, x='classes', factor=1):
        """The numbers of the rows under a key.

        Args:
            key: str.
            x: str, 'classes' or 'increment'.
            factor: the numbers are multiplied by it.

        Returns:
            dict from x to number. Rows without the key are left out.
        """
        return {row[x]: factor * row[key] for row in self.rows if key in row}
