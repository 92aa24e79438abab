"""Whole numbers of a few bits each, as bytes: bit after bit, so that plain operators can read them all at once."""

import torch
from torch import Tensor


def write_bits(numbers: Tensor, bits: int) -> Tensor:
    """Pack whole numbers below 2**bits, lowest bits first.

    Returns:
        (ceil(n * bits / 8),) uint8.

    Example:
        >>> write_bits(torch.tensor([1, 2, 3]), bits=3).tolist()
        [209, 0]
    """
    planes = (numbers.to(torch.int64)[:, None] >> torch.arange(bits)) & 1  # (n, bits)
    flat = planes.reshape(-1)
    padded = torch.cat([flat, flat.new_zeros(-len(flat) % 8)]).view(-1, 8)
    return (padded << torch.arange(8)).sum(1).to(torch.uint8)


def read_bits(packed: Tensor, bits: int, count: int) -> Tensor:
    """Return the first `count` numbers of what `write_bits` wrote, int64.

    Example:
        >>> read_bits(torch.tensor([209, 0], dtype=torch.uint8), bits=3, count=3).tolist()
        [1, 2, 3]
    """
    planes = (packed.to(torch.int64)[:, None] >> torch.arange(8)) & 1
    return (planes.reshape(-1)[: count * bits].view(count, bits) << torch.arange(bits)).sum(1)
