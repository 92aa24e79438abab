"""The tables of docs/dense.md, made from the JSON of the dense benchmarks.

python benchmarks/dense_tables.py
"""

import json
from collections.abc import Callable, Iterable
from math import sqrt
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from flyweight.quality.student import student_quantile
from page_section import put

HERE = Path(__file__).parent
RESULTS = HERE / "results"
DOCS = HERE.parent / "docs" / "dense.md"
#: The cases in the order of the page.
CASES = ("lenet", "dcnv2", "gtsrb", "pneumonia", "sasrec", "stacked")
KINDS = {"original": "", "ours": "Flyweight: ", "control": "control: ", "peer": "peer: "}
NAMES = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}
Json = dict[str, Any]


def spread(values: Iterable[float]) -> tuple[float, float | None]:
    """Return the mean over seeds and half of its 95% interval (Student's t); None for a single seed.

    Example:
        >>> mean, half = spread([1.0, 2.0, 3.0])
        >>> mean, round(half, 3)
        (2.0, 2.484)
    """
    found = list(values)
    mean = fmean(found)
    if len(found) < 2:
        return mean, None
    return mean, student_quantile(0.95, len(found) - 1) * stdev(found) / sqrt(len(found))


def in_words(values: Iterable[float], show: Callable[[float], str]) -> str:
    """Return "mean [low, high]", or the value alone where there is one seed, or all seeds agree as shown."""
    mean, half = spread(values)
    if half is None or show(mean - half) == show(mean + half):
        return show(mean)
    return f"{show(mean)} [{show(mean - half)}, {show(mean + half)}]"


def merged(found: Json) -> list[list[Json]]:
    """Return, for each line of the table, its row in each seed that has it beside that seed's original."""
    lines: dict[str, list[Json]] = {}
    for seed in found["seeds"].values():
        for row in seed["rows"]:
            lines.setdefault(row["name"], []).append({**row, "original": seed["rows"][0]})
    return list(lines.values())


def scale_of(found: Json) -> tuple[float, str]:
    """Return what drops are multiplied by, and what they are then called."""
    if found["unit"] == "points":
        return 100.0, "points"
    return 1.0, found["metric"]


def drop_words(line: list[Json], found: Json) -> str:
    """Return the drop over seeds; as a share of the original's quality where the goal is one."""
    if "drop" not in line[0]:
        return in_words((row["quality"]["value"] for row in line), lambda value: f"{value:.4f}")
    if found["unit"] == "relative":
        shares = (row["drop"]["value"] / (row["quality"]["value"] + row["drop"]["value"]) for row in line)
        return in_words(shares, lambda value: f"{100 * value:+.1f}%")
    times = scale_of(found)[0]
    digits = 2 if times == 100.0 else 4
    return in_words((times * row["drop"]["value"] for row in line), lambda value: f"{value:+.{digits}f}")


def certified_words(line: list[Json]) -> str:
    """Return in how many seeds the drop is certified: the bad end of its own paired interval inside the margin."""
    if "certified" not in line[0]:
        return ""
    return f"{sum(row['certified'] for row in line)} of {len(line)}"


def engine_of(row: Json) -> str:
    """Return the engine of a row's time: its own; of the original the first."""
    return str(row.get("engine") or "onnxruntime")


def time_words(line: list[Json], rows: str) -> tuple[str, str]:
    """Return the median in its engine, and how many times faster that is than the original in the same engine."""
    timed = [row["latency_ms"][rows] for row in line if rows in row.get("latency_ms", {})]
    if not timed:
        return "", ""
    engine = engine_of(line[0])
    medians = [one[engine]["p50"] for one in timed if engine in one]
    gains = [one[engine]["speedup"]["value"] for one in timed if "speedup" in one.get(engine, {})]
    shown = f"{in_words(medians, lambda value: f'{value:.2f}')} {NAMES.get(engine, engine)}" if medians else ""
    return shown, in_words(gains, lambda value: f"{value:.2f}x") if gains else ""


def ratio_words(line: list[Json], key: str) -> str:
    """Return how many times smaller a number is than the original's of the same seed."""
    if line[0]["kind"] == "original":
        return ""
    if any(row.get(key) is None for row in line):
        return "-"
    ratios = [(row.get(f"{key}_before") or row["original"][key]) / row[key] for row in line]
    return in_words(ratios, lambda value: f"{value:.1f}x" if value < 100 else f"{value:.0f}x")


def count_words(row: Json, key: str) -> str:
    """Return a count of a row, or a dash where it is not known."""
    return "-" if row.get(key) is None else f"{row[key]:,}"


