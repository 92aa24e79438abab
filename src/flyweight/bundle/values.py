"""The values of one input, as a caller gives them, as the array a graph reads; each checked on its way.

A request has dozens of inputs, so a right value is looked at once: all else is worked out only where it is wrong.
"""

from collections.abc import Sequence, Sized
from dataclasses import dataclass, field
from numbers import Integral, Number
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flyweight.bundle.manifest import InputEntry
from flyweight.errors import InputError
from flyweight.task.vocabulary import NO_ID, Vocabulary

Array = NDArray[Any]
_INT64 = np.dtype(np.int64)
_WHOLE = (int, np.int64)


@dataclass(frozen=True, slots=True)
class Due:
    """What a graph reads of one input, from the manifest.

    Args:
        name: of the input.
        role, rows, unknown, shape: as in `InputEntry`.
        dtype: of the array.
        one: the shape of one request's value, which None in `shape` leaves open.
        plain: whether a value is one id, read in int64.
        vocabulary: what text means, if the bundle says so.
    """

    name: str
    role: str
    rows: int | None
    unknown: int | None
    shape: tuple[int | None, ...]
    dtype: np.dtype[Any]
    one: tuple[int | None, ...]
    plain: bool
    vocabulary: Vocabulary | None = None


def due_of(name: str, entry: InputEntry, vocabulary: Vocabulary | None = None) -> Due:
    """Return what a manifest's entry asks for, ready to be compared with."""
    dtype, shape = np.dtype(entry.dtype), tuple(entry.shape)
    plain = entry.rows is not None and not shape and dtype == _INT64
    return Due(name, entry.role, entry.rows, entry.unknown, shape, dtype, (1, *shape), plain, vocabulary)


@dataclass(slots=True)
class Noticed:
    """What was noticed while the values of a call were read.

    Args:
        maps: whether ids outside of a vocabulary are taken for its id of unknown values.
        unknown: how many were, by input; a request's id counts once.
        repeated: rows of the request's inputs that came with several equal ones.
    """

    maps: bool
    unknown: dict[str, int] = field(default_factory=dict)
    repeated: dict[str, int] = field(default_factory=dict)


def batched(due: Due, value: Any, noticed: Noticed, lead: str = "N") -> Array:
    """Return an input's values as an array (N, ...) of the dtype the graph reads; maybe the caller's own array.

    Raises:
        InputError: naming the input, what was seen and what is due.
    """
    if due.plain and type(value) is np.ndarray and value.ndim == 1 and _are_ids(value, due.rows):
        return value
    array = _as_array(due, value, noticed)
    if not array.ndim or (array.shape[1:] != due.shape and not _fits(due.shape, array.shape[1:])):
        raise InputError(f"Input {due.name!r} has shape {array.shape}; {_words(lead, due.shape)} is due.")
    return _checked(due, array, noticed)


def by_request(due: Due, value: Any, noticed: Noticed) -> Array:
    """Return the values (R, ...) of R requests; see `batched`."""
    return batched(due, value, noticed, "R")


def single(due: Due, value: Any, noticed: Noticed) -> Array:
    """Return a request's value as an array (1, ...); it may come without the leading dimension or with one of 1.

    A row for each candidate will do too, where all are the same.

    Raises:
        InputError: naming the input, what was seen and what is due; and the first row that differs, where rows do.
    """
    if due.plain and type(value) in _WHOLE and 0 <= value < due.rows:
        return np.array([value], dtype=_INT64)
    array = _as_array(due, value, noticed)
    if array.ndim == len(due.shape):
        array = array[None]
    elif array.ndim == 1 + len(due.shape) and len(array) > 1:
        noticed.repeated[due.name] = len(array)
        array = _first_of_equal(due.name, array)
    if array.shape != due.one and (array.shape[:1] != (1,) or not _fits(due.shape, array.shape[1:])):
        raise InputError(
            f"Request input {due.name!r} has shape {np.shape(value)}; {_words('', due.shape)} is due, "
            "one value for all candidates (a leading dimension of 1 may be there)."
        )
    return _checked(due, array, noticed)


