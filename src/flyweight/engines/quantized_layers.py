"""Layers around dequantised weights brought into the form that engines fuse into integer kernels.

Measured with ONNX Runtime 1.32 and OpenVINO 2026.4: ONNX Runtime makes a Conv or Gemm an integer one
where all it reads is dequantised, the bias from int32 with the product of the two scales; it sees to the bias itself
where the result is quantised again.
"""

from typing import Any

import numpy as np
import onnx_ir as ir

from flyweight.engines.graph_edits import add_constant, constant_of, insert_before, replace

_BIASED = ("Conv", "ConvTranspose", "Gemm")
#: Operators that give the same numbers in another shape.
_RESHAPING = ("Flatten", "Reshape", "Squeeze", "Unsqueeze")
_FLOAT = ir.DataType.FLOAT


def fit_layers(graph: ir.Graph) -> None:
    """Turn weights instead of transposing them, and write the biases of integer layers as int32."""
    for node in list(graph):
        if node.op_type == "Transpose" and _dequantised_constant(node.inputs[0]):
            _turn(graph, node)
        elif node.op_type in _RESHAPING and _is_dequantised(node.inputs[0]):
            _reshape_before(node)
        elif node.op_type == "Gather" and _is_table_of_scaled_rows(node):
            _look_up_integers(node)
    for node in graph:
        if node.op_type in _BIASED and len(node.inputs) == 3 and not _is_requantised(node.outputs[0]):
            _quantise_bias(graph, node)


def _is_dequantised(value: ir.Value | None) -> bool:
    """Whether a value is an activation that comes dequantised with one scale."""
    node = None if value is None else value.producer()
    if node is None or node.op_type != "DequantizeLinear" or constant_of(node.inputs[0]) is not None:
        return False
    step = constant_of(node.inputs[1])
    return step is not None and not step.ndim


def _reshape_before(node: ir.Node) -> None:
    """Reshape the integers, so that what reads the result sees it dequantised."""
    dequantise = node.inputs[0].producer()  # type: ignore[union-attr]
    assert dequantise is not None
    whole, *grid = dequantise.inputs
    assert whole is not None
    assert whole.dtype is not None
    attributes = {name: one.value for name, one in node.attributes.items()}
    reshaped = insert_before(node, node.op_type, [whole, *node.inputs[1:]], whole.dtype, **attributes)
    replace(node, insert_before(node, "DequantizeLinear", [reshaped, *grid], _FLOAT))


def _is_table_of_scaled_rows(node: ir.Node) -> bool:
    """Whether a lookup reads a table that is dequantised whole, with a scale for each row and no zero points."""
    if not _dequantised_constant(node.inputs[0]) or ("axis" in node.attributes and node.attributes["axis"].as_int()):
        return False
    dequantise = node.inputs[0].producer()  # type: ignore[union-attr]
    assert dequantise is not None
    scale = constant_of(dequantise.inputs[1])
    zeros = constant_of(dequantise.inputs[2]) if len(dequantise.inputs) > 2 else None
    by_row = "axis" in dequantise.attributes and dequantise.attributes["axis"].as_int() == 0
    blocks = "block_size" in dequantise.attributes and dequantise.attributes["block_size"].as_int()
    return scale is not None and scale.ndim == 1 and by_row and not blocks and (zeros is None or not zeros.any())


def _look_up_integers(node: ir.Node) -> None:
    """Look up integers and their scales and multiply those: the work of the rows asked for, not of the table."""
    dequantise, ids = node.inputs[0].producer(), node.inputs[1]  # type: ignore[union-attr]
    assert dequantise is not None
    assert node.graph is not None
    whole, scale = dequantise.inputs[:2]
    assert whole is not None
    assert whole.dtype is not None
    rows = insert_before(node, "Gather", [whole, ids], whole.dtype, suffix=".rows", axis=0)
    numbers = insert_before(node, "Cast", [rows], _FLOAT, to=_FLOAT.value)
    scales = insert_before(node, "Gather", [scale, ids], _FLOAT, suffix=".scales", axis=0)
    last = add_constant(node.graph, "last_axis", np.array([-1], dtype=np.int64))
    column = insert_before(node, "Unsqueeze", [scales, last], _FLOAT)
    scales.shape = column.shape = None
    replace(node, insert_before(node, "Mul", [numbers, column], _FLOAT))


