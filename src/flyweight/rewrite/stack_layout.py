"""Tables laid side by side: one array of codes, one codebook, and columns that find each table's part of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from flyweight.rewrite.table_plan import TablePlan, with_sums
from flyweight.tables.coded_table import CODEBOOK_VALUES


@dataclass(frozen=True, eq=False)
class Layout:
    """Tables side by side.

    Args:
        plans: of the tables; bands are counted over all of them.
        stages: codewords that are added up for a piece, the most that a table has.
        columns: each (stages * groups, bands) int64. `row_bits`, `offset` (0 to 7), `mask` and `step` as in a table;
            `base`, the byte where codes begin; `first`, the first codeword.
        codes: (bytes,) uint8.
        codewords: (codewords, width).
        head: place of the first of the codewords that were given; 1 where one of zeros stands before them.
        sums: (bands, stages, codewords, dim) each; all their sums follow `codewords`, one kind after the other.
        sum_tables: the table of each of those bands.
    """

    plans: tuple[TablePlan, ...]
    stages: int
    columns: Mapping[str, Tensor]
    codes: Tensor
    codewords: Tensor
    head: int
    sums: tuple[Tensor, ...]
    sum_tables: tuple[tuple[int, ...], ...]

    @property
    def bands(self) -> int:
        """How many bands all tables have."""
        return self.columns["first"].shape[1]

    def band_starts(self) -> list[int]:
        """Return the first band of each table."""
        return [sum(plan.bands for plan in self.plans[:place]) for place in range(len(self.plans))]


def lay_out(plans: Sequence[TablePlan], head: Tensor) -> Layout:
    """Lay tables of one dim and number of groups side by side, rows read as sums where that is possible for all.

    Args:
        plans: of one dim, number of groups and dtype of codewords.
        head: (entries, width) codewords that are to come first, after the one of zeros if there is one.
    """
    summed = [with_sums(plan) for plan in plans]
    plans = tuple(plan for plan in summed if plan is not None) if _pays(summed) else tuple(plans)
    stages = max(plan.stages for plan in plans)
    zero = stages > 1 and (len(head) > 0 or len({plan.stages for plan in plans}) > 1)
    columns, used, entries = [], 0, int(zero) + len(head)
    for plan in plans:
        columns.append(_columns(plan, stages, used, entries))
        used += len(plan.codes)
        entries += len(plan.codebook)
    joined = {name: torch.cat([one[name] for one in columns], 1) for name in columns[0]}
    zeros = plans[0].codebook.new_zeros(int(zero), plans[0].codebook.shape[1])
    codewords = torch.cat([zeros, head, *(plan.codebook for plan in plans)])
    sums, tables = _lay_out_sums(plans, joined["first"], len(codewords))
    return Layout(plans, stages, joined, torch.cat([plan.codes for plan in plans]), codewords, int(zero), sums, tables)


def _pays(plans: Sequence[TablePlan | None]) -> bool:
    """Whether all can be read as sums that a processor keeps near: 4 MB in float32."""
    if any(plan is None for plan in plans):
        return False
    sizes = [plan.codebook.numel() + plan.sum_values for plan in plans if plan is not None]
    return sum(sizes) <= CODEBOOK_VALUES


def _columns(plan: TablePlan, stages: int, used: int, entries: int) -> dict[str, Tensor]:
    """Return the columns of one table, (slots, bands), behind others of so many bytes and codewords."""
    columns = {name: column.T.clone() for name, column in plan.columns.items()}
    columns["base"] = used + columns["offset"].div(8, rounding_mode="floor")
    columns["offset"] %= 8
    columns["first"] += entries
    lacking = (stages - plan.stages) * plan.groups
    if not lacking:
        return columns
    nothing = torch.zeros(lacking, plan.bands, dtype=torch.int64)
    return {name: torch.cat([column, nothing]) for name, column in columns.items()}


def _lay_out_sums(
    plans: Sequence[TablePlan], first: Tensor, entries: int
) -> tuple[tuple[Tensor, ...], tuple[tuple[int, ...], ...]]:
    """Return the codewords of summed bands by kind (stages, codewords), and their tables; write where sums lie."""
    kinds: dict[tuple[int, int], list[tuple[int, int, Tensor]]] = {}
    band = 0
    for table, plan in enumerate(plans):
        for own, piece in plan.sums.items():
            kinds.setdefault((len(piece), piece.shape[1]), []).append((band + own, table, piece))
        band += plan.bands
    for (stages, codewords), pieces in kinds.items():
        for place, _, _ in pieces:
            first[0, place] = entries
            entries += codewords**stages
    laid = tuple(torch.stack([piece for *_, piece in pieces]) for pieces in kinds.values())
    return laid, tuple(tuple(table for _, table, _ in pieces) for pieces in kinds.values())
