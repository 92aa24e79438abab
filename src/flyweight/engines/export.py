"""A model written as ONNX: one file of operators, one of numbers, the same bytes every time."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir
import torch
from onnxscript import optimizer
from onnxscript.rewriter import onnx_fusions
from torch import Tensor, nn

from flyweight.engines.bags import WrittenOutBags
from flyweight.engines.graph_file import name_dimensions, write_graph
from flyweight.engines.half_constants import halve_constants
from flyweight.engines.quantized_weights import write_out_quantizers
from flyweight.engines.quantizers import QUANTIZERS
from flyweight.engines.rounded_lookups import look_up_rounded
from flyweight.engines.shifts import TRANSLATIONS
from flyweight.engines.sparse_weights import SPARSE_WEIGHTS, write_out_sparse_weights
from flyweight.engines.spreads import SPREADS, hoisted_batch, write_out_spreads
from flyweight.errors import ExportError
from flyweight.graph.blame import find_blame
from flyweight.graph.capture import Captured, capture, failure
from flyweight.graph.quiet import quietly
from flyweight.rewrite.hoisted_model import HoistedModel
from flyweight.task.scores import evaluating

#: Operator set of everything we export: the newest that ONNX Runtime 1.22 and OpenVINO 2025.0 both run.
OPSET = 20
OUTPUT = "score"
#: Numbers in a constant that is worked out before it is written. PyTorch's own limit lets it be 32 times as large
#: as what it is made of: all sums of two codewords, 0.5 MB, stood in files in place of 32 KB of codewords.
FOLDED = 1024


@dataclass(frozen=True)
class Exported:
    """A model on disk.

    Args:
        path: the graph, `name.onnx`; its numbers lie beside it in `name.onnx.data`, where any are over 1 KB.
        bytes: of both files together.
        inputs: names of the graph's inputs, in order; `request_index`, which has a default, is not among them.
        output: the dimensions of the output "score"; None where open, as the first is.
    """

    path: Path
    bytes: int
    inputs: tuple[str, ...]
    output: tuple[int | None, ...]


def export_onnx(model: nn.Module, inputs: Mapping[str, Tensor], folder: Path, *, name: str = "model") -> Exported:
    """Write a model as ONNX, with the number of rows left open.

    The model runs in evaluation mode and is left as it was. Inputs as long as the output share one open dimension,
    "rows"; another first dimension (flat ids of bags) is open on its own; all others are fixed, a history's length too.
    A `HoistedModel`'s request fields have "requests" rows of their own, one unless `request_index` is given.

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
    requests = set(model.request_names) if isinstance(model, HoistedModel) else set()
    given = hoisted_batch(model, dict(inputs)) if isinstance(model, HoistedModel) else inputs
    with evaluating(model), torch.no_grad(), quietly():
        captured = capture(model, given, WrittenOutBags())
        graph = _translate(captured)
    labels = _labels(tuple(given), captured.values, captured.rows)
    write_out_quantizers(graph)
    write_out_sparse_weights(graph)
    look_up_rounded(graph)
    halve_constants(graph)
    name_dimensions(graph, labels)
    if requests:
        write_out_spreads(graph, requests)
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


def _translate(captured: Captured) -> ir.Model:
    try:
        written = torch.onnx.export(
            captured.program,
            dynamo=True,
            verbose=False,
            input_names=captured.named.names,
            output_names=(OUTPUT,),
            opset_version=OPSET,
            custom_translation_table={**TRANSLATIONS, **QUANTIZERS, **SPARSE_WEIGHTS, **SPREADS},
            optimize=False,
        )
    except torch.onnx.OnnxExporterError as error:
        raise failure(find_blame(error, captured.named.model)) from error
    assert written is not None
    model: ir.Model = written.model
    optimizer.optimize_ir(model, input_size_limit=FOLDED, output_size_limit=FOLDED)
    onnx_fusions.fuse(model)
    return model
