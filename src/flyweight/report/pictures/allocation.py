"""What was chosen for each table and frequency band, and for each layer: bars coloured by the bits a value takes."""

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import NullLocator
from matplotlib.transforms import IdentityTransform

from flyweight.report.allocation_data import AllocationPart, AllocationRow
from flyweight.report.pictures.canvas import (
    AFTER,
    INK,
    MUTED,
    NARROW,
    SURFACE,
    Margins,
    draw,
    place_axes,
    shortened,
    tell,
)
from flyweight.report.pictures.labels import size_of
from flyweight.report.words import bytes_in_words

#: Tables, and layers, that get a bar of their own; fewer on a phone.
MOST, MOST_NARROW = 30, 16
#: Parts of one bar; the narrowest more are one.
MOST_PARTS = 24
#: Pixels of the narrowest part that is drawn, so that a band of few rows is seen.
THINNEST = 3.0
#: Bits of the scale that are shown as samples.
SAMPLES = (0.0, 1 / 16, 1 / 4, 1.0, 4.0, 8.0, 16.0, 32.0)
SCALE_TALL = 46


def draw_allocation(rows: Sequence[AllocationRow], width: int) -> str:
    """Return the picture: tables, the largest first, then layers; beyond 30 of a kind the small ones share a bar."""
    narrow = width < NARROW
    shown = largest(rows, MOST_NARROW if narrow else MOST)
    step = 40 if narrow else 26
    margins = Margins(4, 4, SCALE_TALL, 6) if narrow else Margins(210, 160, SCALE_TALL, 6)
    size = (width, step * len(shown) + margins.top + margins.bottom)
    label = "Bits that each table and frequency band and each layer takes for a value"
    return draw(f"allocation-{width}", label, size, lambda figure: _paint(figure, shown, margins, narrow))


def depth_of(bits: float) -> float:
    """Return how strong the colour of so many bits a value is, 0.08 to 1: even steps for doublings above 1/16.

    Example:
        >>> round(depth_of(0.0), 2), round(depth_of(32.0), 2)
        (0.08, 1.0)
    """
    return 0.08 + 0.92 * min(math.log2(1 + 16 * max(bits, 0.0)) / math.log2(1 + 16 * 32), 1.0)


def largest(rows: Sequence[AllocationRow], most: int = MOST) -> list[AllocationRow]:
    """Return the largest rows of each kind, tables first, the rest of a kind added up in one."""
    found = []
    for kind in ("table", "layer"):
        ordered = sorted((row for row in rows if row.kind == kind), key=lambda row: (-row.bytes_before, row.name))
        kept = ordered if len(ordered) <= most + 1 else ordered[:most]
        found += kept
        if rest := ordered[len(kept) :]:
            found.append(_together(rest))
    return found


def _together(rows: Sequence[AllocationRow]) -> AllocationRow:
    """Add rows up in one, shares by bytes; what takes equally many bits is one part."""
    whole = sum(row.bytes_before for row in rows) or 1
    shares: dict[float, float] = defaultdict(float)
    words: dict[float, str] = {}
    for row in rows:
        for part in row.parts:
            shares[part.bits_per_value] += part.share * row.bytes_before / whole
            words.setdefault(part.bits_per_value, part.words)
    parts = tuple(AllocationPart(shares[bits], words[bits], bits) for bits in sorted(shares, reverse=True))
    return AllocationRow(f"and {len(rows)} more", rows[0].kind, whole, parts)


def merged(parts: Sequence[AllocationPart]) -> list[AllocationPart]:
    """Return parts with neighbours that are stored alike as one, and no more of them than can be shown."""
    found: list[AllocationPart] = []
    for part in parts:
        if found and (found[-1].words, found[-1].bits_per_value) == (part.words, part.bits_per_value):
            found[-1] = AllocationPart(found[-1].share + part.share, part.words, part.bits_per_value)
        else:
            found.append(part)
    while len(found) > MOST_PARTS:
        place = min(range(len(found) - 1), key=lambda here: found[here].share + found[here + 1].share)
        found[place : place + 2] = [_average(found[place], found[place + 1])]
    return found


def _average(one: AllocationPart, other: AllocationPart) -> AllocationPart:
    share = one.share + other.share
    bits = (one.share * one.bits_per_value + other.share * other.bits_per_value) / (share or 1.0)
    return AllocationPart(share, "several codings", bits)


