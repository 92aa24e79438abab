"""How small do embedding tables get, what does it cost, and what would others give? Test data, exported artefacts.

python benchmarks/tables.py                       # all of it: about 20 minutes; writes JSON, docs/tables.md, figure
python benchmarks/tables.py --only curve cost     # some parts; the others are kept from the JSON
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import torch
from torch import nn

import flyweight.tables.encode_tables as encoding
from flyweight.cost.hardware import describe_hardware
from flyweight.engines.registry import find_engine
from flyweight.planning.artefact import artefact_scores, make_artefact
from flyweight.planning.certificate import compare
from flyweight.planning.requests import sample_requests
from flyweight.tables.encode_tables import EncodeTables
from flyweight.tables.menu import menu
from flyweight.tables.sizes import table_bytes
from flyweight.task.estimate import Estimate
from flyweight.task.scores import Scores
from flyweight.task.task import Task
from flyweight.zoo import complete_journey
from flyweight.zoo.tasks import ZOO
from page_section import put
from table_controls import controls
from table_peers import peers

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "tables.json"
DOCS = HERE.parent / "docs" / "tables.md"
FIGURE = HERE.parent / "docs" / "figures" / "curve.svg"
MARGIN = 0.001
GOAL_RATIO = 256
RATIOS = {"complete-journey": (16, 64, 128, 256, 400, 800), "movielens-1m": (8, 16, 32, 64, 128)}
#: Tasks that the goals were set for.
GOALS = ("complete-journey",)
PARTS = ("curve", "peers", "controls", "ablation", "cost")


def say(words: str) -> None:
    """Print progress to the terminal."""
    print(f"[{time.strftime('%H:%M:%S')}] {words}", file=sys.stderr, flush=True)


class Judge:
    """Exports models, runs them in ONNX Runtime over the test split, and compares them with the original."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.samples = sample_requests(task)
        self.before = self.scores(task.model)
        self.bytes_before = table_bytes(task.model)

    def scores(self, model: nn.Module) -> Scores:
        """Return the test scores of an exported model."""
        rows = len(next(iter(self.samples[0].values())))
        with tempfile.TemporaryDirectory() as folder:
            artefact = make_artefact(model, self.samples, rows, Path(folder))
            prepared = find_engine("onnxruntime").prepare(artefact.exported.path, 0)
            scores = artefact_scores(self.task, prepared, "test")
            prepared.close()
        return scores

    def row(self, name: str, model: nn.Module, size: int, **more: Any) -> dict[str, Any]:
        """Return one line of the tables: bytes, ratio, and the paired drops on test data."""
        found = compare(self.task, self.before, self.scores(model), MARGIN, 0.95)
        say(f"{name}: {self.bytes_before / size:.0f}x, drop {found.drop}")
        return {
            "name": name,
            "table_bytes": size,
            "ratio": self.bytes_before / size,
            "quality": estimate(found.after),
            "drop": estimate(found.drop),
            "guards": {guard: estimate(drop) for guard, drop in found.guard_drops.items()},
            "certified": found.certified,
            **more,
        }


def estimate(one: Estimate) -> dict[str, Any]:
    """Return an estimate as plain values."""
    return {key: getattr(one, key) for key in ("value", "low", "high", "n", "groups", "method")}


def curve(task: Task, judge: Judge, name: str) -> list[dict[str, Any]]:
    """Return ours, at each ratio and under the drop."""
    rows = []
    wanted = [(f"ratio={ratio}", EncodeTables(ratio=ratio)) for ratio in RATIOS[name]]
    for label, step in [*wanted, (f"max_drop={MARGIN}", EncodeTables(max_drop=MARGIN))]:
        started = time.perf_counter()
        change = step.apply(task)
        seconds = round(time.perf_counter() - started, 1)
        rows.append(judge.row(f"Flyweight {label}", change.model, table_bytes(change.model), seconds=seconds))
    return rows


def measure_peers(task: Task, judge: Judge, name: str) -> list[dict[str, Any]]:
    """Return the row-wise formats."""
    return [judge.row(peer, model, size, seconds=round(took, 1)) for peer, model, size, took in peers(task)]


def measure_controls(task: Task, judge: Judge, name: str) -> list[dict[str, Any]]:
    """Return models trained from scratch at few bytes."""
    if name != "complete-journey":
        return []
    data = complete_journey.load()
    found = controls(data, judge.bytes_before, lambda *_: None)
    return [judge.row(control, model, size) for control, model, size in found]


