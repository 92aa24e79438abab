"""The step that codes a model's embedding tables: find, weigh, encode, allocate, verify as a whole, recalibrate."""

from dataclasses import asdict, dataclass

import numpy as np

from flyweight.errors import InputError
from flyweight.tables.plan import Plan, check_fit, checked_plan, planned_items
from flyweight.tables.prepare import Weighed, encode_bands, test_size, usable_tables, weigh_rows
from flyweight.tables.record import change_of
from flyweight.tables.search import MOST_BUDGETS, Search
from flyweight.tables.sensitivity import FOLDS, validation_folds
from flyweight.tables.sites import STEP, Table
from flyweight.tables.trial import Bench, Trial
from flyweight.task.change import Change, Skipped
from flyweight.task.progress import stage
from flyweight.task.scores import Scores
from flyweight.task.task import Task

#: A byte budget above this share of the frugal menu's largest choice needs the fine menu.
FINE_ABOVE = 0.8


@dataclass(frozen=True)
class EncodeTables:
    """Code embedding tables as sums of codewords, each table and frequency band by a choice of its own.

    Give exactly one target:

    Args:
        bits_per_row: average bits a row over all tables, codebooks counted.
        ratio: table bytes before divided by table bytes after.
        max_drop: the metric may fall by so much on validation, the interval's bad end included, and so may logloss.
        codings: the bands of each table and their codings, as `plan_of` reads them off a change, instead of a search:
            `{"item": [{"stop": 3008, "coding": "2 4-bit codes"}, {"stop": 8000, "coding": "one shared vector"}]}`.
            Tables that are not named stay as they are.
        seed: the same seed gives the same codes.

    Raises:
        InputError: not exactly one target, or one that makes no sense.

    Example:
        >>> EncodeTables(bits_per_row=4).name
        'encode_tables'
    """

    bits_per_row: float | None = None
    ratio: float | None = None
    max_drop: float | None = None
    codings: Plan | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        given = {name: value for name, value in self.target().items() if value is not None}
        if self.codings is not None and not given:
            object.__setattr__(self, "codings", checked_plan(self.codings))
            return
        if len(given) != 1 or self.codings is not None:
            told = [f"{name}={value}" for name, value in given.items()] + ["codings"] * (self.codings is not None)
            known = "bits_per_row=, ratio=, max_drop=, codings="
            raise InputError(f"EncodeTables takes exactly one of {known}; seen {', '.join(told) or 'none'}.")
        name, value = next(iter(given.items()))
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < float("inf"):
            raise InputError(f"EncodeTables {name} must be a positive number; seen {value!r}.")

    @property
    def name(self) -> str:
        """The step's name in recipes and reports."""
        return STEP

    def target(self) -> dict[str, float | None]:
        """Return the three targets of a search, of which one is set where there is no plan."""
        return {"bits_per_row": self.bits_per_row, "ratio": self.ratio, "max_drop": self.max_drop}

    def apply(self, task: Task) -> Change:
        """Return the task's model with coded tables, and what was done and left.

        Interrupted (Ctrl-C) once a trial has met the target, it returns the best so far, marked `interrupted`.

        Raises:
            InputError: even the smallest coding is over the byte target; a plan does not fit the tables.
        """
        return encode_tables(task, self)


def encode_tables(task: Task, settings: EncodeTables) -> Change:
    """Code the tables of a task's model; see `EncodeTables`."""
    tables, skipped = usable_tables(task)
    recipe = {name: value for name, value in asdict(settings).items() if value is not None}
    if settings.codings is not None:
        check_fit(settings.codings, tables, skipped)
    if not tables:
        return Change(STEP, task.model, recipe, (), (*skipped, Skipped("the model", "it has no table to code", STEP)))
    with stage("Weighing rows by use and gradient", seconds=5.0):
        weighed = weigh_rows(task, tables)
        before = task.scores("validation")
    if settings.codings is not None:
        tried = _planned(task, tables, weighed, before, settings.codings, settings.seed)
        return change_of(task, recipe, tried.trials[0], tried, skipped, interrupted=False)
    trial, search, interrupted = None, None, False
    total = sum(table.bytes for table in tables)
    for fine in (False, True):
        items = encode_bands(tables, weighed, fine=fine, seed=settings.seed)
        largest = sum(max(band.bytes for band in item.options) for item in items)
        budget = _budget(settings, tables, total)
        if not fine and budget is not None and budget > FINE_ABOVE * largest:
            continue
        bench = Bench(task, tables, items, before, validation_folds(task).numpy(), test_size(task, before))
        trial, search, interrupted = _search(bench, settings, budget)
        if trial is not None or interrupted:
            break
    assert search is not None
    return change_of(task, recipe, trial, search, skipped, interrupted=interrupted)


@dataclass(frozen=True, eq=False)
class _Tried:
    """A bench and the only trial on it."""

    bench: Bench
    trials: tuple[Trial, ...]


def _planned(
    task: Task,
    tables: tuple[Table, ...],
    weighed: Weighed,
    before: Scores,
    plan: Plan,
    seed: int,
) -> _Tried:
    """Encode what a plan names and try it; no row of those that it is tried on had a say in the plan."""
    weights = {name: weight for name, (_, weight) in weighed.items()}
    with stage("Encoding tables as planned"):
        items = planned_items(plan, tables, weights, seed)
    with stage("Checking on validation data"):
        bench = Bench(task, tables, items, before, validation_folds(task).numpy(), test_size=1.0)
        only = np.zeros(len(items), dtype=np.int64)
        return _Tried(bench, (bench.run(only, (only,) * FOLDS),))


def _budget(settings: EncodeTables, tables: tuple[Table, ...], total: int) -> float | None:
    """Return the byte target, or None when the target is a drop."""
    if settings.ratio is not None:
        return total / settings.ratio
    if settings.bits_per_row is not None:
        return sum(table.rows for table in tables) * settings.bits_per_row / 8
    return None


def _search(bench: Bench, settings: EncodeTables, budget: float | None) -> tuple[Trial | None, Search, bool]:
    """Return the best trial (None when no choice was within the drop), the search, and whether it was interrupted."""
    search: Search | None = None
    words = "Allocating bits and checking on validation data"
    try:
        with stage(words, total=MOST_BUDGETS) as work:
            search = Search(bench, work.advance)
            if budget is None:
                assert settings.max_drop is not None
                return search.try_drop(settings.max_drop), search, False
            smallest = search.smallest_bytes()
            if smallest > budget:
                raise InputError(
                    f"The tables cannot be coded in {budget:,.0f} bytes: one vector for each band already takes "
                    f"{smallest:,}. Ask for at most a ratio of {bench.bytes_before / smallest:,.0f}."
                )
            return search.try_bytes(budget), search, False
    except KeyboardInterrupt:
        best = _best_so_far(search, settings, budget)
        if search is None or best is None:
            raise
        return best, search, True


def _best_so_far(search: Search | None, settings: EncodeTables, budget: float | None) -> Trial | None:
    """Return the best trial that meets the target, of those made before an interrupt."""
    if search is None:
        return None
    trials = search.trials
    if budget is None:
        assert settings.max_drop is not None
        inside = [trial for trial in trials if trial.within(settings.max_drop, search.bench.test_size)]
        return min(inside, key=lambda trial: trial.table_bytes, default=None)
    return min((trial for trial in trials if trial.table_bytes <= budget), key=lambda trial: trial.loss, default=None)
