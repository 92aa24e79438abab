"""A model captured as a graph of operators, with the number of rows left open."""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from flyweight.errors import ExportError
from flyweight.graph.blame import Blame, find_blame, find_fixed_rows


class Named(nn.Module):
    """Calls a model by the names of its inputs, so that `forward(self, **inputs)` is captured like any other."""

    def __init__(self, model: nn.Module, names: tuple[str, ...]) -> None:
        super().__init__()
        self.model = model
        self.names = names

    def forward(self, *values: Tensor) -> Any:
        """Return `model(**inputs)` for the values of its inputs in order."""
        return self.model(**dict(zip(self.names, values, strict=True)))


@dataclass(frozen=True, eq=False)
class Captured:
    """A captured model.

    Args:
        named: what was captured, taking its inputs by place.
        values: the inputs it was captured with, at least two rows of them.
        rows: how many rows those give.
        program: the operators.
    """

    named: Named
    values: tuple[Tensor, ...]
    rows: int
    program: ExportedProgram


def capture(
    model: nn.Module, inputs: Mapping[str, Tensor], within: AbstractContextManager[Any] | None = None
) -> Captured:
    """Run a model on symbolic rows and keep its operators.

    Inputs as long as the output share one open dimension, "rows"; another first dimension (flat ids of bags, `rows + 1`
    offsets) is open on its own; all others are fixed. Called in evaluation mode, without gradients, by its callers.

    Args:
        within: a context that the model's operators are captured in.

    Raises:
        ExportError: its branches or shapes depend on values or on the number of rows; names the line and the module.
    """
    named = Named(model, tuple(inputs))
    rows, values = _at_least_two_rows(named, tuple(value.detach() for value in inputs.values()))
    return Captured(named, values, rows, _program(named, values, rows, within))


def failure(blame: Blame) -> ExportError:
    """Return the error that says which operator of which module cannot be captured or written, and why."""
    return ExportError(
        f"The model cannot be exported to ONNX: {blame.operator} in module {blame.module}: {blame.reason} "
        "Rewrite that part with tensor operators whose shapes and branches do not depend on values or on the number "
        "of rows, or leave it out of the model."
    )


def _at_least_two_rows(named: Named, values: tuple[Tensor, ...]) -> tuple[int, tuple[Tensor, ...]]:
    """Return the number of rows and the inputs, doubled if there is one row: capture would take a 1 for a constant."""
    output = _run(named, values)
    if len(output) == 1:
        values = tuple(torch.cat([value, value]) if len(value) == 1 else value for value in values)
        output = _run(named, values)
    return len(output), values


def _run(named: Named, values: tuple[Tensor, ...]) -> Tensor:
    output = named(*values)
    if not isinstance(output, Tensor) or output.ndim == 0:
        seen = "a single number" if isinstance(output, Tensor) else type(output).__name__
        raise ExportError(f"The model returned {seen}; it must return one tensor with a row for each row of the batch.")
    return output


# The model is no argument here: blame takes a function's first argument for the module whose line failed.
def _program(
    named: Named, values: tuple[Tensor, ...], rows: int, within: AbstractContextManager[Any] | None
) -> ExportedProgram:
    row = Dim("rows", min=1)
    shapes = tuple({0: row if len(value) == rows else Dim.AUTO} if value.ndim else {} for value in values)
    try:
        with within or nullcontext():
            return torch.export.export(named, values, dynamic_shapes=(shapes,), strict=False)
    except Exception as error:  # the user's own code and all of the compiler run here; nothing is hidden, see `from`
        inputs = dict(zip(named.names, values, strict=True))
        blame = find_fixed_rows(error, named.model, inputs, rows) or find_blame(error, named.model)
        raise failure(blame) from error
