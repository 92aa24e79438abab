"""Whether the numbers of a weight are all finite, block by block: a table in a file is never held whole for it."""

from collections.abc import Iterator

import torch
from torch import Tensor

#: Numbers that are looked at together.
BLOCK = 1 << 20


def count_not_finite(weight: Tensor) -> int:
    """Return how many numbers are NaN or infinite, 0 where the weight holds whole numbers.

    Example:
        >>> count_not_finite(torch.tensor([1.0, float("nan"), float("inf")]))
        2
    """
    if not weight.is_floating_point():
        return 0
    bad = 0
    for block in _blocks(weight.detach()):
        # One pass at the memory's speed; a sum that overflows is looked at number by number too.
        if not bool(block.sum(dtype=torch.float32).isfinite()):
            bad += int((~block.isfinite()).sum())
    return bad


def _blocks(weight: Tensor) -> Iterator[Tensor]:
    """Yield views of a weight of any shape, about BLOCK numbers each."""
    if weight.ndim == 0 or not weight.numel():
        yield weight
        return
    rows = max(1, BLOCK * len(weight) // weight.numel())
    yield from (weight[start : start + rows] for start in range(0, len(weight), rows))
