"""Turning what a caller gives for a request into the arrays a graph reads, each value checked on its way."""

from collections.abc import Collection, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flyweight.bundle.manifest import InputEntry
from flyweight.errors import InputError

Array = NDArray[Any]


def flat_batch(
    inputs: Mapping[str, InputEntry], values: Mapping[str, Any], flat: Collection[str]
) -> tuple[dict[str, Array], int | None]:
    """Return checked arrays (N, ...) for all inputs, and N; None where every input is `flat`, with its own length.

    Raises:
        InputError: a name is missing or unknown, lengths differ, a shape, an id or a number is not what it must be.
    """
    check_names(inputs, values, "predict()")
    arrays = {name: batched(name, spec, values[name]) for name, spec in inputs.items()}
    return arrays, same_length(arrays, flat)


def check_names(inputs: Mapping[str, InputEntry], given: Mapping[str, Any], where: str) -> None:
    """Check that exactly the inputs are given.

    Raises:
        InputError: naming the odd one and the nearest known name.
    """
    if not isinstance(given, Mapping):
        raise InputError(f"{where} takes a dict of arrays by input name; seen {type(given).__name__}.")
    for name in given:
        if name not in inputs:
            near = get_close_matches(str(name), inputs, 1, 0.0)
            more = f"; the nearest is {near[0]!r}" if near else ""
            raise InputError(f"{where}: {name!r} is not an input here{more}. It takes {_listed(inputs)}.")
    lost = [name for name in inputs if name not in given]
    if lost:
        raise InputError(f"{where} lacks input {lost[0]!r}; it takes {_listed(inputs)}, seen {_listed(given)}.")


