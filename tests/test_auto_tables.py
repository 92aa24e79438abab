"""The tables of docs/planning.md: what a search chose is read off its output, and set beside the peer of its case."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

import auto_tables

Json = dict[str, Any]
RESULTS = [
    path for path in sorted(auto_tables.RESULTS.glob("auto_*.json")) if "facts" in json.loads(path.read_text())
]


def case(number: int = 1, **options: str) -> Json:
    trials = [
        {"number": 0, "candidate": {}},
        {"number": 1, "candidate": {"tables": 100.0, "macs": 0.02, "epochs": 0.5, "bits": "int8"}},
    ]
    said = f"...\nTrial {number} is the best of\n 2 recipes tried: whatever the width of the terminal cut"
    return {"case": "made-up", "task": "ours", "options": options, "said": said, "trials": trials}


def test_the_recipe_is_the_trial_that_the_output_names() -> None:
    assert auto_tables._recipe(case()) == "tables 100x, 0.5 epochs, low rank 2.0%, int8"
    assert auto_tables._recipe(case(0)) == "rewriting alone"


def test_an_output_without_a_best_trial_is_an_error() -> None:
    with pytest.raises(AssertionError, match="made-up: its output does not say which trial was the best"):
        auto_tables._recipe({**case(), "said": "Interrupted."})


def test_a_peer_is_compared_with_the_case_of_its_margin_and_minutes() -> None:
    peer = {"task": "ours", "minutes": 10.0, "max_drop": 0.001}
    asked = {"--max-drop": "0.001", "--max-minutes": "10"}
    assert auto_tables._same_question(case(**asked), peer)
    assert not auto_tables._same_question(case(**{**asked, "--max-minutes": "30"}), peer)
    assert not auto_tables._same_question(case(**asked, **{"--min-size-ratio": "630"}), peer)
    assert not auto_tables._same_question({**case(**asked), "task": "theirs"}, peer)


@pytest.mark.parametrize("path", RESULTS, ids=[path.stem for path in RESULTS])
def test_every_result_has_its_line_and_tells_nothing_of_the_machine_it_was_made_on(path: Path) -> None:
    text = path.read_text()
    assert not any(place in text for place in ("/root/", "/home/", "/tmp/"))
    table = auto_tables._cases({path.stem: json.loads(text)})
    assert len(table.splitlines()) == 3
    assert ("| yes |" in table) == (json.loads(text)["exit_code"] == 0)
