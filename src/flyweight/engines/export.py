"""A model written as ONNX: one file of operators, one of numbers, the same bytes every time."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx_ir as ir
import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from flyweight.engines.bags import WrittenOutBags
from flyweight.engines.blame import Blame, find_blame, find_fixed_rows
from flyweight.engines.graph_file import name_dimensions, write_graph
from flyweight.engines.quiet import quietly
from flyweight.engines.shifts import TRANSLATIONS
from flyweight.errors import ExportError
from flyweight.task.scores import evaluating

#: Operator set of everything we export: the newest that ONNX Runtime 1.22 and OpenVINO 2025.0 both run.
OPSET = 20
OUTPUT = "score"


@dataclass(frozen=True)
class Exported:
    """A model on disk.

    Args:
        path: the graph, `name.onnx`; its numbers lie beside it in `name.onnx.data`, where any are over 1 KB.
        bytes: of both files together.
        inputs: names of the graph's inputs, in order.
        output: the dimensions of the output "score"; None where open, as the first is.
    """

    path: Path
    bytes: int
    inputs: tuple[str, ...]
    output: tuple[int | None, ...]


class _Named(nn.Module):
    """Calls a model by the names of its inputs, so that `forward(self, **inputs)` is captured like any other."""

    def __init__(self, model: nn.Module, names: tuple[str, ...]) -> None:
        super().__init__()
        self.model = model
        self.names = names

    def forward(self, *values: Tensor) -> Any:
        return self.model(**dict(zip(self.names, values, strict=True)))


def export_onnx(model: nn.Module, inputs: Mapping[str, Tensor], folder: Path, *, name: str = "model") -> Exported:
    """Write a model as ONNX, with the number of rows left open.

    The model runs in evaluation mode and is left as it was. Inputs as long as the output share one open dimension,
    "rows"; another first dimension (flat ids of bags) is open on its own; all others are fixed, a history's length too.

    Args:
        model: called as `model(**inputs)`; returns one tensor with a row for each row of the batch.
        inputs: a batch, tensors by the names of the model's arguments. With flat ids, take a batch whose number of ids
            differs from its number of rows.
        folder: made if missing; files of the same name in it are replaced.

    Raises:
        ExportError: the model cannot be captured or written; names the operator and the module.

    Example:
        >>> export_onnx(model, {"item_id": torch.tensor([3, 5])}, Path("out")).path  # doctest: +SKIP
        PosixPath('out/model.onnx')
    """
    if OUTPUT in inputs:
        raise ExportError(f"An input is called {OUTPUT!r}, as the output is; give the model's argument another name.")
    names = tuple(inputs)
    named = _Named(model, names)
    with evaluating(named), torch.no_grad(), quietly():
        rows, values = _at_least_two_rows(named, tuple(value.detach() for value in inputs.values()))
        program = _capture(named, values, rows)
        graph = _translate(named, program)
    labels = _labels(names, values, rows)
    name_dimensions(graph, labels)
    path = folder / f"{name}.onnx"
    written = write_graph(graph, path)
    shape = graph.graph.outputs[0].shape
    output = tuple(size if isinstance(size, int) else None for size in shape) if shape is not None else ()
    return Exported(path, written, names, output)


def _labels(names: tuple[str, ...], values: tuple[Tensor, ...], rows: int) -> dict[str, str]:
    """Name the first dimension of each input."""
    return {
        name: "rows" if value.ndim and len(value) == rows else f"{name}_length"
        for name, value in zip(names, values, strict=True)
    }


def _at_least_two_rows(named: _Named, values: tuple[Tensor, ...]) -> tuple[int, tuple[Tensor, ...]]:
    """Return the number of rows and the inputs, doubled if there is one row: capture would take a 1 for a constant."""
    output = _run(named, values)
    if len(output) == 1:
        values = tuple(torch.cat([value, value]) if len(value) == 1 else value for value in values)
        output = _run(named, values)
    return len(output), values


def _run(named: _Named, values: tuple[Tensor, ...]) -> Tensor:
    output = named(*values)
    if not isinstance(output, Tensor) or output.ndim == 0:
        seen = "a single number" if isinstance(output, Tensor) else type(output).__name__
        raise ExportError(f"The model returned {seen}; it must return one tensor with a row for each row of the batch.")
    return output


def _capture(named: _Named, values: tuple[Tensor, ...], rows: int) -> ExportedProgram:
    """Run the model on symbolic rows. Lengths of other inputs may turn out to depend on them (`rows + 1` offsets)."""
    row = Dim("rows", min=1)
    shapes = tuple({0: row if len(value) == rows else Dim.AUTO} if value.ndim else {} for value in values)
    try:
        with WrittenOutBags():
            return torch.export.export(named, values, dynamic_shapes=(shapes,), strict=False)
    except Exception as error:  # the user's own code and all of the compiler run here; nothing is hidden, see `from`
        inputs = dict(zip(named.names, values, strict=True))
        blame = find_fixed_rows(error, named.model, inputs, rows) or find_blame(error, named.model)
        raise _failure(blame) from error


def _translate(named: _Named, program: ExportedProgram) -> ir.Model:
    try:
        written = torch.onnx.export(
            program,
            dynamo=True,
            verbose=False,
            input_names=named.names,
            output_names=(OUTPUT,),
            opset_version=OPSET,
            custom_translation_table=TRANSLATIONS,
        )
    except torch.onnx.OnnxExporterError as error:
        raise _failure(find_blame(error, named.model)) from error
    assert written is not None
    model: ir.Model = written.model
    return model


def _failure(blame: Blame) -> ExportError:
    return ExportError(
        f"The model cannot be exported to ONNX: {blame.operator} in module {blame.module}: {blame.reason} "
        "Rewrite that part with tensor operators whose shapes and branches do not depend on values or on the number "
        "of rows, or leave it out of the model."
    )
