"""The datatypes of the Open Inference Protocol v2 as NumPy's, and values of a JSON body as arrays of them.

Source: https://github.com/kserve/open-inference-protocol, specification/protocol/inference_rest.md, "Tensor Data
Types".
"""

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flyweight.serving.refusal import Refusal

Array = NDArray[Any]
#: Strings have no NumPy type of one size: `BYTES` stands beside these.
DATATYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_),
    **{f"{kind}{bits}": np.dtype(f"{kind.lower()}{bits}") for kind in ("UINT", "INT") for bits in (8, 16, 32, 64)},
    **{f"FP{bits}": np.dtype(f"<f{bits // 8}") for bits in (16, 32, 64)},
}
BYTES = "BYTES"
_NAMES = {dtype: name for name, dtype in DATATYPES.items()}
_LENGTH = struct.Struct("<I")
_LENGTH_BYTES = _LENGTH.size


def datatype_of(dtype: np.dtype[Any]) -> str:
    """Return the protocol's name of a NumPy type.

    Example:
        >>> datatype_of(np.dtype("float32"))
        'FP32'
    """
    return _NAMES.get(dtype, BYTES)


def array_of_values(name: str, datatype: str, values: Any) -> Array:
    """Return the values of a JSON tensor, nested or flat, as a flat array of its datatype.

    Raises:
        Refusal: they are no values of that datatype; says which.
    """
    if not isinstance(values, list):
        raise Refusal(f"Input {name!r}: data must be a list; seen {type(values).__name__}.")
    flat = values
    while flat and isinstance(flat[0], list):
        flat = _flattened(name, flat)
    if datatype == BYTES:
        odd = [one for one in flat if not isinstance(one, str)]
        if odd:
            raise Refusal(f"Input {name!r}: BYTES takes strings; seen {_short(odd[0])}.")
        return np.array(flat, dtype=object)
    return _numbers(name, datatype, flat)


def _flattened(name: str, values: list[Any]) -> list[Any]:
    odd = [one for one in values if not isinstance(one, list)]
    if odd:
        raise Refusal(f"Input {name!r}: data mixes lists and values; seen {_short(odd[0])} beside a list.")
    return [value for row in values for value in row]


def _numbers(name: str, datatype: str, values: list[Any]) -> Array:
    """Return numbers; NumPy makes whole numbers of fractions where it is told a type, so it is not told one."""
    dtype = DATATYPES[datatype]
    if not values:
        return np.empty(0, dtype)
    try:
        array = np.asarray(values)
        if datatype == "UINT64" and array.dtype.kind in "fO" and all(type(value) is int for value in values):
            array = np.array(values, dtype)  # beside small ones, NumPy makes floats of numbers past int64
    except (ValueError, TypeError, OverflowError):
        array = np.empty(0, object)
    takes = {"b": "b", "i": "iu", "u": "iu", "f": "iuf"}[dtype.kind]
    if array.ndim != 1 or array.dtype.kind not in takes:
        raise Refusal(f"Input {name!r}: {datatype} takes {_WORDS[dtype.kind]}; seen {_odd(values, dtype.kind)}.")
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        low, high = int(array.min()), int(array.max())
        if low < limits.min or high > limits.max:
            raise Refusal(f"Input {name!r}: {datatype} holds {limits.min} to {limits.max}; seen {low} to {high}.")
    with np.errstate(over="ignore"):  # what becomes infinite is refused by the model's own check of its numbers
        return array.astype(dtype, copy=False)


_WORDS = {"b": "true and false", "i": "whole numbers", "u": "whole numbers", "f": "numbers"}


def _odd(values: Sequence[Any], kind: str) -> str:
    fits: tuple[type, ...] = {"b": (bool,), "f": (int, float)}.get(kind, (int,))
    for value in values:
        if not isinstance(value, fits) or (kind != "b" and isinstance(value, bool)):
            return _short(value)
    return f"numbers from {_short(min(values))} to {_short(max(values))}"


