"""Constants of a graph: each one's bytes must be exactly what its shape and type ask for, and lie where they may."""

import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from flyweight.bundle.manifest import DATA
from flyweight.errors import BundleError

MAX_RANK = 16
MAX_DIM = 2**40
#: Element type -> (bits, the typed list it may be stored in). Text and complex numbers are not read.
TYPES: dict[int, tuple[int, str]] = {
    TensorProto.FLOAT: (32, "float_data"),
    TensorProto.DOUBLE: (64, "double_data"),
    TensorProto.FLOAT16: (16, "int32_data"),
    TensorProto.BFLOAT16: (16, "int32_data"),
    TensorProto.BOOL: (8, "int32_data"),
    TensorProto.INT8: (8, "int32_data"),
    TensorProto.INT16: (16, "int32_data"),
    TensorProto.INT32: (32, "int32_data"),
    TensorProto.INT64: (64, "int64_data"),
    TensorProto.UINT8: (8, "int32_data"),
    TensorProto.UINT16: (16, "int32_data"),
    TensorProto.UINT32: (32, "uint64_data"),
    TensorProto.UINT64: (64, "uint64_data"),
    TensorProto.INT4: (4, "int32_data"),
    TensorProto.UINT4: (4, "int32_data"),
}
_LISTS = ("float_data", "double_data", "int32_data", "int64_data", "uint64_data", "string_data")


def check_tensors(tensors: Iterable[TensorProto], data_bytes: int | None, where: str) -> None:
    """Check the graph's initializers; `data_bytes` is the size of `model.onnx.data`, None where there is none.

    Raises:
        BundleError: naming the tensor and the bytes seen and due, or the place that it points to.
    """
    outside = 0
    for tensor in tensors:
        if tensor.data_location == TensorProto.EXTERNAL:
            outside += _check_external(tensor, data_bytes, where)
        else:
            check_inline(tensor, where)
    if outside > (data_bytes or 0):
        raise BundleError(
            f"{where}: the constants claim {outside:,} bytes of {DATA}, which has {data_bytes:,}; "
            "two of them overlap. Get the bundle again from its source."
        )


def check_inline(tensor: TensorProto, where: str) -> None:
    """Check a tensor that carries its own bytes.

    Raises:
        BundleError: the type is not known, or the bytes do not fit the shape.
    """
    elements, bits, typed = _checked_shape(tensor, where)
    if tensor.data_location == TensorProto.EXTERNAL or tensor.external_data:
        raise _refusal(tensor, where, "points to a file where only a value may stand")
    filled = [name for name in _LISTS if len(getattr(tensor, name))]
    if tensor.HasField("raw_data"):
        seen, due = len(tensor.raw_data), (elements * bits + 7) // 8
        if filled:
            raise _refusal(tensor, where, f"is stored twice, as bytes and as {filled[0]}")
    else:
        seen = len(getattr(tensor, typed))
        due = (elements + 1) // 2 if bits == 4 else elements
        if filled not in ([], [typed]):
            raise _refusal(tensor, where, f"is stored as {filled[0]} where {typed} is due")
    if seen != due:
        raise _refusal(tensor, where, f"of shape {list(tensor.dims)} needs {due:,} bytes or values and has {seen:,}")


def small_value(tensor: TensorProto, limit: int) -> NDArray[np.generic] | None:
    """Return a checked inline tensor of at most `limit` whole numbers, truths or plain floats; None for any other."""
    if tensor.data_location == TensorProto.EXTERNAL or TYPES[tensor.data_type][0] == 4:
        return None
    if tensor.data_type in (TensorProto.FLOAT16, TensorProto.BFLOAT16) or math.prod(tensor.dims) > limit:
        return None
    return np.asarray(numpy_helper.to_array(tensor))


def _check_external(tensor: TensorProto, data_bytes: int | None, where: str) -> int:
    elements, bits, _ = _checked_shape(tensor, where)
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    if location != DATA or data_bytes is None:
        reason = f"points to {location[:80]!r}, where only {DATA!r} beside the model may be read"
        raise _refusal(tensor, where, reason if location != DATA else f"points to {DATA}, which the bundle lacks")
    if len(entries) != len(tensor.external_data) or not set(entries) <= {"location", "offset", "length", "checksum"}:
        raise _refusal(tensor, where, f"has odd or doubled keys for its place: {sorted(entries)[:6]}")
    if tensor.HasField("raw_data") or any(len(getattr(tensor, name)) for name in _LISTS):
        raise _refusal(tensor, where, "is stored twice, in the model and outside")
    offset, length = (_whole(tensor, entries.get(key, "0"), where) for key in ("offset", "length"))
    due = (elements * bits + 7) // 8
    if length != due or offset + length > data_bytes:
        raise _refusal(
            tensor, where, f"needs {due:,} bytes and claims {length:,} from {offset:,} on, of {data_bytes:,} in {DATA}"
        )
    return length


def _checked_shape(tensor: TensorProto, where: str) -> tuple[int, int, str]:
    if tensor.data_type not in TYPES:
        raise _refusal(tensor, where, f"has element type {tensor.data_type}, which a bundle may not hold")
    if tensor.HasField("segment"):
        raise _refusal(tensor, where, "is a segment of a tensor, which is not read")
    if len(tensor.dims) > MAX_RANK or any(not 0 <= dim <= MAX_DIM for dim in tensor.dims):
        raise _refusal(
            tensor, where, f"has shape {list(tensor.dims)[:20]}; up to {MAX_RANK} dimensions of 0 to 2^40 are read"
        )
    if 0 in tensor.dims and len(tensor.dims) != 1:
        raise _refusal(tensor, where, f"has shape {list(tensor.dims)}, no elements, on which engines have crashed")
    bits, typed = TYPES[tensor.data_type]
    return math.prod(tensor.dims), bits, typed


def _whole(tensor: TensorProto, text: str, where: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise _refusal(tensor, where, f"has the place {text[:40]!r} in {DATA}, which is no whole number")
    return int(text)


def _refusal(tensor: TensorProto, where: str, why: str) -> BundleError:
    return BundleError(f"{where}: constant {tensor.name[:80]!r} {why}. Get the bundle again from its source.")
