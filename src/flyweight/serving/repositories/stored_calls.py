"""A bundle's stored requests as the calls that a server gets."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flyweight.bundle.samples import Sample
from flyweight.errors import EngineError
from flyweight.serving.repositories.asked_tensors import Signature

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class StoredCall:
    """One call.

    Args:
        inputs: as the server is sent them.
        rows: which rows of the stored sample they are.
        scores: the reference model's, in the answer's dtype.
    """

    inputs: Mapping[str, NDArray[Any]]
    rows: Sequence[int]
    scores: NDArray[Any]


def calls_of(sample: Sample, signature: Signature) -> list[StoredCall]:
    """Return a stored sample cut into calls, one for each request in it; a flat batch stays one."""
    scores = sample.scores.astype(signature.output.dtype)
    if len(signature.output.shape) == 1:
        scores = scores.reshape(-1)
    everything: Sequence[int] = range(len(scores))
    if not signature.per_call:
        return [StoredCall(_inputs(sample, signature, None), everything, scores)]
    of_request: dict[tuple[bytes, ...], list[int]] = {}
    for row in everything:
        key = tuple(sample.inputs[name][row].tobytes() for name in signature.per_call)
        of_request.setdefault(key, []).append(row)
    return [StoredCall(_inputs(sample, signature, rows), rows, scores[rows]) for rows in of_request.values()]


def score_sample(sample: Sample, signature: Signature, run: Callable[[Arrays], NDArray[Any]]) -> NDArray[Any]:
    """Return the scores of a stored sample's rows, each request scored in a call of its own.

    Raises:
        EngineError: an answer has not one score for each candidate.
    """
    calls = calls_of(sample, signature)
    scores = np.empty((len(sample.scores), *np.shape(calls[0].scores)[1:]), signature.output.dtype)
    for call in calls:
        answer = run(dict(call.inputs))
        if answer.shape != call.scores.shape:
            raise EngineError(
                f"A stored request of {len(call.rows):,} candidates got scores of shape {answer.shape}, "
                f"{call.scores.shape} are due; the model does not score rows one by one, so it cannot be served."
            )
        scores[call.rows] = answer
    return scores


def _inputs(sample: Sample, signature: Signature, rows: Sequence[int] | None) -> Arrays:
    """Return the inputs of some rows; all, with the lengths that they have, for None."""
    made = {}
    for tensor in signature.inputs:
        array = sample.inputs[tensor.name]
        if rows is not None:
            array = array[rows[:1] if tensor.name in signature.per_call else rows]
        made[tensor.name] = np.ascontiguousarray(array, dtype=tensor.dtype)
    return made
