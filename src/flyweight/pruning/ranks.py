"""How a matrix is split into two of low rank, and which rank each of several gets under one budget."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

#: The share of the damage of rank 0 below which numerical noise begins.
NOTHING = 1e-6


@dataclass(frozen=True, eq=False)
class Split:
    """A weight (out, in) decomposed.

    Args:
        left: (out, k), right: (k, in): their first r columns and rows are the pair of rank r.
        damage: mean squared error, weighted, that rank r leaves, r = 0 ... k, shape (k + 1,).
        vectors: how many vectors the layer takes for one row of the task.
    """

    left: Tensor
    right: Tensor
    damage: Tensor
    vectors: int

    def left_by(self, rank: int | None) -> float:
        """Return the damage at a rank, 0 for the whole weight; what is next to nothing beside rank 0 is nothing."""
        if rank is None:
            return 0.0
        return max(float(self.damage[rank]) - NOTHING * float(self.damage[0]), 0.0)

    @property
    def full(self) -> int:
        """Multiply-accumulates of one row, as the layer was."""
        return self.vectors * self.left.shape[0] * self.right.shape[1]

    def cost(self, rank: int) -> int:
        """Multiply-accumulates of one row at a rank."""
        return self.vectors * rank * (self.left.shape[0] + self.right.shape[1])

    def halves(self, rank: int) -> tuple[Tensor, Tensor]:
        """Return the weights of the first (rank, in) and the second layer (out, rank)."""
        return self.right[:rank].contiguous(), self.left[:, :rank].contiguous()


def split_weight(weight: Tensor, moments: Tensor, felt: Tensor, vectors: int = 1, ridge: float = 1e-4) -> Split:
    """Return a weight decomposed so that every rank has the least weighted error on the inputs seen.

    With `D = diag(sqrt(felt))` and `L L' = moments`, the first r terms of the singular value decomposition of `D W L`
    are the nearest matrix of rank r (Eckart and Young 1936), and `|D (W - W_r) L|^2` is the mean over inputs of
    the squared error of the outputs, each weighted by `felt`.

    Args:
        weight: (out, in).
        moments: mean of `x x'` over the layer's inputs, (in, in).
        felt: how much each output counts, (out,); all 0 counts all alike.
        vectors: for one row of the task.
        ridge: added to the diagonals, relative to their means.

    Example:
        >>> split = split_weight(torch.diag(torch.tensor([3.0, 2.0, 1.0])), torch.eye(3), torch.ones(3), ridge=0.0)
        >>> [round(float(damage), 4) for damage in split.damage]
        [14.0, 5.0, 1.0, 0.0]
    """
    wide = len(moments)
    mean = float(moments.diag().mean()) or 1.0
    root = torch.linalg.cholesky(moments.double() + (ridge * mean + 1e-12) * torch.eye(wide, dtype=torch.float64))
    counts = felt.double() if float(felt.sum()) > 0 else torch.ones_like(felt, dtype=torch.float64)
    scale = (counts + ridge * counts.mean()).sqrt()
    left, sizes, right = torch.linalg.svd(scale[:, None] * weight.double() @ root, full_matrices=False)
    tail = torch.cat([sizes.square().flip(0).cumsum(0).flip(0), torch.zeros(1, dtype=torch.float64)])
    inner = torch.linalg.solve_triangular(root, right, upper=False, left=False)
    share = sizes.sqrt()  # each half takes as much of the size, so that both learn alike
    return Split(
        (left * share / scale[:, None]).to(weight.dtype), (share[:, None] * inner).to(weight.dtype), tail, vectors
    )


def choose_ranks(splits: Mapping[str, Split], budget: int, multiple: int = 1) -> dict[str, int | None] | None:
    """Return the rank of each weight, None where it stays whole, of the least damage found under a budget.

    Every weight takes what is best at a price per multiply-accumulate; the price is found by bisection, and what it
    leaves of the budget goes where it mends most for what it costs.

    Args:
        budget: multiply-accumulates of one row for all of them together.
        multiple: ranks are multiples of this.

    Returns None where even the lowest ranks are too many.

    Example:
        >>> even = split_weight(torch.eye(8), torch.eye(8), torch.ones(8))
        >>> choose_ranks({"a": even}, budget=40, multiple=2)
        {'a': 2}
    """
    high, low = 1.0, 0.0
    total = sum(float(split.damage[0]) for split in splits.values())
    best = _at(splits, total * high, multiple)
    for _ in range(60):
        if _cost(splits, best) <= budget:
            break
        high *= 4
        best = _at(splits, total * high, multiple)
    if _cost(splits, best) > budget:
        return None
    for _ in range(80):
        middle = (low + high) / 2
        found = _at(splits, total * middle, multiple)
        if _cost(splits, found) <= budget:
            best, high = found, middle
        else:
            low = middle
    return _spent(splits, best, budget, multiple)


def _at(splits: Mapping[str, Split], price: float, multiple: int) -> dict[str, int | None]:
    return {name: _rank(split, price, multiple) for name, split in splits.items()}


def _rank(split: Split, price: float, multiple: int) -> int | None:
    """Return the rank of the least damage plus price, None for the whole weight."""
    most = len(split.damage) - 1
    offers: list[tuple[float, int | None]] = [(price * split.full, None)]
    offers += [
        (split.left_by(rank) + price * split.cost(rank), rank)
        for rank in range(min(multiple, most), most + 1, multiple)
        if split.cost(rank) < split.full
    ]
    return min(offers, key=lambda offer: offer[0])[1]


def _spent(
    splits: Mapping[str, Split], ranks: dict[str, int | None], budget: int, multiple: int
) -> dict[str, int | None]:
    """Raise one rank after the other while the budget lasts and something is mended."""
    ranks, left = dict(ranks), budget - _cost(splits, ranks)
    while True:
        offers: list[tuple[float, str, int | None, int]] = []
        for name, split in splits.items():
            rank = ranks[name]
            if rank is None:
                continue
            now = split.cost(rank)
            for more in (rank + multiple, None):
                price = (split.full if more is None else split.cost(more)) - now
                known = more is None or more < len(split.damage)
                if known and 0 < price <= left and split.left_by(more) < split.left_by(rank):
                    offers.append(((split.left_by(rank) - split.left_by(more)) / price, name, more, price))
        if not offers:
            return ranks
        _, name, chosen, price = max(offers, key=lambda offer: offer[0])
        ranks[name], left = chosen, left - price


def _cost(splits: Mapping[str, Split], ranks: Mapping[str, int | None]) -> int:
    return sum(split.full if (rank := ranks[name]) is None else split.cost(rank) for name, split in splits.items())
