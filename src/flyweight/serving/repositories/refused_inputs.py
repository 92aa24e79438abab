"""The checks of `Ranker.score`, as nodes: a graph that does not answer for inputs that a ranker refuses.

An engine reads an id outside of its table as zeros, as another field's row or as a row counted from the end, and
repeats a field of length 1, all without a word. ONNX has no operator that refuses. So

- in ONNX Runtime the graph fails: a `Split` into lengths that do not add up is an error there, which names the node.
- in OpenVINO every score is NaN. A failure is no refusal there: OpenVINO 2026.4 on one thread goes on without a word
  and gives the scores of the call before; on more it does fail, and then refuses right calls too, until one with
  another number of candidates comes. So a field of another length is cut or filled up before the model reads it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import TensorProto

from flyweight.bundle.manifest import InputEntry
from flyweight.serving.repositories.added_nodes import AddedNodes
from flyweight.serving.repositories.prepared_inputs import asked_dtype

#: The failing nodes' names: ONNX Runtime repeats them in its error, so the client is told.
WHY = "an id is out of range or a number is not finite"
DIFFERS = "an input differs in length from the first candidate input"
#: From here on a float32 becomes infinite in float16.
_HALF_LIMIT = 65_520.0


@dataclass(frozen=True)
class CheckedInput:
    """An input of the served graph.

    Args:
        name, entry: as in the bundle.
        per_call: whether a call gives one value.
        own_length: whether its first dimension is its own, not the candidates'.
    """

    name: str
    entry: InputEntry
    per_call: bool
    own_length: bool

    @property
    def is_cut(self) -> bool:
        """Whether it has a row for each candidate."""
        return not (self.per_call or self.own_length)

    @property
    def is_single_id(self) -> bool:
        """Whether a row is one id that must be known."""
        return self.is_strict_id and not self.entry.shape

    @property
    def is_strict_id(self) -> bool:
        """Whether it holds ids, and none stands for unknown ones."""
        return self.entry.rows is not None and self.entry.unknown is None


@dataclass(frozen=True)
class Lengths:
    """What the lengths of inputs tell.

    Args:
        read: the value to read in place of each input, as long as it should be.
        rows: the number of candidates, shape (1,); None where no input has a row for each.
        differs: which inputs differ, as truth values; None where that is an error already.
    """

    read: Mapping[str, str]
    rows: str | None
    differs: str | None = None


def require_lengths(added: AddedNodes, inputs: Sequence[CheckedInput], *, fails: bool) -> Lengths:
    """Add a check of the length of each candidate input, against the first.

    Args:
        fails: whether the graph is to fail where one differs; else it is cut or filled up with zeros.
    """
    read = {one.name: one.name for one in inputs}
    cut = [one for one in inputs if one.is_cut]
    if not cut:
        return Lengths(read, None)
    rows = count_rows(added, cut[0].name, 1 + len(cut[0].entry.shape))
    for place, one in enumerate(cut[1:], start=1):
        name = f"{DIFFERS} ({place})"
        read[one.name] = added.node("Split", one.name, rows, name=name, axis=0) if fails else _fit(added, one, rows)
    if fails or len(cut) == 1:
        return Lengths(read, rows)
    lengths = [count_rows(added, one.name, 1 + len(one.entry.shape)) for one in cut[1:]]
    joined = added.node("Concat", *lengths, axis=0) if len(lengths) > 1 else lengths[0]
    return Lengths(read, rows, added.node("Not", added.node("Equal", joined, rows)))


def _fit(added: AddedNodes, one: CheckedInput, rows: str) -> str:
    """Return an input's first rows, zeros where it has too few."""
    zero = added.constant(np.zeros((), asked_dtype(one.entry)))
    rest = added.constant(np.array(one.entry.shape, np.int64))
    shape = added.node("Concat", rows, rest, axis=0) if one.entry.shape else rows
    longer = added.node("Concat", one.name, added.node("Expand", zero, shape), axis=0)
    return added.node("Slice", longer, added.constant(np.zeros(1, np.int64)), rows)