def bundle_words(found: Json) -> list[str]:
    """Return what the whole bundle takes, beside its model, of the first line that was saved as one."""
    saved = next((line for line in merged(found) if "bundle_bytes" in line[0]), None)
    if saved is None or saved[0]["original"]["bytes"] < 2 * saved[0]["bundle_bytes"]:
        return []  # of a model that is as large as before, its bundle says nothing
    sizes = in_words((row["bundle_bytes"] for row in saved), lambda value: f"{value:,.0f}")
    share = in_words(
        (row["original"]["bytes"] / row["bundle_bytes"] for row in saved), lambda value: f"{value:.0f}x"
    )
    name = saved[0]["name"]
    return [f"The whole bundle of *{name}*, with page, samples and manifest: {sizes} bytes, {share} smaller.", ""]


def case_table(found: Json) -> list[str]:
    """Return the Markdown of one case."""
    lines = merged(found)
    batches = sorted({rows for line in lines for row in line for rows in row.get("latency_ms", {})}, key=int)
    timed = [f" p50 of {rows} {'row' if rows == '1' else 'rows'}, ms | faster |" for rows in batches]
    unit = {"points": "drop, points", "relative": "relative drop"}.get(found["unit"], "drop")
    margin = f"{found['margin'] * scale_of(found)[0]:g}"
    counted, words = ("weights", "weights") if "weights" in lines[-1][0] else ("macs", "MACs")
    head = f"| | bytes | smaller | {words} | fewer | {found['metric']}: {unit} | certified <= {margin} |"
    head += "".join(timed)
    shown = [head, "|" + "---|" * (7 + 2 * len(batches))]
    for line in lines:
        row = line[0]
        cells = [
            KINDS[row["kind"]] + row["name"],
            f"{row['bytes']:,}",
            ratio_words(line, "bytes"),
            count_words(row, counted),
            ratio_words(line, counted),
            drop_words(line, found),
            certified_words(line),
        ]
        for rows in batches:
            cells += time_words(line, rows)
        shown.append(f"| {' | '.join(cells)} |")
    return shown


def render_case(found: Json) -> list[str]:
    """Return title, goal, table, what failed, and what it was measured on."""
    seeds = ", ".join(found["seeds"])
    drop = next((row["drop"] for line in merged(found) for row in line if "drop" in row), None)
    groups = f" in {drop['groups']:,} groups" if drop and drop["groups"] else ""
    n = f"Test data: {drop['n']:,} rows{groups}. " if drop else ""
    words = [f"### {found['title']}", "", f"Goal: {found['goal']}. {n}Seeds {seeds}.", "", *case_table(found), ""]
    words += bundle_words(found)
    failed = {name: why for seed in found["seeds"].values() for name, why in seed["failed"].items()}
    words += [f"- {name}: not measured, {why}" for name, why in failed.items()]
    return [*words, ""] if failed else words


def laplace_table(found: Json) -> list[str]:
    """Return the Markdown of the clips that the minimum-error search finds for Laplace noise."""
    lines = [
        "### Laplace(b): the clip of least squared error",
        "",
        "Goal: what ACIQ publishes at 2, 3 and 4 bits, within 1%. Mean over seeds and its 95% interval.",
        "",
        "| bits | published | closed form | found by the search | off |",
        "|---|---|---|---|---|",
    ]
    for row in found["rows"]:
        mean, half = row["clip"]["mean"], row["clip"]["half_interval"]
        off = 100 * (mean / row["published_clip"] - 1)
        shown = f"{mean:.3f}b [{mean - half:.3f}, {mean + half:.3f}]"
        closed = f"{row['closed_form_clip']:.3f}b"
        lines.append(f"| {row['bits']} | {row['published_clip']}b | {closed} | {shown} | {off:+.2f}% |")
    return [*lines, ""]


def render(cases: list[Json], laplace: Json | None = None) -> str:
    """Return the Markdown of all cases."""
    lines = laplace_table(laplace) if laplace else []
    lines += [line for found in cases for line in render_case(found)]
    machine = cases[-1]["hardware"]
    packages = {name: version for found in cases for name, version in found["hardware"]["packages"].items()}
    versions = ", ".join(f"{name} {packages[name]}" for name in sorted(packages) if name != "flyweight")
    made = f"Made by `benchmarks/dense.py` on {machine['cpu']}, {cases[-1]['threads']} thread; {versions}."
    return "\n".join([*lines, made])


def main() -> None:
    """Write the tables of every case that was run."""
    paths = [RESULTS / f"dense_{name}.json" for name in CASES]
    cases = [json.loads(path.read_text()) for path in paths if path.exists()]
    clips = RESULTS / "dense_laplace.json"
    laplace = json.loads(clips.read_text()) if clips.exists() else None
    put(DOCS, "dense", render(cases, laplace))


if __name__ == "__main__":
    main()