def _dequantised_constant(value: ir.Value | None) -> bool:
    node = None if value is None else value.producer()
    return node is not None and node.op_type == "DequantizeLinear" and constant_of(node.inputs[0]) is not None


def _turn(graph: ir.Graph, node: ir.Node) -> None:
    """Transpose the integers themselves, once; where others read them as they are, the node stays."""
    weight = node.inputs[0]
    assert weight is not None
    if len(weight.uses()) > 1:
        return
    rank = len(weight.shape or ())
    given = node.attributes.get("perm")
    perm = list(given.as_ints()) if given is not None else list(reversed(range(rank)))
    readers = list(node.outputs[0].consumers())
    if _is_looked_up(weight) and perm == [1, 0] and all(_is_plain_product(reader, node) for reader in readers):
        for product in readers:
            replace(product, insert_before(product, "Gemm", [product.inputs[0], weight], _FLOAT, transB=1))
        return
    replace(node, _turned(graph, node, weight, perm))


def _is_looked_up(weight: ir.Value) -> bool:
    """Whether the integers of a weight are read by lookups too, so that a turned copy would be a second table."""
    dequantise = weight.producer()
    whole = None if dequantise is None else dequantise.inputs[0]
    return whole is not None and len(whole.uses()) > 1


def _is_plain_product(reader: ir.Node, turned: ir.Node) -> bool:
    """Whether a node multiplies two matrices, the right one turned."""
    left = reader.inputs[0]
    rank = len(left.shape) if left is not None and left.shape is not None else 0
    return reader.op_type == "MatMul" and reader.inputs[1] is turned.outputs[0] and rank == 2


def _turned(graph: ir.Graph, place: ir.Node, weight: ir.Value, perm: list[int]) -> ir.Value:
    dequantise = weight.producer()
    assert dequantise is not None
    attributes: dict[str, Any] = {name: one.as_int() for name, one in dequantise.attributes.items()}
    inputs = [
        _turned_constant(graph, value, perm) if value is not None and value.shape and len(value.shape) > 1 else value
        for value in dequantise.inputs
    ]
    if "axis" in attributes:
        attributes["axis"] = perm.index(attributes["axis"])
    result = insert_before(place, "DequantizeLinear", inputs, _FLOAT, **attributes)
    result.shape = ir.Shape([weight.shape[old] for old in perm]) if weight.shape is not None else None
    return result


def _turned_constant(graph: ir.Graph, value: ir.Value, perm: list[int]) -> ir.Value:
    numbers = constant_of(value)
    assert numbers is not None
    return add_constant(graph, f"{value.name}.turned", np.ascontiguousarray(numbers.transpose(perm)))


def _is_requantised(value: ir.Value) -> bool:
    readers = value.consumers()
    return bool(readers) and all(
        reader.op_type == "QuantizeLinear" or (reader.op_type == "Relu" and _is_requantised(reader.outputs[0]))
        for reader in readers
    )


def _quantise_bias(graph: ir.Graph, node: ir.Node) -> None:
    """Write a bias as int32 in units of scale of x * scale of the weight, unless it is too large for that."""
    x, weight, bias = node.inputs
    numbers = constant_of(bias)
    if bias is None or numbers is None or numbers.ndim != 1:
        return
    if not _is_dequantised(x) or not _dequantised_constant(weight):
        return
    step, steps = (constant_of(value.producer().inputs[1]) for value in (x, weight))  # type: ignore[union-attr]
    if step is None or steps is None or steps.ndim > 1:
        return
    units = (step * steps).astype(np.float32)
    whole = np.rint(numbers.astype(np.float64) / units)
    if not np.isfinite(whole).all() or np.abs(whole).max(initial=0) > np.iinfo(np.int32).max:
        return
    stored = add_constant(graph, f"{bias.name}.int32", whole.astype(np.int32))
    scale = add_constant(graph, f"{bias.name}.scale", units)
    attributes = {"axis": 0} if units.ndim else {}
    result = insert_before(node, "DequantizeLinear", [stored, scale], _FLOAT, suffix=".bias", **attributes)
    result.shape = bias.shape
    node.replace_input_with(2, result)
