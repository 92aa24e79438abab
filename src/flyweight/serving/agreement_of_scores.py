"""How far the scores of two versions are from each other, and their orders: formulas, in NumPy alone."""

import itertools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
#: Requests of one call whose orders are compared; the others' scores still are.
REQUESTS = 32


@dataclass(frozen=True)
class Difference:
    """How a shadow's scores of one call differ from those that answered.

    Args:
        shift: mean of the shadow's score less the answered one, in the scores' own unit.
        mean, largest: of the absolute differences.
        taus: Kendall's tau-b of each request in which the scores are not all equal.
        overlaps: the share of each request's best candidates that both name.
    """

    shift: float
    mean: float
    largest: float
    taus: tuple[float, ...] = ()
    overlaps: tuple[float, ...] = ()


def compare_scores(answered: Array, shadow: Array, offsets: Array | None, top: int, *, ranks: bool) -> Difference:
    """Return how two versions' scores of one call, (N,) or (N, columns), differ.

    Args:
        offsets: where each request's candidates begin, (R + 1,); None for one request.
        top: how many of the best candidates are compared as a set.
        ranks: whether the scores of a request are an order of candidates.

    Raises:
        ValueError: the shapes differ, or a score is not finite.
    """
    if answered.shape != shadow.shape:
        raise ValueError(f"the shadow's scores have shape {shadow.shape}, the answered ones {answered.shape}")
    apart = shadow.astype(np.float64) - answered
    if not np.isfinite(apart).all():
        raise ValueError(f"{int((~np.isfinite(apart)).sum()):,} of {apart.size:,} differences are not finite")
    size = np.abs(apart)
    difference = (float(apart.mean()), float(size.mean()), float(size.max()))
    if not ranks or answered.ndim != 1:
        return Difference(*difference)
    ends = np.array([0, len(answered)]) if offsets is None else offsets[: REQUESTS + 1]
    pairs = [
        (answered[start:end], shadow[start:end]) for start, end in itertools.pairwise(ends.tolist()) if end > start
    ]
    taus = (kendall_tau(*pair) for pair in pairs)
    overlaps = tuple(top_overlap(*pair, top) for pair in pairs)
    return Difference(*difference, tuple(tau for tau in taus if not math.isnan(tau)), overlaps)


def kendall_tau(x: Array, y: Array) -> float:
    """Return Kendall's tau-b of two rankings, (n,) each; NaN where one has no two different values.

    Source: Knight, "A Computer Method for Calculating Kendall's Tau with Ungrouped Data", JASA 1966; ties as in
    Kendall, "The Treatment of Ties in Ranking Problems", 1945. O(n log n).

    Example:
        >>> kendall_tau(np.array([1, 2, 3]), np.array([1, 3, 2]))
        0.3333333333333333
    """
    rank_x, rank_y = (np.unique(values, return_inverse=True)[1] for values in (x, y))
    n = len(rank_x)
    pairs = n * (n - 1) // 2
    tied_x, tied_y = _tied(rank_x), _tied(rank_y)
    tied_both = _tied(rank_x.astype(np.int64) * n + rank_y)
    if pairs in (tied_x, tied_y):
        return math.nan
    discordant = count_inversions(rank_y[np.lexsort((rank_y, rank_x))])
    agreed = pairs - tied_x - tied_y + tied_both - 2 * discordant
    return agreed / math.sqrt(pairs - tied_x) / math.sqrt(pairs - tied_y)


def count_inversions(ranks: Array) -> int:
    """Return how many pairs of whole numbers stand in falling order.

    Two numbers differ first in one bit; sorted stably by the bits above it, each such pair shows as a one before a
    zero. The log2(n) rounds are NumPy's own loops, which a merge sort of single steps would not be.

    Example:
        >>> count_inversions(np.array([2, 0, 1]))
        2
    """
    found = 0
    for bit in range(int(ranks.max(initial=0)).bit_length()):
        group = ranks >> (bit + 1)
        order = np.argsort(group, kind="stable")
        ones = (ranks[order] >> bit) & 1
        before = np.cumsum(ones) - ones
        starts = np.flatnonzero(np.diff(group[order], prepend=-1))
        lengths = np.diff(starts, append=len(ranks))
        before -= np.repeat(before[starts], lengths)
        found += int(before[ones == 0].sum())
    return found


def top_overlap(x: Array, y: Array, top: int) -> float:
    """Return which share of the `top` best of x is among those of y; of equal scores the first counts as better.

    Example:
        >>> top_overlap(np.array([3.0, 2, 1]), np.array([3.0, 1, 2]), 2)
        0.5
    """
    top = min(top, len(x))
    best = [set(np.argsort(-scores, kind="stable")[:top].tolist()) for scores in (x, y)]
    return len(best[0] & best[1]) / top


def _tied(ranks: Array) -> int:
    """Return how many pairs are equal."""
    counts = np.unique(ranks, return_counts=True)[1].astype(np.int64)
    return int((counts * (counts - 1) // 2).sum())
