"""What was chosen for each table, band and layer, read off what the steps did and off the layers' rows."""

import math
import re
from collections.abc import Sequence
from itertools import groupby
from typing import Any

from flyweight.errors import InputError
from flyweight.report.allocation_data import AllocationPart, AllocationRow
from flyweight.report.data import LayerRow
from flyweight.tables.coding_words import parse_coding
from flyweight.task.change import Change

#: "256 x 1,024 float32": the sizes, and a type.
_SHAPE = re.compile(r"(?P<sizes>[\d,]+(?: x [\d,]+)*) [a-z]+\d+")


def allocation_rows(changes: Sequence[Change], layers: Sequence[LayerRow]) -> tuple[AllocationRow, ...]:
    """Return a row for each coded table, its bands as parts, and one for each layer that changed.

    Args:
        changes: of all steps; of a table that was coded twice the last counts.
        layers: as `flyweight.planning.layers.layer_rows` gives them.
    """
    coded = {str(done["name"]): done for change in changes for done in change.done if done.get("what") == "table"}
    return (*(_table(done) for done in coded.values()), *(_layer(row) for row in layers))


def bits_per_value(coding: str, dim: int) -> float:
    """Return the bits that a value takes in a coding, codebooks not counted; NaN for words that name none.

    Example:
        >>> bits_per_value("2 4-bit codes", 16), bits_per_value("float16 rows", 16)
        (0.5, 16.0)
    """
    try:
        return parse_coding(coding).bits_per_row(dim) / dim
    except InputError:
        return math.nan


def _table(done: dict[str, Any]) -> AllocationRow:
    """Return a table's row; neighbouring bands in one coding are one part."""
    rows, dim = int(done["rows"]), int(done["dim"])
    spent = 8 * int(done["bytes_after"]) / max(rows * dim, 1)
    parts = []
    for coding, bands in groupby(done["bands"], key=lambda band: str(band["coding"])):
        share = sum(int(band["stop"]) - int(band["start"]) for band in bands) / max(rows, 1)
        bits = bits_per_value(coding, dim)
        parts.append(AllocationPart(share, coding, spent if math.isnan(bits) else bits))
    return AllocationRow(str(done["name"]), "table", int(done["bytes_before"]), tuple(parts))


def _layer(row: LayerRow) -> AllocationRow:
    """Return a layer's row; its bits are those that are left for each weight of the original, cut ones included."""
    shape = _SHAPE.fullmatch(row.before)
    values = row.bytes_before / 4  # float32, where the words do not say
    if shape is not None:
        values = math.prod(int(size.replace(",", "")) for size in shape["sizes"].split(" x "))
    part = AllocationPart(1.0, row.after, 8 * row.bytes_after / max(values, 1))
    return AllocationRow(row.name, "layer", row.bytes_before, (part,))
