"""Many tables as one: the rows that all fields ask for are read by a single gather.

The codes of all tables lie in one array of bytes, their codewords in one codebook; small integers for each field (or
for each band, where a table has several) say where its codes and its codewords begin. The arithmetic runs along the
rows, (fields, rows): with one constant for 500 ids, engines need half the time that they need with 25 constants for
each row (6 against 13 us an operator in ONNX Runtime).

A row that is a sum of codewords is one entry of a codebook of all sums: 256 for two 4-bit codes. Files hold the
codewords; engines add them up once, when they load the file. Where sums would be too many, the codewords of a row are
read one by one, each as if it were a field.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flyweight.rewrite.packed_entries import PackedEntries
from flyweight.rewrite.stack_layout import lay_out
from flyweight.rewrite.table_plan import AnyTable, plan_table
from flyweight.rewrite.unpacked_entries import unpack
from flyweight.tables.coded_table import CODEBOOK_VALUES, CodedTable

#: Owners of codewords that several fields read, or none.
SHARED, NOBODY = -2, -1


@dataclass(frozen=True, eq=False)
class Asked:
    """The table that a field reads, and the row that stands in for one of its ids, if any."""

    table: AnyTable
    padding_idx: int | None = None
    padding_row: Tensor | None = None


class StackedTables(nn.Module):
    """Rows of several tables side by side: `forward(*ids)` returns (*ids.shape, fields, dim).

    A lookup is a codeword that a field reads, in the order (stages, fields, groups).

    Args:
        asked: the tables, field by field; of one dim, dtype, number of groups and dtype of codewords.

    Example:
        >>> stacked = StackedTables([Asked(nn.Embedding(10, 4)), Asked(nn.Embedding(20, 4))])
        >>> stacked(torch.tensor([1, 2, 3]), torch.tensor([4, 5, 6])).shape
        torch.Size([3, 2, 4])
    """

    traced_whole = True
    #: Runs of codewords, (how many, the one field that reads them).
    owners: tuple[tuple[int, int], ...]
    #: By `sums_<k>`, the one field that reads each band.
    sum_owners: tuple[tuple[int, ...], ...]

    padding: Tensor
    padding_entry: Tensor

    def __init__(self, asked: Sequence[Asked]) -> None:
        super().__init__()
        tables = {identity(one.table): one.table for one in asked}
        table_of = [list(tables).index(identity(one.table)) for one in asked]
        plans = [plan_table(table) for table in tables.values()]
        self.fields, self.dim, self.groups, self.dtype = len(asked), plans[0].dim, plans[0].groups, plans[0].dtype
        layout = lay_out(plans, _own_rows(asked).view(-1, self.dim // self.groups).to(plans[0].codebook.dtype))
        self.stages = layout.stages
        self.lookups = self.stages * self.groups * self.fields
        unpacked = unpack(layout, table_of)
        self.reader = PackedEntries(layout, table_of) if unpacked is None else unpacked
        self._keep_padding(asked, layout.head)
        fields = {table: field for field, table in enumerate(table_of) if table_of.count(table) == 1}
        padded = [(self.groups, field) for field, one in enumerate(asked) if one.padding_idx is not None]
        own = [(len(plan.codebook), fields.get(table, SHARED)) for table, plan in enumerate(layout.plans)]
        self.owners = (*([(layout.head, NOBODY)] if layout.head else []), *padded, *own)
        self.sum_owners = tuple(tuple(fields.get(table, SHARED) for table in kind) for kind in layout.sum_tables)
        self.codebook = nn.Parameter(layout.codewords, requires_grad=False)
        self.kinds = len(layout.sums)
        for kind, piece in enumerate(layout.sums):
            self.register_parameter(f"sums_{kind}", nn.Parameter(piece, requires_grad=False))

    def _keep_padding(self, asked: Sequence[Asked], first: int) -> None:
        """Keep ids that have a row of their own, and where those rows begin in the codebook."""
        own = [one.padding_idx is not None for one in asked]
        if not any(own):
            return
        ids = torch.tensor([-1 if one.padding_idx is None else one.padding_idx for one in asked])
        entry = first + (torch.tensor(own).long().cumsum(0) - 1).clamp_min(0) * self.groups
        entries = torch.zeros(self.stages, self.fields, self.groups, dtype=torch.int64)
        entries[0] = entry.unsqueeze(1) + torch.arange(self.groups)  # of stages after the first, entry 0: zeros
        self.register_buffer("padding", ids.view(1, -1, 1).expand(self.stages, -1, self.groups).reshape(-1, 1).clone())
        self.register_buffer("padding_entry", entries.reshape(-1, 1))

    def forward(self, *ids: Tensor) -> Tensor:
        """Return the rows of `ids`, one tensor of whole numbers for each field, all of one shape."""
        rows = F.embedding(self.entries(*ids).t(), self.book()).to(self.dtype)  # (n, lookups, width)
        if self.stages > 1:  # stage by stage: engines are slow at summing over an axis in the middle
            rows = functools.reduce(torch.add, torch.split(rows, self.fields * self.groups, 1))
        return rows.reshape(-1, *ids[0].shape[1:], self.fields, self.dim)

    def entries(self, *given: Tensor) -> Tensor:
        """Return the codeword of each lookup, (lookups, n), for a tensor of n ids, of any shape, for each field."""
        flat = torch.cat([one.to(torch.int64).reshape(-1) if one.ndim > 1 else one.to(torch.int64) for one in given])
        ids = flat.reshape(self.fields, -1)
        entry: Tensor = self.reader(ids)
        if "padding" not in self._buffers:
            return entry
        ids = ids.repeat_interleave(self.groups, 0).repeat(self.stages, 1) if self.lookups > self.fields else ids
        return torch.where(ids == self.padding, self.padding_entry, entry)

    def book(self) -> Tensor:
        """Return the codebook, all sums included; of constants alone, which engines compute when they load them."""
        if not self.kinds:
            return self.codebook.to(self.dtype) if self.codebook.numel() <= CODEBOOK_VALUES else self.codebook
        kinds = [_all_sums(getattr(self, f"sums_{kind}").to(self.dtype)) for kind in range(self.kinds)]
        return torch.cat([self.codebook.to(self.dtype), *kinds])

    def bytes(self) -> int:
        """Return the bytes stored: codes, codewords and how to read them."""
        return sum(tensor.numel() * tensor.element_size() for tensor in [*self.buffers(), *self.parameters()])

    def extra_repr(self) -> str:
        """Say the shape and the size."""
        return f"{self.fields} fields, {self.dim}, bytes={self.bytes()}"


def identity(table: AnyTable) -> int:
    """Return what two modules have in common exactly if they read the same numbers."""
    if isinstance(table, nn.Embedding):
        return id(table.weight)
    return id(table.codes if isinstance(table, CodedTable) and table.coded else next(table.parameters()))


def _own_rows(asked: Sequence[Asked]) -> Tensor:
    """Return the rows that stand in for one id each, (rows, dim)."""
    rows = [one.padding_row.detach() for one in asked if one.padding_idx is not None and one.padding_row is not None]
    return torch.stack(rows) if rows else torch.empty(0)


def _all_sums(pieces: Tensor) -> Tensor:
    """Return all sums of one codeword of each stage, added stage after stage; the first stage's changes fastest.

    Args:
        pieces: (bands, stages, codewords, dim).

    Returns:
        (bands * codewords**stages, dim)
    """
    bands, stages, _, dim = pieces.shape
    sums = pieces[:, 0]  # (bands, sums so far, dim)
    for stage in range(1, stages):
        sums = (sums.unsqueeze(1) + pieces[:, stage].unsqueeze(2)).reshape(bands, -1, dim)
    return sums.reshape(-1, dim)
