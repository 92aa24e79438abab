"""What a caller gives for a request: exactly the inputs, on their sides, of one length; see `values` for each one."""

from collections.abc import Collection, Mapping
from difflib import get_close_matches
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flyweight.bundle.values import Due, Noticed, batched
from flyweight.errors import InputError

Array = NDArray[Any]


def flat_batch(
    inputs: Mapping[str, Due], values: Mapping[str, Any], flat: Collection[str], noticed: Noticed
) -> tuple[dict[str, Array], int | None]:
    """Return checked arrays (N, ...) for all inputs, and N; None where every input is `flat`, with its own length.

    Raises:
        InputError: a name is missing or unknown, lengths differ, a shape, an id or a number is not what it must be.
    """
    check_names(inputs, values, "predict()")
    arrays = {name: batched(due, values[name], noticed) for name, due in inputs.items()}
    return arrays, same_length(arrays, flat)


def check_names(inputs: Mapping[str, Due], given: Mapping[str, Any], where: str) -> None:
    """Check that exactly the inputs are given.

    Raises:
        InputError: naming the odd one and the nearest known name.
    """
    if not isinstance(given, Mapping):
        raise InputError(f"{where} takes a dict of arrays by input name; seen {type(given).__name__}.")
    if given.keys() == inputs.keys():
        return
    for name in given:
        if name not in inputs:
            near = get_close_matches(str(name), inputs, 1, 0.0)
            more = f"; the nearest is {near[0]!r}" if near else ""
            raise InputError(f"{where}: {name!r} is not an input here{more}. It takes {_listed(inputs)}.")
    lost = [name for name in inputs if name not in given]
    if lost:
        raise InputError(f"{where} lacks input {lost[0]!r}; it takes {_listed(inputs)}, seen {_listed(given)}.")


def check_sides(asked: Mapping[str, Due], offered: Mapping[str, Due], request: object, candidates: object) -> None:
    """Check that a call gives exactly the inputs of a request on one side, and those of candidates on the other.

    Args:
        asked, offered: inputs due in `request=`, and in `candidates=`.

    Raises:
        InputError: a side is no dict, an input is missing, unknown, or was given on the wrong side.
    """
    sides = ((request, "request", asked, offered, "candidates"), (candidates, "candidates", offered, asked, "request"))
    if all(isinstance(given, Mapping) and given.keys() == due.keys() for given, _, due, _, _ in sides):
        return
    for given, where, _, others, other in sides:
        if not isinstance(given, Mapping):
            raise InputError(f"{where} must be a dict of values by input name; seen {type(given).__name__}.")
        for name in given:
            if name in others:
                role = others[name].role
                raise InputError(f"Input {name!r} has role {role!r}; give it in {other}=, not in {where}=.")
    for given, where, due, _, _ in sides:
        check_names(due, given, where)  # type: ignore[arg-type]


def checked_offsets(offsets: Any, rows: int) -> NDArray[np.int64]:
    """Return offsets as an array that begins with 0, does not fall and ends with the number of rows.

    Raises:
        InputError: it does not; says where.
    """
    try:
        found = np.asarray(offsets)
    except (ValueError, TypeError, RuntimeError, OverflowError):
        found = np.empty(0, object)
    if found.ndim != 1 or len(found) < 2 or found.dtype.kind not in "iu":
        raise InputError(f"offsets must be whole numbers, one more than requests; seen {found.dtype} {found.shape}.")
    falls = np.flatnonzero(np.diff(found.astype(np.int64)) < 0)
    if int(found[0]) != 0 or int(found[-1]) != rows or falls.size:
        where = f"falls after place {falls[0]}" if falls.size else f"runs from {found[0]} to {found[-1]}"
        raise InputError(f"offsets {where}; it must rise from 0 to {rows:,}, the number of candidates.")
    return found.astype(np.int64)


def same_length(arrays: Mapping[str, Array], flat: Collection[str]) -> int | None:
    """Return the common length of arrays but for `flat` ones; None where there are no others.

    Raises:
        InputError: naming two inputs of different length.
    """
    first, due = "", None
    for name, array in arrays.items():
        if name in flat:
            continue
        if due is None:
            first, due = name, len(array)
        elif len(array) != due:
            raise InputError(
                f"Inputs differ in length: {first!r} has {due:,} rows and {name!r} {len(array):,}; "
                "give as many of each."
            )
    return due


def check_repeated(repeated: Mapping[str, int], candidates: int) -> None:
    """Check that request inputs which came with several equal rows have one for each candidate.

    Raises:
        InputError: naming the input and both numbers.
    """
    for name, rows in repeated.items():
        if rows != candidates:
            raise InputError(
                f"Request input {name!r} has {rows:,} equal rows and there are {candidates:,} candidates; "
                "give one value for all of them, or a row for each."
            )


def _listed(names: Mapping[str, Any]) -> str:
    shown = ", ".join(repr(name) for name in list(names)[:12])
    return (shown or "nothing") + (f" and {len(names) - 12} more" if len(names) > 12 else "")
