"""docs/scaling.md and its figure from what benchmarks/cluster.py measured."""

from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from cluster_simulated import Assumed, Run, core_seconds, share_of_bytes, simulate
from page_section import put

WORKERS = (10, 20, 50, 100, 200, 500, 1_000)
ROWS = 10**10
INK, COLOURS = "#3b4252", ("#c2571a", "#1f6fb2")
Json = dict[str, Any]


def write_page(found: Json, docs: Path) -> None:
    """Write the tables between the page's marks, and the figure."""
    page, assumed = docs / "scaling.md", Assumed()
    runs = {
        _kind(kind): {count: simulate(ROWS, count, kind, found["units"], assumed) for count in WORKERS}
        for kind in found["units"]["kinds"]
    }
    put(page, "measured", _measured(found))
    put(page, "units", _units(found))
    put(page, "assumed", _assumed(assumed))
    put(page, "simulated", _simulated(runs, found, assumed))
    _draw(runs, docs / "figures" / "scaling.svg")


def _kind(kind: Json) -> str:
    return f"{kind['dim']} columns of {kind['dtype']}"


def _measured(found: Json) -> str:
    coding, evaluation = found["coding"], found["evaluation"]
    lines = ["| who works | coding | times 1 process | scoring a split | times 1 process |", "|---|---|---|---|---|"]
    first = [median(one["seconds"]["1 process"]) for one in (coding, evaluation)]
    for name in coding["seconds"]:
        code, score = median(coding["seconds"][name]), median(evaluation["seconds"][name])
        lines.append(
            f"| {name} | {code:.2f} s, {coding['bytes'] / code / 1e6:,.0f} MB/s | {first[0] / code:.2f} | "
            f"{score:.2f} s, {evaluation['rows'] / score:,.0f} rows/s | {first[1] / score:.2f} |"
        )
    hardware = found["hardware"]
    lines += ["", f"{coding['rows']:,} rows of {coding['dim']} float32 ({coding['bytes'] / 1e6:,.0f} MB), 4-bit codes; "
              f"{evaluation['rows']:,} rows scored; medians of {len(next(iter(coding['seconds'].values())))}; "
              f"{hardware['cpu']}, {hardware['cores_allowed']} cores, on which {found['load_before']:.0f} other "
              "processes wanted to run (mean of the five minutes before)."]  # fmt: skip
    return "\n".join(lines)


def _units(found: Json) -> str:
    units = found["units"]
    lines = ["| measured here | |", "|---|---|"]
    for kind in units["kinds"]:
        rate = kind["rows"] * kind["row_bytes"] / core_seconds(kind) / 1e6
        lines.append(
            f"| coding a part of {kind['rows']:,} rows of {_kind(kind)}, one core | {core_seconds(kind):.2f} s "
            f"({rate:,.0f} MB/s), from memory |"
        )
        lines.append(f"| learning the codewords of {_kind(kind)} | {kind['learning_seconds']:.1f} s |")
    first = units["kinds"][0]
    lines += [
        f"| handing out one task and fetching its result, over Ray | {1e3 * units['task_seconds']:.2f} ms |",
        f"| writing the codes of a part ({first['code_bytes'] / 1e6:.2f} MB) to disk for good | "
        f"{1e3 * units['write_seconds']:.1f} ms |",
        f"| starting a worker | {units['start_seconds']:.1f} s |",
        f"| peak of a worker's resident memory | {units['worker_peak_bytes'] / 1e6:,.0f} MB |",
    ]
    return "\n".join(lines)


def _assumed(assumed: Assumed) -> str:
    words = {
        "node_cores": f"a node has {assumed.node_cores} cores, a worker each",
        "node_bytes": f"a node reads {assumed.node_bytes / 1e9:g} GB/s over its network (10 Gbit/s)",
        "disk_bytes": f"the shared file system gives {assumed.disk_bytes / 1e9:g} GB/s to all together",
        "latency": f"one small read from it takes {1e3 * assumed.latency:g} ms",
        "driver_bytes": f"the driver's disk takes and gives {assumed.driver_bytes / 1e6:g} MB/s",
        "core_hour": f"a core costs ${assumed.core_hour:g} an hour with its memory",
        "node_seconds": f"a node is there {assumed.node_seconds:g} s after it was asked for",
    }
    return "\n".join(f"- `{name}`: {words[name]}" for name in asdict(assumed))


def _simulated(runs: dict[str, dict[int, Run]], found: Json, assumed: Assumed) -> str:
    names = list(runs)
    lines = ["| workers | " + " | ".join(f"{name}: time | money | busy" for name in names) + " | memory of all |"]
    lines.append("|---" * (2 + 3 * len(names)) + "|")
    peak = found["units"]["worker_peak_bytes"]
    for count in WORKERS:
        cells = []
        for name in names:
            one = runs[name][count]
            time = f"{one.hours:.1f} h" if one.hours >= 1 else f"{60 * one.hours:.0f} min"
            cells.append(f"{time} | ${one.money:,.2f} | {one.busy:.0%}")
        lines.append(f"| {count:,} | " + " | ".join(cells) + f" | {count * peak / 1e9:,.0f} GB |")
    last = runs[names[0]][WORKERS[-1]]
    limit = int(assumed.disk_bytes / (assumed.node_bytes / assumed.node_cores))
    alone, full, many = (share_of_bytes(count, assumed) / 1e6 for count in (1, limit, 1_000))
    return "\n".join(
        [
            *lines,
            "",
            f"The codes are {last.codes / 1e9:,.1f} GB. A worker reads {alone:,.0f} MB/s alone on its node, {full:,.0f}"
            f" MB/s on a full one and, of 1,000 workers, {many:,.0f} MB/s: from {limit} on they share the file system.",
        ]
    )


def _draw(runs: dict[str, dict[int, Run]], path: Path) -> None:
    """Write the picture as SVG: the same numbers give the same bytes."""
    matplotlib.rcParams.update({"svg.hashsalt": "scaling", "svg.fonttype": "none", "font.size": 10})
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.8), layout="constrained")
    for colour, (name, one) in zip(COLOURS, runs.items(), strict=True):
        counts = list(one)
        left.plot(counts, [60 * run.hours for run in one.values()], "o-", color=colour, label=name, markersize=4)
        right.plot(counts, [run.money for run in one.values()], "o-", color=colour, label=name, markersize=4)
    first = next(iter(runs.values()))
    ideal = [60 * first[WORKERS[0]].hours * WORKERS[0] / count for count in WORKERS]
    left.plot(WORKERS, ideal, ":", color=INK, linewidth=1, label="ten times the workers, a tenth of the time")
    left.set(xscale="log", yscale="log", xlabel="workers (log)", ylabel="minutes (log)")
    left.set_yticks([1, 2, 5, 10, 20], labels=["1", "2", "5", "10", "20"])
    right.set(xscale="log", xlabel="workers (log)", ylabel="dollars", ylim=(0, None))
    left.legend(frameon=False, fontsize=8)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_xticks(WORKERS, labels=[f"{count:,}" for count in WORKERS], fontsize=8)
        axes.minorticks_off()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
    path.write_text("\n".join(line.rstrip() for line in path.read_text().splitlines()) + "\n")
