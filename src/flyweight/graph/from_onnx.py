"""An ONNX file as a PyTorch module, so that a model of any framework can be measured, thinned and quantised."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from flyweight.errors import InputError
from flyweight.graph.onnx_import.assembly import Assembled, assemble
from flyweight.graph.onnx_import.file import read_graph
from flyweight.graph.onnx_import.node import Call, Node, Value, as_tensor
from flyweight.graph.onnx_import.table import OPERATORS


def from_onnx(path: str | Path, *, output: str | None = None) -> nn.Module:
    """Return a module that does what an ONNX file says, with its weights as parameters.

    Products with constant weights become `nn.Linear`, `nn.Conv2d`, `nn.Embedding` and so on, named after the weights;
    all else runs as plain operators. The number of rows stays as open as it is in the file. Pairs of QuantizeLinear and
    DequantizeLinear round as they do in an engine, and are written again when the module is exported.

    Args:
        path: the file; tensors outside of it must lie in its folder.
        output: which output to return where the file has more than one.

    Raises:
        InputError: the file is damaged or points outside of its folder, or holds an operator that cannot be run in
            PyTorch (a branch, a loop, another domain's): names the operator and the node.

    Example:
        >>> task = fw.Task(model=fw.from_onnx("ranker.onnx"), inputs=..., ...)  # doctest: +SKIP
    """
    path = Path(path)
    graph = read_graph(path)
    if output is None and len(graph.outputs) > 1:
        raise InputError(
            f"{path} has {len(graph.outputs)} outputs ({', '.join(graph.outputs)[:300]}); say which is the score: "
            f"from_onnx(path, output={graph.outputs[0]!r})."
        )
    wanted = graph.outputs[0] if output is None else output
    if wanted not in graph.outputs:
        raise InputError(f"{path} has no output {wanted!r}; it has {', '.join(graph.outputs)[:300]}.")
    return OnnxModel(assemble(graph, wanted)).eval()


class OnnxModel(nn.Module):
    """The operators of an ONNX file, run one by one.

    Args:
        assembled: its nodes, modules and constants.
    """

    def __init__(self, assembled: Assembled) -> None:
        super().__init__()
        self.names = tuple(assembled.inputs)
        self._parts = assembled.without_tensors()
        for name, module in assembled.layers.named_children():
            self.add_module(name, module)
        for name, parameter in assembled.layers.named_parameters(recurse=False):
            self.register_parameter(name, parameter)
        for name, buffer in assembled.layers.named_buffers(recurse=False):
            self.register_buffer(name, buffer)

    def forward(self, *values: Tensor, **inputs: Tensor) -> Tensor:
        """Return the file's output for inputs by name, or in the file's order.

        Raises:
            InputError: an operator cannot be run on them; names the node.
        """
        given = {**dict(zip(self.names, values, strict=False)), **inputs}
        if given.keys() != set(self.names) or len(values) + len(inputs) != len(self.names):
            raise TypeError(f"the ONNX file's inputs are {', '.join(self.names)}; seen {', '.join(given) or 'none'}")
        parts = self._parts
        known: dict[str, Value] = {
            there: given[name].to(kind) for name, (there, kind) in parts.inputs.items()
        }  # a file may ask for int32 or float64
        known.update(parts.known)
        known.update({name: _tensor(self, where) for name, where in parts.held.items()})
        for node in parts.nodes:
            results = _run(node, known, self.get_submodule(node.layer) if node.layer else None)
            known.update(zip(node.outputs, results, strict=False))
            for name in node.last:
                known.pop(name, None)
        result = known[parts.output]
        return result if isinstance(result, Tensor) else as_tensor(result)


def _tensor(model: nn.Module, where: str) -> Tensor:
    path, _, last = where.rpartition(".")
    found: Tensor = getattr(model.get_submodule(path), last)
    infinite = getattr(model.get_submodule(path), f"{last}_infinite", None)
    return found if infinite is None else found.masked_fill(infinite, float("-inf"))


def _run(node: Node, known: Mapping[str, Value], layer: nn.Module | None) -> tuple[Value, ...]:
    call = Call(node, tuple(known[name] if name else None for name in node.inputs), layer)
    try:
        result: Any = OPERATORS[node.operator](call)
    except InputError:
        raise
    except (RuntimeError, IndexError, ValueError, TypeError, ArithmeticError, AttributeError) as error:
        if torch.compiler.is_exporting():  # the one who traces reads the exception itself
            raise
        first = str(error).strip().splitlines()[:1] or [type(error).__name__]
        node.refuse(f"{first[0][:200].rstrip('.')}.")
    results = result if isinstance(result, tuple) else (result,)
    lost = [name for name in node.outputs[len(results) :] if name and name not in node.last]
    if lost:
        node.refuse(f"its output {lost[0][:80]!r} is read, which is not made here.")
    return results
