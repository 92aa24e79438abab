"""The last step of an export: what rounds a constant becomes integers in the file, what rounds an activation QDQ.

QDQ is the standard form: QuantizeLinear and DequantizeLinear around each operator, which engines fuse into integer
kernels.
"""

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from flyweight.engines.graph_edits import add_constant, constant_of, drop_unused, insert_before, replace
from flyweight.engines.quantized_layers import fit_layers
from flyweight.engines.quantizers import DOMAIN
from flyweight.errors import ExportError
from flyweight.graph.quantize_ops import RANGES, stored_type

#: Operator set that 4-bit numbers and scales by blocks came with; models without them stay below.
BLOCK_OPSET = 21
_DTYPES: dict[str, np.dtype[Any]] = {
    "int8": np.dtype(np.int8),
    "uint8": np.dtype(np.uint8),
    "int4": np.dtype(ml_dtypes.int4),
    "uint4": np.dtype(ml_dtypes.uint4),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float16": np.dtype(np.float16),
}
_FLOAT, _U8 = ir.DataType.FLOAT, ir.DataType.UINT8


def write_out_quantizers(model: ir.Model) -> None:
    """Replace the nodes of `quantizers` by standard operators, in place; a model without them is left as it is.

    Raises:
        ExportError: scales or weights are no constants, or do not fit what they scale.
    """
    nodes = [node for node in model.graph if node.domain == DOMAIN]
    for node in nodes:
        _WRITERS[node.op_type](model.graph, node)
    model.graph.opset_imports.pop(DOMAIN, None)
    if nodes:
        fit_layers(model.graph)
        drop_unused(model.graph)
    if any(_is_newer(value, node) for node in model.graph for value in node.inputs):
        model.graph.opset_imports[""] = max(BLOCK_OPSET, model.graph.opset_imports[""])


def _is_newer(value: ir.Value | None, node: ir.Node) -> bool:
    four_bits = value is not None and value.dtype in (ir.DataType.INT4, ir.DataType.UINT4)
    return four_bits or "block_size" in node.attributes


def _write_grid(graph: ir.Graph, node: ir.Node) -> None:
    x, scale = node.inputs[:2]
    assert x is not None
    assert scale is not None
    block, low, high = (node.attributes[name].as_int() for name in ("block", "low", "high"))
    scales, zeros = _grid_of(node)
    kind = stored_type(low, high)
    steps = add_constant(graph, str(scale.name), scales)
    grid: list[ir.Value | None] = [steps]
    if zeros.any() or not kind.endswith("4"):  # integer kernels ask for it even where it is 0, those of 4 bits do not
        grid.append(add_constant(graph, f"{scale.name}.zero_point", zeros.astype(_DTYPES[kind])))
    attributes: dict[str, Any] = {}
    if scales.ndim:
        attributes["axis"] = node.attributes["axis"].as_int() % len(x.shape or ())
    if block:
        attributes["block_size"] = block
    numbers = constant_of(x)
    if numbers is None:
        if RANGES[kind] != (low, high):
            x = _clipped(graph, node, x, (low - zeros) * scales, (high - zeros) * scales, attributes)
        whole = insert_before(node, "QuantizeLinear", [x, *grid], _type_of(kind), **attributes)
    else:
        rounded = _rounded(numbers, scales, zeros, attributes)
        whole = add_constant(graph, f"{x.name}.{kind}", rounded.clip(low, high).astype(_DTYPES[kind]))
    replace(node, insert_before(node, "DequantizeLinear", [whole, *grid], _FLOAT, **attributes))


