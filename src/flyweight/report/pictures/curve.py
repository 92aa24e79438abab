"""The curve of bytes against drop: every point tried, the one chosen, the margin, and where the certificate landed."""

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from flyweight.report.pictures.canvas import (
    AFTER,
    GRID,
    INK,
    LIMIT,
    MUTED,
    NARROW,
    SURFACE,
    Margins,
    draw,
    place_axes,
)
from flyweight.report.words import metric_in_words, ratio_in_words
from flyweight.task.change import Point
from flyweight.task.estimate import Estimate


def draw_curve(points: Sequence[Point], margin: float | None, metric: str, proof: Estimate | None, width: int) -> str:
    """Return the picture: validation drop of each point with its interval, `proof` being the drop on the test split."""
    ordered = sorted(points, key=lambda point: point.ratio)
    label = f"Drop in {metric_in_words(metric)} against how many times smaller the tables are"
    size = (width, 300 if width < NARROW else 400)
    return draw(f"curve-{width}", label, size, lambda figure: _paint(figure, ordered, margin, metric, proof))


def _paint(figure: Figure, points: list[Point], margin: float | None, metric: str, proof: Estimate | None) -> None:
    narrow = figure.get_size_inches()[0] * 72 < NARROW
    axes = place_axes(figure, Margins(52 if narrow else 60, 14, 26, 40))
    low, high = _window(points, margin, proof)
    axes.set_xscale("log", base=2)
    axes.set_ylim(low, high)
    ratios = [point.ratio for point in points]
    axes.set_xlim(min(ratios) / 1.25, max(ratios) * 1.25)
    axes.axhline(0, color=MUTED, linewidth=1, zorder=1)
    if margin is not None:
        axes.axhspan(margin, high, color=LIMIT, alpha=0.09, linewidth=0, zorder=0)
        axes.axhline(margin, color=LIMIT, linewidth=1.4, linestyle=(0, (5, 3)), zorder=1)
        axes.annotate(
            f"allowed: {margin:g}", (0, margin), (4, 5), xycoords=("axes fraction", "data"),
            textcoords="offset points", color=LIMIT,
        )  # fmt: skip
    inside = [point for point in points if point.drop.value <= high]
    axes.plot([p.ratio for p in inside], [p.drop.value for p in inside], color=AFTER, linewidth=2, alpha=0.5)
    for point in points:
        _mark(axes, point, high)
    _mark_chosen(axes, points, proof, narrow)
    axes.xaxis.set_major_locator(LogLocator(base=2, numticks=6 if narrow else 12))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.4g}x"))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:+.4g}" if abs(value) > 1e-12 else "0"))
    axes.grid(axis="y")
    axes.spines["left"].set_visible(False)
    axes.set_xlabel("tables are so many times smaller")
    axes.text(0, 1.02, f"drop in {metric_in_words(metric)} (down is better)", transform=axes.transAxes, color=MUTED)


def _mark(axes: Any, point: Point, high: float) -> None:
    """One point with its interval; one beyond the window is a small arrow at the top edge."""
    if point.drop.value > high:
        axes.plot([point.ratio], [high], marker=6, color=AFTER, markersize=8, clip_on=False, linestyle="none")
        return
    axes.vlines(point.ratio, point.drop.low, point.drop.high, color=AFTER, linewidth=2)
    axes.plot([point.ratio], [point.drop.value], "o", color=AFTER, markersize=8, markeredgecolor=SURFACE)


def _mark_chosen(axes: Any, points: list[Point], proof: Estimate | None, narrow: bool) -> None:
    chosen = next((point for point in points if point.chosen), None)
    if chosen is None:
        return
    axes.axvline(chosen.ratio, color=GRID, linewidth=1.4, zorder=0)
    place = (chosen.ratio, chosen.drop.value)
    axes.plot(*place, "o", markersize=17, markerfacecolor="none", markeredgecolor=AFTER, markeredgewidth=2)
    top = max(chosen.drop.high, proof.high if proof else chosen.drop.high)
    axes.annotate(
        f"chosen: {ratio_in_words(chosen.ratio)}", (chosen.ratio, top), (8, 6), textcoords="offset points", ha="right",
        color=INK, fontsize=11 if narrow else 12, fontweight="bold",
    )  # fmt: skip
    if proof is None:
        return
    beside = chosen.ratio * (1.07 if narrow else 1.035)  # next to the chosen point, so that both intervals can be seen
    axes.vlines(beside, proof.low, proof.high, color=INK, linewidth=2)
    axes.plot([beside], [proof.value], "D", color=INK, markersize=8, markeredgecolor=SURFACE)
    axes.annotate(
        "certificate", (beside, proof.low), (5, -4), textcoords="offset points", ha="left", va="top", color=INK,
        fontsize=11 if narrow else 12,
    )  # fmt: skip


def _window(points: list[Point], margin: float | None, proof: Estimate | None) -> tuple[float, float]:
    """The drops worth showing: the chosen point, the certificate and the margin whole, others up to four margins."""
    kept = [point.drop for point in points if point.chosen] + ([proof] if proof else [])
    drops = [point.drop for point in points] + kept
    low, high = min(drop.low for drop in drops), max(drop.high for drop in drops)
    if margin:
        low = min(max(low, -4 * margin), 0.0, *(drop.low for drop in kept))
        high = max(min(high, 4 * margin), 1.5 * margin, *(drop.high for drop in kept))
    room = 0.08 * (high - low) or 1e-4
    return low - room, high + room
