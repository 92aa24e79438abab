"""What the page says of the allocation of bits, beside its picture."""

from functools import partial

from flyweight.report.data import ReportData
from flyweight.report.picture import FULL, Picture, drawings
from flyweight.report.pictures.allocation import bits_in_words, draw_allocation


def allocation_pictures(data: ReportData) -> list[Picture]:
    """Return the picture of what was chosen for each table, band and layer; none where nothing was."""
    rows = data.allocation
    if not rows:
        return []
    tables, layers = (sum(row.kind == kind for row in rows) for kind in ("table", "layer"))
    banded = any(len(row.parts) > 1 for row in rows)
    words = "Each bar is a table or a layer of the original; the stronger the colour, the more bits a value takes."
    if banded:
        words += " Parts are runs of rows that are used about equally often, as wide as their share of the rows."
    for kind, count in (("table", tables), ("layer", layers)):
        whole = sum(row.bytes_before for row in rows if row.kind == kind)
        if count and whole:
            mean = sum(row.bytes_before * row.bits_per_value for row in rows if row.kind == kind) / whole
            words += f" {count:,} {kind}{'' if count == 1 else 's'}: {bits_in_words(mean)} a value on average."
    return [Picture("allocation", "What each part was given", words, *drawings(partial(draw_allocation, rows), FULL))]
