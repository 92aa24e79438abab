"""Budgets that no model can meet are refused with their numbers; originals at chance are told; ways out are named."""

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from made_up_outcomes import done, estimate, failed
from on_paper import OnPaper, bench_of
from torch import Tensor, nn

import flyweight as fw
from flyweight.cost.overhead import Overhead
from flyweight.planning import feasible
from flyweight.planning.automatic import check_metric
from flyweight.planning.chance import warn_of_chance
from flyweight.planning.feasible import EMPTY, QUICKER, check_feasible
from flyweight.planning.search.outcome import Measured, is_inside
from flyweight.planning.search.search import Found
from flyweight.planning.what_would_help import points_that_help, rows_that_help
from flyweight.task.scores import Scores
from small_tasks import DIM, ITEMS, USERS, splits

TABLES = 4 * DIM * (USERS + ITEMS)


@pytest.fixture(scope="module")
def bench(ranker: fw.Task) -> OnPaper:
    return bench_of(ranker)


def refused(bench: OnPaper, **limits: Any) -> str:
    with pytest.raises(fw.InputError) as error:
        check_feasible(bench, fw.Budget(**limits))
    return str(error.value)


def least(bench: OnPaper) -> int:
    """An empty file, and the smallest coding of two tables: one vector of half precision for each."""
    assert bench.coder.smallest() <= 2 * (2 * DIM) + 64
    return EMPTY + bench.coder.smallest()


def test_bytes_below_one_vector_a_band_are_refused_with_the_least_there_is(bench: OnPaper) -> None:
    said = refused(bench, max_bytes=100)
    assert f"max_bytes=100 cannot be met: with one vector for each band the tables alone take {least(bench):,}" in said
    check_feasible(bench, fw.Budget(max_bytes=least(bench)))


def test_a_ratio_beyond_it_is_refused_and_the_one_named_instead_is_not(bench: OnPaper) -> None:
    before = bench.before.exported.bytes
    said = refused(bench, min_size_ratio=1e6)
    assert f"min_size_ratio=1e+06 cannot be met: the model takes {before:,} bytes" in said
    most = float(re.findall(r"at most ([\d,]+)\.", said)[0].replace(",", ""))
    assert most == before // least(bench)
    check_feasible(bench, fw.Budget(min_size_ratio=most))


def test_time_below_that_of_an_empty_call_is_refused(bench: OnPaper, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feasible, "measure_overhead", lambda: Overhead(0.002, 0.0))
    floor = 1_000 * 0.002 * QUICKER
    said = refused(bench, max_latency_ms=0.5)
    assert f"max_latency_ms=0.5 cannot be met: a call of an engine with next to nothing in it takes {floor:.2g}" in said
    check_feasible(bench, fw.Budget(max_latency_ms=floor))


def test_speed_beyond_that_of_an_empty_call_is_refused(bench: OnPaper, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feasible, "measure_overhead", lambda: Overhead(0.002, 0.0))
    monkeypatch.setattr(OnPaper, "eager_ms", lambda _: 10.0)
    said = refused(bench, min_speedup=50.0)
    for words in ("min_speedup=50 cannot be met", "10 ms in eager PyTorch", "1 ms here", "10 times less"):
        assert words in said
    check_feasible(bench, fw.Budget(min_speedup=9.0))


