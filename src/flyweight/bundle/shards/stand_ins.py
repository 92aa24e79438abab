"""What stands in for a row whose shard is away: the mean row of its table, or the codes that most of its rows have."""

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Counts = NDArray[np.int64]
_CHUNK = 1 << 20  # numbers looked at together


def stand_ins_of(
    rows: Array,
    edges: Sequence[int],
    counts: Counts | None,
    *,
    numbers: bool,
    codewords: Array | None = None,
) -> NDArray[Any]:
    """Return a stand-in (edges, *row) for each part of a table, of its own dtype.

    Args:
        rows: (rows, *row).
        edges: where parts begin, the first at 0.
        counts: (rows,) how often each row is asked for; None counts each once, and so does a part nobody asked for.
        numbers: whether rows are numbers, of which the mean is taken; of codes it is the one whose codeword is nearest
            to the mean of the rows' codewords, or, without codewords, the commonest value, place by place.
        codewords: (codes, dim) what each code stands for, where a row is one code.

    Example:
        >>> stand_ins_of(np.array([[1.0], [4.0]]), [0], np.array([2, 1]), numbers=True)
        array([[2.]])
    """
    parts = list(pairwise([*edges, len(rows)]))
    found = []
    for start, stop in parts:
        weights = _weights(counts, start, stop)
        if numbers:
            found.append(_mean(rows, start, stop, weights))
            continue
        tallies = _tallies(rows, start, stop, weights)
        pick = _commonest if codewords is None else partial(_nearest_to_mean, codewords=codewords)
        found.append(np.array([pick(one) for one in tallies], rows.dtype).reshape(rows.shape[1:]))
    return np.stack(found)


def _weights(counts: Counts | None, start: int, stop: int) -> Counts | None:
    own = None if counts is None else counts[start:stop]
    return own if own is not None and own.any() else None


def _chunks(rows: Array, start: int, stop: int, weights: Counts | None) -> Iterator[tuple[Array, Array]]:
    step = max(1, _CHUNK // max(1, int(np.prod(rows.shape[1:]))))
    for begin in range(start, stop, step):
        end = min(stop, begin + step)
        chunk = np.asarray(rows[begin:end])
        yield chunk, np.ones(len(chunk)) if weights is None else weights[begin - start : end - start].astype(float)


def _mean(rows: Array, start: int, stop: int, weights: Counts | None) -> Array:
    total, count = np.zeros(rows.shape[1:]), 0.0
    for chunk, weight in _chunks(rows, start, stop, weights):
        total = total + np.tensordot(weight, chunk.astype(np.float64), 1)
        count += weight.sum()
    mean = np.nan_to_num(total / count, nan=0.0, posinf=0.0, neginf=0.0)
    return np.asarray(mean if rows.dtype.kind == "f" else np.rint(mean)).astype(rows.dtype)


def _tallies(rows: Array, start: int, stop: int, weights: Counts | None) -> list[dict[int, float]]:
    """Return how often each value stands at each place of a row."""
    width = int(np.prod(rows.shape[1:]))
    seen: list[dict[int, float]] = [{} for _ in range(width)]
    for chunk, weight in _chunks(rows, start, stop, weights):
        for column, tally in zip(chunk.reshape(len(chunk), width).T, seen, strict=True):
            values, place = np.unique(column, return_inverse=True)
            for value, times in zip(values.tolist(), np.bincount(place, weight).tolist(), strict=True):
                tally[value] = tally.get(value, 0.0) + times
    return seen


def _commonest(tally: dict[int, float]) -> int:
    return min(tally, key=lambda value: (-tally[value], value))


def _nearest_to_mean(tally: dict[int, float], codewords: Array) -> int:
    codes = np.array(sorted(tally))
    weights = np.array([tally[code] for code in codes.tolist()])
    words = codewords[codes].reshape(len(codes), -1).astype(np.float64)
    mean = weights @ words / weights.sum()
    return int(codes[np.square(words - mean).sum(1).argmin()])
