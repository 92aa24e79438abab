"""How far the scores that are served lie from those a bundle was certified with.

The reference are the scores of the bundle's stored requests, which the unchanged model gave. They are cut into bins of
equal count, served scores are counted in the same bins, and the two are compared by the population stability index,
`sum (p_i - q_i) ln(p_i / q_i)`. By custom below 0.1 is no shift and above 0.25 a large one. A bundle stores few
scores, so the index has a floor of noise, which is told with it.

Source: Yurdakul and Naranjo, Statistical properties of the population stability index, Journal of Risk Model
Validation 14(4), 2020: without a shift its mean is (bins - 1) (1/n + 1/m).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flyweight.bundle.samples import Sample

#: Bins, and how many stored scores each should have.
BINS, SCORES_A_BIN = 10, 15
#: Scores of one request that are looked at, spread evenly over its candidates.
MOST = 64
#: Added to each bin, so that an empty one is not infinitely far away.
_SMOOTHING = 0.5


@dataclass(frozen=True)
class Reference:
    """The stored scores.

    Args:
        edges: (bins - 1,) between bins.
        counts: (bins,) of stored scores in each.
        mean: of the stored scores.
    """

    edges: NDArray[np.float64]
    counts: NDArray[np.int64]
    mean: float


def reference_of(samples: Sequence[Sample]) -> Reference | None:
    """Return the reference, None where there are too few scores for two bins, or several columns of them."""
    if not samples or any(sample.scores.ndim != 1 for sample in samples):
        return None
    scores = np.concatenate([np.asarray(sample.scores, dtype=np.float64) for sample in samples])
    bins = min(BINS, len(scores) // SCORES_A_BIN)
    if bins < 2:
        return None
    edges = np.unique(np.quantile(scores, np.arange(1, bins) / bins))
    return Reference(edges, count_scores(edges, scores), float(scores.mean()))


def count_scores(edges: NDArray[np.float64], scores: NDArray[np.floating]) -> NDArray[np.int64]:
    """Return how many scores fall into each bin."""
    return np.bincount(edges.searchsorted(scores), minlength=len(edges) + 1)


def stability_index(reference: Sequence[int], served: Sequence[int]) -> float:
    """Return the population stability index of two counts of the same bins; NaN where one holds nothing.

    Example:
        >>> round(stability_index([50, 50], [50, 50]), 3), round(stability_index([500, 500], [900, 100]), 2)
        (0.0, 0.88)
    """
    if not sum(reference) or not sum(served):
        return float("nan")
    p, q = (np.asarray(counts, dtype=float) + _SMOOTHING for counts in (served, reference))
    p, q = p / p.sum(), q / q.sum()
    return float(((p - q) * np.log(p / q)).sum())


def noise_of(reference: Sequence[int], served: Sequence[int]) -> float:
    """Return the index that is to be expected where nothing has shifted; NaN where one holds nothing."""
    n, m = sum(reference), sum(served)
    return (len(reference) - 1) * (1 / n + 1 / m) if n and m else float("nan")
