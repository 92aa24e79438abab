"""Tensors of a request sorted into a user's side and the candidates' side, as a ranker scores them.

Here it is only looked at what the ranker cannot know of a request that came over the wire: which names are there, how
long each is, what its strings mean. Ids against vocabularies, numbers against NaN and shapes are the ranker's to check.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from flyweight.bundle.ranker import Ranker
from flyweight.serving.datatypes import datatype_of
from flyweight.serving.refusal import Refusal
from flyweight.serving.tensors import Tensors
from flyweight.serving.vocabulary import Vocabularies
from flyweight.task.field import REQUEST_INDEX

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Call:
    """One or several requests, ready for a ranker.

    Args:
        asked: the requests' inputs, each (R, ...).
        offered: the candidates' inputs, each (N, ...).
        rows: how many scores come out: N, or R where a bundle takes no candidates.
        offsets: (R + 1,) where each request's candidates begin; None for one request, R = 1.
        kind: calls of one kind can be joined to one.
    """

    asked: dict[str, Array]
    offered: dict[str, Array]
    rows: int
    offsets: Array | None = None
    kind: tuple[Any, ...] | None = ()

    @property
    def requests(self) -> int:
        """How many requests, R."""
        return 1 if self.offsets is None else len(self.offsets) - 1


@dataclass(frozen=True, eq=False)
class Takes:
    """What the calls of one model may hold.

    Args:
        model: its name, for errors.
        asked, offered: for each input of a request, and of candidates, whether it holds ids.
        open: whether an input has a dimension of any length, so that calls may differ in it.
        flat: inputs that have rows of their own; where there are any, a call is a flat batch and no other joins it.
        most: candidates that one call may have.
        vocabularies: what strings mean.
        unknown: inputs that have an id for values outside of their vocabulary.
    """

    model: str
    asked: Mapping[str, bool]
    offered: Mapping[str, bool]
    open: bool
    flat: frozenset[str]
    most: int
    vocabularies: Vocabularies
    unknown: frozenset[str]


def takes_of(model: str, ranker: Ranker, most: int, vocabularies: Vocabularies) -> Takes:
    """Return what a ranker takes, worked out once.

    Args:
        most: candidates that a call may have.
        vocabularies: of a file; they go before those that the bundle carries.
    """
    inputs = ranker.manifest.inputs
    ids = {name: entry.rows is not None for name, entry in inputs.items()}
    return Takes(
        model,
        {name: ids[name] for name, entry in inputs.items() if entry.role == "request"},
        {name: ids[name] for name, entry in inputs.items() if entry.role != "request"},
        any(None in entry.shape for entry in inputs.values()),
        ranker.bundle.graph.flat,
        most,
        vocabularies.over(ranker.bundle.vocabularies),
        frozenset(name for name, entry in inputs.items() if entry.unknown is not None),
    )


class Fit(NamedTuple):
    """What all tensors are that lie alike: how many rows, and the kind of their call."""

    rows: int
    kind: tuple[Any, ...] | None


def fitted_call(takes: Takes, tensors: Tensors) -> Call:
    """Return the call that tensors are; what names and shapes tell is worked out once for all that lie alike.

    Raises:
        Refusal: as `call_of`.
    """
    layout, inputs = tensors.layout, tensors.inputs
    fit: Fit | None = None if layout is None else layout.fits.get(takes)
    if fit is not None:
        asked = {name: inputs[name] for name in takes.asked}
        return Call(asked, {name: inputs[name] for name in takes.offered}, fit.rows, None, fit.kind)
    call = call_of(takes, inputs)
    if layout is not None and layout.even is not None and call.offsets is None and _each_once(takes, inputs):
        layout.fits[takes] = Fit(call.rows, call.kind)
    return call


def _each_once(takes: Takes, inputs: Mapping[str, Array]) -> bool:
    """Return whether an input of the request has one row, so that nothing hangs on its values."""
    return bool(takes.flat) or not takes.offered or all(len(inputs[name]) == 1 for name in takes.asked)


def call_of(takes: Takes, inputs: dict[str, Array]) -> Call:
    """Return the call that arrays are.

    An input of the request has a leading dimension of 1. With `request_index`, an int64 tensor (N,) that rises from 0
    and says which request each candidate belongs to, it has one of R.

    Raises:
        Refusal: an input is missing, unknown, without rows, too long or of another length than the others.
    """
    index = inputs.pop(REQUEST_INDEX, None) if REQUEST_INDEX in inputs and REQUEST_INDEX not in takes.asked else None
    if len(inputs) != len(takes.asked) + len(takes.offered) or any(
        name not in takes.asked and name not in takes.offered for name in inputs
    ):
        _refuse_names(takes, inputs)
    raw: dict[str, Array] = {}
    for name, array in inputs.items():
        if not array.ndim:
            raise Refusal(f"Input {name!r} has shape []; its first dimension counts rows: give [1, ...] or [N, ...].")
        if array.dtype == object:
            if not takes.asked.get(name, takes.offered.get(name)):
                raise Refusal(f"Input {name!r} takes numbers; seen BYTES.")
            raw[name] = array
    if raw:
        inputs |= takes.vocabularies.ids_of(raw, takes.unknown)
    asked = {name: inputs[name] for name in takes.asked}
    offered = {name: inputs[name] for name in takes.offered}
    rows = _rows(takes, offered or asked)
    if index is not None:
        return Call(asked, offered, rows, _offsets(takes, index, asked, rows), _kind(takes, asked, offered))
    if offered and not takes.flat:
        asked = {name: array if len(array) == 1 else _once(name, array, rows) for name, array in asked.items()}
    return Call(asked, offered, rows, None, _kind(takes, asked, offered))


def _rows(takes: Takes, arrays: Mapping[str, Array]) -> int:
    """Return how many rows arrays have, all as many but for flat ones: a bag may hold nothing."""
    first, rows = "", -1
    for name, array in arrays.items():
        if name in takes.flat:
            continue
        if rows < 0:
            first, rows = name, len(array)
        elif len(array) != rows:
            raise Refusal(f"Inputs differ in length: {first!r} has {rows:,} rows and {name!r} {len(array):,}.")
    if rows < 0:  # nothing is cut by row: one batch, whatever is in it
        return 1
    if rows == 0:
        raise Refusal(f"Input {first!r} has 0 rows: there is nothing to score. Give 1 to {takes.most:,} candidates.")
    if rows > takes.most:
        raise Refusal(
            f"The request has {rows:,} candidates; model {takes.model!r} takes up to {takes.most:,} at once "
            "(--max-candidates). Send them in parts.",
            "too_large",
        )
    return rows


def _once(name: str, array: Array, rows: int) -> Array:
    """Return the one row of a request's input that came with an equal row for each candidate."""
    if len(array) != rows:
        raise Refusal(
            f"Input {name!r} belongs to the request and has {len(array):,} rows for {rows:,} candidates; give one row "
            f"(leading dimension 1), or {REQUEST_INDEX!r} for several requests at once."
        )
    differs = array != array[:1]
    if array.dtype.kind == "f":  # NaN is told as such later, not as a row that differs from another of NaN
        differs &= ~(np.isnan(array) & np.isnan(array[:1]))
    differs = differs.reshape(rows, -1).any(1)
    if differs.any():
        row = int(differs.argmax())
        raise Refusal(
            f"Input {name!r} differs inside the request: row {row} holds {str(array[row])[:60]} and row 0 "
            f"{str(array[0])[:60]}. Give one row, or {REQUEST_INDEX!r} for several requests at once."
        )
    return array[:1]


