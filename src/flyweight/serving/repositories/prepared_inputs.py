"""What `Ranker` does to an input before the model reads it, as nodes of the graph itself.

A server hands over what it is sent. So that its answers are `Ranker.score`'s, the graph that it runs takes ids outside
of the vocabulary for the field's id of unknown values, follows the id map of relabelled rows, and repeats a request's
value for each candidate where the model does not do so itself.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import helper

from flyweight.bundle.manifest import InputEntry
from flyweight.serving.repositories.added_nodes import AddedNodes

_INT64 = np.dtype(np.int64)


def asked_dtype(entry: InputEntry) -> np.dtype[Any]:
    """Return the dtype in which a server is sent an input: ids in int64, and no float16, which JSON cannot carry.

    Example:
        >>> asked_dtype(InputEntry(role="candidate", rows=9, dtype="int32")), asked_dtype(InputEntry(
        ...     role="candidate", dtype="float16"))
        (dtype('int64'), dtype('float32'))
    """
    if entry.rows is not None:
        return _INT64
    return np.dtype(np.float32) if entry.dtype == "float16" else np.dtype(entry.dtype)


def prepare_input(
    added: AddedNodes, value: str, entry: InputEntry, id_map: Sequence[int] | None, rows: str | None
) -> str:
    """Add the nodes that an input needs, and return what the model is to read in its place.

    Args:
        value: the input, of `asked_dtype(entry)`.
        id_map: the row in the model of each id.
        rows: the number of candidates, shape (1,), for a request's value that is to be repeated for each; else None.
    """
    dtype, due = asked_dtype(entry), np.dtype(entry.dtype)
    if entry.rows is not None and entry.unknown is not None:
        value = _known_or(added, value, entry.rows, entry.unknown)
    if id_map is not None:
        placed = _map_of(id_map)
        value, dtype = added.node("Gather", added.constant(placed), value), placed.dtype
    if dtype != due:
        value = added.node("Cast", value, to=helper.np_dtype_to_tensor_dtype(due))
    if rows is not None:
        ones = added.constant(np.ones(len(entry.shape), np.int64))
        target = added.node("Concat", rows, ones, axis=0) if entry.shape else rows
        value = added.node("Expand", value, target)  # (1, ...) -> (candidates, ...)
    return value


def _known_or(added: AddedNodes, value: str, rows: int, unknown: int) -> str:
    held = added.node("Clip", value, added.constant(0), added.constant(rows - 1))
    return added.node("Where", added.node("Equal", held, value), value, added.constant(unknown))


def _map_of(ids: Sequence[int]) -> NDArray[Any]:
    """Return an id map in four bytes a row where they do."""
    array = np.asarray(ids, np.int64)
    return array.astype(np.int32) if array.max(initial=0) < 2**31 else array
