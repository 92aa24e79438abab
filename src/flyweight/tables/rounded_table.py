"""A table kept row by row, in another precision: what small tables become, and the exact stand-in for trials."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class RoundedTable(nn.Module):
    """Rows as they are, stored in the dtype of `values` and returned in `dtype`.

    Args:
        values: (rows, dim).
        dtype: what lookups return.
    """

    def __init__(self, values: Tensor, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.rows, self.dim = values.shape
        self.dtype = dtype
        self.values = nn.Parameter(values, requires_grad=False)

    def forward(self, ids: Tensor) -> Tensor:
        """Return the rows of `ids`, any shape of whole numbers in [0, rows), as (*ids.shape, dim)."""
        return F.embedding(ids, self.values).to(self.dtype)

    def times(self, factor: float) -> "RoundedTable | None":
        """Return a table with rows so many times as large; None where half precision would round them."""
        values = exact_product(self.values, factor)
        return None if values is None else RoundedTable(values, self.dtype)

    def bytes(self) -> int:
        """Return the bytes stored."""
        return self.values.numel() * self.values.element_size()


def exact_product(values: Tensor, factor: float) -> Tensor | None:
    """Return values times a factor in their own format; None where one of them would be rounded, or overflow."""
    product = values.detach() * factor
    exact = torch.equal(product.double(), values.detach().double() * factor)
    return product if exact else None
