"""What a trial becomes: the model that is handed on, and the record of what was done to each table."""

from typing import Any, Protocol

from torch import nn

from flyweight.tables.recalibration import fold
from flyweight.tables.replace import with_tables
from flyweight.tables.sensitivity import small_batch
from flyweight.tables.sites import STEP, Table
from flyweight.tables.trial import Bench, Trial
from flyweight.task.change import Change, Skipped
from flyweight.task.scores import evaluating
from flyweight.task.task import Task


class Tried(Protocol):
    """A bench and the trials made on it."""

    @property
    def bench(self) -> Bench:
        """What they were made on."""
        ...

    @property
    def trials(self) -> "list[Trial] | tuple[Trial, ...]":
        """In the order they were made."""
        ...


def change_of(
    task: Task,
    recipe: dict[str, Any],
    trial: Trial | None,
    search: Tried,
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
