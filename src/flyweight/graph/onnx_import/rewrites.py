"""What is done to a graph before it becomes a module: constants worked out, pairs of quantisation and biases joined."""

import math
from collections import Counter
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from flyweight.graph.onnx_import.file import Graph
from flyweight.graph.onnx_import.node import MAX_KNOWN, Call, Node, Value, as_tensor, known
from flyweight.graph.onnx_import.quantized import LIMITS
from flyweight.graph.onnx_import.table import OPERATORS

_MOVES = frozenset({"Identity", "Cast", "Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Slice", "Concat"})
_SUMS = frozenset({"Add", "Sub", "Mul", "Div", "Sqrt", "Reciprocal", "Neg", "Pow", "Gather", "Shape", "Equal", "Where"})
#: What else unpacks codes that are stored in fewer bits than they are used in.
_UNPACKING = _MOVES | _SUMS | frozenset(
    {"Split", "Expand", "ConstantOfShape", "Range", "BitwiseAnd", "CumSum", "ScatterElements", "Clip", "Min"}
)
_SIZED = frozenset({"Reshape", "Slice", "Expand", "Split", "Squeeze", "Unsqueeze", "CumSum"})
#: Floats beside codes, as powers of two that shift them, are at most so many.
SHIFTS = 8
#: Constants of at most so many numbers are worked out: their products may be as large as its square.
MAX_SMALL = 2048
MAX_MOVED = 2**28


def presented(tensor: Tensor, floats: int = 1, few: int = MAX_KNOWN) -> Value:
    """Return a constant as operators see it: up to `few` whole numbers, or up to `floats` floats, as plain numbers."""
    plain = tensor.ndim <= 1 and tensor.numel() <= (floats if tensor.is_floating_point() else few)
    if not plain or tensor.dtype not in (torch.int64, torch.int32, torch.bool, torch.float32):
        return tensor
    return known(tensor.tolist())


def fold_constants(graph: Graph) -> Graph:
    """Run the operators that read constants only; a transposed view of a table that others read is left alone.

    What is made of whole numbers alone is worked out however many there are, as engines do when they load a file;
    weights are not, for they may be trained.
    """
    uses = Counter(name for node in graph.nodes for name in node.inputs)
    constants = dict(graph.constants)
    whole = {name for name, one in constants.items() if not one.is_floating_point() or one.numel() <= SHIFTS}
    left: list[Node] = []
    for node in graph.nodes:
        unpacking = node.operator in _UNPACKING and whole.issuperset(name for name in node.inputs if name)
        if not (unpacking and _length(node, constants) <= MAX_MOVED) and not _foldable(node, constants, uses):
            left.append(node)
            continue
        values = _typed(node, constants) if unpacking else _presented(node, constants)
        result = OPERATORS[node.operator](Call(node, values))
        results = result if isinstance(result, tuple) else (result,)
        for name, one in zip(node.outputs, results, strict=True):
            made = one if isinstance(one, Tensor) else as_tensor(one)
            constants[name] = made.to(constants[node.inputs[0]].dtype) if node.operator == "Range" else made
        whole.update(node.outputs if unpacking else ())
    return replace(graph, nodes=tuple(left), constants=constants)


def _presented(node: Node, constants: dict[str, Tensor], few: int = MAX_KNOWN) -> tuple[Value | None, ...]:
    return tuple(presented(constants[name], few=few) if name else None for name in node.inputs)


def _typed(node: Node, constants: dict[str, Tensor]) -> tuple[Value | None, ...]:
    """Return the inputs as tensors, for plain numbers forget their type; but sizes, axes and bounds as numbers."""
    numbers = _presented(node, constants, few=MAX_SMALL)
    if node.operator in ("ConstantOfShape", "Range"):
        return numbers
    tensors = tuple(constants[name] if name else None for name in node.inputs)
    return (*tensors[:1], *numbers[1:]) if node.operator in _SIZED else tensors


def _length(node: Node, constants: dict[str, Tensor]) -> int:
    """Return how many numbers an operator on constants gives at most."""
    read = [constants[name] for name in node.inputs if name]
    if node.operator in ("Expand", "ConstantOfShape"):
        return math.prod(max(size, 1) for size in read[-1].tolist())
    if node.operator == "Range":
        start, stop, step = (float(one) for one in read)
        return math.ceil(abs((stop - start) / step)) if step else MAX_MOVED + 1
    if node.operator == "Gather":
        data, indices = read
        return data.numel() // max(int(data.shape[node.attributes.get("axis", 0)]), 1) * indices.numel()
    if node.operator in _SUMS | {"BitwiseAnd", "Clip", "Min"}:
        return math.prod(np.broadcast_shapes(*(tuple(one.shape) for one in read)))
    return sum(one.numel() for one in read)


def _foldable(node: Node, constants: dict[str, Tensor], uses: Counter[str]) -> bool:
    read = [name for name in node.inputs if name]
    if not read or any(name not in constants for name in read):
        return False
    total = sum(constants[name].numel() for name in read)
    shared = node.operator == "Transpose" and uses[read[0]] > 1
    return (node.operator in _MOVES and total <= MAX_MOVED and not shared) or (
        node.operator in _SUMS and total <= MAX_SMALL
    )


