"""How a search went: a bar for each trial along time, and above it how small and how fast the best was by then."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator
from numpy.typing import NDArray

from flyweight.report.pictures.canvas import (
    AFTER,
    BEFORE,
    EXPORTED,
    GRID,
    INK,
    LIMIT,
    MUTED,
    NARROW,
    SURFACE,
    Margins,
    draw,
    place_axes,
    tell,
)
from flyweight.report.search_data import SearchTold, TriedRecipe
from flyweight.report.search_words import tip_of
from flyweight.report.words import ratio_in_words, seconds_in_words

Ending = Literal["inside", "outside", "cut", "failed"]
#: How each ending is drawn: its colour, and how much of a lane it fills, so that colours are not all that tells.
ENDINGS: dict[Ending, tuple[Any, float]] = {
    "inside": (AFTER, 1.0),
    "outside": ((LIMIT, 0.6), 1.0),
    "cut": (BEFORE, 0.5),
    "failed": (INK, 0.25),
}
#: Trials that get a bar of their own; more are added up in slices of time.
MOST_BARS = {True: 80, False: 240}  # by whether the picture is narrow
#: Trials at once that are told apart, pixels of a lane, of a slice of time, and of the part above the lanes.
MOST_LANES, LANE, SLICE, BEST = 6, 26, 4, 170


def draw_timeline(search: SearchTold, before: int, metric: str, width: int) -> str:
    """Return the picture.

    Args:
        before: bytes of the original's export.
        metric: its name.
    """
    lanes = lanes_of(search.trials)
    narrow = width < NARROW
    single = len(search.trials) <= MOST_BARS[narrow]
    tall = (LANE * (max(lanes) + 1) if single and lanes else 2 * LANE) + 50
    best = BEST if best_points(search, before) else 0

    def paint(figure: Figure) -> None:
        sides = (44, 14) if narrow else (60, 110)
        axes = place_axes(figure, Margins(*sides, 4 + best, 42))
        _prepare(axes, search, max(lanes) + 1 if single and lanes else 1)
        if single:
            _bars(axes, search, lanes, None if narrow else (before, metric))
        else:
            _slices(axes, search.trials, (width - sum(sides)) // SLICE)
        if best:
            above = place_axes(figure, Margins(*sides, 30, tall + 8))
            above.set_xlim(axes.get_xlim())
            _best(above, best_points(search, before), narrow)

    label = "Every trial of the search along time, by how it ended, and the best found by then"
    return draw(f"timeline-{width}", label, (width, tall + best), paint)


def lanes_of(trials: Sequence[TriedRecipe]) -> list[int]:
    """Return for each trial the first lane that is free when it starts; those beyond the last lane share it.

    Example: trials of 0 to 5, 2 to 4 and 5 to 6 seconds are in lanes 0, 1 and 0.
    """
    busy: list[float] = []
    lanes = []
    for trial in trials:
        lane = next((place for place, until in enumerate(busy) if until <= trial.started), len(busy))
        lane = min(lane, MOST_LANES - 1)
        if lane == len(busy):
            busy.append(0.0)
        busy[lane] = max(busy[lane], trial.started + trial.seconds)
        lanes.append(lane)
    return lanes


def ending_of(trial: TriedRecipe) -> Ending:
    """Return how a trial ended; one that was measured lies inside the budget or outside."""
    if trial.state == "done":
        return "inside" if trial.inside else "outside"
    return trial.state


def slices_of(trials: Sequence[TriedRecipe], count: int) -> dict[Ending, NDArray[np.float64]]:
    """Return for each ending its share of the time in each of `count` slices, from the first trial to the last's end.

    The shares of a slice add up to 1, or to 0 where nothing ran.
    """
    edges = np.linspace(0.0, _end(trials), count + 1)
    spent: dict[Ending, NDArray[np.float64]] = {ending: np.zeros(count) for ending in ENDINGS}
    for trial in trials:
        covered = np.minimum(edges[1:], trial.started + trial.seconds) - np.maximum(edges[:-1], trial.started)
        spent[ending_of(trial)] += np.clip(covered, 0.0, None)
    whole = np.sum(list(spent.values()), axis=0)
    return {ending: np.divide(one, whole, out=np.zeros(count), where=whole > 0) for ending, one in spent.items()}


def best_points(search: SearchTold, before: int) -> list[tuple[float, int, float, float]]:
    """Return seconds, number, how many times smaller and how many times faster (1 if not timed), at each change."""
    by_number = {trial.number: trial for trial in search.trials}
    found = []
    for seconds, number in search.best_so_far:
        trial = by_number.get(number)
        if trial is not None and trial.bytes and before > 0:
            found.append((seconds, number, before / trial.bytes, trial.speedup or 1.0))
    return found


def _end(trials: Sequence[TriedRecipe]) -> float:
    return max((trial.started + trial.seconds for trial in trials), default=1.0) or 1.0


def _prepare(axes: Any, search: SearchTold, lanes: int) -> None:
    unit, per = ("seconds", 1.0) if search.seconds < 150 else ("minutes", 60.0)
    unit, per = (unit, per) if search.seconds < 9000 else ("hours", 3600.0)
    axes.set_xlim(0.0, max(search.seconds, _end(search.trials)))
    axes.set_ylim(lanes - 0.4, -0.6)
    axes.yaxis.set_major_locator(NullLocator())
    ticks = MaxNLocator(8, steps=(1, 2, 3, 5, 6, 10), integer=True).tick_values(0, axes.get_xlim()[1] / per)
    axes.set_xticks([tick * per for tick in ticks if 0 <= tick * per <= axes.get_xlim()[1]])
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value / per:g}"))
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.set_xlabel(f"{unit} since the search began")


def _bars(axes: Any, search: SearchTold, lanes: Sequence[int], told: tuple[int, str] | None) -> None:
    """A bar a trial; one too short to be seen is two pixels wide."""
    thinnest = 2.0 * axes.get_xlim()[1] / axes.get_window_extent().width
    for trial, lane in zip(search.trials, lanes, strict=True):
        colour, tall = ENDINGS[ending_of(trial)]
        wide = max(trial.seconds, thinnest)
        place, style = lane + 0.4 * (1 - tall), {"color": colour, "edgecolor": SURFACE, "linewidth": 0.7}
        (bar,) = axes.barh(place, wide, 0.8 * tall, left=trial.started, **style)
        if told is not None:
            took = f"took {seconds_in_words(trial.seconds)}"
            tell(bar, f"{tip_of(trial, *told)}\n{took}")
        if trial.chosen:
            _mark(axes, trial.started + wide / 2, lane - 0.52)


def _mark(axes: Any, seconds: float, place: float) -> None:
    """Point at the chosen trial."""
    axes.plot([seconds], [place], marker=7, color=INK, markersize=7, clip_on=False, linestyle="none")


def _slices(axes: Any, trials: Sequence[TriedRecipe], count: int) -> None:
    """Slices of time, each filled from below by how its trials ended."""
    shares = slices_of(trials, count)
    edges = np.linspace(0.0, _end(trials), count + 1)
    below = np.zeros(count)
    for ending, share in shares.items():
        top = below + share
        if share.any():
            low, high = (0.4 - 0.8 * np.append(one, one[-1]) for one in (below, top))
            axes.fill_between(edges, low, high, step="post", color=ENDINGS[ending][0], linewidth=0)
        below = top
    for trial in trials:
        if trial.chosen:
            _mark(axes, trial.started + trial.seconds / 2, -0.52)


def _best(axes: Any, points: list[tuple[float, int, float, float]], narrow: bool) -> None:
    """Both ratios of the best so far, each a line of steps named at its end."""
    end = axes.get_xlim()[1]
    seconds = [point[0] for point in points]
    lines = [(AFTER, "smaller", [point[2] for point in points]), (EXPORTED, "faster", [point[3] for point in points])]
    axes.set_yscale("log")
    top, bottom = max(max(line[2]) for line in lines), min(min(line[2]) for line in lines)
    axes.set_ylim(min(bottom, 1.0) / 1.15, max(top, 2.0) * (2.5 if narrow else 1.35))
    for colour, _, ratios in lines:
        axes.plot([*seconds, end], [*ratios, ratios[-1]], drawstyle="steps-post", color=colour, linewidth=2)
        axes.plot(seconds, ratios, "o", color=colour, markersize=5, clip_on=False)
    axes.yaxis.set_major_locator(LogLocator(base=10, numticks=5))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}x"))
    axes.xaxis.set_major_locator(NullLocator())
    axes.grid(axis="y")
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.axhline(1.0, color=GRID, linewidth=1.4, zorder=0)
    title = "the best so far" if narrow else "the best so far, against the original"
    axes.text(0, 1.04, title, transform=axes.transAxes, color=MUTED)
    _name_lines(axes, [(ratios[-1], word) for _, word, ratios in lines], narrow)


def _name_lines(axes: Any, ends: list[tuple[float, str]], narrow: bool) -> None:
    """Write what each line ends at: beside it, above it on a phone, never one on the other."""
    end = axes.get_xlim()[1]
    heights = [float(axes.transData.transform((end, ratio))[1]) + (9 if narrow else 0) for ratio, _ in ends]
    upper, lower = (0, 1) if heights[0] >= heights[1] else (1, 0)
    heights[upper] = max(heights[upper], heights[lower] + 16)
    right = float(axes.get_window_extent().x1)
    for (ratio, word), height in zip(ends, heights, strict=True):
        axes.text(
            right if narrow else right + 8, height, f"{ratio_in_words(ratio)} {word}", transform=None,
            ha="right" if narrow else "left", va="center", color=INK, fontsize=11 if narrow else 12, fontweight="bold",
        )  # fmt: skip
