"""Rows added to a batch to give it one of a few sizes, and taken off its scores again."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flyweight.engines.inputs import ROWS, Input, Signature
from flyweight.task.field import REQUEST_INDEX, REQUESTS, SPREAD_ROWS

Arrays = Mapping[str, NDArray[Any]]
_KNOWN = {ROWS, SPREAD_ROWS, REQUESTS}


def can_pad(signature: Signature) -> bool:
    """Return whether all open dimensions are rows or requests; of flat ids with offsets a row more changes the rows.

    Example: inputs (rows,) and (rows, 50) can; ids (numbers,) with offsets (rows,) cannot.
    """
    return all(_label(one, place) in _KNOWN for one in _all(signature) for place in _open(one))


def pad(signature: Signature, arrays: Arrays, size: Callable[[int], int]) -> tuple[dict[str, NDArray[Any]], int]:
    """Return arrays with rows of zeros added up to `size(rows)`, and the number of rows before.

    Requests are padded likewise where `request_index` tells them apart. Zeros are valid ids and a valid request; what
    their rows score is cut off. A `request_index` of one entry is written out for all rows.
    """
    inputs = [one for one in _all(signature) if one.name in arrays]
    rows = next((len(arrays[one.name]) for one in inputs if _label(one, 0) == ROWS), 1)
    made = dict(arrays)
    if REQUEST_INDEX in made and len(made[REQUEST_INDEX]) != rows:
        made[REQUEST_INDEX] = np.repeat(made[REQUEST_INDEX], rows)
    grown = _KNOWN if REQUEST_INDEX in made else {ROWS}
    for one in inputs:
        array = made[one.name]
        more = [
            (0, size(length) - length if fixed is None and _label(one, place) in grown else 0)
            for place, (fixed, length) in enumerate(zip(one.shape, array.shape, strict=True))
        ]
        if any(last for _, last in more):
            made[one.name] = np.pad(array, more)
    return made, rows


def at_least_two(count: int) -> int:
    """Return a size that a traced program takes: it was told that there are several."""
    return max(count, 2)


def power_of_two(count: int) -> int:
    """Return the next power of two from 16 on, so that a serving process meets few sizes.

    Example: 500 rows become 512.
    """
    return max(16, 1 << (count - 1).bit_length()) if count > 1 else 16


def _all(signature: Signature) -> tuple[Input, ...]:
    return (*signature.required, *signature.optional)


def _open(one: Input) -> list[int]:
    return [place for place, fixed in enumerate(one.shape) if fixed is None]


def _label(one: Input, place: int) -> str:
    return one.labels[place] if place < len(one.labels) else ""
