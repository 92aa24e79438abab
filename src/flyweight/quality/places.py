"""Where each row stands among the rows of its group when they are sorted by score, ties counted fairly."""

import numpy as np

from flyweight.quality.checks import Floats, Ints


def find_places(scores: Floats, groups: Ints | None = None) -> tuple[Ints, Ints]:
    """Return `(below, tied)`: rows of the same group with a lower score, and with the same score, itself included.

    Both have shape (rows,); without groups all rows are one group. O(n log n).

    Example:
        >>> [counts.tolist() for counts in find_places(np.array([0.3, 0.1, 0.3]))]
        [[1, 0, 1], [2, 1, 2]]
    """
    rows = len(scores)
    order = np.argsort(scores, kind="stable") if groups is None else np.lexsort((scores, groups))
    ranked = scores[order]
    new_group = np.zeros(rows, dtype=bool)
    new_group[0] = True
    if groups is not None:
        new_group[1:] = groups[order][1:] != groups[order][:-1]
    new_block = new_group.copy()
    new_block[1:] |= ranked[1:] != ranked[:-1]
    first = np.flatnonzero(new_block)
    size = np.diff(np.append(first, rows))
    group_start = np.maximum.accumulate(np.where(new_group, np.arange(rows), 0))
    below = np.empty(rows, dtype=np.int64)
    tied = np.empty(rows, dtype=np.int64)
    below[order] = np.repeat(first - group_start[first], size)
    tied[order] = np.repeat(size, size)
    return below, tied


def mid_ranks(scores: Floats, groups: Ints | None = None) -> Floats:
    """Return each row's rank from the lowest score, counted from 1, equal scores sharing the mean of their ranks.

    Example:
        >>> mid_ranks(np.array([0.3, 0.1, 0.3])).tolist()
        [2.5, 1.0, 2.5]
    """
    below, tied = find_places(scores, groups)
    return np.asarray(below + (tied + 1) / 2, dtype=np.float64)


def same_order(before: Floats, after: Floats) -> bool:
    """Return whether two sets of scores put all rows in the same order, ties included."""
    if before.shape != after.shape:
        return False
    order = np.argsort(before, axis=None, kind="stable")
    first, second = before.ravel()[order], after.ravel()[order]
    return bool(np.array_equal(np.sign(first[1:] - first[:-1]), np.sign(second[1:] - second[:-1])))
