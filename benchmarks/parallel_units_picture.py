"""The picture of 1 to 64 units: throughput of inference by micro-batches, of training by schedule, and latency."""

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

INK, IDEAL = "#3b4252", "#8a93a6"
COLOURS = ("#9ecae1", "#5aa2cf", "#1f6fb2", "#0b4a82", "#c2571a")
SCHEDULES = {"fill-drain": ("-", "#1f6fb2"), "1f1b": ("--", "#c2571a"), "interleaved": (":", "#3a8f4d")}
TICKS = (1, 2, 4, 10, 20, 64)
Json = dict[str, Any]


def draw(found: list[Json], path: Path) -> None:
    """Write the picture as SVG, a column a model: the same rows give the same bytes."""
    matplotlib.rcParams.update({"svg.hashsalt": "parallel_units", "svg.fonttype": "none", "font.size": 9})
    figure, axes = plt.subplots(3, len(found), figsize=(3 * len(found), 8), layout="constrained", sharey="row")
    for column, one in enumerate(found):
        share = one["single"][1]
        axes[0, column].set_title(f"{one['task']}\nlongest operator: {share:.1%} of the time", fontsize=9, color=INK)
        _inference(axes[0, column], one)
        _training(axes[1, column], one)
        _latency(axes[2, column], one)
        for row in range(3):
            axes[row, column].set(xscale="log")
            axes[row, column].set_xticks(TICKS, TICKS)
            axes[row, column].minorticks_off()
            axes[row, column].spines[["top", "right"]].set_visible(False)
        axes[2, column].set_xlabel("units (log)")
    for row, label in enumerate(("times one unit, inference", "times one unit, training", "times one unit's latency")):
        axes[row, 0].set_ylabel(label)
    for row in range(2):
        axes[row, 0].set(yscale="log")
        axes[row, 0].set_yticks(TICKS, TICKS)
    for row in range(3):
        axes[row, 0].legend(fontsize=7, frameon=False, loc="upper left")
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
    path.write_text("\n".join(line.rstrip() for line in path.read_text().splitlines()) + "\n")


def _across(curve: list[Json], key: str) -> tuple[list[int], list[float]]:
    return [one["units"] for one in curve], [one[key] for one in curve]


def _inference(axes: Any, one: Json) -> None:
    """A line for each number of micro-batches, a ring where more units stop paying."""
    axes.plot((1, 64), (1, 64), color=IDEAL, linewidth=1, label="as many times as units")
    kinds = [key for key in one["curves"] if key.startswith("inference")]
    for colour, key in zip(COLOURS, kinds, strict=True):
        curve = one["curves"][key]
        count = key.removeprefix("inference, ")
        axes.plot(*_across(curve, "times"), color=colour, label=f"{count} micro-batch{'es' if count != '1' else ''}")
        stop = next(point for point in curve if point["units"] == one["pays_up_to"][key])
        axes.plot(stop["units"], stop["times"], "o", color=colour, markersize=5)
    axes.plot([], [], "o", color=INK, label="95% of the most")
    axes.axvline(10, color=IDEAL, linewidth=0.7, linestyle=":")


def _training(axes: Any, one: Json) -> None:
    """A line for each schedule, and how many micro-batches a unit holds at 10 units and at the end."""
    axes.plot((1, 64), (1, 64), color=IDEAL, linewidth=1)
    for name, (style, colour) in SCHEDULES.items():
        curve = one["curves"][f"training, {name}"]
        most = max((point["held"] for point in curve), default=0)
        axes.plot(*_across(curve, "times"), style, color=colour, label=f"{name}, holds up to {most}")
    axes.axvline(10, color=IDEAL, linewidth=0.7, linestyle=":")


def _latency(axes: Any, one: Json) -> None:
    """What a micro-batch that comes alone takes, and a batch of 64 of them, against one unit."""
    alone, batch = one["curves"]["inference, 1"], one["curves"]["inference, 64"]
    units, through = _across(alone, "first")
    axes.plot(units, [seconds / one["seconds"] for seconds in through], color=COLOURS[0], label="one micro-batch")
    units, whole = _across(batch, "seconds")
    axes.plot(units, [seconds / (64 * one["seconds"]) for seconds in whole], color=COLOURS[3], label="a batch of 64")
    axes.axvline(10, color=IDEAL, linewidth=0.7, linestyle=":")
    axes.set_ylim(0, 1.6)
