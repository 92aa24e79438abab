"""From the graph of an ONNX file to what a module is made of: named layers, loose tensors, and nodes that call them."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from flyweight.graph.onnx_import.file import Graph
from flyweight.graph.onnx_import.layers import BUILDERS, Weights
from flyweight.graph.onnx_import.naming import argument, dotted, layer_name, place, prefix_of
from flyweight.graph.onnx_import.node import MAX_KNOWN, Known, Node
from flyweight.graph.onnx_import.rewrites import (
    fold_constants,
    join_biases,
    join_quantization,
    presented,
    without_unread,
)

#: Operators whose constant operands count as weights, which training may change.
_LEARNED = frozenset(
    {"Add", "Sub", "Mul", "Div", "MatMul", "Gemm", "Conv", "ConvTranspose", "Gather", "PRelu", "Grid", "Einsum"}
    | {"BatchNormalization", "LayerNormalization", "GroupNormalization", "InstanceNormalization", "RMSNormalization"}
    | {"Transpose", "Unsqueeze", "Expand", "Slice", "Concat", "Reshape"}
)
_ROUNDERS = frozenset({"Grid", "QuantizeLinear", "DequantizeLinear"})
#: Larger numbers are masks (-1e9 before a softmax), not weights.
MAX_WEIGHT = 1e4


@dataclass(frozen=True)
class Parts:
    """What a module needs to run besides its tensors.

    Args:
        nodes: in order, each knowing its layer and what it is the last to read.
        inputs: argument -> (name in the file, element type).
        known: small constants as plain numbers.
        held: other constants: name in the file -> dotted name of the parameter or buffer.
        output: the value to return.
    """

    nodes: tuple[Node, ...]
    inputs: Mapping[str, tuple[str, torch.dtype]]
    known: Mapping[str, Known]
    held: Mapping[str, str]
    output: str


@dataclass(frozen=True)
class Assembled(Parts):
    """Parts, and `layers`: a module that holds all modules and tensors."""

    layers: nn.Module

    def without_tensors(self) -> Parts:
        """Return the parts alone."""
        return Parts(self.nodes, self.inputs, self.known, self.held, self.output)


def assemble(graph: Graph, output: str) -> Assembled:
    """Return the parts of the module that gives one output of a graph.

    Raises:
        InputError: a constant operator cannot be worked out.
    """
    graph = without_unread(replace(graph, outputs=(output,)))
    graph, bias = join_biases(fold_constants(join_quantization(graph)))
    weights = Weights(graph.constants, bias)
    prefix = prefix_of(graph.constants)
    root = nn.Module()
    nodes = _with_layers(graph, weights, root, prefix)
    graph = without_unread(replace(graph, nodes=nodes))
    known, held = _constants(graph, weights, root, prefix)
    inputs: dict[str, tuple[str, torch.dtype]] = {}
    for name, kind in graph.inputs.items():
        inputs[argument(name, inputs)] = (name, kind)
    return Assembled(_with_last(graph.nodes, output, {*known, *held}), inputs, known, held, output, root)


def _with_layers(graph: Graph, weights: Weights, root: nn.Module, prefix: str) -> tuple[Node, ...]:
    """Give each node with constant weights its module; nodes with the same weights and settings share one."""
    made: dict[str, str] = {}
    nodes: list[Node] = []
    for node in graph.nodes:
        builder = BUILDERS.get(node.operator)
        data = 1 if node.operator == "Gather" else 0
        names = [name for at, name in enumerate(node.inputs) if at != data and name in graph.constants]
        names += [weights.bias[node.outputs[0]]] if node.outputs[0] in weights.bias else []
        key = f"{node.operator} {names} {sorted(node.attributes.items())}" if names else ""
        if builder is not None and names and key not in made:
            module = builder(node, weights)
            if module is not None:
                made[key] = _add(root, layer_name(node, names, prefix), module)
        nodes.append(_calling(node, made[key], data, graph) if key in made else node)
    return tuple(nodes)


def _add(root: nn.Module, path: str, module: nn.Module) -> str:
    holder, word = place(root, path)
    holder.add_module(word, module)
    return next(str(name) for name, one in root.named_modules() if one is module)


def _calling(node: Node, layer: str, data: int, graph: Graph) -> Node:
    """Return the node without the inputs that its module holds."""
    if data:
        return replace(node, inputs=(node.inputs[data],), layer=layer)
    inputs = tuple("" if at and name in graph.constants and at < 5 else name for at, name in enumerate(node.inputs))
    return replace(node, inputs=inputs, layer=layer)


def _constants(
    graph: Graph, weights: Weights, root: nn.Module, prefix: str
) -> tuple[dict[str, Known], dict[str, str]]:
    """Register what no layer holds: weights as parameters, the rest as buffers, a few numbers as they are."""
    readers: dict[str, list[Node]] = {}
    for node in graph.nodes:
        for name in node.inputs:
            readers.setdefault(name, []).append(node)
    known: dict[str, Known] = {}
    held: dict[str, str] = {}
    for name, tensor in graph.constants.items():
        scale = any(node.operator in _ROUNDERS for node in readers.get(name, []))
        resized = any(node.operator in ("Resize", "Upsample") for node in readers.get(name, []))
        value = tensor if scale else presented(tensor, MAX_KNOWN if resized else 1)
        if not isinstance(value, Tensor):
            known[name] = value
            continue
        holder, word = place(root, dotted(name.removeprefix(prefix)))
        if _is_weight(tensor, name, readers.get(name, [])) or (name, False) in weights.made:
            holder.register_parameter(word, weights.parameter(name))
        else:
            _register(holder, word, tensor)
        path = next((path for path, one in root.named_modules() if one is holder), "")
        held[name] = f"{path}.{word}" if path else word
    return known, held


def _register(holder: nn.Module, word: str, tensor: Tensor) -> None:
    """Register a buffer; minus infinity, as masks have it, is kept apart, because weights must be finite."""
    infinite = torch.isneginf(tensor) if tensor.is_floating_point() else None
    if infinite is not None and bool(infinite.any()):
        holder.register_buffer(f"{word}_infinite", infinite)
        tensor = tensor.masked_fill(infinite, 0.0)
    holder.register_buffer(word, tensor)


def _is_weight(tensor: Tensor, name: str, readers: list[Node]) -> bool:
    if not tensor.is_floating_point() or not readers or tensor.numel() < 2:
        return False
    scales = any(node.operator in _ROUNDERS and name in node.inputs[1:] for node in readers)
    learned = all(node.operator in _LEARNED for node in readers)
    return learned and not scales and bool(torch.isfinite(tensor).all()) and float(tensor.abs().max()) < MAX_WEIGHT


def _with_last(nodes: tuple[Node, ...], output: str, constants: set[str]) -> tuple[Node, ...]:
    """Tell each node what may be forgotten after it."""
    seen = {output, ""} | constants
    kept: list[Node] = []
    for node in reversed(nodes):
        last = tuple(name for name in dict.fromkeys([*node.inputs, *node.outputs]) if name not in seen)
        seen |= set(last)
        kept.append(replace(node, last=last))
    return tuple(reversed(kept))
