"""The bytes of a tensor, for checksums."""

import torch
from torch import Tensor


def bytes_of(values: Tensor) -> bytes:
    """Return the bytes of a tensor, in the order of its entries."""
    return values.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
