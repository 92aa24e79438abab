"""The datatypes of the Open Inference Protocol v2 as NumPy's, and values of a JSON body as arrays of them.

Source: https://github.com/kserve/open-inference-protocol, specification/protocol/inference_rest.md, "Tensor Data
Types".
"""

import struct
from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flyweight.serving.json_body import kind_of
from flyweight.serving.refusal import Refusal, shown

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
        raise Refusal(f"Input {name!r}: data must be a list; seen {kind_of(values)}.")
    flat = values
    for _ in range(MAX_DIMENSIONS):
        if not (flat and isinstance(flat[0], list)):
            break
        flat = _flattened(name, flat)
    if datatype == BYTES:
        if set(map(type, flat)) - {str}:
            odd = next(one for one in flat if not isinstance(one, str))
            raise Refusal(f"Input {name!r}: BYTES takes strings; seen {shown(odd)}.")
        return np.array(flat, dtype=object)
    return _numbers(name, datatype, flat)


def _flattened(name: str, values: list[Any]) -> list[Any]:
    if set(map(type, values)) != {list}:
        odd = next(one for one in values if not isinstance(one, list))
        raise Refusal(f"Input {name!r}: data mixes lists and values; seen {shown(odd)} beside a list.")
    lengths = set(map(len, values))
    if len(lengths) > 1:
        least, most = min(lengths), max(lengths)
        raise Refusal(f"Input {name!r}: data has lists of {least:,} and of {most:,} values; they must be as long.")
    return [value for row in values for value in row]


def _numbers(name: str, datatype: str, values: list[Any]) -> Array:
    """Return numbers, whose kinds are looked at before NumPy sees them.

    It would make whole numbers of fractions and of truths, and of one long text beside many short ones an array in
    which each has as much room as the longest: terabytes from a body of megabytes.
    """
    dtype = DATATYPES[datatype]
    takes, words = _TAKES[dtype.kind]
    if not takes.issuperset(map(type, values)):
        odd = next(one for one in values if type(one) not in takes)
        raise Refusal(f"Input {name!r}: {datatype} takes {words}; seen {shown(odd)}.")
    try:
        with np.errstate(over="ignore"):  # what becomes infinite is refused by the model's own check of its numbers
            return np.array(values, dtype)
    except OverflowError:
        limits = np.iinfo(dtype)
        raise Refusal(
            f"Input {name!r}: {datatype} holds {limits.min} to {limits.max}; seen {min(values)} to {max(values)}."
        ) from None


#: What each kind of NumPy's types takes, of the types that JSON has.
_TAKES: dict[str, tuple[frozenset[type], str]] = {
    "b": (frozenset({bool}), "true and false"),
    "i": (frozenset({int}), "whole numbers"),
    "u": (frozenset({int}), "whole numbers"),
    "f": (frozenset({int, float}), "numbers"),
}


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
        raise Refusal(f"Input {name!r}: strings must be UTF-8; seen {shown(data)}.") from None


def checked_shape(name: str, shape: Any) -> tuple[int, ...]:
    """Return a tensor's shape as whole numbers, at most eight of them.

    Raises:
        Refusal: it is none.
    """
    if type(shape) is list and len(shape) == 1 and type(shape[0]) is int and 0 <= shape[0] < 2**31:
        return (shape[0],)  # what almost all are, and each request has dozens
    if not isinstance(shape, list) or len(shape) > MAX_DIMENSIONS or any(type(size) is not int for size in shape):
        raise Refusal(f"Input {name!r}: shape must be a list of up to 8 whole numbers; seen {shown(shape)}.")
    if any(not 0 <= size < 2**31 for size in shape):
        raise Refusal(f"Input {name!r}: sizes in a shape run from 0 to 2**31 - 1; seen {shown(shape)}.")
    if prod(max(size, 1) for size in shape) >= MOST_ELEMENTS:  # NumPy has no such shape, though a 0 in it be no values
        raise Refusal(f"Input {name!r}: shape {shape} is larger than any request; give the shape of the values sent.")
    return tuple(shape)


def checked_name(name: Any, place: int) -> str:
    """Return the name of a request's input, `place` counted from 0.

    Raises:
        Refusal: it is no string, or so long that looking for the input meant would take seconds.
    """
    if not isinstance(name, str):
        raise Refusal(f"Input {place} must have a 'name', a string; seen {shown(name)}.")
    if len(name) > LONGEST_NAME:
        raise Refusal(
            f"Input {place} has a name of {len(name):,} letters, {shown(name)}; at most {LONGEST_NAME:,} are read."
        )
    return name


MAX_DIMENSIONS = 8
MOST_ELEMENTS, LONGEST_NAME = 2**48, 1024


def check_datatype(name: str, datatype: Any) -> None:
    """Check that a datatype is one that is read here.

    Raises:
        Refusal: it is not.
    """
    if not isinstance(datatype, str) or (datatype not in DATATYPES and datatype != BYTES):
        raise Refusal(
            f"Input {name!r}: datatype {shown(datatype)} is not read here; give one of {', '.join(DATATYPES)}, BYTES."
        )


def bytes_of_strings(texts: Sequence[str]) -> bytes:
    """Return strings as the protocol's bytes, each after its length."""
    parts = [part for text in texts for data in (text.encode(),) for part in (len(data).to_bytes(4, "little"), data)]
    return b"".join(parts)