def ablation(task: Task, judge: Judge, name: str) -> list[dict[str, Any]]:
    """Return the same method with one idea taken out, at 400x; and one coding for every large table."""
    if name != "complete-journey":
        return []
    rows = []
    without: list[tuple[str, str, Callable[..., Any], EncodeTables]] = [
        ("rows weighed by count alone", "row_weights", lambda counts, *_: counts + 0.1, EncodeTables(ratio=400)),
        ("rows weighed alike", "row_weights", lambda counts, *_: torch.ones_like(counts), EncodeTables(ratio=400)),
        ("no frequency bands", "cut_bands", lambda counts, _: ((0, len(counts)),), EncodeTables(ratio=400)),
        *(
            (
                f"one {bits}-bit code a row in every large table",
                "menu",
                partial(_only, bits),
                EncodeTables(ratio=32 * 16 / bits * 0.9),
            )
            for bits in (4, 2, 1)
        ),
    ]
    for words, attribute, stand_in, step in without:
        with replaced(attribute, stand_in):
            change = step.apply(task)
        rows.append(judge.row(words, change.model, table_bytes(change.model)))
    return rows


def _only(bits: int, rows: int, dim: int, *, fine: bool) -> tuple[Any, ...]:
    """Return a menu of one coding for a large band, and the best one for a small band."""
    offered = menu(rows, dim, fine=False)
    if rows < 1_000:
        return offered[-1:]
    return tuple(coding for coding in offered if coding.bits_per_row(dim) == bits)


@contextmanager
def replaced(attribute: str, stand_in: Any) -> Iterator[None]:
    """Swap one function of the encoding for another, for an ablation."""
    kept = getattr(encoding, attribute)
    setattr(encoding, attribute, stand_in)
    try:
        yield
    finally:
        setattr(encoding, attribute, kept)


def cost(task: Task, judge: Judge, name: str) -> dict[str, Any]:
    """Return seconds and peak memory of encoding, measured in a fresh process."""
    words = [sys.executable, str(HERE / "encoding_cost.py"), name]
    # The second run gives freed memory back at once, so that what is seen is what is in use: that is slow.
    exact = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    timed, weighed = (
        json.loads(subprocess.run(words, capture_output=True, text=True, check=True, env=os.environ | more).stdout)
        for more in ({}, exact)
    )
    found: dict[str, Any] = timed | {
        key: value for key, value in weighed.items() if key.endswith(("bytes", "_by_stage"))
    }
    say(f"encoding: {found}")
    return found


MEASURES: dict[str, Callable[[Task, Judge, str], Any]] = {
    "curve": curve,
    "peers": measure_peers,
    "controls": measure_controls,
    "ablation": ablation,
    "cost": cost,
}


def as_interval(one: dict[str, Any]) -> str:
    """Return "+0.0001 [-0.0005, +0.0008]"."""
    return f"{one['value']:+.4f} [{one['low']:+.4f}, {one['high']:+.4f}]"


