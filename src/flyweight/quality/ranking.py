"""How well the right items are put at the top k: hit rate, recall and NDCG.

Two forms of input. Flat: scores and 0/1 targets of shape (rows,), groups (requests, users) of shape (rows,); a group
without a positive has nothing to find and is left out. Columns: scores (rows, columns) and the index of the right
column, (rows,). Rows of equal score are taken in every order, each equally likely, and the expected value is returned:
a model that scores all alike gets what chance gives, not more and not less.
"""

from dataclasses import dataclass
from math import comb

import numpy as np
from numpy.typing import ArrayLike

from flyweight.errors import InputError
from flyweight.quality.checks import Ints, check_binary, check_indices, check_scores, number_groups
from flyweight.quality.places import find_places
from flyweight.quality.tally import Tally, safe_divide, sum_by, tally_mean


@dataclass(frozen=True)
class Found:
    """Where the right items stand: an entry for each positive.

    Args:
        query: the query (request, row) of each positive, counted from 0, shape (positives,).
        above: items of the query that score higher, shape (positives,).
        tied: items of the query with the same score, itself included, shape (positives,).
        unit: the unit of each query that is resampled as a whole, shape (queries,).
    """

    query: Ints
    above: Ints
    tied: Ints
    unit: Ints


def hit_rate(scores: ArrayLike, targets: ArrayLike, groups: ArrayLike | None = None, *, k: int) -> float:
    """Return the share of queries with at least one right item among the first k.

    Raises:
        InputError: no rows, lengths differ, a score is NaN, flat scores without groups, or no group has a positive.

    Example:
        >>> hit_rate([[0.1, 0.7, 0.2], [0.5, 0.3, 0.4]], [1, 1], k=2)
        0.5
    """
    return tally_hit_rate(scores, targets, groups, k).value()


def recall_at(scores: ArrayLike, targets: ArrayLike, groups: ArrayLike | None = None, *, k: int) -> float:
    """Return the mean over queries of right items among the first k, divided by all right items of the query.

    Errors as `hit_rate`.

    Example:
        >>> recall_at([0.9, 0.5, 0.1, 0.4], [1, 0, 1, 1], [0, 0, 0, 0], k=2)
        0.3333333333333333
    """
    return tally_recall_at(scores, targets, groups, k).value()


def ndcg(scores: ArrayLike, targets: ArrayLike, groups: ArrayLike | None = None, *, k: int) -> float:
    """Return the mean over queries of DCG@k divided by the best DCG@k possible.

    `DCG@k = sum over right items at rank r <= k of 1 / log2(r + 1)` (Järvelin & Kekäläinen 2002, binary gain); ties
    averaged over their orders as in McSherry & Najork 2008, which is also scikit-learn's rule. Errors as `hit_rate`.

    Example:
        >>> round(ndcg([0.9, 0.5, 0.1, 0.4], [0, 1, 0, 0], [0, 0, 0, 0], k=3), 4)
        0.6309
    """
    return tally_ndcg(scores, targets, groups, k).value()


def tally_hit_rate(outputs: ArrayLike, targets: ArrayLike, groups: ArrayLike | None, k: int) -> Tally:
    """Return the tally of `hit_rate`."""
    found = find_positives(f"hit_rate@{k}", outputs, targets, groups)
    queries = len(found.unit)
    hits = np.zeros(queries)
    hits[found.query[found.above + found.tied <= k]] = 1.0
    # A block of ties that straddles place k: one minus the chance that its positives all fall behind k.
    open_ = (found.above < k) & (found.above + found.tied > k) & (hits[found.query] == 0)
    positives = np.bincount(found.query[open_], minlength=queries)
    for query, above, tied in set(zip(found.query[open_], found.above[open_], found.tied[open_], strict=True)):
        places, block = k - int(above), int(tied)
        hits[query] = 1 - comb(block - int(positives[query]), places) / comb(block, places)
    return tally_mean(hits, found.unit)


def tally_recall_at(outputs: ArrayLike, targets: ArrayLike, groups: ArrayLike | None, k: int) -> Tally:
    """Return the tally of `recall_at`."""
    found = find_positives(f"recall@{k}", outputs, targets, groups)
    inside = np.clip((k - found.above) / found.tied, 0.0, 1.0)
    return tally_mean(sum_by(found.query, inside) / np.bincount(found.query), found.unit)


def tally_ndcg(outputs: ArrayLike, targets: ArrayLike, groups: ArrayLike | None, k: int) -> Tally:
    """Return the tally of `ndcg`."""
    found = find_positives(f"ndcg@{k}", outputs, targets, groups)
    gained = np.concatenate([[0.0], np.cumsum(1 / np.log2(np.arange(k) + 2))])  # of the first 0..k places
    first, last = np.minimum(found.above, k), np.minimum(found.above + found.tied, k)
    gain = (gained[last] - gained[first]) / found.tied
    best = gained[np.minimum(np.bincount(found.query), k)]
    return tally_mean(safe_divide(sum_by(found.query, gain), best), found.unit)


def find_positives(name: str, outputs: ArrayLike, targets: ArrayLike, groups: ArrayLike | None) -> Found:
    """Return where the right items stand, from either form of input.

    Raises:
        InputError: as `hit_rate`.
    """
    if np.ndim(outputs) == 2:
        scores = check_scores(name, outputs, targets, infinite=True)
        index = check_indices(name, scores, targets)
        own = np.take_along_axis(scores, index[:, None], axis=1)  # (rows, 1)
        above, tied = (scores > own).sum(axis=1), (scores == own).sum(axis=1)
        return Found(np.arange(len(scores)), above, tied, number_groups(name, groups, len(scores)))
    values, positive = check_binary(name, outputs, targets, infinite=True)
    if groups is None:
        raise InputError(f"{name} on one score a row needs groups: the id that tells requests apart, Task(group=...).")
    group = number_groups(name, groups, len(values))
    if not positive.any():
        raise InputError(f"{name} needs a positive target; all {len(values):,} are 0. Take a larger split.")
    above, tied = find_places(-values, group)
    queries, query = np.unique(group[positive], return_inverse=True)
    return Found(query, above[positive], tied[positive], np.arange(len(queries)))
