"""A trial run with one table looked up exactly, which shows whether the model uses it as a plain table."""

import torch
from torch import Tensor, nn

from flyweight.tables.replace import with_tables
from flyweight.tables.rounded_table import RoundedTable
from flyweight.tables.sites import STEP, Table
from flyweight.tables.touches import watching
from flyweight.task.change import Skipped


def works_coded(model: nn.Module, table: Table, inputs: dict[str, Tensor]) -> Skipped | None:
    """Return why a table cannot be replaced, or None when a model with exact lookups in its place does the same.

    Args:
        model: in evaluation mode.
        inputs: one batch.
    """
    rebuilt = with_tables(model, (table,), {table.name: RoundedTable(table.weight, table.dtype)}, share=True)
    with torch.no_grad():
        with watching(model, (table,)) as watch:
            expected = model(**inputs)
        try:
            seen = rebuilt(**inputs)
        except (AttributeError, RuntimeError, TypeError, IndexError) as error:
            first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            return Skipped(table.name, f"the model does more with it than look rows up: {first}", STEP)
    if not watch.touches:
        return Skipped(table.name, "the model never looked it up in the first validation batch", STEP)
    if not torch.allclose(expected, seen, rtol=1e-4, atol=1e-5):
        return Skipped(table.name, "the model gives other outputs when its rows are looked up", STEP)
    with torch.enable_grad(), watching(model, (table,), gradients=True):
        if not model(**inputs).requires_grad:
            return Skipped(table.name, "no gradient comes through the model; does it run under torch.no_grad()?", STEP)
    return None
