"""The dense benchmarks' tables: means and intervals over seeds, drops in their unit, pages kept but for the table."""

import math
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

import dense_tables
import page_section

Json = dict[str, Any]


def row(name: str, kind: str, drop: float, certified: bool, p50: float, speedup: float | None, size: int = 250) -> Json:
    """Return one line of one seed."""
    latency: Json = {"p50": p50, "low": p50, "high": p50, "repeats": 9}
    if speedup is not None:
        latency["speedup"] = {"value": speedup}
    about = {"name": name, "kind": kind, "engine": "openvino", "bytes": size, "macs": 40, "certified": certified}
    measured = {"quality": {"value": 0.9 - drop}, "drop": {"value": drop, "n": 500, "groups": None}}
    return about | measured | {"latency_ms": {"64": {"openvino": latency}}}


def original(p50: float = 8.0) -> Json:
    """Return the original's line."""
    return {
        "name": "original",
        "kind": "original",
        "bytes": 1000,
        "macs": 100,
        "quality": {"value": 0.9},
        "latency_ms": {"64": {"onnxruntime": {"p50": p50}, "eager": {"p50": 2 * p50}}},
    }


def case(unit: str = "") -> Json:
    """Return a case of two seeds."""
    seeds = {
        "0": {"rows": [original(), row("Prune", "ours", 0.001, True, 2.0, 4.0)], "failed": {}},
        "1": {"rows": [original(), row("Prune", "ours", 0.003, False, 4.0, 2.0)], "failed": {"X": "InputError: no"}},
    }
    hardware = {"cpu": "a processor", "packages": {"torch": "2"}}
    about = {"title": "A case", "goal": "much", "margin": 0.002, "unit": unit, "metric": "auc", "threads": 1}
    return {**about, "seeds": seeds, "hardware": hardware}


def test_interval_over_seeds_is_students_t() -> None:
    mean, half = dense_tables.spread([1.0, 2.0, 6.0])
    assert mean == 3.0
    # t of 95% with two degrees of freedom is 4.3027; the standard deviation of 1, 2, 6 is sqrt(7).
    assert half == pytest.approx(4.3027 * math.sqrt(7.0) / math.sqrt(3.0), rel=1e-3)


def test_one_seed_has_no_interval() -> None:
    assert dense_tables.in_words([2.5], lambda value: f"{value:.1f}") == "2.5"


def test_table_shows_ratios_against_the_original_and_certified_seeds() -> None:
    lines = dense_tables.case_table(case())
    cells = [cell.strip() for cell in lines[3].strip("|").split("|")]
    assert cells[0] == "Flyweight: Prune"
    assert cells[2] == "4.0x"
    assert cells[4] == "2.5x"
    assert cells[5].startswith("+0.0020 [")
    assert cells[6] == "1 of 2"
    assert cells[7].startswith("3.00 [")
    assert cells[7].endswith("OpenVINO")
    assert cells[8].startswith("3.00x")
    assert len(lines[0].split("|")) == len(lines[1].split("|")) == len(lines[3].split("|"))


def test_points_are_hundredths() -> None:
    lines = dense_tables.case_table(case("points"))
    assert "drop, points | certified <= 0.2 " in lines[0]
    assert "| +0.20 [" in lines[3]


def test_relative_drops_are_shares_of_the_original() -> None:
    found = case("relative")
    del found["seeds"]["1"]
    assert "| +0.1% |" in dense_tables.case_table(found)[3]  # 0.001 of 0.9


def test_what_failed_is_named_with_its_reason() -> None:
    assert "- X: not measured, InputError: no" in dense_tables.render_case(case())


def test_a_line_that_only_some_seeds_have_is_compared_within_its_own_seed() -> None:
    found = case()
    found["seeds"]["0"]["rows"][0]["bytes"] = 4000
    found["seeds"]["1"]["rows"].append(row("late", "peer", 0.0, True, 1.0, None, size=500))
    late = next(line for line in dense_tables.case_table(found) if "late" in line)
    assert "| 2.0x |" in late  # 1000 of seed 1 by 500, not 4000 of seed 0


def test_clips_are_shown_beside_what_was_published() -> None:
    clip = {"mean": 2.83 * 1.01, "half_interval": 0.01}
    row = {"bits": 2, "published_clip": 2.83, "closed_form_clip": 2.8307, "clip": clip}
    lines = dense_tables.laplace_table({"rows": [row]})
    assert lines[-2].endswith("| +1.00% |")
    assert "2.858b [2.848, 2.868]" in lines[-2]


def test_a_page_keeps_what_stands_outside_the_markers() -> None:
    page = "before\n<!-- dense:begin -->\nold\n<!-- dense:end -->\nafter\n"
    written = page_section.between(page, "dense", "new")
    assert written == "before\n<!-- dense:begin -->\nnew\n<!-- dense:end -->\nafter\n"


def test_a_page_without_markers_is_an_error() -> None:
    with pytest.raises(ValueError, match="needs each of the marks <!-- dense:begin --> and <!-- dense:end --> once"):
        page_section.between("no markers", "dense", "new")
