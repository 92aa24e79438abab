"""Whether scales and zero points fit the integers they belong to.

OpenVINO 2026.4 stops the process on 64 zero points for one scale, and takes too few scales of blocks without a word.
"""

from collections.abc import Callable, Sequence

from onnx import NodeProto, TensorProto

from flyweight.bundle.shapes import Value

Read = Sequence[Value | None]
_BYTES = {TensorProto.INT8, TensorProto.UINT8}


def check_grid(node: NodeProto, read: Read) -> str | None:
    """Return what is wrong with the scales of a QuantizeLinear or DequantizeLinear, None if nothing is."""
    x, scale, zero = (*read, None)[:3]
    if x is None or scale is None or scale.shape is None:
        return "has scales of unknown shape"
    if zero is not None and zero.shape != scale.shape:
        return f"has scales of shape {scale.shape} and zero points of {zero.shape}"
    if zero is not None and node.op_type == "DequantizeLinear" and _kind(zero) != _kind(x):
        return f"has integers of type {_kind(x)} and zero points of {_kind(zero)}"
    block = _attribute(node, "block_size", 0)
    if not block and scale.elements == 1 and len(scale.shape) < 2:
        return None
    axis, shape = _attribute(node, "axis", 1), x.shape
    if shape is None or not -len(shape) <= axis < len(shape):
        return f"has scales along dimension {axis} of {shape}"
    due = list(shape) if block else [shape[axis]]
    if block:
        due[axis] = -(-shape[axis] // block)
    return None if scale.shape == due else f"has scales of shape {scale.shape}, where {due} is due"


def check_product(node: NodeProto, read: Read) -> str | None:
    """Return what is wrong with the scales and zero points of a product of integers, None if nothing is."""
    singles, columns = _PLACES[node.op_type]
    for place in singles:
        value = _at(read, place)
        if value is not None and (value.shape is None or value.elements != 1):
            return f"has {value.elements} numbers in input {place}, where one is due"
    weight = _at(read, 3 if node.op_type.startswith("QLinear") else 1)
    if weight is None or weight.shape is None or not weight.shape:
        return "has weights of unknown shape"
    if _kind(weight) not in _BYTES:
        return f"has weights of type {_kind(weight)}"
    width = weight.shape[0] if "Conv" in node.op_type else weight.shape[-1]
    for place in columns:
        value = _at(read, place)
        if value is not None and (value.shape not in ([], [1], [width])):
            return f"has numbers of shape {value.shape} in input {place}, where [{width}] is due"
    return None


#: Inputs that hold one number, and those that may hold one for each column or filter of the weight.
_PLACES: dict[str, tuple[Sequence[int], Sequence[int]]] = {
    "ConvInteger": ((2,), (3,)),
    "MatMulInteger": ((2,), (3,)),
    "QLinearConv": ((1, 2, 6, 7), (4, 5, 8)),
    "QLinearMatMul": ((1, 2, 6, 7), (4, 5)),
}
GRID_RULES: dict[str, Callable[[NodeProto, Read], str | None]] = {
    "DequantizeLinear": check_grid,
    "QuantizeLinear": check_grid,
    **dict.fromkeys(_PLACES, check_product),
}


def _at(read: Read, place: int) -> Value | None:
    return read[place] if place < len(read) else None


def _kind(value: Value) -> int | None:
    return None if value.type is None else value.type.tensor_type.elem_type


def _attribute(node: NodeProto, name: str, otherwise: int) -> int:
    return next((int(one.i) for one in node.attribute if one.name == name), otherwise)
