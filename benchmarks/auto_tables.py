"""The tables of docs/planning.md, made from what `auto.py` and its parts wrote."""

import json
import re
from pathlib import Path
from typing import Any

from flyweight.planning.search.candidate import Candidate
from page_section import put

RESULTS = Path(__file__).parent / "results"
Json = dict[str, Any]


def write(page: Path) -> None:
    """Put the tables into the page, between its marks."""
    found = {path.stem: json.loads(path.read_text()) for path in sorted(RESULTS.glob("auto_*.json"))}
    parts = [_cases(found), _threads(found.get("auto_threads")), _peer(found), _ablation(found.get("auto_ablation"))]
    put(page, "auto", "\n".join(part for part in parts if part))


def _cases(found: dict[str, Json]) -> str:
    rows = [one for one in found.values() if "facts" in one]
    rows.sort(key=lambda one: (one["task"], float(one["options"]["--max-minutes"])))
    if not rows:
        return ""
    lines = [
        "| command | cores | what it chose | tables | model on disk | bundle folder | one request | "
        "test: quality, drop | certified | took |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for one in rows:
        facts = one["facts"]
        before, after, drop, latency = facts["before"], facts["after"], facts["drop"], facts["latency_ms"]
        options = " ".join(f"{name} {value}" for name, value in one["options"].items())
        tables = _ratio(before["table_bytes"], after["table_bytes"])
        speed = latency["before"]["p50"] / latency["after"]["p50"]
        quality, both = before["quality"]["value"], (latency[when]["p50"] for when in ("before", "after"))
        cells = (
            f"`{one['task']} {options}`{_goes_on(one)}",
            one["hardware"]["cores_allowed"],
            _recipe(one),
            tables,
            f"{_size(after['bytes'])}, {_ratio(before['bytes'], after['bytes'])}",
            _size(one["folder_bytes"]),
            "{:.2f} -> {:.3f} ms".format(*both) + f", {speed:.1f}x ({facts['engine']})",
            f"{quality:.4f}, {_drop(drop)}, n={drop['n']:,}",
            "yes" if one["exit_code"] == 0 else "no",
            f"{one['seconds'] / 60:.1f} min, {len(one['trials'])} trials",
        )
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines) + "\n"


def _goes_on(one: Json) -> str:
    return f", going on from {one['after']}" if one["after"] else ""


def _threads(found: Json | None) -> str:
    if found is None:
        return ""
    lines = [
        f"\nThe bundle of {found['case']} as a server calls it (`Ranker.score`, {found['races'][0]['rounds']:,} rounds "
        "in turns, `benchmarks/auto_threads.py`):\n",
        "| threads of PyTorch | of the bundle | eager PyTorch | bundle, p50 / p99 | x eager |",
        "|---|---|---|---|---|",
    ]
    for race in found["races"]:
        ms, gain = race["ms"], race["speedup"]
        cells = (
            race["threads"],
            race["bundle_threads"],
            f"{ms['eager']['p50']:.2f} ms",
            f"{ms['bundle']['p50']:.3f} / {ms['bundle']['p99']:.3f} ms",
            f"{gain['value']:.1f}x [{gain['low']:.1f}, {gain['high']:.1f}]",
        )
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines) + "\n"


def _peer(found: dict[str, Json]) -> str:
    peer = found.get("auto_peer")
    own = next((one for one in found.values() if peer and _same_question(one, peer)), None)
    if peer is None or own is None:
        return ""
    best, facts, test = peer["best"], own["facts"], peer["test"]
    latency = facts["latency_ms"]
    speed = latency["before"]["p50"] / latency["after"]["p50"]
    lines = [
        f"\nThe same {peer['minutes']:g} minutes and margin of {peer['max_drop']} on {peer['task']}, against a search "
        "over the passes of ONNX Runtime, OpenVINO and NNCF as Olive makes it (`benchmarks/auto_peer.py`; on the axis "
        "of the drop, what the untouched test split says of the best):\n",
        "| | model on disk | one request, x eager | drop on test | tried |",
        "|---|---|---|---|---|",
        f"| Flyweight: {_recipe(own)} | {_ratio(facts['before']['bytes'], facts['after']['bytes'])} | {speed:.1f}x | "
        f"{_drop(facts['drop'])} | {len(own['trials'])} |",
        f"| search over passes: {best['words']} | {best['size_ratio']:.1f}x | {best['speedup']['value']:.1f}x | "
        f"{_drop(test['drop'])} | {len(peer['points'])} |",
    ]
    return "\n".join(lines) + "\n"


def _same_question(one: Json, peer: Json) -> bool:
    """Return whether a case was asked what the peer was: the task, the margin and the minutes."""
    wanted = {"--max-drop": peer["max_drop"], "--max-minutes": peer["minutes"]}
    options = {name: float(value) for name, value in one.get("options", {}).items()}
    return one.get("task") == peer["task"] and options == wanted


def _recipe(one: Json) -> str:
    """Return in words the recipe that a case's search chose."""
    words = " ".join(one["said"].split())
    number = re.search(r"Trial (\d+) is the best of", words)
    assert number is not None, f"{one['case']}: its output does not say which trial was the best"
    (chosen,) = (trial for trial in one["trials"] if trial["number"] == int(number[1]))
    return str(Candidate(**chosen["candidate"]))


def _ablation(found: Json | None) -> str:
    if found is None:
        return ""
    lines = [
        f"\nMethod by method ({found['candidate']}; validation rows, one thread, all lines timed in turns):\n",
        "| | model on disk | one request | x eager | drop |",
        "|---|---|---|---|---|",
    ]
    for row in found["rows"]:
        gain = row["speedup"]
        lines.append(
            f"| {row['name']} ({row['engine']}) | {_size(row['bytes'])} | {row['ms']:.3f} ms | {gain[0]:.1f}x "
            f"[{gain[1]:.1f}, {gain[2]:.1f}] | {row['drop'][0]:+.4f} [{row['drop'][1]:+.4f}, {row['drop'][2]:+.4f}] |"
        )
    return "\n".join(lines) + "\n"


def _drop(drop: Json) -> str:
    return f"drop {drop['value']:+.4f} [{drop['low']:+.4f}, {drop['high']:+.4f}]"


def _ratio(before: int, after: int) -> str:
    ratio = before / max(after, 1)
    return "-" if not before else f"{ratio:.1f}x" if ratio < 10 else f"{ratio:,.0f}x"


def _size(count: int) -> str:
    for unit, size in (("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count} B"
