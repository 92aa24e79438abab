"""Scoring calls: one by itself, several joined to one; one that is wrong fails alone, one with stand-ins says so."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flyweight.bundle.ranker import Ranker
from flyweight.bundle.shards.ranker import ShardedRanker
from flyweight.errors import FlyweightError
from flyweight.serving.call import Call
from flyweight.serving.degraded import marked_degraded

Array = NDArray[Any]
#: The scores of a call, or why it has none.
Outcome = Array | FlyweightError


def score_call(ranker: Ranker, call: Call) -> Array:
    """Return the scores of one call.

    Raises:
        InputError: a shape, an id or a number is not what it must be.
        EngineError: the engine failed.
    """
    scores = _scored(ranker, call)
    if isinstance(ranker, ShardedRanker) and ranker.last_degraded:
        return marked_degraded(scores, ranker.last_degraded)
    return scores


def _scored(ranker: Ranker, call: Call) -> Array:
    if call.kind is None or not call.offered:
        return ranker.predict({**call.asked, **call.offered})
    if call.offsets is not None:
        return ranker.score_many(call.asked, call.offered, call.offsets)
    return ranker.score(call.asked, call.offered)


def score_calls(ranker: Ranker, calls: Sequence[Call]) -> list[Outcome]:
    """Return the scores of calls of one kind, scored as one; where that fails, of each by itself."""
    if len(calls) > 1:
        try:
            scores = score_call(ranker, _joined(calls))
            ends = np.cumsum([call.rows for call in calls])
            return list(np.split(scores, ends[:-1]))
        except (FlyweightError, ValueError):  # NumPy's, where shapes do not fit each other
            pass
    return [_outcome(ranker, call) for call in calls]


def _outcome(ranker: Ranker, call: Call) -> Outcome:
    try:
        return score_call(ranker, call)
    except FlyweightError as error:
        return error


def _joined(calls: Sequence[Call]) -> Call:
    """Return one call that holds several, their requests and candidates in their order."""
    first = calls[0]
    asked = {name: np.concatenate([call.asked[name] for call in calls]) for name in first.asked}
    offered = {name: np.concatenate([call.offered[name] for call in calls]) for name in first.offered}
    counts = [np.diff(call.offsets) if call.offsets is not None else [call.rows] for call in calls]
    offsets = np.concatenate([[0], np.cumsum(np.concatenate(counts))]).astype(np.int64)
    return Call(asked, offered, int(offsets[-1]), offsets, first.kind)
