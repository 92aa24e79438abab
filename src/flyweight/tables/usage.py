"""How often training looks each row up, and how much the loss feels a row."""

import torch
from torch import Tensor, nn

from flyweight.tables.sites import Table
from flyweight.tables.touches import Touch, watching
from flyweight.task.scores import evaluating
from flyweight.task.task import Task

#: Rows of training data run through the model where ids cannot be read off the batches.
CALIBRATION_ROWS = 100_000
#: A row's own Fisher information counts as much as the table's average after so many lookups.
PRIOR_LOOKUPS = 8.0
#: Rows that are weighed together.
BLOCK = 1 << 20


def count_lookups(task: Task, tables: tuple[Table, ...], rows: int = CALIBRATION_ROWS) -> dict[str, Tensor]:
    """Return how often the training split looks up each row, (rows,) float32 by table name.

    Where a table's ids are an input of the model as it is, the inputs are counted, which is quick; for the other tables
    the model runs over up to `rows` rows.
    """
    counts = {table.name: torch.zeros(table.rows) for table in tables}
    sources = inputs_of_tables(task, tables)
    indirect = tuple(table for table in tables if table.name not in sources)
    seen = 0
    with evaluating(task.model), torch.no_grad():
        for inputs, target, _ in task.batches("train"):
            for name, fields in sources.items():
                for field in fields:
                    _add(counts[name], inputs[field].reshape(-1).long())
            if indirect and seen < rows:
                seen += len(target)
                with watching(task.model, indirect) as watch:
                    task.model(**inputs)
                for touch in watch.touches:
                    _add(counts[touch.table], touch.ids)
    return counts


def inputs_of_tables(task: Task, tables: tuple[Table, ...]) -> dict[str, list[str]]:
    """Return, for each table whose ids are inputs of the model as they are, the names of those inputs."""
    inputs, _, _ = next(task.batches("train"))
    sizes = {name: field.rows or 0 for name, field in task.inputs.items()}
    # An input with ids that the table lacks is changed on its way (hashed, clamped), though not in this batch perhaps.
    rows = {table.name: table.rows for table in tables}
    return {
        name: fields
        for name, fields in _unchanged(task.model, tables, inputs).items()
        if all(0 < sizes[field] <= rows[name] for field in fields)
    }


def row_weights(counts: Tensor, fisher: Tensor, lookups: Tensor) -> Tensor:
    """Return the weight of each row in the quantisation error, `w_i = n_i * F_i`, (rows,) float32.

    `n_i` is how often training looks the row up and `F_i` the mean squared gradient of the loss at a lookup (the
    diagonal of the Fisher information). `F_i` is seen for few rows, so it is shrunk to the table's mean:
    `F_i = (sum of squares + PRIOR * mean) / (lookups + PRIOR)`.

    Args:
        counts: (rows,) lookups in training; rows never seen weigh a little, so that they too go somewhere near. The
            weights take their place: one number a row more would be a good part of a narrow table.
        fisher: (rows,) sum of squared gradients over the calibration data.
        lookups: (rows,) lookups in the calibration data.
    """
    total = lookups.sum()
    mean = fisher.sum() / total if total > 0 and fisher.sum() > 0 else torch.tensor(1.0)
    for here in (slice(start, start + BLOCK) for start in range(0, len(counts), BLOCK)):
        felt = (fisher[here] / mean + PRIOR_LOOKUPS) / (lookups[here] + PRIOR_LOOKUPS)
        counts[here].add_(0.1).mul_(felt)
    return counts


def _add(counts: Tensor, ids: Tensor) -> None:
    counts.index_add_(0, ids, torch.ones(len(ids)))


def _unchanged(model: nn.Module, tables: tuple[Table, ...], inputs: dict[str, Tensor]) -> dict[str, list[str]]:
    """Return, for each table whose lookups are inputs of the model unchanged, the names of those inputs."""
    with evaluating(model), torch.no_grad(), watching(model, tables) as watch:
        model(**inputs)
    found: dict[str, list[str] | None] = {}
    for touch in watch.touches:
        field = _field_of(touch, inputs)
        known = found.setdefault(touch.table, [])
        found[touch.table] = None if known is None or field is None else [*known, field]
    return {name: fields for name, fields in found.items() if fields}


def _field_of(touch: Touch, inputs: dict[str, Tensor]) -> str | None:
    for name, values in inputs.items():
        if values.numel() == len(touch.ids) and torch.equal(values.reshape(-1), touch.ids.to(values.dtype)):
            return name
    return None