def _grid_of(node: ir.Node) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the scales and zero points of a node, checked: engines believe them unseen."""
    x, scale = node.inputs[:2]
    zero_point = node.inputs[2] if len(node.inputs) > 2 else None
    assert x is not None
    assert scale is not None
    scales = _needed(node, scale)
    zeros = np.zeros_like(scales) if zero_point is None else np.rint(_needed(node, zero_point))
    shape, axis, block = list(x.shape or ()), node.attributes["axis"].as_int(), node.attributes["block"].as_int()
    if block:
        size = shape[axis]
        due = [*shape]
        due[axis] = size // block if isinstance(size, int) and size % block == 0 else -1
    else:
        due = [shape[axis]] if scales.ndim else []
    if list(scales.shape) != due or zeros.shape != scales.shape:
        seen = f"scales of shape {list(scales.shape)} and zero points of {list(zeros.shape)}"
        raise _refusal(node, f"{seen}, where {due} is due")
    if not (np.isfinite(scales).all() and (scales > 0).all()):
        raise _refusal(node, "scales that are not all positive numbers")
    return scales, zeros


def _rounded(
    numbers: NDArray[Any], scales: NDArray[np.float32], zeros: NDArray[np.float32], attributes: dict[str, Any]
) -> NDArray[np.float32]:
    """Round half to even, as QuantizeLinear does; all in float32."""
    scales, zeros = _spread(scales, numbers.ndim, attributes), _spread(zeros, numbers.ndim, attributes)
    rounded: NDArray[np.float32] = np.rint(numbers.astype(np.float32) / scales) + zeros
    return rounded


def _spread(values: NDArray[np.float32], rank: int, attributes: dict[str, Any]) -> NDArray[np.float32]:
    """Shape scales so that they meet what they scale."""
    if "block_size" in attributes:
        return np.repeat(values, attributes["block_size"], attributes["axis"])
    if not values.ndim:
        return values
    return values.reshape([-1 if place == attributes["axis"] else 1 for place in range(rank)])


def _clipped(
    graph: ir.Graph,
    node: ir.Node,
    x: ir.Value,
    least: NDArray[np.float32],
    most: NDArray[np.float32],
    attributes: dict[str, Any],
) -> ir.Value:
    """Cut to the ends of a grid that is narrower than its type."""
    rank = len(x.shape or ())
    low, high = (
        add_constant(graph, f"{x.name}.{name}", _spread(value.astype(np.float32), rank, attributes))
        for name, value in (("least", least), ("most", most))
    )
    if not attributes:
        return insert_before(node, "Clip", [x, low, high], _FLOAT)
    return insert_before(node, "Min", [insert_before(node, "Max", [x, low], _FLOAT), high], _FLOAT)


def _write_dynamic(graph: ir.Graph, node: ir.Node) -> None:
    """Write (whole products) * (scale of x * scales of the weight) + bias; engines fuse these very nodes."""
    x, weight, scale, bias = (*node.inputs, None)[:4]
    y = node.outputs[0]
    assert x is not None
    assert weight is not None
    turned = np.ascontiguousarray(_needed(node, weight).astype(np.int8).T)
    weights = add_constant(graph, f"{weight.name}.turned", turned)
    dynamic = ir.node("DynamicQuantizeLinear", [x], num_outputs=3, name=f"{y.name}.DynamicQuantizeLinear")
    graph.insert_before(node, dynamic)
    for value, name, dtype in zip(dynamic.outputs, ("q", "scale", "zero"), (_U8, _FLOAT, _U8), strict=True):
        value.name, value.dtype = f"{dynamic.name}.{name}", dtype
        value.shape = x.shape if name == "q" else ir.Shape([])
    whole, step, zero = dynamic.outputs
    steps = insert_before(node, "Mul", [step, scale], _FLOAT, suffix=".scale")
    steps.shape = ir.Shape([turned.shape[1]])
    product = insert_before(node, "MatMulInteger", [whole, weights, zero], ir.DataType.INT32)
    product = insert_before(node, "Cast", [product], _FLOAT, to=int(_FLOAT))
    result = insert_before(node, "Mul", [product, steps], _FLOAT)
    replace(node, result if bias is None else insert_before(node, "Add", [result, bias], _FLOAT))


def _write_stored(graph: ir.Graph, node: ir.Node) -> None:
    x, kind = node.inputs[0], node.attributes["kind"].as_string()
    assert x is not None
    numbers = constant_of(x)
    if numbers is None:
        half = insert_before(node, "Cast", [x], _type_of(kind), suffix=f".{kind}", to=int(_type_of(kind)))
    else:
        half = add_constant(graph, f"{x.name}.{kind}", numbers.astype(_DTYPES[kind]))
    replace(node, insert_before(node, "Cast", [half], _FLOAT, to=int(_FLOAT)))


def _type_of(kind: str) -> ir.DataType:
    return ir.DataType.from_numpy(_DTYPES[kind])


def _needed(node: ir.Node, value: ir.Value) -> NDArray[Any]:
    numbers = constant_of(value)
    if numbers is None:
        raise _refusal(node, f"{value.name!r}, which is worked out while the model runs")
    return numbers if numbers.dtype == np.int8 else np.asarray(numbers, np.float32)


def _refusal(node: ir.Node, seen: str) -> ExportError:
    x = node.inputs[0]
    return ExportError(
        f"The model cannot be exported to ONNX: what rounds {None if x is None else x.name!r} has {seen}. "
        "Hold scales, zero points and integer weights in buffers or parameters, a scale for each place of its axis."
    )


_WRITERS: dict[str, Callable[[ir.Graph, ir.Node], None]] = {
    "DynamicLinear": _write_dynamic,
    "Grid": _write_grid,
    "Stored": _write_stored,
}
