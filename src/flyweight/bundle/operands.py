"""Whether what a node reads fits together, where the operators' shape rules do not look and engines do not either.

Each rule stands for a crash that fuzzing found in an engine: a signal from a division, a read or a write far outside.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto

from flyweight.bundle.grids import GRID_RULES
from flyweight.bundle.shapes import Value
from flyweight.errors import BundleError

_WHOLE = {
    TensorProto.INT8,
    TensorProto.INT16,
    TensorProto.INT32,
    TensorProto.INT64,
    TensorProto.UINT8,
    TensorProto.UINT16,
    TensorProto.UINT32,
    TensorProto.UINT64,
}
#: Matrices stacked in the weights of a recurrent layer.
_GATES = {"GRU": 3, "LSTM": 4, "RNN": 1}
Read = Sequence[Value | None]


def check_operands(node: NodeProto, read: Read, where: str) -> None:
    """Check what a node reads, one entry an input, None where an optional one is left out.

    Raises:
        BundleError: naming the node and what does not fit.
    """
    rule = _RULES.get(node.op_type)
    fault = rule(node, read) if rule is not None else None
    if fault is not None:
        raise BundleError(
            f"{where}: {node.op_type} {node.name[:80]!r} {fault}, on which engines have crashed. "
            "If the model is yours, use constants there; otherwise get the bundle again from its source."
        )


def _divisor(node: NodeProto, read: Read) -> str | None:
    """Whole-number division by 0 stops the process with a signal, and so does the least number by -1."""
    kind = read[0].type if read[0] is not None else None
    if kind is not None and kind.tensor_type.elem_type not in _WHOLE:
        return None
    divisor = read[1].small if read[1] is not None else None
    if divisor is None or not divisor.all() or (divisor == -1).any():
        return "divides whole numbers by what is 0, -1 or no small constant"
    return None


def _gather(node: NodeProto, read: Read) -> str | None:
    shape, indices = _shape(read[0]), _small(read[1])
    axis = _attribute(node, "axis", 0)
    if shape is None or indices is None or not -len(shape) <= axis < len(shape):
        return None
    return _outside(indices, shape[axis])


def _gather_nd(node: NodeProto, read: Read) -> str | None:
    shape, indices, skipped = _shape(read[0]), _small(read[1]), _attribute(node, "batch_dims", 0)
    return None if shape is None or indices is None else _outside_nd(indices, shape[skipped:])


def _scatter(node: NodeProto, read: Read) -> str | None:
    """What is written must have a known place: a wrong one overwrites the memory of the process."""
    shape, indices, updates = _shape(read[0]), _small(read[1]), _shape(read[2])
    if indices is None and node.op_type == "ScatterElements" and _surely_inside(read, _attribute(node, "axis", 0)):
        return None
    if shape is None or indices is None or updates is None:
        return "writes to places that are no small constant"
    if node.op_type == "ScatterND":
        due = [*indices.shape[:-1], *shape[indices.shape[-1] :]] if indices.ndim else None
        return f"writes {updates} where {due} is due" if updates != due else _outside_nd(indices, shape)
    axis = _attribute(node, "axis", 0)
    if not -len(shape) <= axis < len(shape) or list(indices.shape) != updates or len(updates) != len(shape):
        return f"writes {updates} at {list(indices.shape)} places along dimension {axis} of {shape}"
    wide = [place for place, size in enumerate(shape) if place != axis % len(shape) and updates[place] > size]
    return f"writes {updates} into {shape}" if wide else _outside(indices, shape[axis])


def _surely_inside(read: Read, axis: int) -> bool:
    """Return whether what is written along a vector lies within it, wherever that is."""
    shape, places, updates = (_shape(value) for value in read[:3])
    below = read[1].below if read[1] is not None else None
    if shape is None or below is None or updates is None or len(shape) != 1 or axis not in (0, -1):
        return False
    return below <= shape[0] and places == updates and len(updates) == 1


def _recurrent(node: NodeProto, read: Read) -> str | None:
    """The weights must be of the size that the attribute names."""
    sequence, weights, again = (_shape(value) for value in read[:3])
    if sequence is None or weights is None or again is None:
        return "has weights of unknown shape"
    if not len(sequence) == len(weights) == len(again) == 3:
        return f"has weights of shapes {weights} and {again}"
    size = _attribute(node, "hidden_size", again[2])
    rows = _GATES[node.op_type] * size
    due = [[weights[0], rows, sequence[2]], [weights[0], rows, size]]
    if [weights, again] != due:
        return f"has weights of shapes {weights} and {again}, where {due[0]} and {due[1]} are due"
    bias = read[3] if len(read) > 3 else None
    if bias is not None and bias.shape != [weights[0], 2 * rows]:
        return f"has a bias of shape {bias.shape}, where {[weights[0], 2 * rows]} is due"
    return None


def _outside(indices: Any, size: int) -> str | None:
    odd = indices[(indices < -size) | (indices >= size)]
    return f"reaches for place {odd.flat[0]} of {size}" if odd.size else None


def _outside_nd(indices: Any, shape: Sequence[int]) -> str | None:
    if not indices.ndim or indices.shape[-1] > len(shape):
        return f"reaches for {indices.shape[-1:]} dimensions of {list(shape)}"
    sizes = np.asarray(shape[: indices.shape[-1]], dtype=np.int64)
    odd = ((indices < -sizes) | (indices >= sizes)).reshape(-1, indices.shape[-1]).any(1)
    if not odd.any():
        return None
    return f"reaches for place {indices.reshape(-1, indices.shape[-1])[odd][0].tolist()} of {sizes.tolist()}"


def _shape(value: Value | None) -> list[int] | None:
    return None if value is None else value.shape


def _small(value: Value | None) -> Any:
    return None if value is None else value.small


def _attribute(node: NodeProto, name: str, otherwise: int) -> int:
    return next((int(one.i) for one in node.attribute if one.name == name), otherwise)


_RULES: dict[str, Callable[[NodeProto, Read], str | None]] = {
    **GRID_RULES,
    "Div": _divisor,
    "GRU": _recurrent,
    "Gather": _gather,
    "GatherElements": _gather,
    "GatherND": _gather_nd,
    "LSTM": _recurrent,
    "Mod": _divisor,
    "RNN": _recurrent,
    "ScatterElements": _scatter,
    "ScatterND": _scatter,
}