def _first_of_equal(name: str, array: Array) -> Array:
    unequal = array != array[:1]
    if array.dtype.kind == "f":  # NaN is told as such later, not as a row that differs from another of NaN
        unequal &= ~(np.isnan(array) & np.isnan(array[:1]))
    differs = unequal.reshape(len(array), -1).any(1)
    if differs.any():
        row = int(differs.argmax())
        raise InputError(
            f"Request input {name!r} differs inside the request: row {row} holds {_shown(array[row])} and row 0 "
            f"{_shown(array[0])}. Give one value for all candidates, or make two requests of them."
        )
    return array[:1]


def _shown(value: Any) -> str:
    text = " ".join(str(value).split())
    return text if len(text) < 60 else text[:57] + "..."


def _as_array(due: Due, value: Any, noticed: Noticed) -> Array:
    """Return numbers; whole numbers too large for any dtype as objects, where they are ids."""
    array = value if type(value) is np.ndarray else _array_of(due, value)
    if array.dtype.kind in "biuf":
        return array
    if due.vocabulary is not None and (texts := _texts(value, array)) is not None:
        return _ids_of_texts(due, due.vocabulary, texts, noticed).reshape(array.shape)
    if due.vocabulary is not None and array.dtype.kind == "U":
        raise InputError(
            f"Input {due.name!r} holds text beside numbers; text is raw values, numbers are ids."
        )
    return _large_ids(due, array, value)


def _texts(value: Any, array: Array) -> list[str] | None:
    """Return the values of an array as texts, or None where one of them is none."""
    if array.dtype.kind not in "OUT":
        return None
    # NumPy makes text of a number beside text: the caller's own values tell.
    found = (array if array is value or array.ndim == 0 else np.array(value, dtype=object)).ravel().tolist()
    return found if all(isinstance(one, str) for one in found) else None


def _ids_of_texts(due: Due, vocabulary: Vocabulary, texts: list[str], noticed: Noticed) -> Array:
    """Return the ids of raw values; of one that the vocabulary lacks none, so that it is counted as unknown."""
    ids = vocabulary.ids_of(texts)
    if (due.unknown is None or not noticed.maps) and (ids == NO_ID).any():
        lacking = texts[int((ids == NO_ID).argmax())]
        known = f"which its vocabulary of {len(vocabulary):,} values lacks"
        why = "the model has no id for unknown values" if due.unknown is None else "unknown values are to be refused"
        raise InputError(f"Input {due.name!r} holds {_shown(repr(lacking))}, {known}, and {why}.")
    return ids


def _array_of(due: Due, value: Any) -> Array:
    if isinstance(value, np.ndarray) and np.ma.is_masked(value):
        masked = int(np.ma.getmaskarray(value).sum())
        raise InputError(f"Input {due.name!r} has {masked} masked values of {value.size}; fill them before scoring.")
    try:
        array = np.asarray(value)
    except (ValueError, TypeError, RuntimeError, OverflowError) as error:
        why = _ragged(value) if "inhomogeneous" in str(error) else f" ({type(value).__name__}: {str(error)[:120]})"
        raise InputError(f"Input {due.name!r} is no array of numbers{why}.") from None
    if array.dtype.kind == "f" and due.rows is not None and isinstance(value, (list, tuple)):
        exact = np.asarray(value, dtype=object)
        return exact if _beyond(exact) else array  # NumPy makes floats of [1, 2**63]
    return array


def _ragged(value: Sequence[Any]) -> str:
    lengths = [len(row) if isinstance(row, Sized) else 1 for row in value]
    row = next((place for place, length in enumerate(lengths) if length != lengths[0]), None)
    where = "" if row is None else f": {lengths[0]} in row 0 and {lengths[row]} in row {row}"
    return f", as its rows differ in length{where}; pad them to one length"


def _beyond(array: Array) -> int | None:
    """Return a whole number past int64 in an array of nothing but whole numbers, or None."""
    numbers = array.ravel().tolist()
    if not all(isinstance(one, Integral) and not isinstance(one, bool) for one in numbers):
        return None
    return next((int(one) for one in numbers if not -(2**63) <= one < 2**63), None)