def test_an_engine_that_is_missing_refuses_no_time(bench: OnPaper, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> Overhead:
        raise fw.EngineError("onnxruntime is not installed")

    monkeypatch.setattr(feasible, "measure_overhead", missing)
    check_feasible(bench, fw.Budget(max_latency_ms=1e-9))


def scores(outputs: Any, targets: Any) -> Scores:
    return Scores(np.asarray(outputs, dtype=np.float64), np.asarray(targets, dtype=np.float64), None)


def test_auc_at_one_half_is_told_and_a_good_one_is_not(ranker: fw.Task) -> None:
    drawn = np.random.default_rng(0)
    targets = drawn.integers(0, 2, 2_000)
    said = warn_of_chance(ranker, scores(drawn.normal(size=2_000), targets), 0.95)
    assert "the original's auc on validation is 0." in said
    assert "at chance (0.5000)" in said
    assert "a certificate says nothing" in said
    assert warn_of_chance(ranker, scores(targets + drawn.normal(size=2_000), targets), 0.95) == ""


class Classes(nn.Module):
    """Three classes of one number."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(1, 3)

    def forward(self, price: Tensor) -> Tensor:
        return self.last(price.unsqueeze(1))


def classes_of(metric: Any) -> fw.Task:
    rows = [({"price": torch.rand(300)}, torch.arange(300) % 3)]
    return fw.Task(Classes(), {"price": fw.Field()}, rows, rows, rows, metric=metric)


def test_accuracy_at_the_share_of_the_largest_class_is_told_and_a_good_one_is_not() -> None:
    task = classes_of("accuracy")
    targets = np.repeat([0, 1, 2], [700, 200, 100])
    majority = np.tile([1.0, 0.0, 0.0], (1_000, 1))
    assert "at chance (0.7000)" in warn_of_chance(task, scores(majority, targets), 0.95)
    assert warn_of_chance(task, scores(np.eye(3)[targets], targets), 0.95) == ""


def test_metrics_whose_chance_is_not_known_are_not_judged() -> None:
    assert warn_of_chance(classes_of("ndcg@2"), scores(np.zeros((9, 3)), np.zeros(9)), 0.95) == ""


def test_a_metric_that_is_no_number_for_the_original_is_refused_before_the_search() -> None:
    data = splits()
    rows = {split: [({"price": one["price"]}, target) for one, target in data[split]] for split in data}

    class Line(nn.Module):
        def forward(self, price: Tensor) -> Tensor:
            return price

    def nothing(outputs: Any, targets: Any) -> float:
        return float("nan")

    task = fw.Task(Line(), {"price": fw.Field()}, metric=nothing, output="value", **rows)
    with pytest.raises(fw.InputError) as error:
        check_metric(bench_of(task))
    for words in ("Metric 'nothing' must return one finite number; seen nan", "original itself on validation", "Check"):
        assert words in str(error.value)


BEFORE = 10_000
BUDGET = fw.Budget(max_drop=0.01, max_bytes=1_000, max_latency_ms=1.0, min_speedup=2.0)


def found(*outcomes: Any) -> Found:
    return Found(list(outcomes), outcomes[0], False, "", 1.0)


@pytest.mark.parametrize(
    ("one", "limit"),
    [
        (done(4, drop=0.0123), "max_drop"),
        (done(4, size=1_234), "max_bytes"),
        (done(4, latency=1.23456), "max_latency_ms"),
        (done(4, speedup=1.23456), "min_speedup"),
    ],
)
def test_giving_way_in_one_limit_by_what_is_named_buys_the_trial(one: Any, limit: str) -> None:
    (said,) = points_that_help(found(one, failed(5)), BUDGET, BEFORE, 1.0)
    assert said.startswith("trial 4 (rewriting alone) would do with")
    named = re.findall(rf"{limit}=([\d.,e+-]+)", said)[0].replace(",", "")
    value: Any = int(named) if limit == "max_bytes" else float(named)
    assert is_inside(one, replace(BUDGET, **{limit: value}), BEFORE, 1.0)
    assert not is_inside(one, BUDGET, BEFORE, 1.0)


def test_of_several_that_miss_one_limit_the_nearest_is_named() -> None:
    said = points_that_help(found(done(0, size=5_000), done(1, size=1_100), done(2, size=2_000)), BUDGET, BEFORE, 1.0)
    assert [words.split(" (")[0] for words in said] == ["trial 1"]


def test_what_misses_two_limits_or_none_or_failed_helps_nobody() -> None:
    trials = done(0, size=5_000, latency=3.0), done(1), failed(2)
    assert points_that_help(found(*trials), BUDGET, BEFORE, 1.0) == []


def test_rows_that_would_certify_are_named_for_each_drop_that_was_not() -> None:
    drops = {"auc": estimate(0.0, 0.001), "logloss": estimate(0.0, 1e-5), "other": estimate(0.5)}
    words = rows_that_help(drops, 0.001)
    assert len(words) == 2
    assert words[0].startswith("to certify auc, ")
    assert "rows" in words[0]
    assert words[1].startswith("to certify other, no number of rows would help")
    assert rows_that_help(drops, None) == []


def test_measured_is_not_asked_of_trials_that_failed() -> None:
    assert points_that_help(found(failed(0)), BUDGET, BEFORE, 1.0) == []
    assert Measured(1, 0, 0, 1.0, 1.0, "e").bytes == 1
