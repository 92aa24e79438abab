"""Time and memory of coding a table against its rows, both axes in decades: a straight line of slope 1 is linear."""

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

INK, GREY = "#3b4252", "#8a93a6"
ONE, TWO = "#1f6fb2", "#c2571a"


def draw(found: list[dict[str, Any]], path: Path) -> None:
    """Write the picture as SVG: the same numbers give the same bytes."""
    matplotlib.rcParams.update({"svg.hashsalt": "encode_file", "svg.fonttype": "none", "font.size": 10})
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.8), layout="constrained")
    rows = [one["rows"] for one in found]
    _time(left, rows, found)
    _memory(right, rows, found)
    for axes in (left, right):
        axes.set(xscale="log", yscale="log", xlabel="rows of 50 numbers (log)")
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(fontsize=8, frameon=False, loc="upper left")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
    path.write_text("\n".join(line.rstrip() for line in path.read_text().splitlines()) + "\n")


def _time(axes: Any, rows: list[int], found: list[dict[str, Any]]) -> None:
    last = found[-1]["seconds"]["1"]
    axes.plot(rows, [last * one / rows[-1] for one in rows], ":", color=GREY, label="linear in rows")
    axes.plot(rows, [one["read_seconds"]["1"] for one in found], "--", color=INK, label="the disk alone, 1 reader")
    for many, colour in (("1", ONE), ("2", TWO)):
        label = "1 worker" if many == "1" else "2 workers, their start included"
        axes.plot(rows, [one["seconds"][many] for one in found], "o-", color=colour, markersize=4, label=label)
    axes.set(ylabel="seconds (log)")


def _memory(axes: Any, rows: list[int], found: list[dict[str, Any]]) -> None:
    axes.plot(rows, [one["bytes"] / 1e6 for one in found], ":", color=GREY, label="the table")
    for many, colour in (("1", ONE), ("2", TWO)):
        label = "1 worker" if many == "1" else "2 workers, three processes"
        axes.plot(rows, [one["peak_mb"][many] for one in found], "o-", color=colour, markersize=4, label=label)
    axes.axhline(2_000, color=INK, linewidth=1, linestyle="--")
    axes.annotate("2 GB", (rows[-1], 2_000), xytext=(0, 3), ha="right", textcoords="offset points", fontsize=8)
    axes.set(ylabel="MB (log)")
