"""Timings of trials that other work disturbed are taken again."""

import numpy as np
import pytest

from flyweight.cost.latency import Rounds
from flyweight.planning.search import steady
from flyweight.planning.search.steady import TRIES, Steady

#: Medians of the original and of a trial: in peace, and with the original alone disturbed.
QUIET, DISTURBED = (6.0, 0.3), (90.0, 0.4)


@pytest.fixture
def timings(monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, float]]:
    """What is timed next, the first first."""
    coming: list[tuple[float, float]] = []

    def timed(*_: object, candidates: int, threads: int, seconds: float) -> Rounds:
        original, trial = coming.pop(0)
        return Rounds({"before": np.array([original]), "trial": np.array([trial])}, candidates, threads)

    monkeypatch.setattr(steady, "time_rounds", timed)
    return coming


def medians(timer: Steady) -> tuple[float, float]:
    rounds = timer.time("before", {}, rows=1, threads=1, seconds=0.0)
    return rounds.latency("before").p50, rounds.latency("trial").p50


def test_a_disturbed_timing_is_taken_again(timings: list[tuple[float, float]]) -> None:
    timer = Steady(least=6.0)
    timings += [DISTURBED, QUIET]
    assert medians(timer) == QUIET


def test_a_steady_one_is_taken_once(timings: list[tuple[float, float]]) -> None:
    timer = Steady(least=6.0)
    timings += [QUIET, DISTURBED]
    assert medians(timer) == QUIET
    assert timings == [DISTURBED]


def test_the_first_is_held_against_its_own_repeats(timings: list[tuple[float, float]]) -> None:
    timer = Steady()
    timings += [DISTURBED, QUIET, DISTURBED]
    assert medians(timer) == QUIET
    assert timer.least == QUIET[0]


def test_where_no_peace_comes_the_least_disturbed_is_kept(timings: list[tuple[float, float]]) -> None:
    timer = Steady(least=6.0)
    timings += [(90.0, 0.4), (30.0, 0.4), (60.0, 0.4)]
    assert medians(timer) == (30.0, 0.4)
    assert not timings
    assert TRIES == 3
