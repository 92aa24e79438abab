"""How good a list of retrieved items is, request by request: recall and NDCG against all that was relevant."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flyweight.errors import InputError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Quality:
    """Recall and NDCG of each request, (requests,)."""

    recall: Floats
    ndcg: Floats


def judge(found: Ints, relevant: Ints) -> Quality:
    """Return recall and NDCG of each request's k items.

    Recall is the share of the relevant items that are among the k; NDCG the sum of `1 / log2(1 + place)` over hits,
    over what it would be with all hits in front (Jarvelin and Kekalainen 2002, with gains of 0 and 1). With one
    relevant item, recall is the hit rate.

    Args:
        found: (requests, k) ids, the best first, none twice.
        relevant: (requests, width) ids, -1 where there are fewer.

    Raises:
        InputError: the requests differ in number, or one has nothing relevant; names it.

    Example:
        >>> one = judge(np.array([[5, 2, 9]]), np.array([[2, 7]]))
        >>> one.recall.round(3).tolist(), one.ndcg.round(3).tolist()
        ([0.5], [0.387])
    """
    if len(found) != len(relevant):
        raise InputError(f"There are {len(found)} lists of items for {len(relevant)} requests; give one for each.")
    wanted = np.count_nonzero(relevant >= 0, axis=1)
    if not wanted.all():
        raise InputError(f"Request {int(np.argmin(wanted))} has no relevant item; leave such requests out.")
    hits = np.stack([np.isin(own, good[good >= 0]) for own, good in zip(found, relevant, strict=True)])
    gain = 1 / np.log2(2 + np.arange(found.shape[1]))
    best = np.concatenate([[0.0], np.cumsum(gain)])
    return Quality(hits.sum(1) / wanted, (hits * gain).sum(1) / best[np.minimum(wanted, found.shape[1])])
