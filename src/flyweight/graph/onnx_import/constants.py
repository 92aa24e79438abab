"""Tensors that an ONNX file holds or points to, read without trusting it: only files beside the model are opened."""

import math
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
import onnx
import torch
from onnx import TensorProto, numpy_helper
from torch import Tensor

from flyweight.errors import InputError

#: Element type -> (bits of one, as NumPy reads it, as PyTorch holds it). No text, complex numbers, 8-bit floats.
TYPES: Mapping[int, tuple[int, str, torch.dtype]] = MappingProxyType({
    TensorProto.FLOAT: (32, "<f4", torch.float32),
    TensorProto.DOUBLE: (64, "<f8", torch.float64),
    TensorProto.FLOAT16: (16, "<f2", torch.float16),
    TensorProto.BFLOAT16: (16, "<u2", torch.bfloat16),
    TensorProto.BOOL: (8, "|b1", torch.bool),
    TensorProto.INT8: (8, "|i1", torch.int8),
    TensorProto.INT16: (16, "<i2", torch.int16),
    TensorProto.INT32: (32, "<i4", torch.int32),
    TensorProto.INT64: (64, "<i8", torch.int64),
    TensorProto.UINT8: (8, "|u1", torch.uint8),
    TensorProto.INT4: (4, "|u1", torch.int8),
    TensorProto.UINT4: (4, "|u1", torch.uint8),
})  # fmt: skip
#: (low, high) of the types of two numbers a byte, which PyTorch holds in one byte each.
NARROW = {TensorProto.INT4: (-8, 7), TensorProto.UINT4: (0, 15)}
MAX_RANK = 16


def read_constant(tensor: TensorProto, folder: Path) -> Tensor:
    """Return a tensor of the file, from its own bytes or from a file beside the model.

    Raises:
        InputError: its type is unknown, its bytes do not fit its shape, or it lies outside of the folder.
    """
    if tensor.data_type not in TYPES:
        name = onnx.helper.tensor_dtype_to_string(tensor.data_type) if tensor.data_type else "undefined"
        raise _refusal(tensor, f"has element type {name}, which is not read.")
    if len(tensor.dims) > MAX_RANK or any(size < 0 for size in tensor.dims) or tensor.HasField("segment"):
        raise _refusal(tensor, f"has shape {list(tensor.dims)[:20]}.")
    if tensor.data_location == TensorProto.EXTERNAL:
        return _external(tensor, folder)
    try:
        array = numpy_helper.to_array(tensor)
    except (ValueError, TypeError, IndexError) as error:
        raise _refusal(tensor, f"of shape {list(tensor.dims)} does not hold its values: {error}.") from error
    return _as_tensor(np.ascontiguousarray(array), tensor.data_type).reshape(tuple(tensor.dims))


def _as_tensor(array: np.ndarray[tuple[int, ...], np.dtype[np.generic]], kind: int) -> Tensor:
    held = TYPES[kind][2]
    if kind in NARROW:
        return torch.from_numpy(array.astype(np.int8 if held == torch.int8 else np.uint8))
    if kind == TensorProto.BFLOAT16:
        return torch.from_numpy(array.view(np.uint16).view(np.int16).copy()).view(torch.bfloat16)
    return torch.from_numpy(array.copy() if not array.flags.writeable else array)


def _external(tensor: TensorProto, folder: Path) -> Tensor:
    entries = {entry.key: entry.value for entry in tensor.external_data}
    file = _beside(tensor, entries.get("location", ""), folder)
    count = math.prod(tensor.dims)
    bits, read_as, _ = TYPES[tensor.data_type]
    due = (count * bits + 7) // 8
    offset = _whole(tensor, entries.get("offset", "0"))
    length = _whole(tensor, entries.get("length", str(due)))
    there = file.stat().st_size
    if length != due or offset + due > there:
        raise _refusal(tensor, f"needs {due:,} bytes, claims {length:,} from {offset:,} on; {file.name} has {there:,}.")
    raw = np.fromfile(file, dtype=np.uint8, count=due, offset=offset)
    if tensor.data_type in NARROW:
        numbers = _unpacked(raw, count, signed=tensor.data_type == TensorProto.INT4)
        return torch.from_numpy(numbers).reshape(tuple(tensor.dims))
    return _as_tensor(raw.view(read_as), tensor.data_type).reshape(tuple(tensor.dims))


def _unpacked(raw: np.ndarray[tuple[int, ...], np.dtype[np.uint8]], count: int, *, signed: bool) -> np.ndarray[
    tuple[int, ...], np.dtype[np.generic]
]:  # fmt: skip
    """Return the numbers of 4 bits, low half of each byte first."""
    halves = np.stack([raw & 15, raw >> 4], 1).reshape(-1)[:count]
    return ((halves ^ 8).astype(np.int8) - 8) if signed else halves


def _beside(tensor: TensorProto, location: str, folder: Path) -> Path:
    """Return the file that a tensor points to, if it is a plain file in the model's folder or below."""
    home = folder.resolve()
    path = Path(location)
    refused = not location or "\0" in location or path.is_absolute() or ".." in path.parts
    found = home / path
    if refused or not found.resolve().is_relative_to(home):
        raise _refusal(tensor, f"points to {location[:80]!r}, outside of the model's folder, which is not opened.")
    if not found.is_file():
        raise _refusal(tensor, f"points to {location[:80]!r}, which is not there; keep the files together.")
    return found


def _whole(tensor: TensorProto, text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise _refusal(tensor, f"has the place {text[:40]!r}, which is no whole number.")
    return int(text)


def _refusal(tensor: TensorProto, why: str) -> InputError:
    return InputError(f"The ONNX file cannot be read: constant {tensor.name[:80]!r} {why}")
