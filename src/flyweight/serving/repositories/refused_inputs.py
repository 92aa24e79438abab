"""The checks of `Ranker.score`, as nodes: a graph that fails rather than answer for inputs that a ranker refuses.

An engine reads an id outside of its table as zeros, as another field's row or as a row counted from the end, and
repeats a field of length 1, all without a word. ONNX has no operator that refuses, but a `Split` into lengths that do
not add up fails in ONNX Runtime and in OpenVINO (a `Reshape`, an `Expand` or a broadcast do not fail in both).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from onnx import TensorProto

from flyweight.bundle.manifest import InputEntry
from flyweight.serving.repositories.added_nodes import AddedNodes

#: The failing node's name: ONNX Runtime repeats it in its error, so the client is told.
WHY = "an id is out of range, a number is not finite, or inputs differ in length"
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
    def is_single_id(self) -> bool:
        """Whether a row is one id that must be known."""
        return self.is_strict_id and not self.entry.shape

    @property
    def is_strict_id(self) -> bool:
        """Whether it holds ids, and none stands for unknown ones."""
        return self.entry.rows is not None and self.entry.unknown is None


def count_refused(added: AddedNodes, inputs: Sequence[CheckedInput]) -> str | None:
    """Add the checks and return a value (1,) of int64: 0 where all is right; None where there is nothing to check."""
    flags = [*_unequal_lengths(added, inputs), *_unknown_ids(added, inputs), *_not_finite(added, inputs)]
    if not flags:
        return None
    joined = added.node("Concat", *flags, axis=0) if len(flags) > 1 else flags[0]
    return added.node("ReduceMax", added.node("Cast", joined, to=TensorProto.INT64), keepdims=1)


def refuse(added: AddedNodes, scores: str, rows: str, refused: str) -> str:
    """Return the scores, by a node that fails unless `refused` is 0.

    Args:
        rows: how many scores there are, shape (1,).
    """
    return added.node("Split", scores, added.node("Add", rows, refused), name=WHY, axis=0)


def count_rows(added: AddedNodes, value: str, rank: int) -> str:
    """Return the length of a value's first dimension, shape (1,)."""
    shape = added.node("Shape", value)
    return shape if rank == 1 else added.node("Gather", shape, added.constant(np.zeros(1, np.int64)))


def _unequal_lengths(added: AddedNodes, inputs: Sequence[CheckedInput]) -> Iterator[str]:
    cut = [one for one in inputs if not (one.per_call or one.own_length)]
    if len(cut) > 1:
        lengths = [count_rows(added, one.name, 1 + len(one.entry.shape)) for one in cut]
        same = added.node("Equal", added.node("Concat", *lengths, axis=0), lengths[0])
        yield added.node("Not", same)


def _unknown_ids(added: AddedNodes, inputs: Sequence[CheckedInput]) -> Iterator[str]:
    """Ids that come one a row are looked at together: two dozen fields would be seven dozen nodes otherwise."""
    alone = [one for one in inputs if one.is_strict_id and (not one.is_single_id or one.own_length)]
    for one in alone:
        yield _flat(added, _outside(added, one.name, np.asarray(one.entry.rows, np.int64)))
    for per_call in (True, False):
        group = [one for one in inputs if one.is_single_id and one.per_call is per_call and not one.own_length]
        if group:
            rows = np.array([one.entry.rows for one in group], np.int64)
            yield _outside_of(added, [one.name for one in group], rows, per_call)


def _outside_of(added: AddedNodes, names: Sequence[str], rows: np.ndarray, per_call: bool) -> str:
    if len(names) == 1:
        return _outside(added, names[0], rows)
    joined = added.node("Concat", *names, axis=0)
    if per_call:
        return _outside(added, joined, rows)  # (fields,)
    stacked = added.node("Reshape", joined, added.constant(np.array([len(names), -1])))  # (fields, candidates)
    return _flat(added, _outside(added, stacked, rows[:, None]))


def _outside(added: AddedNodes, ids: str, rows: np.ndarray) -> str:
    below = added.node("Less", ids, added.constant(0))
    return added.node("Or", below, added.node("GreaterOrEqual", ids, added.constant(rows)))


def _not_finite(added: AddedNodes, inputs: Sequence[CheckedInput]) -> Iterator[str]:
    for one in inputs:
        if one.entry.dtype.startswith("float"):
            wide = one.entry.dtype == "float64"
            bound = _HALF_LIMIT if one.entry.dtype == "float16" else np.inf
            limit = added.constant(bound, np.float64 if wide else np.float32)
            finite = added.node("Less", added.node("Abs", one.name), limit)  # NaN is less than nothing
            flag = added.node("Not", finite)
            yield _flat(added, flag) if one.entry.shape else flag


def _flat(added: AddedNodes, flags: str) -> str:
    return added.node("Reshape", flags, added.constant(np.array([-1])))
