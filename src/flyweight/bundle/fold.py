"""Working out small constants of a graph, so that shapes computed on the way are known before anything runs."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper

#: Constants above this many elements are not worked out: no shape has as many, and few lists of places.
SMALL = 4096
Array = NDArray[Any]
Attributes = Mapping[str, Any]
_CASTS = {TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.INT32, TensorProto.INT64, TensorProto.BOOL}


def fold(op: str, attributes: Attributes, inputs: Sequence[Array | None], shape: Sequence[int] | None) -> Array | None:
    """Return the value of a node whose inputs are known and whose result, of `shape`, is small; None where it is not.

    Covers what exporters write to compute shapes; any other operator gives None.

    Example:
        >>> fold("Concat", {"axis": 0}, [np.array([2]), np.array([3, 4])], [3])
        array([2, 3, 4])
    """
    rule = _RULES.get(op)
    if rule is None or shape is None or np.prod(shape, dtype=float) > SMALL or not inputs or inputs[0] is None:
        return None
    if any(value is None for value in inputs[1:]) and op != "Slice":
        return None
    try:
        with np.errstate(all="ignore"):
            value = np.asarray(rule(attributes, inputs))
    except (ValueError, TypeError, IndexError, OverflowError, ArithmeticError):
        return None
    return value if value.shape == tuple(shape) and value.dtype.kind in "biuf" else None


def _cast(attributes: Attributes, inputs: Sequence[Any]) -> Array | None:
    if attributes.get("to") not in _CASTS:
        return None
    return np.asarray(inputs[0]).astype(helper.tensor_dtype_to_np_dtype(attributes["to"]))


def _divide(attributes: Attributes, inputs: Sequence[Any]) -> Array:
    """Divide as C does: whole numbers are cut towards zero."""
    a, b = np.asarray(inputs[0]), np.asarray(inputs[1])
    if a.dtype.kind == "f":
        return np.asarray(a / b)
    if not b.all():
        raise ZeroDivisionError
    return np.asarray(np.where((a < 0) != (b < 0), -(abs(a) // abs(b)), abs(a) // abs(b))).astype(a.dtype)


def _modulo(attributes: Attributes, inputs: Sequence[Any]) -> Array:
    return np.asarray((np.fmod if attributes.get("fmod") else np.mod)(inputs[0], inputs[1]))


def _slice(attributes: Attributes, inputs: Sequence[Any]) -> Array:
    data, starts, ends = inputs[0], inputs[1], inputs[2]
    axes = inputs[3] if len(inputs) > 3 and inputs[3] is not None else range(len(starts))
    steps = inputs[4] if len(inputs) > 4 and inputs[4] is not None else [1] * len(starts)
    cut = [slice(None)] * data.ndim
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        low = None if step < 0 and end < -data.shape[axis] else int(end)
        cut[int(axis)] = slice(int(start), low, int(step))
    return np.asarray(data[tuple(cut)])


def _axes(attributes: Attributes, inputs: Sequence[Any]) -> tuple[int, ...] | None:
    axes = attributes.get("axes") if len(inputs) < 2 else inputs[1]
    return None if axes is None or len(axes) == 0 else tuple(int(axis) for axis in axes)


def _squeeze(attributes: Attributes, inputs: Sequence[Any]) -> Array:
    return np.asarray(np.squeeze(inputs[0], _axes(attributes, inputs)))


def _unsqueeze(attributes: Attributes, inputs: Sequence[Any]) -> Array:
    return np.asarray(np.expand_dims(inputs[0], _axes(attributes, inputs) or ()))


def _reshape(attributes: Attributes, inputs: Sequence[Any]) -> Array:
    shape = [int(size) for size in inputs[1]]
    if not attributes.get("allowzero"):
        shape = [inputs[0].shape[place] if size == 0 else size for place, size in enumerate(shape)]
    return np.asarray(np.reshape(inputs[0], shape))


def _filled(attributes: Attributes, inputs: Sequence[Any]) -> Array:
    value = attributes.get("value")
    return np.full([int(size) for size in inputs[0]], np.float32(0) if value is None else value.ravel()[0])


def _reduced(reduce: Any) -> Callable[[Attributes, Sequence[Any]], Array]:
    def rule(attributes: Attributes, inputs: Sequence[Any]) -> Array:
        axes = _axes(attributes, inputs)
        if axes is None and attributes.get("noop_with_empty_axes"):
            return np.asarray(inputs[0])
        keep = bool(attributes.get("keepdims", 1))
        return np.asarray(reduce(inputs[0], axis=axes, keepdims=keep)).astype(inputs[0].dtype)

    return rule


def _plain(function: Any) -> Callable[[Attributes, Sequence[Any]], Array]:
    return lambda attributes, inputs: np.asarray(function(*inputs))


_RULES: dict[str, Callable[[Attributes, Sequence[Any]], Array | None]] = {
    "Abs": _plain(np.abs),
    "Add": _plain(np.add),
    "And": _plain(np.logical_and),
    "Cast": _cast,
    "Ceil": _plain(np.ceil),
    "Concat": lambda attributes, inputs: np.concatenate(list(inputs), axis=attributes["axis"]),
    "ConstantOfShape": _filled,
    "Div": _divide,
    "Equal": _plain(np.equal),
    "Expand": lambda _, inputs: np.asarray(inputs[0] * np.ones([int(n) for n in inputs[1]], dtype=inputs[0].dtype)),
    "Floor": _plain(np.floor),
    "Gather": lambda attributes, inputs: np.take(inputs[0], inputs[1].astype(np.int64), axis=attributes.get("axis", 0)),
    "Greater": _plain(np.greater),
    "GreaterOrEqual": _plain(np.greater_equal),
    "Identity": _plain(np.asarray),
    "Less": _plain(np.less),
    "LessOrEqual": _plain(np.less_equal),
    "Max": lambda _, inputs: np.max(np.broadcast_arrays(*inputs), axis=0),
    "Min": lambda _, inputs: np.min(np.broadcast_arrays(*inputs), axis=0),
    "Mod": _modulo,
    "Mul": _plain(np.multiply),
    "Neg": _plain(np.negative),
    "Not": _plain(np.logical_not),
    "Or": _plain(np.logical_or),
    "Range": _plain(np.arange),
    "ReduceMax": _reduced(np.max),
    "ReduceMin": _reduced(np.min),
    "ReduceProd": _reduced(np.prod),
    "ReduceSum": _reduced(np.sum),
    "Reshape": _reshape,
    "Slice": _slice,
    "Squeeze": _squeeze,
    "Sub": _plain(np.subtract),
    "Sum": lambda _, inputs: np.sum(np.broadcast_arrays(*inputs), axis=0),
    "Transpose": lambda attributes, inputs: np.transpose(inputs[0], attributes.get("perm")),
    "Unsqueeze": _unsqueeze,
    "Where": _plain(np.where),
}