def count_refused(added: AddedNodes, inputs: Sequence[CheckedInput], lengths: Lengths) -> str | None:
    """Add the checks of values and return a value (1,) of int64: 0 where all is right, 1 where one is not.

    None where there is nothing to check.
    """
    flags = [*_unknown_ids(added, inputs, lengths), *_not_finite(added, inputs, lengths.read)]
    if lengths.differs is not None:
        flags.append(lengths.differs)
    if not flags:
        return None
    none = added.constant(np.zeros(1, bool))  # of no flags at all, where there are no candidates, no one is the largest
    joined = added.node("Concat", *flags, none, axis=0)
    return added.node("ReduceMax", added.node("Cast", joined, to=TensorProto.INT64), keepdims=1)


def fail_if(added: AddedNodes, refused: str, scores: str, rows: str) -> str:
    """Return the scores, by a node that fails unless `refused` is 0.

    Args:
        rows: how many scores there are, shape (1,).
    """
    return added.node("Split", scores, added.node("Add", rows, refused), name=WHY, axis=0)


def no_numbers_if(added: AddedNodes, refused: str, scores: str, dtype: np.dtype[Any]) -> str:
    """Return the scores, all NaN unless `refused` is 0."""
    is_refused = added.node("Greater", refused, added.constant(0))
    return added.node("Where", is_refused, added.constant(np.nan, dtype), scores)


def count_rows(added: AddedNodes, value: str, rank: int) -> str:
    """Return the length of a value's first dimension, shape (1,)."""
    shape = added.node("Shape", value)
    return shape if rank == 1 else added.node("Gather", shape, added.constant(np.zeros(1, np.int64)))


def _unknown_ids(added: AddedNodes, inputs: Sequence[CheckedInput], lengths: Lengths) -> Iterator[str]:
    """Ids that come one a row are looked at together: two dozen fields would be seven dozen nodes otherwise."""
    alone = [one for one in inputs if one.is_strict_id and (not one.is_single_id or one.own_length)]
    for one in alone:
        yield _flat(added, _outside(added, lengths.read[one.name], np.asarray(one.entry.rows, np.int64)))
    for per_call in (True, False):
        group = [one for one in inputs if one.is_single_id and one.per_call is per_call and not one.own_length]
        if group:
            rows = None if per_call else lengths.rows
            sizes = np.array([one.entry.rows for one in group], np.int64)
            yield _outside_of(added, [lengths.read[one.name] for one in group], sizes, rows)


def _outside_of(added: AddedNodes, names: Sequence[str], sizes: np.ndarray, rows: str | None) -> str:
    if len(names) == 1:
        return _outside(added, names[0], sizes)
    joined = added.node("Concat", *names, axis=0)
    if rows is None:
        return _outside(added, joined, sizes)  # (fields,)
    shape = added.node("Concat", added.constant(np.array([len(names)])), rows, axis=0)
    zero: dict[str, Any] = {"allowzero": 1} if added.opset >= 14 else {}  # a length of 0 is one, not copied
    stacked = added.node("Reshape", joined, shape, **zero)  # (fields, candidates)
    return _flat(added, _outside(added, stacked, sizes[:, None]))


def _outside(added: AddedNodes, ids: str, sizes: np.ndarray) -> str:
    below = added.node("Less", ids, added.constant(0))
    return added.node("Or", below, added.node("GreaterOrEqual", ids, added.constant(sizes)))


def _not_finite(
    added: AddedNodes, inputs: Sequence[CheckedInput], read: Mapping[str, str]
) -> Iterator[str]:
    for one in inputs:
        if one.entry.dtype.startswith("float"):
            wide = one.entry.dtype == "float64"
            bound = _HALF_LIMIT if one.entry.dtype == "float16" else np.inf
            limit = added.constant(bound, np.float64 if wide else np.float32)
            finite = added.node("Less", added.node("Abs", read[one.name]), limit)  # NaN is less than nothing
            flag = added.node("Not", finite)
            yield _flat(added, flag) if one.entry.shape else flag


def _flat(added: AddedNodes, flags: str) -> str:
    return added.node("Reshape", flags, added.constant(np.array([-1])))
