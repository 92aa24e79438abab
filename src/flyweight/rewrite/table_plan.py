"""How rows of a table are read, as small integers, whatever kind of table it is."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from flyweight.tables.coded_table import COLUMNS, CodedTable
from flyweight.tables.rounded_table import RoundedTable

AnyTable = CodedTable | RoundedTable | nn.Embedding
#: Two bytes are read for a code, which may begin at any bit of the first.
WORD_BITS = 16


@dataclass(frozen=True, eq=False)
class TablePlan:
    """A table as codes, codewords and how to find them.

    Args:
        rows, dim, dtype: of the table as it is looked up.
        groups, stages: pieces of a row, and codewords that are added up for a piece; slots = stages * groups.
        columns: COLUMNS of `CodedTable`, each (bands, slots) int64.
        codes: (bytes,) uint8. codebook: (codewords, dim / groups).
        page_band: (pages,) the band of each run of 2**page_bits ids, or None for one band.
        sums: by band, (stages, codewords, dim): the band's rows are sums of one codeword of each stage, and its code
            says which sum. Their `first` says where the sums begin once they are laid out.
    """

    rows: int
    dim: int
    dtype: torch.dtype
    groups: int
    stages: int
    columns: Mapping[str, Tensor]
    codes: Tensor
    codebook: Tensor
    page_band: Tensor | None
    page_bits: int
    sums: Mapping[int, Tensor]

    @property
    def bands(self) -> int:
        """How many bands the table has."""
        return len(self.columns["first"])

    @property
    def longest_position(self) -> int:
        """What the largest product of an id and the bits of its row is below."""
        row_bits = self.columns["row_bits"][:, 0].clamp_min(1)
        if self.page_band is None:
            return self.rows * int(row_bits[0])
        ends = (torch.arange(len(self.page_band)) + 1 << self.page_bits).clamp_max(self.rows)
        return int((ends * row_bits[self.page_band.long()]).max())

    @property
    def straddles(self) -> bool:
        """Whether a code may run over the edge of a byte."""
        bits = [int(mask).bit_length() for mask in self.columns["mask"].flatten()]
        return any(bit + 8 - math.gcd(bit, 8) > 8 for bit in bits)

    @property
    def sum_values(self) -> int:
        """Numbers in all sums of codewords."""
        return sum(len(piece[0]) ** len(piece) * self.dim for piece in self.sums.values())


def plan_table(table: AnyTable) -> TablePlan:
    """Return how a table is read; no code is copied.

    Example:
        >>> plan_table(nn.Embedding(10, 4)).columns["step"].tolist()
        [[1]]
    """
    nothing = torch.empty(0, dtype=torch.uint8)
    if not isinstance(table, CodedTable):
        values = (table.values if isinstance(table, RoundedTable) else table.weight).detach()
        dtype = table.dtype if isinstance(table, RoundedTable) else values.dtype
        columns = {name: torch.full((1, 1), int(name == "step")) for name in COLUMNS}
        return TablePlan(len(values), values.shape[1], dtype, 1, 1, columns, nothing, values, None, 0, {})
    pages: Tensor | None = table.page_band if "page_band" in table._buffers else None
    bands = 1 if pages is None else int(pages.max()) + 1
    slots = table.stages * table.groups
    return TablePlan(
        rows=table.rows,
        dim=table.dim,
        dtype=table.dtype,
        groups=table.groups,
        stages=table.stages,
        columns={name: _column(getattr(table, name), bands, slots) for name in COLUMNS},
        codes=table.codes[:-2] if table.coded else nothing,  # it ends with two bytes of nothing
        codebook=table.codebook.detach(),
        page_band=pages,
        page_bits=table.page_bits,
        sums={},
    )


def _column(column: Tensor | int, bands: int, slots: int) -> Tensor:
    """Return a column of a table's plan as (bands, slots)."""
    if isinstance(column, int):
        return torch.full((bands, slots), column)
    return (column.unsqueeze(1) if column.ndim == 1 else column).expand(bands, slots)


def with_sums(plan: TablePlan) -> TablePlan | None:
    """Return a plan of one slot, in which all codes of a row are read as one number, or None where they cannot be.

    A row of two 4-bit codes is one of 256 sums, and the number is at most WORD_BITS long.
    """
    if plan.groups > 1:
        return None
    if plan.stages == 1:
        return plan
    old = plan.columns
    new = {name: column[:, :1].clone() for name, column in old.items()}
    kept = torch.ones(len(plan.codebook), dtype=torch.bool)
    missing = bool((old["mask"] == 0).any())
    kept[0] = not missing  # what a stage that a band lacks adds
    if missing and bool(plan.codebook[0].any()):
        return None
    sums: dict[int, Tensor] = {}
    for band in range(plan.bands):
        stages = int((old["mask"][band] > 0).sum())
        new["first"][band] -= int((~kept).sum())
        if stages < 2:
            continue
        bits = int(old["mask"][band, 0]).bit_length()
        row_bits = stages * bits
        if row_bits + 8 - math.gcd(row_bits, 8) > WORD_BITS or int(old["offset"][band, 0]) % 8:
            return None
        places = old["first"][band, :stages, None] + torch.arange(1 << bits)  # (stages, codewords)
        sums[band] = plan.codebook[places]
        kept[places.flatten()] = False
        new["mask"][band] = (1 << row_bits) - 1
    return replace(plan, stages=1, columns=new, codebook=plan.codebook[kept], sums=sums)
