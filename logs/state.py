"""What is done of a run and how it goes on: exactly what a checkpoint's state.json holds."""
import dataclasses


@dataclasses.dataclass
class State:
    """The state of a run. A field without a default must be in every state.json.

    A new field needs a default here and nothing else: older checkpoints then still open.

    Attributes:
        settings: dict, all settings that affect results, from settings.fixed.
        sizes: list of int, new classes of each increment, those to come included.
        classes: list of dict by label: `name`; `train`, the digest of the training images; `held`
            and `test`, lists of paths relative to DATA_DIR.
        exemplars: list by label of lists of paths, in order of choice: the memory. Its length is
            the number of classes learnt.
        rows: list of dict, one per increment done, from metrics.result_row.
        step: int, training steps done of the next increment.
        trained_on: str, digest of the training images of the increment that was trained last.
        losses: list of dict, the losses of the steps since the last [train] line.
        hours: float, spent on the run so far.
        log: str, path of the run's log.
    """
    settings: dict
    sizes: list
    classes: list
    exemplars: list
    rows: list
    step: int
    trained_on: str = ''
    losses: list = dataclasses.field(default_factory=list)
    hours: float = 0.0
    log: str = ''

    @property
    def done(self):
        """Number of increments done, int."""
        return len(self.rows)

    @property
    def ends(self):
        """Classes seen after each increment of the plan, list of int."""
        return [sum(self.sizes[:k + 1]) for k in range(len(self.sizes))]

    @property
    def names_seen(self):
        """The names of the classes learnt, by label, list of str."""
        return [entry['name'] for entry in self.classes[:len(self.exemplars)]]

    @property
    def name(self):
        """The name of the checkpoint folder that belongs to this state, str."""
        if self.step:
            return 'increment-%d-step-%d' % (self.done, self.step)
        return 'increment-%d' % (self.done - 1)


def from_json(values):
    """Makes a State from the values of a state.json.

    Args:
        values: dict from name to value.

    Raises:
        ValueError: a field is missing, unknown, or of another type.
    """
    fields = {field.name: field for field in dataclasses.fields(State)}
    required = dataclasses.MISSING
    for name, field in fields.items():
        if name in values and not isinstance(values[name], field.type):
            raise ValueError('%s is not of type %s' % (name, field.type.__name__))
        has_default = field.default is not required or field.default_factory is not required
        if name not in values and not has_default:
            raise ValueError('%s is missing' % name)
    unknown = sorted(set(values) - set(fields))
    if unknown:
        raise ValueError('%s is unknown' % unknown[0])
    return State(**values)