def _short(value: Any) -> str:
    words = "null" if value is None else repr(value)
    return words if len(words) < 60 else words[:57] + "..."


def array_of_bytes(name: str, datatype: str, raw: bytes | memoryview, elements: int) -> Array:
    """Return a binary tensor as a flat array; of numbers it is a view of the bytes, read-only.

    Raises:
        Refusal: the bytes are not as many as the elements take.
    """
    if datatype == BYTES:
        return _strings(name, raw, elements)
    dtype = DATATYPES[datatype]
    due = elements * dtype.itemsize
    if len(raw) != due:
        raise Refusal(
            f"Input {name!r}: {elements:,} elements of {datatype} are {due:,} bytes; seen {len(raw):,} bytes of data."
        )
    array = np.frombuffer(raw, dtype)
    if dtype.kind == "b":  # any byte would pass for true, and an engine may count with it
        whole = array.view(np.uint8)
        if whole.size and whole.max() > 1:
            raise Refusal(f"Input {name!r}: BOOL takes bytes 0 and 1; seen {int(whole.max())}.")
    return array if array.flags.aligned else array.copy()


def _strings(name: str, raw: bytes | memoryview, elements: int) -> Array:
    """Return strings, each with its length in four bytes before it."""
    found: list[str] = []
    data, place = bytes(raw), 0
    text = data.decode() if data.isascii() else None  # a slice of a text costs a third of a text from bytes
    last = len(data) - _LENGTH_BYTES
    while place <= last and len(found) < elements:
        begin = place + _LENGTH_BYTES
        end = begin + _LENGTH.unpack_from(data, place)[0]
        if end > len(data):
            raise Refusal(
                f"Input {name!r}: string {len(found)} says it is {end - begin:,} bytes long; "
                f"{len(data) - begin:,} bytes of data are left."
            )
        found.append(_text(name, data[begin:end]) if text is None else text[begin:end])
        place = end
    if len(found) != elements or place != len(data):
        raise Refusal(
            f"Input {name!r}: {elements:,} strings are due, each after its length in four bytes; "
            f"seen {len(found):,} and {len(data) - place:,} bytes more."
        )
    return np.array(found, dtype=object)


def _text(name: str, data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise Refusal(f"Input {name!r}: strings must be UTF-8; seen {_short(data)}.") from None


def checked_shape(name: str, shape: Any) -> tuple[int, ...]:
    """Return a tensor's shape as whole numbers, at most eight of them.

    Raises:
        Refusal: it is none.
    """
    if type(shape) is list and len(shape) == 1 and type(shape[0]) is int and 0 <= shape[0] < 2**31:
        return (shape[0],)  # what almost all are, and each request has dozens
    if not isinstance(shape, list) or len(shape) > MAX_DIMENSIONS or any(type(size) is not int for size in shape):
        raise Refusal(f"Input {name!r}: shape must be a list of up to 8 whole numbers; seen {_short(shape)}.")
    if any(not 0 <= size < 2**31 for size in shape):
        raise Refusal(f"Input {name!r}: sizes in a shape run from 0 to 2**31 - 1; seen {_short(shape)}.")
    return tuple(shape)


MAX_DIMENSIONS = 8


def check_datatype(name: str, datatype: Any) -> None:
    """Check that a datatype is one that is read here.

    Raises:
        Refusal: it is not.
    """
    if not isinstance(datatype, str) or (datatype not in DATATYPES and datatype != BYTES):
        raise Refusal(
            f"Input {name!r}: datatype {_short(datatype)} is not read here; give one of {', '.join(DATATYPES)}, BYTES."
        )


def bytes_of_strings(texts: Sequence[str]) -> bytes:
    """Return strings as the protocol's bytes, each after its length."""
    parts = [part for text in texts for data in (text.encode(),) for part in (len(data).to_bytes(4, "little"), data)]
    return b"".join(parts)
