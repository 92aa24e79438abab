"""Where the bytes were and are: a bar for every table, or every layer, on a logarithmic scale."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from flyweight.report.pictures.canvas import (
    AFTER,
    BEFORE,
    INK,
    MUTED,
    NARROW,
    Margins,
    draw,
    place_axes,
    shortened,
)
from flyweight.report.words import bytes_in_words, divided

MOST = 16


@dataclass(frozen=True)
class Part:
    """A table or a layer, with its bytes before and after."""

    name: str
    bytes_before: int
    bytes_after: int


def draw_part_bytes(parts: Sequence[Part], what: str, width: int) -> str:
    """Return the picture, the largest part on top; beyond 16 the small ones share the last bar.

    Args:
        what: a part in a word, "table" or "layer".
    """
    rows = _largest(parts, what)
    narrow = width < NARROW
    step = 38 if narrow else 24
    margins = Margins(4, 4, 4, 30) if narrow else Margins(210, 206, 4, 30)
    size = (width, len(rows) * step + margins.top + margins.bottom)
    label = f"Bytes of each {what} before and after, on a logarithmic scale"
    return draw(f"{what}s-{width}", label, size, lambda figure: _paint(figure, rows, margins, narrow))


def _paint(figure: Figure, rows: list[Part], margins: Margins, narrow: bool) -> None:
    axes = place_axes(figure, margins)
    before = np.array([max(row.bytes_before, 1) for row in rows], dtype=float)
    after = np.array([max(row.bytes_after, 1) for row in rows], dtype=float)
    places = np.arange(len(rows), dtype=float)
    floor = 10.0 ** np.floor(np.log10(min(before.min(), after.min())) - 0.001)
    thick = 0.34 if narrow else 0.58
    lower = places + (0.24 if narrow else 0.0)  # on a phone the name stands above its bar
    axes.barh(lower, before - floor, thick, left=floor, color=BEFORE, alpha=0.45, linewidth=0)
    axes.barh(lower, after - floor, thick, left=floor, color=AFTER, linewidth=0)
    axes.set_xscale("log")
    axes.set_xlim(floor, before.max() * 1.02)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.yaxis.set_major_locator(NullLocator())
    powers = np.arange(np.log10(floor), np.log10(before.max()) + 0.01)
    keep = powers[:: 2 if narrow or len(powers) > 9 else 1]
    axes.xaxis.set_major_locator(FixedLocator([10.0**power for power in keep]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: bytes_in_words(value).replace(".0 ", " ")))
    for label in axes.get_xticklabels()[:1]:
        label.set_horizontalalignment("left")
    axes.grid(axis="x")
    axes.spines[["left", "bottom"]].set_visible(False)
    _write_names(axes, rows, margins, narrow)


def _write_names(axes: Any, rows: list[Part], margins: Margins, narrow: bool) -> None:
    aside = axes.get_yaxis_transform()  # x in shares of the axes, y in bars
    wide = axes.get_window_extent().width
    for place, row in enumerate(rows):
        sizes = f"{bytes_in_words(row.bytes_before)} \u2192 {bytes_in_words(row.bytes_after)}"
        style = {"transform": aside, "va": "center", "fontsize": 11 if narrow else 12}
        if narrow:
            axes.text(0.0, place - 0.2, shortened(row.name, 22), ha="left", color=INK, **style)
            axes.text(1.0, place - 0.2, sizes, ha="right", color=MUTED, **style)
        else:
            axes.text(-10 / wide, place, shortened(row.name, 26), ha="right", color=INK, **style)
            axes.text(1 + 12 / wide, place, sizes, ha="left", color=MUTED, **style)
            ratio = divided(row.bytes_before, row.bytes_after)
            changed = INK if row.bytes_after < row.bytes_before else MUTED
            axes.text(1 + (margins.right - 2) / wide, place, ratio, ha="right", color=changed, **style)


def _largest(parts: Sequence[Part], what: str) -> list[Part]:
    ordered = sorted(parts, key=lambda part: (-part.bytes_before, part.name))
    if len(ordered) <= MOST:
        return ordered
    rest = ordered[MOST - 1 :]
    before, after = sum(part.bytes_before for part in rest), sum(part.bytes_after for part in rest)
    return [*ordered[: MOST - 1], Part(f"{len(rest)} smaller {what}s", before, after)]
