"""Outcomes: which nothing beats, which one a budget asks for, and how far the others are outside of it."""

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_up_outcomes import done, estimate, failed, measured

from flyweight.planning.budget import Budget
from flyweight.planning.search.candidate import Candidate
from flyweight.planning.search.outcome import (
    Measured,
    Outcome,
    best_of,
    excess,
    frontier,
    gain,
    is_inside,
    outcome_of,
)

BEFORE = 10_000
#: Few values, so that ties in one, two and three axes come up.
POINT = st.tuples(st.integers(1, 5), st.integers(1, 5), st.integers(-2, 2))
POINTS = st.lists(POINT, min_size=1, max_size=12)


def axes(outcome: Outcome) -> tuple[float, float, float]:
    assert outcome.measured is not None
    assert outcome.drop is not None
    return outcome.measured.bytes, outcome.measured.latency_ms, outcome.drop.value


@given(POINTS)
def test_nothing_on_the_front_is_beaten_and_everything_off_it_is(points: list[tuple[int, int, int]]) -> None:
    outcomes = [done(number, size, time, drop / 1_000) for number, (size, time, drop) in enumerate(points)]
    front = frontier([*outcomes, failed(len(points))])

    def beats(one: Outcome, other: Outcome) -> bool:
        pairs = list(zip(axes(one), axes(other), strict=True))
        return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)

    assert not any(beats(other, one) for one in front for other in outcomes)
    for one in outcomes:
        if one not in front:  # beaten, or the same as one that was made before it
            assert any(beats(other, one) or axes(other) == axes(one) for other in front)
    assert len({axes(one) for one in front}) == len(front)
    assert [axes(one) for one in front] == sorted(axes(one) for one in front)


@given(POINTS)
def test_none_inside_a_drop_gains_more_than_the_best(points: list[tuple[int, int, int]]) -> None:
    outcomes = [
        done(number, 1_000 * size, time, drop / 1_000, speedup=10 / time)
        for number, (size, time, drop) in enumerate(points)
    ]
    budget = Budget(max_drop=0.0015)
    best = best_of(outcomes, budget, BEFORE, 1.0)
    assert best is not None
    inside = [one for one in outcomes if is_inside(one, budget, BEFORE, 1.0)]
    if inside:
        gains = [gain(one.measured, BEFORE) for one in inside if one.measured is not None]
        assert best in inside
        assert best.measured is not None
        assert gain(best.measured, BEFORE) == max(gains)


def test_gain_is_the_logarithm_of_size_ratio_times_speedup() -> None:
    assert gain(measured(100, speedup=5.0), 1_000) == pytest.approx(math.log(10 * 5))


def test_under_a_drop_the_largest_gain_inside_it_is_best() -> None:
    far, near, small = done(0, 100, drop=0.5), done(1, 5_000), done(2, 1_000)
    assert best_of([far, near, small], Budget(max_drop=0.01), BEFORE, 1.0) is small
    quick = done(3, 2_000, 0.25, speedup=8.0)  # twice the bytes, four times the speed
    assert best_of([far, near, small, quick], Budget(max_drop=0.01), BEFORE, 1.0) is quick


def test_without_a_drop_the_least_likely_drop_inside_the_limits_is_best() -> None:
    small, better = done(0, 900, drop=0.02), done(1, 1_000, drop=0.01)
    big = done(2, 2_000, drop=0.0)
    assert best_of([small, better, big], Budget(max_bytes=1_000), BEFORE, 1.0) is better
    assert best_of([small, better, big], Budget(min_size_ratio=11), BEFORE, 1.0) is small


def test_where_none_is_inside_the_nearest_is_best() -> None:
    one, other = done(0, 4_000), done(1, 3_000)
    assert best_of([one, other], Budget(max_bytes=1_000), BEFORE, 1.0) is other
    slow = done(2, 1_000, latency=9.0)
    assert best_of([one, other, slow], Budget(max_bytes=1_000, max_latency_ms=1.0), BEFORE, 1.0) is other


def test_where_none_is_surely_inside_the_likeliest_of_the_probable_is_best() -> None:
    sure_but_large = done(0, 1_400, drop=-0.001)
    probable, likelier = done(1, 1_000, drop=0.0007), done(2, 1_000, drop=0.0006)  # +- 0.0002 on either split
    improbable = done(3, 900, drop=0.002)
    budget = Budget(max_drop=0.001, max_bytes=1_000)
    every = [sure_but_large, probable, likelier, improbable]
    assert not any(is_inside(one, budget, BEFORE, 1.0) for one in every)
    assert best_of(every, budget, BEFORE, 1.0) is likelier
    assert best_of([sure_but_large, improbable], budget, BEFORE, 1.0) is sure_but_large


