"""The step that codes a model's embedding tables: find, weigh, encode, allocate, verify as a whole, recalibrate."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from flyweight.errors import InputError
from flyweight.tables.bands import cut_bands
from flyweight.tables.coded_table import page_bits_of
from flyweight.tables.damage import Item, fisher_information
from flyweight.tables.exact import works_coded
from flyweight.tables.menu import encode_menu, menu, seed_of
from flyweight.tables.plan import Plan, check_fit, checked_plan, planned_items
from flyweight.tables.recalibration import fold
from flyweight.tables.replace import with_tables
from flyweight.tables.search import MOST_BUDGETS, Search
from flyweight.tables.sensitivity import FOLDS, small_batch, validation_folds
from flyweight.tables.sites import STEP, Table, find_tables
from flyweight.tables.trial import Bench, Trial
from flyweight.tables.usage import count_lookups, row_weights
from flyweight.task.change import Change, Skipped
from flyweight.task.progress import stage
from flyweight.task.scores import Scores, evaluating
from flyweight.task.task import Task

Bands = tuple[tuple[int, int], ...]
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
    tables, skipped = _usable(task)
    recipe = {name: value for name, value in asdict(settings).items() if value is not None}
    if settings.codings is not None:
        check_fit(settings.codings, tables, skipped)
    if not tables:
        return Change(STEP, task.model, recipe, (), (*skipped, Skipped("the model", "it has no table to code", STEP)))
    with stage("Weighing rows by use and gradient", seconds=5.0):
        weighed = _weigh(task, tables)
        before = task.scores("validation")
    if settings.codings is not None:
        tried = _planned(task, tables, weighed, before, settings.codings, settings.seed)
        return _change(task, recipe, tried.trials[0], tried, skipped, interrupted=False)
    trial, search, interrupted = None, None, False
    total = sum(table.bytes for table in tables)
    for fine in (False, True):
        items = _encode(tables, weighed, fine=fine, seed=settings.seed)
        largest = sum(max(band.bytes for band in item.options) for item in items)
        budget = _budget(settings, tables, total)
        if not fine and budget is not None and budget > FINE_ABOVE * largest:
            continue
        bench = Bench(task, tables, items, before, validation_folds(task).numpy(), _test_size(task, before))
        trial, search, interrupted = _search(bench, settings, budget)
        if trial is not None or interrupted:
            break
    assert search is not None
    return _change(task, recipe, trial, search, skipped, interrupted=interrupted)


def _usable(task: Task) -> tuple[tuple[Table, ...], tuple[Skipped, ...]]:
    """Return the tables whose every use is a plain lookup, tried one by one on a small batch."""
    tables, skipped = find_tables(task.model)
    inputs = small_batch(task)
    good: list[Table] = []
    bad: list[Skipped] = []
    with evaluating(task.model):
        for table in tables:
            reason = works_coded(task.model, table, inputs)
            if reason is None:
                good.append(table)
            else:
                bad.append(reason)
    return tuple(good), (*skipped, *bad)


def _weigh(task: Task, tables: tuple[Table, ...]) -> dict[str, tuple[Bands, Tensor]]:
    """Return the bands of each table, and what each row weighs in the quantisation error."""
    counts = count_lookups(task, tables)
    fisher = fisher_information(task, tables)
    weighed = {}
    for table in tables:  # counts are dropped one by one: three numbers a row would be a good part of a narrow table
        count = counts.pop(table.name)
        bands = cut_bands(count, 1 << page_bits_of(table.rows))
        weighed[table.name] = bands, row_weights(count, *fisher.pop(table.name))
    return weighed


def _test_size(task: Task, validation: Scores) -> float:
    """Return how many rows (groups, where there are any) the test split has for each of validation; ids only."""
    counted = [(len(target), group) for _, target, group in task.batches("test")]
    groups = [group for _, group in counted if group is not None]
    if validation.groups is not None and groups:
        return len(torch.unique(torch.cat(groups))) / len(np.unique(validation.groups))
    return sum(rows for rows, _ in counted) / len(validation.targets)


def _encode(
    tables: tuple[Table, ...], weighed: dict[str, tuple[Bands, Tensor]], *, fine: bool, seed: int
) -> tuple[Item, ...]:
    """Code every band of every table in every coding of its menu."""
    items = []
    words = "Encoding tables in finer codings" if fine else "Encoding tables"
    with stage(words, total=sum(table.rows for table in tables)) as work:
        for number, table in enumerate(tables):
            bands, weight = weighed[table.name]
            for start, stop in bands:
                codings = menu(stop - start, table.dim, fine=fine)
                rows = table.weight[start:stop]
                coded = encode_menu(rows, weight[start:stop], codings, start=start, seed=seed_of(seed, number))
                items.append(Item(table.name, start, stop, tuple(coded)))
                work.advance(stop - start)
    return tuple(items)


@dataclass(frozen=True, eq=False)
class _Tried:
    """A bench and the only trial on it."""

    bench: Bench
    trials: tuple[Trial, ...]


def _planned(
    task: Task,
    tables: tuple[Table, ...],
    weighed: dict[str, tuple[Bands, Tensor]],
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


def _change(
    task: Task,
    recipe: dict[str, Any],
    trial: Trial | None,
    search: Search | _Tried,
    skipped: tuple[Skipped, ...],
    *,
    interrupted: bool,
) -> Change:
    """Build the model to hand on, and the record."""
    total = search.bench.bytes_before
    curve = tuple(other.point(total, chosen=other is trial) for other in search.trials)
    if trial is None:
        why = f"no coding keeps the drop and its interval within {recipe['max_drop']}; the tables are as they were"
        left = tuple(Skipped(table.name, why, STEP) for table in search.bench.tables)
        return Change(STEP, task.model, recipe, (), (*skipped, *left), curve)
    model: nn.Module = with_tables(task.model, search.bench.tables, trial.tables)
    inputs = small_batch(task)
    with evaluating(model):
        model, folded = fold(model, trial.recalibration, inputs)
    done = [_record(search.bench, trial, table) for table in search.bench.tables if table.name in trial.tables]
    if not trial.recalibration.is_identity:
        scale, bias = trial.recalibration.scale, trial.recalibration.bias
        done.append({"what": "recalibration", "scale": scale, "bias": bias, "how": folded})
    return Change(STEP, model, recipe, tuple(done), skipped, curve, interrupted)


def _record(bench: Bench, trial: Trial, table: Table) -> dict[str, Any]:
    """Return what was done to one table, in plain values."""
    bands = [
        {"start": item.start, "stop": item.stop, "coding": str(item.options[option].coding)}
        for item, option in zip(bench.items, trial.choice, strict=True)
        if item.table == table.name
    ]
    return {
        "what": "table",
        "name": table.name,
        "rows": table.rows,
        "dim": table.dim,
        "bytes_before": table.bytes,
        "bytes_after": trial.tables[table.name].bytes(),
        "bands": bands,
    }
