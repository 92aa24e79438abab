"""The step that drops whole input features of a ranker, those that it misses least."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from flyweight.errors import InputError
from flyweight.graph.trace import trace
from flyweight.graph.traced import TracedModel
from flyweight.pruning.calibration import calibration_pieces, first_inputs
from flyweight.pruning.input_fields import Droppable, find_fields, measure_fields, without_fields
from flyweight.quality.intervals import paired_drop
from flyweight.quality.measure import measure
from flyweight.task.change import Change, Skipped
from flyweight.task.estimate import Estimate
from flyweight.task.progress import stage
from flyweight.task.scores import Scores
from flyweight.task.task import Task

STEP = "drop_fields"
#: Of those that promise least, how many are tried for each that goes: first order misjudges what a model leans on.
TRIED = 3


@dataclass(frozen=True)
class DropFields:
    """Leave out whole inputs of a model: what each gave is replaced by its mean, and the model no longer asks for it.

    Give exactly one target:

    Args:
        at_most: so many go, those whose absence costs least on validation.
        names: these go.
        max_drop: as many go as keep the metric's drop on validation within this, the interval's bad end included.
        seed: of the calibration rows.

    Raises:
        InputError: not exactly one target, or one that makes no sense.

    Example:
        >>> DropFields(at_most=3).name
        'drop_fields'
    """

    at_most: int | None = None
    names: Sequence[str] | None = None
    max_drop: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        given = {key: value for key, value in asdict(self).items() if value is not None and key != "seed"}
        if len(given) != 1:
            seen = ", ".join(f"{key}={value}" for key, value in given.items()) or "none"
            raise InputError(f"DropFields takes exactly one of at_most=, names=, max_drop=; seen {seen}.")
        if self.names is not None:
            if isinstance(self.names, str) or not self.names:
                raise InputError(f"DropFields names must be a list of inputs; seen {self.names!r}.")
            object.__setattr__(self, "names", tuple(self.names))
        whole = isinstance(self.at_most, int) and not isinstance(self.at_most, bool)
        if self.at_most is not None and not (whole and self.at_most >= 1):
            raise InputError(f"DropFields at_most must be a whole number of at least 1; seen {self.at_most!r}.")
        if self.max_drop is not None and not 0 < self.max_drop < float("inf"):
            raise InputError(f"DropFields max_drop must be a positive number; seen {self.max_drop!r}.")

    @property
    def name(self) -> str:
        """The step's name in recipes and reports."""
        return STEP

    def apply(self, task: Task) -> Change:
        """Return the task's model without some inputs, and what was done and left.

        The model is called with all of the task's inputs as before and ignores those that are gone.

        Raises:
            ExportError: the model cannot be traced; names the line.
            InputError: a name is no input of the task, or cannot be left out; the loss cannot be computed.
        """
        return drop_fields(task, self)


def drop_fields(task: Task, settings: DropFields) -> Change:
    """Leave out inputs; see `DropFields`."""
    recipe = {key: value for key, value in asdict(settings).items() if value is not None}
    traced = trace(task.model, first_inputs(task))
    fields, left = find_fields(traced)
    skipped = [Skipped(name, why, STEP) for name, why in left.items()]
    _check_names(settings, traced, {one.name for one in fields}, left)
    run = _Run(task, traced, task.scores("validation", traced), settings)
    with stage("Dropping fields", total=len(fields)) as work:
        while run.wants_more(fields):
            if not run.go_on(fields):
                break
            work.advance()
    if not run.gone:
        why = "no field can go within the limit" if fields else "it has no field that could go"
        return Change(STEP, task.model, recipe, (), (*skipped, Skipped("the model", why, STEP)))
    return Change(STEP, run.model, recipe, tuple(run.done), tuple(skipped), dropped_inputs=tuple(run.gone))


def _check_names(settings: DropFields, traced: TracedModel, known: set[str], left: dict[str, str]) -> None:
    for name in settings.names or ():
        if name in left:
            raise InputError(f"Field {name!r} cannot be dropped: {left[name]}.")
        if name not in known:
            raise InputError(f"There is no field {name!r}; the model's inputs are {', '.join(traced.names)}.")
    if settings.names and set(settings.names) >= set(traced.names):
        raise InputError("DropFields names all inputs of the model; leave it at least one.")


class _Run:
    """A model that loses one field after the other."""

    def __init__(self, task: Task, traced: TracedModel, before: Scores, settings: DropFields) -> None:
        self.task, self.model, self.before, self.settings = task, traced, before, settings
        self.gone: list[str] = []
        self.done: list[dict[str, Any]] = []

    def wants_more(self, fields: tuple[Droppable, ...]) -> bool:
        """Return whether another field is to go."""
        wanted = len(self.settings.names or ()) or self.settings.at_most or len(fields)
        return len(self.gone) < wanted and len(self.model.names) > 1 and len(self.gone) < len(fields)

    def go_on(self, fields: tuple[Droppable, ...]) -> bool:
        """Drop the field that is missed least; return whether there was one within the limit."""
        there = [one for one in find_fields(self.model)[0] if one.name in {field.name for field in fields}]
        if self.settings.names is not None:
            there = [one for one in there if one.name in self.settings.names]
        if not there:
            return False
        pieces = calibration_pieces(self.task, seed=self.settings.seed)
        rises, means = measure_fields(self.task, self.model, there, pieces)
        trials = []
        for field in sorted(there, key=lambda one: rises[one.name])[:TRIED]:
            model = without_fields(self.model, [field], means)
            trials.append((self.task.scores("validation", model), field, model))
        after, field, model = max(trials, key=lambda trial: self._quality(trial[0]))
        drop = self._drop(after)
        if self.settings.max_drop is not None and drop.high > self.settings.max_drop:
            return False
        self.model = model
        self.gone.append(field.name)
        self.done.append(
            {
                "what": "field",
                "name": field.name,
                "saliency": rises[field.name],
                "drop": {"value": drop.value, "low": drop.low, "high": drop.high, "n": drop.n, "split": "validation"},
            }
        )
        return True

    def _quality(self, scores: Scores) -> float:
        """Return the metric, larger is better."""
        spec = self.task.spec
        value = measure(spec, self.task.judged(spec, scores.outputs), scores.targets, scores.groups)
        return value if spec.larger_is_better else -value

    def _drop(self, after: Scores) -> Estimate:
        """Return the drop on validation since before the first field went."""
        spec, judged = self.task.spec, self.task.judged
        outputs = (judged(spec, self.before.outputs), judged(spec, after.outputs))
        return paired_drop(spec, *outputs, self.before.targets, self.before.groups)