def table(rows: list[dict[str, Any]], metric: str) -> list[str]:
    """Return lines of Markdown for measured rows."""
    lines = [
        f"| | table bytes | smaller | {metric} drop | logloss drop | calibration error, rise | certified at {MARGIN} |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        logloss = as_interval(row["guards"]["logloss"])
        verdict = "yes" if row["certified"] else "no"
        rise = f"{row['guards']['calibration_error']['value']:+.4f}"
        size = f"{row['table_bytes']:,} | {row['ratio']:.0f}x"
        lines.append(f"| {row['name']} | {size} | {as_interval(row['drop'])} | {logloss} | {rise} | {verdict} |")
    return lines


def goals(found: dict[str, Any]) -> list[str]:
    """Return the goals beside what was measured."""
    # The points that were asked for: picking the best that test data certifies would be a search on test data.
    asked = {row["name"]: row for row in found["curve"]}
    points = [asked[f"Flyweight ratio={GOAL_RATIO}"], asked[f"Flyweight max_drop={MARGIN}"]]
    most = "; ".join(
        f"{row['ratio']:.0f}x: {as_interval(row['drop'])}{'' if row['certified'] else ', not certified'}"
        for row in points
    )
    lines = [
        "| | goal | measured |",
        "|---|---|---|",
        f"| table bytes, drop and logloss drop certified <= {MARGIN} | >= {GOAL_RATIO}x | {most} |",
    ]
    if not found.get("cost"):
        return lines
    took, tables = found["cost"]["stages"], found["cost"]["table_bytes"]
    peaks = found["cost"]["peak_by_stage"]
    share = max(peak for words, peak in peaks.items() if words.startswith("Encoding")) / tables
    whole, plain = found["cost"]["peak_bytes"] / tables, found["cost"]["evaluation_peak_bytes"] / tables
    coded = sum(seconds for words, seconds in took.items() if words.startswith("Encoding"))
    return [
        *lines,
        f"| encoding every table in every coding of the menu | <= 30 s | {coded:.1f} s |",
        f"| the whole step: weighing, encoding, allocating, checking | - | {found['cost']['seconds']:.0f} s |",
        f"| peak memory of encoding, beyond the model | <= 0.5x the tables | {share:.2f}x |",
        f"| peak memory of the whole step (a plain evaluation takes {plain:.2f}x) | - | {whole:.2f}x |",
    ]


def render(result: dict[str, Any]) -> str:
    """Return the Markdown of all tables."""
    lines = []
    for name, found in result["tasks"].items():
        metric = found["metric"].upper()
        n, groups = found["curve"][0]["drop"]["n"], found["curve"][0]["drop"]["groups"]
        lines += [
            f"### {name}",
            "",
            f"Test data: {n:,} rows in {groups:,} groups; tables of {found['bytes']:,} bytes.",
            "",
        ]
        lines += [*(goals(found) if name in GOALS else []), "", *table([*found["curve"], *found["peers"]], metric), ""]
        if found["controls"]:
            lines += ["Trained from scratch at few bytes:", "", *table(found["controls"], metric), ""]
        if found["ablation"]:
            lines += ["One idea taken out, at 400x, and one coding for all:", "", *table(found["ablation"], metric), ""]
    machine = result["hardware"]
    lines += [
        f"Made by `benchmarks/tables.py` on {machine['cpu']}, {machine['cores']} cores, "
        f"torch {machine['packages']['torch']}."
    ]
    return "\n".join(lines)


def draw(result: dict[str, Any]) -> None:
    """Draw bytes against drop: ours, peers and controls."""
    plt.rcParams.update({"svg.hashsalt": "flyweight", "svg.fonttype": "none", "font.size": 9})
    figure, axes = plt.subplots(1, len(result["tasks"]), figsize=(10, 3.8), squeeze=False)
    styles = {"curve": ("Flyweight", "#0b6bb8", "o"), "peers": ("row-wise int8, int4, int2", "#888888", "s")}
    styles["controls"] = ("trained from scratch", "#c8500a", "^")
    for axis, (name, found) in zip(axes[0], result["tasks"].items(), strict=True):
        for part, (label, colour, marker) in styles.items():
            rows = sorted(found[part], key=lambda row: row["ratio"])
            if not rows:
                continue
            values = [row["drop"]["value"] for row in rows]
            errors = [[row["drop"]["value"] - row["drop"]["low"] for row in rows]]
            errors.append([row["drop"]["high"] - row["drop"]["value"] for row in rows])
            line = "-" if part == "curve" else "none"
            ratios = [row["ratio"] for row in rows]
            axis.errorbar(ratios, values, errors, color=colour, marker=marker, linestyle=line, label=label, capsize=2)
        axis.axhline(MARGIN, color="#c8500a", linestyle="--", linewidth=0.8)
        axis.set(xscale="log", title=name, xlabel="tables are so many times smaller", ylabel="drop in AUC on test data")
        axis.set_yscale("symlog", linthresh=0.002)
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    figure.tight_layout()
    FIGURE.parent.mkdir(exist_ok=True)
    figure.savefig(FIGURE, metadata={"Date": None})


def main() -> None:
    """Measure the parts asked for, write the JSON, the tables and the figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--tasks", nargs="+", choices=tuple(RATIOS), default=tuple(RATIOS))
    wanted = parser.parse_args()
    result: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"tasks": {}}
    for name in wanted.tasks:
        task = ZOO[name]()
        judge = Judge(task)
        found = result["tasks"].setdefault(name, {"controls": [], "ablation": [], "cost": None})
        found |= {"bytes": judge.bytes_before, "metric": task.spec.name}
        for part in wanted.only:
            say(f"{name}: {part}")
            found[part] = MEASURES[part](task, judge, name)
            result["hardware"] = describe_hardware()
            RESULTS.write_text(json.dumps(result, indent=1) + "\n")
    put(DOCS, "tables", render(result))
    draw(result)


if __name__ == "__main__":
    main()