def widths_of(parts: Sequence[AllocationPart], whole: float) -> list[float]:
    """Return pixels of each part of a bar `whole` pixels wide, none so narrow that it is not seen."""
    wanted = [max(part.share * whole, THINNEST) for part in parts]
    return [whole * one / sum(wanted) for one in wanted]


def _paint(figure: Figure, rows: list[AllocationRow], margins: Margins, narrow: bool) -> None:
    axes = place_axes(figure, margins)
    wide = float(axes.get_window_extent().width)
    axes.set_xlim(0, wide)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.xaxis.set_major_locator(NullLocator())
    axes.yaxis.set_major_locator(NullLocator())
    axes.spines[["left", "bottom"]].set_visible(False)
    for place, row in enumerate(rows):
        _bar(axes, row, place, narrow)
        _write_name(axes, row, place, margins, narrow)
    _scale(axes, margins, narrow)


def _bar(axes: Any, row: AllocationRow, place: int, narrow: bool) -> None:
    tall, middle = (0.44, place + 0.22) if narrow else (0.72, float(place))
    size = 10.0 if narrow else 11.0
    left = 0.0
    parts = merged(row.parts)
    for part, wide in zip(parts, widths_of(parts, axes.get_xlim()[1]), strict=True):
        depth = depth_of(part.bits_per_value)
        (bar,) = axes.barh(
            middle, wide, tall, left=left, color=(AFTER, round(depth, 2)), edgecolor=SURFACE, linewidth=1.0
        )
        if not narrow:
            rows = f"{part.share:.1%} of the rows: " if row.kind == "table" else ""
            tell(bar, f"{row.name}\n{rows}{part.words}\n{bits_in_words(part.bits_per_value)} a value")
        words = _fitting(part, wide - 10, size)
        if words:
            colour = SURFACE if depth > 0.62 else INK
            axes.text(left + wide / 2, middle, words, ha="center", va="center", color=colour, fontsize=size)
        left += wide


def _fitting(part: AllocationPart, room: float, size: float) -> str:
    """Return the longest of a part's descriptions that fits."""
    for words in (part.words, bits_in_words(part.bits_per_value), f"{part.bits_per_value:.2g}"):
        if size_of(words, size)[0] <= room:
            return words
    return ""


def bits_in_words(bits: float) -> str:
    """Return bits with their unit.

    Example:
        >>> bits_in_words(0.0625), bits_in_words(8.0), bits_in_words(1.0)
        ('0.062 bits', '8 bits', '1 bit')
    """
    return f"{bits:.2g} bit{'' if bits == 1 else 's'}"


def _write_name(axes: Any, row: AllocationRow, place: int, margins: Margins, narrow: bool) -> None:
    wide = axes.get_xlim()[1]
    held = f"{bytes_in_words(row.bytes_before)}, now {bits_in_words(row.bits_per_value)}"
    style = {"va": "center", "fontsize": 11 if narrow else 12}
    if narrow:
        axes.text(0, place - 0.2, shortened(row.name, 22), ha="left", color=INK, **style)
        axes.text(wide, place - 0.2, held, ha="right", color=MUTED, **style)
        return
    axes.text(-10, place, shortened(row.name, 26), ha="right", color=INK, **style)
    axes.text(wide + margins.right - 2, place, held, ha="right", color=MUTED, **style)


def _scale(axes: Any, margins: Margins, narrow: bool) -> None:
    """The colours with their bits, above the bars."""
    box = axes.get_window_extent()
    each, tall = (28.0 if narrow else 34.0), 12.0
    bottom = box.y1 + margins.top - tall - 4
    left = box.x0
    words = "bits a value" if narrow else "bits a value, codebooks left out"
    for place, bits in enumerate(SAMPLES):
        colour = (AFTER, round(depth_of(bits), 2))
        corner = (left + place * each, bottom)
        sample = Rectangle(corner, each - 1, tall, color=colour, linewidth=0, transform=IdentityTransform())
        axes.add_artist(sample).set_clip_on(False)
        named = {1 / 16: "1/16", 1 / 4: "1/4"}.get(bits, f"{bits:g}")
        axes.text(
            left + (place + 0.5) * each - 0.5, bottom - 9, named, transform=None, ha="center", va="center", color=MUTED,
            fontsize=10.5,
        )  # fmt: skip
    axes.text(
        left + len(SAMPLES) * each + 8, bottom + tall / 2, words, transform=None, ha="left", va="center", color=MUTED,
        fontsize=10 if narrow else 12,
    )  # fmt: skip
