"""The k best of many items for each request, by looking at every one of them: one matrix product, block by block."""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from flyweight.errors import InputError

Vectors = NDArray[np.float32]
#: Scores held at once: 64 MB of float32.
_SCORES_AT_ONCE = 1 << 24


@dataclass(frozen=True, eq=False)
class Found:
    """The best items of each request, the best first.

    Args:
        rows: (requests, k), int64, places in the order in which the items were given; -1 where nothing was found.
        scores: (requests, k), float32, falling; -inf where nothing was found.
    """

    rows: NDArray[np.int64]
    scores: Vectors


class Index(Protocol):
    """Vectors of items that can be searched by dot product."""

    @property
    def items(self) -> int:
        """How many."""
        ...

    def search(self, requests: Vectors, k: int) -> Found:
        """Return the k items with the largest dot products, for requests (requests, dim)."""
        ...


class ExactIndex:
    """Looks at every item; of equal scores the item that comes first is the better one.

    Args:
        vectors: (items, dim), float32.
        block: items whose scores are worked out together; it bounds the memory and changes nothing else.

    Raises:
        InputError: no items, vectors that are no matrix of finite numbers, or a block below one.

    Example:
        >>> index = ExactIndex(np.eye(3, dtype=np.float32))
        >>> index.search(np.array([[0.1, 0.9, 0.5]], dtype=np.float32), k=2).rows.tolist()
        [[1, 2]]
    """

    def __init__(self, vectors: Vectors, block: int = 65_536) -> None:
        if block < 1:
            raise InputError(f"block is how many items are scored together, at least 1; seen {block}.")
        self._vectors, self._block = check_vectors(vectors, "item"), block

    @property
    def items(self) -> int:
        """How many."""
        return len(self._vectors)

    def search(self, requests: Vectors, k: int) -> Found:
        """Return the k items with the largest dot products, for requests (requests, dim).

        Raises:
            InputError: k is below one or above the number of items, or requests do not fit the vectors.
        """
        requests = check_search(requests, k, self._vectors.shape)
        step = max(1, _SCORES_AT_ONCE // min(self._block, self.items))
        parts = [self._search_some(requests[start : start + step], k) for start in range(0, len(requests), step)]
        return Found(*(np.concatenate(part) for part in zip(*parts, strict=True)))

    def _search_some(self, requests: Vectors, k: int) -> tuple[NDArray[np.int64], Vectors]:
        rows = np.empty((len(requests), 0), dtype=np.int64)
        scores = np.empty((len(requests), 0), dtype=np.float32)
        for start in range(0, self.items, self._block):
            of_block = requests @ self._vectors[start : start + self._block].T  # (requests, block)
            best = best_columns(of_block, min(k, of_block.shape[1]))
            rows = np.concatenate([rows, best + start], axis=1)
            scores = np.concatenate([scores, np.take_along_axis(of_block, best, axis=1)], axis=1)
            kept = best_columns(scores, min(k, scores.shape[1]))  # earlier blocks stand first, so ties stay in order
            rows, scores = np.take_along_axis(rows, kept, axis=1), np.take_along_axis(scores, kept, axis=1)
        return rows, scores


def best_columns(scores: NDArray[Any], k: int) -> NDArray[np.int64]:
    """Return (rows, k) the columns of the k largest scores of each row, the largest first, ties by column.

    No full sort: the k-th largest is selected, and only what reaches it is sorted.

    Example:
        >>> best_columns(np.array([[1.0, 3.0, 2.0, 3.0]]), 3).tolist()
        [[1, 3, 2]]
    """
    found = np.empty((len(scores), k), dtype=np.int64)
    for row, values in enumerate(scores):
        floor = np.partition(values, len(values) - k)[len(values) - k]
        reached = np.flatnonzero(values >= floor)  # more than k where several equal the k-th
        found[row] = reached[np.argsort(-values[reached], kind="stable")[:k]]
    return found


def check_vectors(vectors: Vectors, what: str) -> Vectors:
    """Return vectors (rows, dim) as contiguous float32.

    Raises:
        InputError: not a matrix, empty, or not finite; names the first bad row.
    """
    if vectors.ndim != 2 or 0 in vectors.shape:
        raise InputError(
            f"The {what} vectors must be a matrix ({what}s, dim) with at least one row and column; "
            f"seen shape {vectors.shape}."
        )
    vectors = np.ascontiguousarray(vectors, dtype=np.float32)
    bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if len(bad):
        raise InputError(
            f"{len(bad):,} of {len(vectors):,} {what} vectors hold NaN or infinity, the first is row {bad[0]}; "
            "a dot product with them has no order. Look for exploded weights or unknown inputs."
        )
    return vectors


def check_search(requests: Vectors, k: int, shape: tuple[int, ...]) -> Vectors:
    """Return requests (requests, dim) as contiguous float32 that fit items of a shape (items, dim).

    Raises:
        InputError: k is out of range, or the requests are empty, not finite, or of another width.
    """
    items, dim = shape
    if not 1 <= k <= items:
        raise InputError(f"k={k} items were asked for, but the index holds {items:,}; ask for 1 to {items:,}.")
    requests = check_vectors(requests, "request")
    if requests.shape[1] != dim:
        raise InputError(
            f"Request vectors are {requests.shape[1]} wide but item vectors {dim}; both towers must end alike."
        )
    return requests