def join_quantization(graph: Graph) -> Graph:
    """Join QuantizeLinear and DequantizeLinear to one rounding, and stored integers to floats that are rounded again.

    Integers of 32 bits (biases) become plain floats.
    """
    makers = {name: node for node in graph.nodes for name in node.outputs}
    constants = dict(graph.constants)
    nodes: list[Node] = []
    for node in graph.nodes:
        if node.operator != "DequantizeLinear":
            nodes.append(node)
            continue
        maker = makers.get(node.inputs[0])
        if node.inputs[0] in constants:
            joined = _stored(graph, constants, node)
        elif maker is not None and maker.operator == "QuantizeLinear" and maker.inputs[1:] == node.inputs[1:]:
            joined = _pair(constants, maker, node)
        else:
            joined = node
        if joined is not None:
            nodes.append(joined)
    return without_unread(replace(graph, nodes=tuple(nodes), constants=constants))


def _pair(constants: dict[str, Tensor], first: Node, node: Node) -> Node:
    zero = constants.get(node.inputs[2]) if len(node.inputs) > 2 else None
    kind = zero.dtype if zero is not None else torch.uint8
    if kind not in (torch.int8, torch.uint8) or node.attributes.get("block_size", 0) or (
        zero is None and (first.attributes.get("output_dtype", 2) or 2) != 2
    ):  # fmt: skip
        return node
    low, high = LIMITS[kind]
    return replace(node, operator="Grid", inputs=first.inputs, attributes={**node.attributes, "low": low, "high": high})


def _stored(graph: Graph, constants: dict[str, Tensor], node: Node) -> Node | None:
    """Give the floats that stored integers stand for; None where nothing is left to do."""
    name, *others = node.inputs
    if any(one and one not in constants for one in others):
        return node
    whole, scale = constants[name], constants[others[0]].float()
    zero = constants[others[1]].float() if len(others) > 1 and others[1] else torch.zeros(())
    axis, block = node.attributes.get("axis", 1), node.attributes.get("block_size", 0)
    if scale.numel() == 1:
        scale, zero = scale.reshape(()), zero.reshape(())
    floats = (whole.float() - _along(zero, whole, axis, block)) * _along(scale, whole, axis, block)
    if whole.dtype == torch.int32:
        constants[node.outputs[0]] = floats
        return None
    if whole.dtype not in (torch.int8, torch.uint8):
        return node
    low, high = graph.narrow.get(name, LIMITS[whole.dtype])
    constants[f"{name}.float"] = floats
    attributes = {**node.attributes, "low": low, "high": high}
    return replace(node, operator="Grid", inputs=(f"{name}.float", *others), attributes=attributes)


def _along(value: Tensor, whole: Tensor, axis: int, block: int) -> Tensor:
    rank = whole.ndim
    if block:
        return value.repeat_interleave(block, axis)
    return value if value.ndim == 0 else value.reshape([-1 if at == axis % rank else 1 for at in range(rank)])


def join_biases(graph: Graph) -> tuple[Graph, dict[str, str]]:
    """Take the addition of a vector into the `MatMul` before it; returns the vectors by the names of the sums."""
    uses = Counter(name for node in graph.nodes for name in node.inputs)
    uses.update(graph.outputs)
    products = {
        node.outputs[0]: node
        for node in graph.nodes
        if node.operator == "MatMul" and _is_matrix(graph, node.inputs[1]) and uses[node.outputs[0]] == 1
    }
    biases: dict[str, str] = {}
    nodes: list[Node] = []
    taken: set[str] = set()
    for node in graph.nodes:
        found = _bias_of(graph, node, products) if node.operator == "Add" else None
        if found is None:
            nodes.append(node)
            continue
        product, bias = found
        biases[node.outputs[0]] = bias
        taken.add(product.outputs[0])
        nodes.append(replace(product, outputs=node.outputs))
    return replace(graph, nodes=tuple(node for node in nodes if node.outputs[0] not in taken)), biases


def _is_matrix(graph: Graph, name: str) -> bool:
    return name in graph.constants and graph.constants[name].ndim == 2 and graph.constants[name].is_floating_point()


def _bias_of(graph: Graph, node: Node, products: dict[str, Node]) -> tuple[Node, str] | None:
    for one, other in (node.inputs, reversed(node.inputs)):
        product, bias = products.get(one), graph.constants.get(other)
        if product is not None and bias is not None:
            width = graph.constants[product.inputs[1]].shape[1]
            if bias.shape == (width,):
                return product, other
    return None


def without_unread(graph: Graph) -> Graph:
    """Drop nodes and constants that the outputs do not need."""
    needed = set(graph.outputs)
    kept: list[Node] = []
    for node in reversed(graph.nodes):
        if needed & set(node.outputs):
            kept.append(node)
            needed |= set(node.inputs)
    constants = {name: tensor for name, tensor in graph.constants.items() if name in needed}
    return replace(graph, nodes=tuple(reversed(kept)), constants=constants)
