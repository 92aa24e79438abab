"""Stand-ins for nn.Embedding and nn.EmbeddingBag over a coded table."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flyweight.tables.coded_table import CodedTable
from flyweight.tables.rounded_table import RoundedTable, exact_product


class CodedEmbedding(nn.Module):
    """What `nn.Embedding` does, over a coded table.

    Args:
        table: the coded rows; several modules may hold the same one.
        padding_idx: an id whose row is kept exactly as it was, or None.
        padding_row: (dim,) that row.
    """

    traced_whole = True  # a traced graph keeps this as one module
    padding_row: Tensor | None

    def __init__(
        self, table: CodedTable | RoundedTable, padding_idx: int | None = None, padding_row: Tensor | None = None
    ) -> None:
        super().__init__()
        self.table = table
        self.num_embeddings = table.rows
        self.embedding_dim = table.dim
        self.padding_idx = padding_idx
        self.register_buffer("padding_row", padding_row)

    def forward(self, input: Tensor) -> Tensor:
        """Return (*input.shape, dim) for whole numbers `input` of any shape."""
        rows: Tensor = self.table(input)
        if self.padding_idx is None or self.padding_row is None:
            return rows
        return torch.where((input == self.padding_idx).unsqueeze(-1), self.padding_row, rows)

    def times(self, factor: float) -> "CodedEmbedding | None":
        """Return one with rows so many times as large; None where what is stored would be rounded."""
        table = self.table.times(factor)
        row = None if self.padding_row is None else exact_product(self.padding_row, factor)
        if table is None or (row is None and self.padding_row is not None):
            return None
        return CodedEmbedding(table, self.padding_idx, row)


class CodedEmbeddingBag(nn.Module):
    """What `nn.EmbeddingBag` does in modes "sum" and "mean", over a coded table.

    Args:
        table: the coded rows.
        mode: "sum" or "mean".
        padding_idx: an id that does not count, or None.
        include_last_offset: whether `offsets` ends with the number of ids.
    """

    traced_whole = True

    def __init__(
        self,
        table: CodedTable | RoundedTable,
        mode: str,
        padding_idx: int | None = None,
        *,
        include_last_offset: bool = False,
    ) -> None:
        super().__init__()
        self.table = table
        self.num_embeddings = table.rows
        self.embedding_dim = table.dim
        self.mode = mode
        self.padding_idx = padding_idx
        self.include_last_offset = include_last_offset

    def forward(
        self, input: Tensor, offsets: Tensor | None = None, per_sample_weights: Tensor | None = None
    ) -> Tensor:
        """Return (bags, dim) for (bags, length) ids, or for flat ids with the first place of each bag in `offsets`."""
        rows: Tensor = self.table(input)  # (bags, length, dim) or (t, dim)
        weights = None if per_sample_weights is None else per_sample_weights.to(rows.dtype)
        if self.padding_idx is not None:
            counted = (input != self.padding_idx).to(rows.dtype)
            weights = counted if weights is None else weights * counted
        if weights is not None:
            rows = rows * weights.unsqueeze(-1)
        if offsets is None:
            total, members = rows.sum(1), self._members(input)
        else:
            total, members = self._by_offsets(input, rows, offsets)
        return total if self.mode == "sum" else total / members.clamp_min(1).unsqueeze(-1).to(rows.dtype)

    def _counted(self, ids: Tensor) -> Tensor:
        return torch.ones_like(ids) if self.padding_idx is None else (ids != self.padding_idx).to(ids.dtype)

    def _members(self, ids: Tensor) -> Tensor:
        return self._counted(ids).sum(1)

    def _by_offsets(self, ids: Tensor, rows: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor]:
        """Sum rows bag by bag; the bag of a place is the last one that starts at or before it."""
        starts = (offsets[:-1] if self.include_last_offset else offsets).to(torch.int64)
        counted = self._counted(ids).to(rows.dtype)
        place = torch.arange(ids.shape[0], device=ids.device)
        if torch.compiler.is_exporting():
            # A product with the bags' members: engines have no safe way to write to places that depend on values.
            begun = (starts.unsqueeze(1) <= place).to(rows.dtype)  # (bags, t)
            member = begun - F.pad(begun, (0, 0, 0, 1))[1:]  # less where the next bag has begun
            return member @ rows, (member @ counted.unsqueeze(1)).squeeze(1)
        bag = torch.searchsorted(starts, place, right=True) - 1  # (t,); empty bags get nothing
        total = rows.new_zeros(len(starts), self.table.dim).index_add(0, bag, rows)
        return total, rows.new_zeros(len(starts)).index_add(0, bag, counted)
