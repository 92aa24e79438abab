"""Warming a model up before it takes requests: its stored requests are scored, compared and timed.

An engine compiles, allocates and faults memory in on the first call of each form; no user should wait for that.
"""

import logging
import time
from dataclasses import dataclass
from statistics import median

import numpy as np

from flyweight.bundle.ranker import Ranker
from flyweight.bundle.shards.ranker import ShardedRanker
from flyweight.bundle.verify import agreements
from flyweight.errors import EngineError
from flyweight.serving.call import Call, Takes
from flyweight.serving.scoring import score_call, score_calls

logger = logging.getLogger("flyweight.serving")
#: Candidates in the requests that are timed, and how often.
CANDIDATES, REPEATS = 500, 15


@dataclass(frozen=True)
class Warmth:
    """What warming up showed.

    Args:
        candidates: in the requests timed.
        seconds: the median of one.
        agreed: how many stored requests gave the reference's scores.
    """

    candidates: int
    seconds: float
    agreed: int


def warm_up(ranker: Ranker, takes: Takes) -> Warmth:
    """Score stored requests, alone and joined, until the engine has met every form that it will be called in.

    Raises:
        EngineError: scores are not the reference's, or the engine fails.
    """
    found = agreements(ranker)
    bad = next((one for one in found if not one.ok), None)
    if bad is not None and isinstance(ranker, ShardedRanker) and ranker.degraded:
        away = "; ".join(f"shard {shard}: {why}" for shard, why in ranker.away.items()) or "a shard was away"
        logger.warning(
            "%s is served without a comparison with its stored scores, as their rows were stood in for (%s).",
            ranker.bundle.path,
            away,
        )
        found = []
    elif bad is not None:
        raise EngineError(f"{ranker.bundle.path}: scores of the stored requests are not the model's: {bad.words}.")
    rows = min(CANDIDATES, takes.most)
    call = sample_call(ranker, takes, rows)
    for size in sorted({1, min(64, rows), rows}):
        score_call(ranker, sample_call(ranker, takes, size))
    if call.kind is not None:
        for outcome in score_calls(ranker, [call, call]):
            if isinstance(outcome, Exception):
                raise EngineError(f"{ranker.bundle.path}: requests that are joined cannot be scored: {outcome}")
    return Warmth(rows, median(_seconds(ranker, call) for _ in range(REPEATS)), len(found))


def sample_call(ranker: Ranker, takes: Takes, rows: int) -> Call:
    """Return a stored request with as many candidates as asked for; of zeros where a bundle stores none."""
    inputs = ranker.manifest.inputs
    if ranker.bundle.samples:
        stored = dict(ranker.bundle.samples[0].inputs)
    else:
        stored = {
            name: np.zeros((1, *(1 if size is None else size for size in entry.shape)), entry.dtype)
            for name, entry in inputs.items()
        }
    offered = {name: np.resize(stored[name], (rows, *stored[name].shape[1:])) for name in takes.offered}
    asked = {name: stored[name][:1] for name in takes.asked}
    if takes.flat:  # flat inputs have lengths of their own
        asked, offered = ({name: stored[name] for name in side} for side in (takes.asked, takes.offered))
        return Call(asked, offered, 1, kind=None)
    return Call(asked, offered, rows if offered else 1)


def _seconds(ranker: Ranker, call: Call) -> float:
    started = time.perf_counter()
    score_call(ranker, call)
    return time.perf_counter() - started