def right_side(
    inputs: Mapping[str, InputEntry], request: Mapping[str, Any], candidates: Mapping[str, Any]
) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Return both sides of a call as they are.

    Raises:
        InputError: a side is no dict, or an input was given on the wrong one.
    """
    for given, where, due in ((request, "request", "candidates"), (candidates, "candidates", "request")):
        if not isinstance(given, Mapping):
            raise InputError(f"{where} must be a dict of values by input name; seen {type(given).__name__}.")
        for name in given:
            if name in inputs and (inputs[name].role == "request") != (where == "request"):
                raise InputError(f"Input {name!r} has role {inputs[name].role!r}; give it in {due}=, not in {where}=.")
    return request, candidates


def checked_offsets(offsets: Any, rows: int) -> NDArray[np.int64]:
    """Return offsets as an array that begins with 0, does not fall and ends with the number of rows.

    Raises:
        InputError: it does not; says where.
    """
    found = _as_array("offsets", offsets)
    if found.ndim != 1 or len(found) < 2 or found.dtype.kind not in "iu":
        raise InputError(f"offsets must be whole numbers, one more than requests; seen {found.dtype} {found.shape}.")
    falls = np.flatnonzero(np.diff(found.astype(np.int64)) < 0)
    if int(found[0]) != 0 or int(found[-1]) != rows or falls.size:
        where = f"falls after place {falls[0]}" if falls.size else f"runs from {found[0]} to {found[-1]}"
        raise InputError(f"offsets {where}; it must rise from 0 to {rows:,}, the number of candidates.")
    return found.astype(np.int64)


def batched(name: str, spec: InputEntry, value: Any) -> Array:
    """Return an input's values as an array (N, ...) of the dtype the graph reads.

    Raises:
        InputError: naming the input, what was seen and what is due.
    """
    array = _as_array(name, value)
    if array.ndim != 1 + len(spec.shape) or not _fits(spec.shape, array.shape[1:]):
        raise InputError(f"Input {name!r} has shape {array.shape}; {_due('N', spec.shape)} is due.")
    return _checked(name, spec, array)


def single(name: str, spec: InputEntry, value: Any) -> Array:
    """Return a request's value as an array (1, ...); it may come without the leading dimension or with one of 1.

    A row for each candidate will do too, where all are the same.

    Raises:
        InputError: naming the input, what was seen and what is due; and the first row that differs, where rows do.
    """
    array = _as_array(name, value)
    if array.ndim == len(spec.shape):
        array = array[None]
    elif array.ndim == 1 + len(spec.shape) and len(array) > 1:
        array = _first_of_equal(name, array)
    if array.ndim != 1 + len(spec.shape) or array.shape[0] != 1 or not _fits(spec.shape, array.shape[1:]):
        raise InputError(
            f"Request input {name!r} has shape {np.shape(value)}; {_due('', spec.shape)} is due, "
            "one value for all candidates (a leading dimension of 1 may be there)."
        )
    return _checked(name, spec, array)


def _first_of_equal(name: str, array: Array) -> Array:
    differs = (array != array[:1]).reshape(len(array), -1).any(1)
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


def same_length(arrays: Mapping[str, Array], flat: Collection[str]) -> int | None:
    """Return the common length of arrays but for `flat` ones; None where there are no others.

    Raises:
        InputError: naming two inputs of different length.
    """
    lengths = {name: len(array) for name, array in arrays.items() if name not in flat}
    if not lengths:
        return None
    (first, due), *rest = lengths.items()
    for name, length in rest:
        if length != due:
            raise InputError(
                f"Inputs differ in length: {first!r} has {due:,} rows and {name!r} {length:,}; give as many of each."
            )
    return due


def _as_array(name: str, value: Any) -> Array:
    try:
        array = np.asarray(value)
    except (ValueError, TypeError, RuntimeError, OverflowError) as error:
        raise InputError(
            f"Input {name!r} is no array of numbers ({type(value).__name__}: {str(error)[:120]})."
        ) from None
    if array.dtype.kind not in "biuf":
        raise InputError(f"Input {name!r} holds {array.dtype} values; numbers of dtype int or float are due.")
    return array


def known_ids(spec: InputEntry, value: Any) -> tuple[Any, int]:
    """Return a value with ids outside of the vocabulary replaced by its id for unknown ones, and how many were.

    Values of inputs without such an id, and what is no array of whole numbers, are returned as they are: what is wrong
    with them is said by those who read them.
    """
    if spec.rows is None or spec.unknown is None:
        return value, 0
    try:
        array = np.asarray(value)
    except (ValueError, TypeError, RuntimeError, OverflowError):
        return value, 0
    if array.dtype.kind not in "iu":
        return value, 0
    outside = (array < 0) | (array >= spec.rows)
    count = int(outside.sum())
    return (np.where(outside, array.dtype.type(spec.unknown), array), count) if count else (value, 0)


def _checked(name: str, spec: InputEntry, array: Array) -> Array:
    if spec.rows is not None:
        _check_ids(name, spec.rows, array)
        return array.astype(spec.dtype)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        bad = int((~np.isfinite(array)).sum())
        raise InputError(
            f"Input {name!r} holds {bad} NaN or infinite values of {array.size}; fill them before scoring."
        )
    with np.errstate(all="ignore"):
        cast = array.astype(spec.dtype)
    lost = not np.isfinite(cast).all() if cast.dtype.kind == "f" else not np.array_equal(cast, array)
    if lost:
        raise InputError(
            f"Input {name!r} holds values that {spec.dtype} cannot hold, from {array.min()} to {array.max()}."
        )
    return cast


def _check_ids(name: str, rows: int, ids: Array) -> None:
    if ids.dtype.kind not in "iu":
        if ids.size == 0:
            return
        raise InputError(f"Id input {name!r} has dtype {ids.dtype}; ids must be whole numbers (int64 or int32).")
    if ids.size == 0:
        return
    low, high = int(ids.min()), int(ids.max())
    if low < 0:
        raise InputError(f"Input {name!r} holds the negative id {low}; ids run from 0 to {rows - 1}.")
    if high >= rows:
        raise InputError(
            f"Input {name!r} holds id {high}, and ids run from 0 to {rows - 1}; "
            "map values the model was not trained on to an id of their own: Field(..., unknown=0)."
        )


def _fits(due: Sequence[int | None], seen: tuple[int, ...]) -> bool:
    return all(size is None or size == length for size, length in zip(due, seen, strict=True))


def _due(lead: str, shape: Sequence[int | None]) -> str:
    parts = [lead] * bool(lead) + ["any" if size is None else str(size) for size in shape]
    return f"({', '.join(parts)}{',' if len(parts) == 1 else ''})" if parts else "a single number"


def _listed(names: Mapping[str, Any]) -> str:
    shown = ", ".join(repr(name) for name in list(names)[:12])
    return (shown or "nothing") + (f" and {len(names) - 12} more" if len(names) > 12 else "")
