"""Codewords of stacked tables, read from packed codes: the codes stay as small as they are stored."""

import functools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from flyweight.rewrite.stack_layout import Layout


class PackedEntries(nn.Module):
    """The codeword of each lookup: `forward(ids)` of (fields, n) returns (lookups, n), both int64.

    Lookups stand in the order (stages, fields, groups). Columns are plain numbers where all lookups agree,
    (lookups, 1) where no table's bands differ in them, else (slots * bands,), read at an id's band.

    Args:
        layout: the tables side by side.
        table_of: the table that each field reads.
    """

    codes: Tensor
    reciprocals: Tensor
    page_band: Tensor
    page_share: Tensor
    first_page: Tensor
    field_of: Tensor
    slot_start: Tensor

    def __init__(self, layout: Layout, table_of: Sequence[int]) -> None:
        super().__init__()
        self.fields, self.stages, self.groups = len(table_of), layout.stages, layout.plans[0].groups
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
        if self.several:
            field_of = torch.arange(self.fields).repeat_interleave(self.groups).repeat(self.stages)
            self.register_buffer("field_of", field_of)

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

    def forward(self, ids: Tensor) -> Tensor:
        """Return the codeword of each lookup, (lookups, n), for ids (fields, n)."""
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
        return entry + first if isinstance(first, Tensor) or first else entry

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


def _pick(values: Tensor, places: Tensor) -> Tensor:
    """Return `values[places]` of a vector; a gather along its axis is ONNX Runtime's quickest, by four."""
    return values.gather(0, places.reshape(-1)).reshape(places.shape)