def test_of_equals_the_first_is_best() -> None:
    assert best_of([done(4), done(2), done(3)], Budget(max_drop=0.1), BEFORE, 1.0) == done(2)
    assert best_of([done(4), done(2)], Budget(max_bytes=5_000), BEFORE, 1.0) == done(2)
    assert best_of([done(4), done(2)], Budget(max_bytes=5), BEFORE, 1.0) == done(2)


def test_what_failed_or_was_cut_is_never_best() -> None:
    cut = Outcome(1, Candidate(), "cut", "no smaller", measured(1))
    assert best_of([failed(0), cut], Budget(max_drop=0.1), BEFORE, 1.0) is None
    assert frontier([failed(0), cut]) == ()
    assert best_of([failed(0), cut, done(2)], Budget(max_drop=0.1), BEFORE, 1.0) == done(2)


@pytest.mark.parametrize(
    ("limits", "over"),
    [
        ({"max_bytes": 2_000}, {"bytes": -0.5}),
        ({"max_bytes": 800}, {"bytes": 0.25}),
        ({"min_size_ratio": 20}, {"size ratio": 1.0}),
        ({"min_size_ratio": 5}, {"size ratio": -0.5}),
        ({"max_latency_ms": 0.5}, {"latency": 1.0}),
        ({"min_speedup": 3.0}, {"speed-up": 0.5}),
        ({"min_speedup": 1.0, "max_latency_ms": 4.0}, {"speed-up": -0.5, "latency": -0.75}),
        ({}, {}),
    ],
)
def test_excess_is_a_share_of_each_limit(limits: dict[str, Any], over: dict[str, float]) -> None:
    outcome = done(0, 1_000, latency=1.0, speedup=2.0)
    assert excess(outcome, Budget(**limits), BEFORE, 1.0) == pytest.approx(over)
    assert is_inside(outcome, Budget(**limits), BEFORE, 1.0) == all(value <= 0 for value in over.values())


def test_excess_in_drop_counts_what_the_test_split_will_probably_say() -> None:
    """Value + 1.96 standard errors of the test split + 1.645 of the difference between the two splits."""
    outcome = done(0, drop=0.001)
    likely = 0.001 + 1.96 * 1e-4 + 1.6449 * math.sqrt(2) * 1e-4
    assert outcome.bad_end(1.0) == pytest.approx(likely, rel=1e-3)
    assert excess(outcome, Budget(max_drop=0.002), BEFORE, 1.0) == pytest.approx({"drop": likely / 0.002 - 1}, rel=1e-3)
    assert outcome.bad_end(4.0) < outcome.bad_end(1.0)


def test_every_drop_that_the_margin_holds_for_must_be_inside() -> None:
    drops = {"auc": estimate(0.0), "logloss": estimate(0.5)}
    outcome = Outcome(0, Candidate(), "done", measured=measured(), drops=drops)
    assert not is_inside(outcome, Budget(max_drop=0.1), BEFORE, 1.0)


def test_what_was_not_measured_is_outside_of_everything() -> None:
    assert excess(failed(0), Budget(max_drop=0.1), BEFORE, 1.0) == {"measured": math.inf}


@given(st.floats(-1, 1), st.integers(1, 10**9), st.floats(1e-6, 1e3))
def test_plain_values_are_the_same_outcome_again(drop: float, size: int, latency: float) -> None:
    outcome = done(3, size, latency, drop, tables=7.5, epochs=0.25)
    assert outcome_of(json.loads(json.dumps(outcome.plain()))) == outcome
    assert outcome_of(json.loads(json.dumps(failed(1).plain()))) == failed(1)


def test_slack_forgives_time_and_not_bytes() -> None:
    mine = Measured(100, 0, 1, 1.0, 1.0, "e")
    assert mine.beaten_by(Measured(100, 0, 1, 1.02, 1.0, "e"), slack=1.03)
    assert not mine.beaten_by(Measured(100, 0, 1, 1.02, 1.0, "e"))
    assert not mine.beaten_by(Measured(101, 0, 1, 0.5, 1.0, "e"), slack=1.03)


def test_a_timing_in_which_the_original_alone_was_slow_does_not_win() -> None:
    """The original usually takes 5 ms; beside trial 3 it took 9, which says nothing of trial 3."""
    usual = [done(number, size, 0.125, speedup=40.0) for number, size in enumerate((900, 800, 700))]
    disturbed = done(3, 1_000, 0.139, speedup=64.0)
    assert best_of([*usual, disturbed], Budget(max_drop=0.01), 100_000, 1.0) is usual[2]
    quick = done(4, 700, 0.1, speedup=50.0)
    assert best_of([*usual, disturbed, quick], Budget(max_drop=0.01), 100_000, 1.0) is quick
