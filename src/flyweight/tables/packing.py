"""Codes of 1 to 8 bits packed into bytes, row after row, and read back for the rows asked for."""

import torch
from torch import Tensor


def packed_bytes(codes: int, bits: int) -> int:
    """Return how many bytes `codes` codes of `bits` bits take.

    Example:
        >>> packed_bytes(5, bits=4)
        3
    """
    return -(-codes * bits // 8)


def pack(codes: Tensor, bits: int) -> Tensor:
    """Pack codes into bytes, lowest bits first: two 4-bit codes a byte, the first in the low half.

    Args:
        codes: (n,) uint8, each below 2**bits.
        bits: 1 to 8. Codes of 3, 5, 6 or 7 bits run over the edge of a byte.

    Returns:
        (packed_bytes(n, bits),) uint8.

    Example:
        >>> pack(torch.tensor([1, 2, 3], dtype=torch.uint8), bits=4).tolist()
        [33, 3]
    """
    per_group = 8 if 8 % bits else 8 // bits  # codes in the smallest run of whole bytes
    group_bytes = per_group * bits // 8
    groups = -(-len(codes) // per_group)
    padded = torch.zeros(groups * per_group, dtype=torch.uint8)
    padded[: len(codes)] = codes
    words = torch.zeros(groups, dtype=torch.int64)
    for place, column in enumerate(padded.view(groups, per_group).unbind(1)):
        words |= column.to(torch.int64) << (place * bits)
    columns = [((words >> (8 * byte)) & 255).to(torch.uint8) for byte in range(group_bytes)]
    return torch.stack(columns, 1).reshape(-1)[: packed_bytes(len(codes), bits)].clone()


def unpack(packed: Tensor, positions: Tensor, bits: int) -> Tensor:
    """Return the codes at the given positions, touching only their bytes.

    Args:
        packed: (bytes,) uint8 from `pack`.
        positions: whole numbers of any shape, the place of each code.
        bits: 1 to 8.

    Returns:
        int64 codes of the shape of `positions`.

    Example:
        >>> unpack(torch.tensor([33, 3], dtype=torch.uint8), torch.tensor([2, 0]), bits=4).tolist()
        [3, 1]
    """
    start = positions * bits
    byte = start >> 3
    word = packed[byte].to(torch.int64)
    if 8 % bits:
        follower = torch.clamp(byte + 1, max=len(packed) - 1)
        word |= packed[follower].to(torch.int64) << 8
    return (word >> (start & 7)) & ((1 << bits) - 1)
