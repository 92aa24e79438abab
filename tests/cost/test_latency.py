"""Timing, with a clock that the test turns: no wall time is waited for."""

import numpy as np
import pytest
from scipy import stats

from flyweight.cost.latency import (
    Rounds,
    median_interval,
    speedup,
    summarise,
    throughput,
    time_interleaved,
    time_rounds,
)
from flyweight.errors import InputError


class Clock:
    """A clock in seconds that moves only when a call says how long it took."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def spend(self, milliseconds: float, log: list[str] | None = None, name: str = "") -> None:
        self.now += milliseconds / 1000.0
        if log is not None:
            log.append(name)


def test_calls_of_known_cost_get_their_cost() -> None:
    clock = Clock()
    calls = {"slow": lambda: clock.spend(5.0), "fast": lambda: clock.spend(2.0)}
    timed = time_interleaved(calls, candidates=500, threads=2, repeats=50, clock=clock)
    assert timed["slow"].p50 == pytest.approx(5.0)
    assert timed["fast"].p99 == pytest.approx(2.0)
    assert (timed["slow"].repeats, timed["slow"].candidates, timed["slow"].threads) == (50, 500, 2)


def test_every_round_holds_each_call_once_in_changing_order() -> None:
    clock = Clock()
    log: list[str] = []
    calls = {name: (lambda name=name: clock.spend(1.0, log, name)) for name in "abc"}
    time_rounds(calls, candidates=1, threads=1, repeats=60, warmup=0, lead=0, clock=clock)
    rounds = [tuple(log[start : start + 3]) for start in range(0, len(log), 3)]
    assert {frozenset(names) for names in rounds} == {frozenset("abc")}
    assert len(set(rounds)) == 6  # all orders occur


def test_a_call_of_the_same_kind_goes_before_each_timed_one() -> None:
    clock = Clock()
    last = [""]

    def call(name: str) -> None:
        clock.spend(1.0 if last[0] == name else 9.0)  # slow after another one
        last[0] = name

    calls = {name: (lambda name=name: call(name)) for name in "ab"}
    led = time_interleaved(calls, candidates=1, threads=1, repeats=20, clock=clock)
    assert [one.p99 for one in led.values()] == pytest.approx([1.0, 1.0])
    cold = time_interleaved(calls, candidates=1, threads=1, repeats=200, lead=0, clock=clock)
    assert cold["a"].p95 == pytest.approx(9.0)


def test_warm_up_is_not_in_the_samples() -> None:
    clock = Clock()
    costs = iter([100.0] * 20 + [1.0] * 10)
    timed = time_interleaved({"a": lambda: clock.spend(next(costs))}, candidates=1, threads=1, repeats=10, clock=clock)
    assert timed["a"].p99 == pytest.approx(1.0)


def test_budget_of_seconds_ends_the_rounds() -> None:
    clock = Clock()
    rounds = time_rounds({"a": lambda: clock.spend(100.0)}, candidates=1, threads=1, seconds=1.95, clock=clock)
    assert clock.now == pytest.approx(2.0)  # the round that crosses the budget is the last
    assert len(rounds.samples["a"]) == 15  # 0.5 s of it was warm-up


def test_one_round_runs_when_the_budget_is_too_small() -> None:
    clock = Clock()
    timed = time_interleaved({"a": lambda: clock.spend(900.0)}, candidates=1, threads=1, seconds=0.1, clock=clock)
    assert timed["a"].repeats == 1


@pytest.mark.parametrize("n", [6, 7, 20, 99, 200, 999, 1000, 3001])
def test_median_interval_is_that_of_scipy(n: int) -> None:
    samples = np.random.default_rng(n).exponential(size=n)
    test = stats.quantile_test(samples, q=float(np.median(samples)), p=0.5)
    low, high = median_interval(samples)
    assert low == test.confidence_interval(0.95).low
    # SciPy's upper end is one order statistic further out where P(X < r) lands differently; ours is symmetric.
    ordered = np.sort(samples)
    assert np.searchsorted(ordered, low) == n - 1 - np.searchsorted(ordered, high)
    assert stats.binom.cdf(np.searchsorted(ordered, low), n, 0.5) <= 0.025


def test_median_interval_of_few_samples_is_their_range() -> None:
    assert median_interval(np.array([3.0, 1.0, 2.0])) == (1.0, 3.0)


def test_median_interval_covers_in_at_least_95_percent_of_runs() -> None:
    generator = np.random.default_rng(7)
    hits = 0
    for _ in range(1000):
        low, high = median_interval(generator.exponential(size=60))
        hits += low <= np.log(2.0) <= high
    assert hits >= 940


def test_summary_of_one_to_hundred() -> None:
    latency = summarise(np.arange(1.0, 101.0), candidates=1, threads=1)
    assert (latency.p50, latency.p50_low, latency.p50_high) == (50.5, 40.0, 61.0)
    assert latency.p95 == pytest.approx(95.05)


def test_speedup_cancels_what_hits_both_calls_of_a_round() -> None:
    mood = np.random.default_rng(1).uniform(1.0, 3.0, size=200)
    found = speedup(Rounds({"a": 10.0 * mood, "b": 2.0 * mood}, candidates=1, threads=1), "a", "b")
    assert found.value == pytest.approx(5.0)
    assert (found.low, found.high) == (pytest.approx(5.0), pytest.approx(5.0))


def test_speedup_interval_holds_the_true_ratio() -> None:
    generator = np.random.default_rng(2)
    samples = {"a": generator.lognormal(np.log(8.0), 0.2, 300), "b": generator.lognormal(np.log(2.0), 0.2, 300)}
    found = speedup(Rounds(samples, candidates=1, threads=1), "a", "b")
    assert found.low < 4.0 < found.high
    assert found.high - found.low < 0.6


def test_throughput_is_rows_by_time() -> None:
    assert throughput(Rounds({"a": np.full(10, 2.0)}, candidates=500, threads=1), "a") == pytest.approx(250_000)


@pytest.mark.parametrize(
    ("calls", "repeats", "words"),
    [({}, 10, "nothing to time"), ({"a": int}, 0, "repeats >= 1, warmup >= 0 and lead >= 0; seen")],
)
def test_wrong_arguments_are_named(calls: dict[str, type], repeats: int, words: str) -> None:
    with pytest.raises(InputError, match=words):
        time_interleaved(calls, candidates=1, threads=1, repeats=repeats)
