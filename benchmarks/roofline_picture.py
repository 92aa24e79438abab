"""The roofline plot: operations a second against operations a byte, a roof for each precision and level."""

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from flyweight.cost.limits import Limits

INK, ROOF = "#3b4252", "#8a93a6"
COLOURS = ("#c2571a", "#1f6fb2", "#3a8f4d", "#8a5ab5")
MARKERS = {"torch": "^", "onnxruntime": "o", "openvino": "s", "openvino-bf16": "D"}


def draw(rows: list[dict[str, Any]], limits: Limits, path: Path) -> None:
    """Write the picture as SVG: the same rows give the same bytes."""
    matplotlib.rcParams.update({"svg.hashsalt": "roofline", "svg.fonttype": "none", "font.size": 10})
    figure, axes = plt.subplots(figsize=(8, 4.8), layout="constrained")
    spots = [one["intensity"] for one in rows]
    across = np.geomspace(min(0.1, *spots) / 2, 4 * max(*spots, 100.0), 200)
    _roofs(axes, limits, across)
    kinds = list(dict.fromkeys(one["what"] for one in rows))
    near: dict[int, list[tuple[float, dict[str, Any]]]] = {}
    for one in rows:
        colour, marker = COLOURS[kinds.index(one["what"])], MARKERS.get(one["engine"], "x")
        operations = sum(one["operations"].values())
        rate = operations / one["latency"]["p50"] / 1e6
        axes.plot(one["intensity"], rate, marker, color=colour, markersize=7, zorder=3)
        near.setdefault(kinds.index(one["what"]), []).append((rate, one))
    _labels(axes, near)
    _legend(axes, kinds, list(dict.fromkeys(one["engine"] for one in rows)))
    axes.set(xscale="log", yscale="log", xlabel="operations a byte (log)", ylabel="G operations a second (log)")
    axes.set_xlim(across[0], across[-1])
    axes.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
    path.write_text("\n".join(line.rstrip() for line in path.read_text().splitlines()) + "\n")


def _labels(axes: Any, near: dict[int, list[tuple[float, dict[str, Any]]]]) -> None:
    """Times beside the points: the first file's to the right, the second's to the left, none over another."""
    for place, points in near.items():
        above = float("inf")
        for rate, one in sorted(points, key=lambda point: -point[0]):
            height = min(float(np.log10(rate)), above - 0.075)  # of a line of text, in decades of the axis
            above = height
            axes.annotate(
                f"{one['latency']['p50']:.3g} ms", (one["intensity"], rate), color=COLOURS[place], fontsize=8,
                xytext=(1.12 * one["intensity"] if place == 0 else one["intensity"] / 1.12, 10**height),
                ha="left" if place == 0 else "right", va="center",
            )  # fmt: skip


def _roofs(axes: Any, limits: Limits, across: Any) -> None:
    """Flat roofs for peaks; slopes for the levels, up to the highest peak."""
    top = max(one.rate for one in limits.peaks) / 1e9
    for peak in limits.peaks:
        high = peak.rate / 1e9
        corner = peak.rate / max(level.rate for level in limits.levels)
        axes.plot([corner, across[-1]], [high, high], color=ROOF, linewidth=1)
        axes.annotate(f"{peak.precision} {high:,.0f}", (across[-1], high), xytext=(-4, 3), ha="right",
                      textcoords="offset points", fontsize=8, color=INK)  # fmt: skip
    for place, level in enumerate(limits.levels):
        rate = max(one.rate for one in limits.levels[place:]) / 1e9
        style = ("-", "--", ":")[place % 3]
        label = f"{level.name}, {rate:.0f} GB/s"
        axes.plot(across, np.minimum(rate * across, top), color=ROOF, linewidth=1, linestyle=style, label=label)


def _legend(axes: Any, kinds: list[str], engines: list[str]) -> None:
    for place, kind in enumerate(kinds):
        axes.plot([], [], "o", color=COLOURS[place], label=kind)
    for engine in engines:
        axes.plot([], [], MARKERS.get(engine, "x"), color=INK, markerfacecolor="none", label=engine)
    axes.legend(loc="lower right", fontsize=8, frameon=False)
