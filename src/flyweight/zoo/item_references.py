"""Simple rankers of all items that a retrieval model must beat: popularity, item-to-item, what was bought before.

Each gives scores (requests, items) from a history (requests, width) of item ids; 0 there means no item.
"""

import warnings

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Ints = NDArray[np.int64]


def item_counts(ids: Ints, items: int) -> Tensor:
    """Return (items,) how often each id occurs; 0, which is no item, counts as never.

    Example:
        >>> item_counts(np.array([3, 1, 3, 0]), items=4).tolist()
        [0.0, 1.0, 0.0, 2.0]
    """
    counts = torch.from_numpy(np.bincount(ids.reshape(-1), minlength=items)).float()
    counts[0] = 0.0
    return counts


def popularity_scores(counts: Tensor, history: Tensor) -> Tensor:
    """Return (requests, items): every request gets the same, the items' counts."""
    return counts.expand(len(history), -1)


def own_scores(counts: Tensor, history: Tensor) -> Tensor:
    """Return (requests, items) how often each item is in the history, by popularity where that is equal.

    The personal frequency of Li et al. 2023 (arXiv 2109.14233), the reference that next-basket models seldom beat.
    """
    own = torch.zeros(len(history), len(counts)).scatter_add_(1, history, torch.ones(history.shape))
    own[:, 0] = 0.0
    return own + counts / (1 + counts.max())


def item_cosines(group: Ints, item: Ints, items: int) -> Tensor:
    """Return the cosine of each two items over the groups (baskets, users) that hold them, sparse (items, items).

    `n_ij / sqrt(n_i n_j)`, n_ij groups with both (Sarwar et al. 2001, section 3.1.1). An item with itself has 1, so an
    item of the history is near the front: right where things are bought again; exclude the history elsewhere.

    Args:
        group, item: (pairs,), a pair for each item of a group.
        items: rows of the result, id 0 included; it is empty.

    Example: item 1 in 4 baskets, item 2 in 9, both in 3 of them: 3 / sqrt(4 * 9) = 0.5.
    """
    _, row = np.unique(group, return_inverse=True)
    places = torch.from_numpy(np.stack([row.reshape(-1), item])[:, item > 0])
    held = _sparse(torch.unique(places, dim=1), None, (int(row.max(initial=0)) + 1, items))
    both = _product(held.t(), held).coalesce()
    (first, second), count = both.indices(), both.values()
    alone = torch.bincount(held.indices()[1], minlength=items).float()
    return _sparse(both.indices(), count / (alone[first] * alone[second]).sqrt(), (items, items))


def next_shares(before: Ints, after: Ints, items: int) -> Tensor:
    """Return the share of each next item among those after an item, sparse (items, items), row the item after.

    A first-order Markov chain: `n(before -> after) / n(before)`.

    Example: after item 1 came 2, 2 and 3: column 1 holds 2 / 3 in row 2 and 1 / 3 in row 3.
    """
    pairs, count = torch.unique(torch.from_numpy(np.stack([after, before])), dim=1, return_counts=True)
    total = torch.bincount(pairs[1], weights=count.double(), minlength=items)
    return _sparse(pairs, (count / total[pairs[1]]).float(), (items, items))


def neighbour_scores(weights: Tensor, counts: Tensor, history: Tensor) -> Tensor:
    """Return (requests, items): the sum of an item's weights with those of the history, else by popularity.

    Args:
        weights: sparse (items, items), columns the items of the history: `item_cosines`, `next_shares`.
        counts: (items,), decide between items of equal weight, all that have none above all.
        history: (requests, width).
    """
    held = torch.zeros(len(weights), len(history))  # (items, requests)
    held.scatter_add_(0, history.T, torch.ones(history.T.shape))
    held[0] = 0.0
    return _product(weights, held).T + 1e-6 * counts / (1 + counts.max())


def _sparse(places: Tensor, values: Tensor | None, shape: tuple[int, int]) -> Tensor:
    """Return a sparse matrix of values (1 where None) at distinct places (2, values)."""
    values = torch.ones(places.shape[1]) if values is None else values
    return torch.sparse_coo_tensor(places, values, shape, check_invariants=False).coalesce()


def _product(left: Tensor, right: Tensor) -> Tensor:
    """Return the product with a sparse matrix on the left; PyTorch calls what it uses within a beta, once."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support")
        product: Tensor = torch.sparse.mm(left, right)
    return product
