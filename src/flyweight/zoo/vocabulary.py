"""Ids for the values of a field: 0 for the unknown, then the known ones from the most to the least frequent.

The order is not cosmetic: with hot rows first, a frequency band of a table is a range of ids, and a coding can treat
hot and rare rows differently without a map.
"""

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
UNKNOWN = 0


def frequency_ids(codes: Ints, train: NDArray[np.bool_]) -> tuple[NDArray[np.int32], int]:
    """Return (ids, rows of the vocabulary): the values seen in training get 1, 2, ... by falling count.

    Args:
        codes: (rows,) whole numbers >= 0 that order like the values; ties in count go to the smaller.
        train: (rows,) which rows the vocabulary may see. Values seen elsewhere only get id 0.

    Example:
        >>> ids, rows = frequency_ids(np.array([7, 7, 3, 9]), np.array([True, True, True, False]))
        >>> ids.tolist(), rows
        ([1, 1, 2, 0], 3)
    """
    counts = np.bincount(codes[train], minlength=int(codes.max()) + 1)
    by_count = np.argsort(-counts, kind="stable")
    known = by_count[: int(np.count_nonzero(counts))]
    ids = np.full(len(counts), UNKNOWN, dtype=np.int32)
    ids[known] = np.arange(1, len(known) + 1, dtype=np.int32)
    return ids[codes], len(known) + 1


def crossed(first: Ints, second: Ints) -> Ints:
    """Return codes (rows,) of the pairs of two fields, 0 to pairs - 1, ordering like (first, second)."""
    pairs = first * (int(second.max()) + 1) + second
    return dense_ranks(pairs)


def dense_ranks(values: NDArray[np.int64]) -> Ints:
    """Return (rows,) ranks 0, 1, ... of the distinct values."""
    return np.asarray(np.unique(values, return_inverse=True)[1].reshape(-1), dtype=np.int64)