def _large_ids(due: Due, array: Array, value: Any) -> Array:
    """Return ids past int64 as they are; all else that is no number is refused, by its name."""
    if array.dtype.kind == "O" and (beyond := _beyond(array)) is not None:
        if due.rows is not None:
            return array
        raise InputError(f"Input {due.name!r} holds the whole number {beyond}, beyond int64; give it as a float.")
    values = np.asarray(value, dtype=object).ravel().tolist() if array.dtype.kind in "OSU" else []
    odd = next((one for one in values if not isinstance(one, Number)), 0)
    if odd is None:
        what = "None"
    elif isinstance(odd, (str, bytes)):
        what = f"text, {_shown(repr(odd))}"
    else:
        what = f"{array.dtype} values"
    raise InputError(f"Input {due.name!r} holds {what}; numbers of dtype int or float are due.")


def _checked(due: Due, array: Array, noticed: Noticed) -> Array:
    return _numbers(due, array) if due.rows is None else _ids(due, due.rows, array, noticed)


def _numbers(due: Due, array: Array) -> Array:
    if array.dtype == due.dtype:
        cast = array
        right = cast.dtype.kind != "f" or bool(np.isfinite(cast).all())
    else:
        with np.errstate(all="ignore"):
            cast = array.astype(due.dtype)
        right = bool(np.isfinite(cast).all()) if cast.dtype.kind == "f" else np.array_equal(cast, array)
    if right:
        return cast
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        bad = int((~np.isfinite(array)).sum())
        raise InputError(
            f"Input {due.name!r} holds {bad} NaN or infinite values of {array.size}; fill them before scoring."
        )
    raise InputError(
        f"Input {due.name!r} holds values that {due.dtype} cannot hold, from {array.min()} to {array.max()}."
    )


def _ids(due: Due, rows: int, array: Array, noticed: Noticed) -> Array:
    if _are_ids(array, rows):
        return array.astype(due.dtype, copy=False)
    if array.dtype.kind not in "iuO" and array.size:
        nan = array.dtype.kind == "f" and np.isnan(array).any()
        seen = "holds NaN" if nan else f"has dtype {array.dtype}"
        raise InputError(f"Id input {due.name!r} {seen}; ids must be whole numbers (int64 or int32).")
    known = (array >= 0) & (array < rows)
    if known.all():
        return array.astype(due.dtype)
    if due.unknown is None or not noticed.maps:
        raise _refusal(due.name, rows, array)
    noticed.unknown[due.name] = int(known.size - np.count_nonzero(known))
    ids = np.full(array.shape, due.unknown, due.dtype)
    np.copyto(ids, array, where=known, casting="unsafe")
    return ids


def _are_ids(array: Array, rows: int | None) -> bool:
    """Return whether an array is of int64 and holds nothing but known ids."""
    # As unsigned numbers the negative ones are huge, so the largest tells of both ends.
    return array.dtype == _INT64 and (not array.size or np.maximum.reduce(array.view(np.uint64), axis=None) < rows)


def _refusal(name: str, rows: int, ids: Array) -> InputError:
    low, high = int(ids.min()), int(ids.max())
    beyond = ", beyond int64" if ids.dtype.kind == "O" else ""
    if low < 0:
        return InputError(f"Input {name!r} holds the negative id {low}{beyond}; ids run from 0 to {rows - 1}.")
    return InputError(
        f"Input {name!r} holds id {high}{beyond}, and ids run from 0 to {rows - 1}; "
        "a model whose task says Field(..., unknown=0) takes what lies outside as id 0."
    )


def _fits(due: Sequence[int | None], seen: tuple[int, ...]) -> bool:
    return len(due) == len(seen) and all(size is None or size == length for size, length in zip(due, seen, strict=True))


def _words(lead: str, shape: Sequence[int | None]) -> str:
    parts = [lead] * bool(lead) + ["any" if size is None else str(size) for size in shape]
    return f"({', '.join(parts)}{',' if len(parts) == 1 else ''})" if parts else "a single number"
