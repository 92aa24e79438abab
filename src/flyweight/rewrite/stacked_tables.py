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

from flyweight.rewrite.stack_layout import Layout, lay_out
from flyweight.rewrite.table_plan import AnyTable, plan_table
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

    A lookup is a codeword that a field reads, in the order (stages, fields, groups). Columns are plain numbers where
    all lookups agree, (lookups, 1) where no table's bands differ in them, else (slots * bands,), read at an id's band.

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

    codes: Tensor
    reciprocals: Tensor
    page_band: Tensor
    page_share: Tensor
    first_page: Tensor
    field_of: Tensor
    slot_start: Tensor
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
        self.straddles = any(plan.straddles for plan in layout.plans)
        self.banded = False
        for name, column in layout.columns.items():
            self._keep(name, column, layout, table_of)
        if self.banded:
            self._keep_pages(layout, table_of)
        self.coded = len(layout.codes) > 0
        if self.coded:
            end = torch.zeros(2, dtype=torch.uint8)  # fields without codes and a straddling last code read past the end
            self.register_buffer("codes", torch.cat([layout.codes, end]))
            self.register_buffer("reciprocals", 0.5 ** torch.arange(8, dtype=torch.float32))
        self.several = self.stages * self.groups > 1
        self.lookups = self.stages * self.groups * self.fields
        if self.several:
            field_of = torch.arange(self.fields).repeat_interleave(self.groups).repeat(self.stages)
            self.register_buffer("field_of", field_of)
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

    def _keep(self, name: str, column: Tensor, layout: Layout, table_of: Sequence[int]) -> None:
        """Keep a column, (slots, bands), in the form that needs the fewest operators."""
        if name in ("row_bits", "offset"):
            column = column.float()  # multiplied with ids below 2**24, and so exact
        starts = layout.band_starts()
        spans = [column[:, start : start + plan.bands] for start, plan in zip(starts, layout.plans, strict=True)]
        if bool((column == column[0, 0]).all()):
            setattr(self, name, column[0, 0].item())
        elif all(bool((span == span[:, :1]).all()) for span in spans):
            of_fields = torch.stack([spans[table][:, 0] for table in table_of], 1)  # (slots, fields)
            grouped = of_fields.reshape(self.stages, self.groups, self.fields).transpose(1, 2)
            self.register_buffer(name, grouped.reshape(-1, 1).contiguous())
        else:
            self.register_buffer(name, column.flatten())
            self.banded = True

    def _keep_pages(self, layout: Layout, table_of: Sequence[int]) -> None:
        """Keep which band each run of ids lies in; a table of one band is one page."""
        bands, pages, share = [], [0], []
        for plan, first in zip(layout.plans, layout.band_starts(), strict=True):
            own = torch.zeros(1, dtype=torch.int64) if plan.page_band is None else plan.page_band.to(torch.int64)
            bands.append(own + first)
            pages.append(pages[-1] + len(own))
            share.append(0.0 if plan.page_band is None else 0.5**plan.page_bits)
        self.register_buffer("page_band", torch.cat(bands).to(torch.uint8 if layout.bands <= 256 else torch.int32))
        self.register_buffer("page_share", torch.tensor([[share[table]] for table in table_of]))
        self.register_buffer("first_page", torch.tensor([[pages[table]] for table in table_of]))
        slots = torch.arange(self.stages * self.groups).view(self.stages, 1, self.groups) * layout.bands
        if slots.numel() > 1:
            self.register_buffer("slot_start", slots.expand(-1, self.fields, -1).reshape(-1, 1).contiguous())

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
        band = self._bands(ids) if self.banded else None
        if self.several:
            ids = ids.index_select(0, self.field_of)
            band = None if band is None else band.index_select(0, self.field_of) + self.slot_start
        step, first = self._column("step", band), self._column("first", band)
        terms = [self._code(ids, band)] if self.coded else []
        if isinstance(step, Tensor):
            terms.append(ids * step)
        elif step or not terms:
            terms.append(ids if step else ids * 0)  # without codes and steps, one row for all ids
        entry = functools.reduce(torch.Tensor.add, terms)
        entry = entry + first if isinstance(first, Tensor) or first else entry
        return torch.where(ids == self.padding, self.padding_entry, entry) if "padding" in self._buffers else entry

    def _bands(self, ids: Tensor) -> Tensor:
        page = (ids.to(torch.float32) * self.page_share).to(torch.int64) + self.first_page
        return _pick(self.page_band, page).to(torch.int64)

    def _column(self, name: str, band: Tensor | None) -> Tensor | int | float:
        column: Tensor | int | float = getattr(self, name)
        if isinstance(column, Tensor) and column.ndim == 1:
            assert band is not None
            return _pick(column, band)
        return column

    def _code(self, ids: Tensor, band: Tensor | None) -> Tensor:
        """Return the code of each lookup, (lookups, n); a mask of 0 reads as code 0.

        Only operators that every engine computes exactly: places of bits stay below 2**24, where float32 is exact, and
        those of bytes, which may lie above, are added as whole numbers.
        """
        position = ids.to(torch.float32) * self._column("row_bits", band)
        offset = self._column("offset", band)
        if not isinstance(offset, float) or offset:
            position = position + offset
        byte = (position * 0.125).to(torch.int64) + self._column("base", band)
        word = _pick(self.codes, byte).to(torch.float32)
        if self.straddles:
            word = word + 256.0 * _pick(self.codes, byte + 1).to(torch.float32)
        shift = _pick(self.reciprocals, position.to(torch.int64) & 7)
        return (word * shift).to(torch.int64) & self._column("mask", band)

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


def _pick(values: Tensor, places: Tensor) -> Tensor:
    """Return `values[places]` of a vector; a gather along its axis is ONNX Runtime's quickest, by four."""
    return values.gather(0, places.reshape(-1)).reshape(places.shape)


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
