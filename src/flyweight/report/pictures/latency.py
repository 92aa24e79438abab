"""How long a request takes: the distribution of every model and engine that was timed, one above the other."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from numpy.typing import NDArray

from flyweight.report.data import Timing
from flyweight.report.pictures.canvas import INK, MUTED, NARROW, ROLE_COLOURS, Margins, draw, place_axes, shortened
from flyweight.report.words import milliseconds_in_words


def draw_latency(timings: Sequence[Timing], width: int, unit: str = "candidates") -> str:
    """Return the picture: a hill for each timing, a mark at its median, a line to its 99th percentile.

    Args:
        unit: what a row of a call is.
    """
    narrow = width < NARROW
    step = 64 if narrow else 58
    margins = Margins(8, 16, 8, 40) if narrow else Margins(250, 100, 8, 40)
    size = (width, step * len(timings) + margins.top + margins.bottom)
    label = "Distribution of the time of one call for each model and engine, on a logarithmic scale"
    return draw(f"latency-{width}", label, size, lambda figure: _paint(figure, timings, margins, unit))


def density(samples: NDArray[np.float64], grid: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return a Gaussian kernel density of log(samples) on a grid of times, shape of the grid, its maximum 1.

    The bandwidth is Silverman's rule of thumb (1986, eq. 3.31), not below half a step of the grid.
    """
    logs, places = np.log(samples), np.log(grid)
    quartiles = np.quantile(logs, (0.25, 0.75))
    spread = min(float(logs.std()), float(quartiles[1] - quartiles[0]) / 1.34) or float(logs.std())
    width = max(0.9 * spread * len(logs) ** -0.2, 0.5 * float(places[1] - places[0]))
    hill = np.exp(-0.5 * ((places[:, None] - logs[None, :]) / width) ** 2).sum(axis=1)  # (grid,)
    return np.asarray(hill / hill.max(), dtype=np.float64)


def _paint(figure: Figure, timings: Sequence[Timing], margins: Margins, unit: str) -> None:
    axes = place_axes(figure, margins)
    narrow = margins.left < 100
    low = min(_ends(timing)[0] for timing in timings) / 1.15
    high = max(_ends(timing)[1] for timing in timings) * 1.15
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    axes.set_ylim(len(timings) - 0.28, -0.72)
    axes.set_yticks([])
    grid = np.geomspace(low, high, 160)
    for place, timing in enumerate(timings):
        _hill(axes, timing, place, grid, 0.44 if narrow else 0.7)
        _write(axes, timing, place, margins, narrow)
    axes.xaxis.set_major_locator(LogLocator(base=10, subs=(1.0, 3.0) if narrow else (1.0, 2.0, 5.0), numticks=12))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.grid(axis="x")
    axes.spines[["left", "bottom"]].set_visible(False)
    rows = timings[0].latency.candidates
    axes.set_xlabel("milliseconds a call" + (f" of {rows:,} {unit}" if rows > 1 else ""))


def _hill(axes: Any, timing: Timing, place: int, grid: NDArray[np.float64], tall: float) -> None:
    colour, latency = ROLE_COLOURS[timing.role], timing.latency
    if timing.samples is not None and len(timing.samples) > 2:
        hill = density(timing.samples, grid)
        shown = hill > 0.004
        axes.fill_between(grid, place, place - tall * hill, where=shown, color=colour, alpha=0.55, linewidth=0)
    axes.plot([latency.p50, latency.p99], [place, place], color=colour, linewidth=2.5, solid_capstyle="butt")
    axes.plot([latency.p99, latency.p99], [place - 0.07, place + 0.07], color=colour, linewidth=2.5)
    axes.plot([latency.p50], [place], "o", color=colour, markersize=8)


def _write(axes: Any, timing: Timing, place: int, margins: Margins, narrow: bool) -> None:
    aside = {"transform": axes.get_yaxis_transform(), "color": INK, "fontsize": 11 if narrow else 12.5}
    weight = "bold" if timing.chosen else "normal"
    median = milliseconds_in_words(timing.latency.p50)
    if narrow:
        axes.text(0, place - 0.58, shortened(timing.name, 32), ha="left", va="center", fontweight=weight, **aside)
        axes.text(1, place - 0.58, median, ha="right", va="center", **aside)
        return
    wide = axes.get_window_extent().width
    axes.text(-18 / wide, place - 0.12, shortened(timing.name, 30), ha="right", va="center", fontweight=weight, **aside)
    axes.text(1 + (margins.right - 4) / wide, place - 0.12, median, ha="right", va="center", fontweight=weight, **aside)
    spread = f"p99 {milliseconds_in_words(timing.latency.p99)}"
    axes.text(
        1 + (margins.right - 4) / wide, place + 0.2, spread, ha="right", va="center",
        **{**aside, "color": MUTED, "fontsize": 10.5},
    )  # fmt: skip


def _ends(timing: Timing) -> tuple[float, float]:
    latency = timing.latency
    if timing.samples is None or len(timing.samples) == 0:
        return latency.p50, latency.p99
    # One stray call of a busy machine must not squeeze all hills into a corner.
    return float(timing.samples.min()), max(latency.p99, float(np.quantile(timing.samples, 0.995)))
