"""`parallel plan` and `parallel run` as a user has them."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def planned(flyweight: Run) -> "subprocess.CompletedProcess[str]":
    return flyweight("parallel", "plan", "mine.py:task", "--out", "plan.json")


def test_plan_says_stages_times_and_what_more_would_give(
    planned: "subprocess.CompletedProcess[str]", place: Path
) -> None:
    assert planned.returncode == 0, planned.stderr
    assert "2 stages, micro-batches of" in planned.stdout
    assert "MB of weights, sends" in planned.stdout
    assert " 1 units:  1.00 times the throughput" in planned.stdout
    assert "Wrote plan.json" in planned.stdout
    assert json.loads((place / "plan.json").read_text())["format"] == 1


def test_run_writes_the_scores_of_the_split(
    planned: "subprocess.CompletedProcess[str]", flyweight: Run, place: Path
) -> None:
    done = flyweight("parallel", "run", "mine.py:task", "--plan", "plan.json", "--out", "staged.npy")
    assert done.returncode == 0, done.stderr
    assert "Wrote staged.npy" in done.stdout
    scores = np.load(place / "staged.npy")
    assert scores.shape == (1_500,)
    assert np.isfinite(scores).all()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("plan", "mine.py:task", "--stages", "90"), "90 stages need 89 places to cut"),
        (("run", "mine.py:task", "--split", "all"), "--split 'all' is unknown"),
        (("run", "mine.py:task", "--plan", "nowhere.json"), "nowhere.json holds no plan"),
        (("run", "nowhere.py:task", "--out", "nowhere/scores.npy"), "there is no folder nowhere; change --out"),
        (("plan", "nowhere.py:task", "--out", "."), "it is a folder; change --out"),
        (("plan", "nowhere.py:task", "--latency", "-5"), "--latency is in microseconds, 0 or more; seen -5"),
    ],
)
def test_wrong_input_is_one_line_and_exit_code_2(flyweight: Run, words: tuple[str, ...], said: str) -> None:
    done = flyweight("parallel", *words)
    assert done.returncode == 2
    assert said in " ".join(done.stderr.split())