def _offsets(takes: Takes, index: Array, asked: Mapping[str, Array], rows: int) -> Array:
    """Return where each request's candidates begin."""
    if not asked or not takes.offered or takes.flat:
        what = "flat batches alone" if takes.flat else "no candidates" if asked else "no inputs of a request"
        raise Refusal(f"{REQUEST_INDEX!r} was given, and model {takes.model!r} takes {what}; leave it out.")
    name, requests = _requests(takes, asked)
    if index.shape != (rows,) or index.dtype.kind not in "iu":
        raise Refusal(
            f"Input {REQUEST_INDEX!r} is {datatype_of(index.dtype)} of shape {list(index.shape)}; INT64 of shape "
            f"[{rows}] is due, the request of each candidate."
        )
    index = index.astype(np.int64)
    if (np.diff(index) < 0).any() or index[0] < 0 or index[-1] >= requests:
        raise Refusal(
            f"Input {REQUEST_INDEX!r} holds {index.min()} to {index.max()}; it must rise from 0 to {requests - 1}, as "
            f"{name!r} has {requests:,} rows."
        )
    return np.searchsorted(index, np.arange(requests + 1)).astype(np.int64)


def _requests(takes: Takes, asked: Mapping[str, Array]) -> tuple[str, int]:
    """Return how many requests there are, and an input that says so.

    All inputs must agree: joined with other calls, a row too many of one would be taken for the next caller's.
    """
    first, requests = next((name, len(array)) for name, array in asked.items())
    for name, array in asked.items():
        if len(array) != requests:
            raise Refusal(
                f"Inputs of the requests differ in length: {first!r} has {requests:,} rows and {name!r} {len(array):,}."
            )
    if requests > takes.most:
        raise Refusal(
            f"{requests:,} requests in one call; model {takes.model!r} takes up to {takes.most:,} at once "
            "(--max-candidates). Send them in parts.",
            "too_large",
        )
    return first, requests


def _kind(takes: Takes, asked: Mapping[str, Array], offered: Mapping[str, Array]) -> tuple[Any, ...] | None:
    """Return what calls must agree in to be joined: their types, and the lengths of open dimensions.

    Joined, numbers of two types would become those of a third, which is not right for all: truths among ids would pass
    for 0 and 1, whole numbers past 2^53 beside unsigned ones lose their last digits. None where none may join.
    """
    if takes.flat:
        return None
    arrays = (*asked.values(), *offered.values())
    types = "".join([array.dtype.char for array in arrays])
    return (types, *(array.shape[1:] for array in arrays)) if takes.open else (types,)


def _refuse_names(takes: Takes, inputs: Mapping[str, Array]) -> None:
    due = [*takes.asked, *takes.offered]
    shown = named([repr(name) for name in due])
    for name in inputs:
        if name not in takes.asked and name not in takes.offered:
            near = get_close_matches(name[:80], due, 1, 0.6)
            hint = f"; the nearest is {near[0]!r}" if near else ""
            raise Refusal(f"Input {name[:80]!r} is not one of model {takes.model!r}{hint}. It takes {shown}.")
    lost = [repr(name) for name in due if name not in inputs]
    are = f"Input {lost[0]} is" if len(lost) == 1 else f"Inputs {named(lost)} are"
    raise Refusal(f"{are} missing; model {takes.model!r} takes {shown}, seen {len(inputs)} of {len(due)}.")


def named(names: Sequence[str], most: int = 12) -> str:
    """Return names in a line, and how many more there are.

    Example:
        >>> named(["a", "b", "c"], 2), named([])
        ('a, b and 1 more', 'none')
    """
    return (", ".join(names[:most]) or "none") + (f" and {len(names) - most} more" if len(names) > most else "")
