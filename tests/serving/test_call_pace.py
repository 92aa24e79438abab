"""What a lane learns of how long calls take."""

import numpy as np
import pytest

from flyweight.serving.pace import Pace

START, EACH = 200e-6, 0.5e-6


def taught(rows: list[int], first: float = EACH) -> Pace:
    pace = Pace(first)
    for one in rows:
        pace.note(one, START + EACH * one)
    return pace


def test_start_and_slope_are_those_of_calls_of_many_sizes() -> None:
    pace = taught(np.random.default_rng(3).integers(100, 4_000, 300).tolist(), first=3 * EACH)
    assert pace.start == pytest.approx(START, rel=0.05)
    assert pace.each == pytest.approx(EACH, rel=0.05)
    assert pace.seconds(10_000, 4) == pytest.approx(10_000 * EACH + 4 * START, rel=0.05)
    assert pace.rows_in(2e-3) == pytest.approx(2e-3 / EACH, rel=0.05)


def test_many_small_calls_make_no_large_one_look_slow() -> None:
    pace = taught([1] * 500)
    assert pace.seconds(9_000, 1) == pytest.approx(START + 9_000 * EACH, rel=0.01)


def test_slower_machine_is_noticed() -> None:
    pace = taught([300] * 50)
    for _ in range(100):
        pace.note(300, 10 * (START + 300 * EACH))
    assert pace.seconds(300, 1) == pytest.approx(10 * (START + 300 * EACH), rel=0.01)


def test_nothing_known_bounds_nothing() -> None:
    assert Pace().rows_in(0.002) == float("inf")
    assert Pace().seconds(1_000, 1) == 0
