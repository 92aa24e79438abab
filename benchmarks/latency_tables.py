"""The tables of docs/latency.md, made from the JSON of the latency benchmark.

python benchmarks/latency_tables.py
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from page_section import put

HERE = Path(__file__).parent
RESULTS = HERE / "results"
DOCS = HERE.parent / "docs" / "latency.md"
#: Cases in the order of the page, with what they are called there.
CASES = {
    "din": "DIN, history of 100",
    "mlp": "MLP ranker, 25 fields",
    "dcnv2": "DCN-V2, the default ranker",
    "dlrm": "DLRM",
    "deepfm": "DeepFM",
    "twotower": "Two-tower",
    "sasrec": "SASRec as a ranker, history of 50",
}
NAMES = {
    "onnxruntime": "ONNX Runtime",
    "openvino": "OpenVINO",
    "openvino-bf16": "OpenVINO bf16",
    "torch": "PyTorch, from the file",
    "eager": "PyTorch eager",
    "compiled": "torch.compile",
}
Json = dict[str, Any]


def path_of(name: str) -> Path:
    """Return where a case's figures lie."""
    return RESULTS / f"latency_{name}.json"


def growth(times: dict[str, Json], engine: str) -> tuple[float, float]:
    """Return the fixed part in ms and the slope in microseconds a candidate: a line through the medians.

    Example:
        >>> growth({"100": {"x": {"p50": 1.1}}, "500": {"x": {"p50": 1.5}}}, "x")
        (1.0, 1.0)
    """
    rows = [int(count) for count in times if engine in times[count]]
    medians = [times[str(count)][engine]["p50"] for count in rows]
    slope, fixed = np.polyfit(rows, medians, 1)
    return round(float(fixed), 4), round(1000 * float(slope), 4)


def best_engine(row: Json, rows: str = "500") -> str:
    """Return the engine with the least median."""
    times = row["latency_ms"][rows]
    return min(times, key=lambda engine: times[engine]["p50"])


def lines_of(found: Json) -> list[list[str]]:
    """Return a line for each contender in its quickest engine, the original in each of its own."""
    rows = found["seeds"]["0"]["rows"]
    original = rows[0]
    eager = original["latency_ms"]["500"]["eager"]["p50"]
    lines = []
    for row in rows:
        engines = sorted(row["latency_ms"]["500"], key=lambda one: row["latency_ms"]["500"][one]["p50"], reverse=True)
        for engine in engines if row["kind"] == "original" else [best_engine(row)]:
            lines.append(_line(row, engine, eager))
    return lines


def _line(row: Json, engine: str, eager: float) -> list[str]:
    times = row["latency_ms"]
    at = times["500"][engine]
    fixed, slope = growth(times, engine)
    name = {"original": "", "ours": "", "peer": "peer: "}.get(row["kind"], "") + row["name"]
    return [
        f"**{name}**" if row["kind"] == "ours" else name,
        NAMES.get(engine, engine),
        *(f"{times[count][engine]['p50']:.2f}" for count in ("100", "500", "2000")),
        f"{at['p95']:.2f} / {at['p99']:.2f}",
        f"{eager / at['p50']:.1f}x",
        f"{fixed:.2f} + {slope:.2f}",
        f"{row['bytes'] / 1e6:.2f}",
        *_quality(row, engine),
    ]


def _quality(row: Json, engine: str) -> list[str]:
    """Return the quality, or the drop with its interval and whether it is certified, in the engine that is shown."""
    if row["kind"] == "original" and engine in ("onnxruntime", "eager"):
        return [f"{row['quality']['value']:.4f}", ""]
    told = row if engine == row.get("engine") else row.get("by_engine", {}).get(engine)
    if told is None:
        return ["not scored", ""]
    drop = told["drop"]
    shown = f"{drop['value']:+.4f} [{drop['low']:+.4f}, {drop['high']:+.4f}]"
    return [shown, "yes" if told["certified"] else "no"]


HEAD = [
    "", "engine", "100", "500", "2,000", "p95 / p99 at 500", "against eager", "ms + us a candidate", "MB",
    "quality or drop", "certified",
]  # fmt: skip


def hoisting_lines(found: Json) -> list[list[str]]:
    """Return, engine by engine, the original against the same model rewritten and nothing else."""
    rows = {row["name"]: row for row in found["seeds"]["0"]["rows"]}
    ours = rows.get("Flyweight, rewritten alone")
    if ours is None:
        return []
    lines = []
    for engine, time in ours["latency_ms"]["500"].items():
        old = rows["original"]["latency_ms"]["500"].get(engine)
        if old is not None:
            was, now = old["p50"], time["p50"]
            lines.append([NAMES.get(engine, engine), f"{was:.2f}", f"{now:.2f}", f"{was / now:.2f}x"])
    return lines


def table(head: list[str], lines: list[list[str]]) -> str:
    """Return a Markdown table."""
    return "\n".join(
        ["| " + " | ".join(head) + " |", "|" + "---|" * len(head), *("| " + " | ".join(line) + " |" for line in lines)]
    )


def page() -> str:
    """Return all tables."""
    parts = []
    for name, title in CASES.items():
        if not path_of(name).exists():
            continue
        found = json.loads(path_of(name).read_text())
        if not all("latency_ms" in row for row in found["seeds"]["0"]["rows"]):
            continue  # still running
        parts.append(f"## {title}\n\n{table(HEAD, lines_of(found))}")
        hoisted = hoisting_lines(found)
        if hoisted:
            head = ["same engine, 1 x 500", "flat, ms", "rewritten, ms", ""]
            parts.append(table(head, hoisted))
        cold = found.get("cold_start")
        if cold:
            torch = "with" if cold["torch"] else "without"
            parts.append(
                f"Cold start, {torch} PyTorch: {cold['median']:.2f} s from the first import to the first scores "
                f"(the slowest of {cold['runs']}: {cold['most']:.2f} s), {cold['bytes'] / 1e6:.2f} MB on disk."
            )
        failed = found["seeds"]["0"]["failed"]
        parts += [f"{one} did not run: {why}." for one, why in failed.items()]
    return "\n\n".join(parts) + "\n"


def main() -> None:
    """Write the tables into the page."""
    put(DOCS, "latency", page())


if __name__ == "__main__":
    main()
