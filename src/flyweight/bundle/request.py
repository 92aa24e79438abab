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

    Raises:
        InputError: naming the input, what was seen and what is due.
    """
    array = _as_array(name, value)
    if array.ndim == len(spec.shape):
        array = array[None]
    if array.ndim != 1 + len(spec.shape) or array.shape[0] != 1 or not _fits(spec.shape, array.shape[1:]):
        raise InputError(
            f"Request input {name!r} has shape {np.shape(value)}; {_due('', spec.shape)} is due, "
            "one value for all candidates (a leading dimension of 1 may be there)."
        )
    return _checked(name, spec, array)


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
            "map values the model was not trained on to an id of their own."
        )


def _fits(due: Sequence[int | None], seen: tuple[int, ...]) -> bool:
    return all(size is None or size == length for size, length in zip(due, seen, strict=True))


def _due(lead: str, shape: Sequence[int | None]) -> str:
    parts = [lead] * bool(lead) + ["any" if size is None else str(size) for size in shape]
    return f"({', '.join(parts)}{',' if len(parts) == 1 else ''})" if parts else "a single number"


def _listed(names: Mapping[str, Any]) -> str:
    shown = ", ".join(repr(name) for name in list(names)[:12])
    return (shown or "nothing") + (f" and {len(names) - 12} more" if len(names) > 12 else "")
