"""Intervals against DeLong by brute force, explicit bootstraps and closed forms; decisions against arithmetic."""

import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import roc_auc_score

from flyweight.quality.bootstrap import bootstrap_auc, draw_counts, weighted_auc
from flyweight.quality.calibration_error import CALIBRATION_ERROR
from flyweight.quality.delong import delong_spread, structural_components
from flyweight.quality.intervals import estimate, non_inferior, paired_drop
from flyweight.quality.jackknife import auc_without_each, contribution_freedom
from flyweight.quality.spread import weight_freedom
from flyweight.quality.student import student_quantile
from flyweight.task.estimate import Estimate
from flyweight.task.metric import METRICS, Metric, find_metric

METRICS_TO_TRY = [
    *(find_metric(name + "1" if name.endswith("@") else name) for name in METRICS),
    CALIBRATION_ERROR,
    Metric("own", function=lambda outputs, targets: float(np.mean(outputs * targets))),
]


def draw(seed: int, rows: int = 400, groups: int = 40) -> tuple[np.ndarray, ...]:
    """Two models' probabilities with ties, 0/1 targets, groups."""
    rng = np.random.default_rng(seed)
    targets = rng.integers(0, 2, rows)
    before = np.clip(np.round(0.3 * rng.random(rows) + 0.3 * rng.random(rows) + 0.3 * targets, 2), 0, 1)
    after = np.clip(np.round(before + 0.05 * rng.normal(size=rows), 2), 0, 1)
    return before, after, targets, rng.integers(0, groups, rows)


def delong_by_pairs(before: np.ndarray, after: np.ndarray, targets: np.ndarray) -> float:
    """The variance of the AUC difference by its definition, all P x N pairs: DeLong 1988, eqs. 4 and 5."""
    wins = []
    for scores in (before, after):
        gap = scores[targets == 1][:, None] - scores[targets == 0][None]
        wins.append((gap > 0) + 0.5 * (gap == 0))
    by_positive = np.cov([win.mean(1) for win in wins])
    by_negative = np.cov([win.mean(0) for win in wins])
    covariance = by_positive / (targets == 1).sum() + by_negative / (targets == 0).sum()
    contrast = np.array([1, -1])
    return float(contrast @ covariance @ contrast)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(12, 80))
def test_delong_equals_all_pairs(seed: int, rows: int) -> None:
    before, after, targets, _ = draw(seed, rows)
    targets[:2], targets[2:4] = 0, 1
    spread = delong_spread([before, after], targets == 1)
    assert spread.error**2 == pytest.approx(delong_by_pairs(before, after, targets), rel=1e-9, abs=1e-15)


def test_structural_components_average_to_the_auc() -> None:
    before, _, targets, _ = draw(3)
    share = structural_components(before, targets == 1)
    expected = roc_auc_score(targets, before)
    assert share[targets == 1].mean() == pytest.approx(expected)
    assert share[targets == 0].mean() == pytest.approx(expected)


@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.95, 0.999])
@pytest.mark.parametrize("freedom", [1, 1.7, 5, 29, 49.9, 50.1, 1e3, 1e7])
def test_student_quantile_equals_scipy(confidence: float, freedom: float) -> None:
    expected = stats.t.ppf((1 + confidence) / 2, freedom)
    assert student_quantile(confidence, freedom) == pytest.approx(expected, rel=1e-4)


def test_uneven_groups_leave_fewer_degrees_of_freedom() -> None:
    assert weight_freedom(np.ones(50)) == pytest.approx(49)
    assert weight_freedom(np.array([1e6] + [1.0] * 100)) == 1.0


def test_a_large_group_widens_only_where_it_differs() -> None:
    rng = np.random.default_rng(0)
    groups = np.r_[np.zeros(3_000, dtype=int), 1 + np.arange(7_000) // 10]
    targets = rng.integers(0, 2, 10_000)
    before = np.full(10_000, 0.5)
    noise = 0.1 * rng.normal(size=10_000)
    alike = paired_drop(find_metric("logloss"), before, before + noise.clip(-0.4, 0.4), targets, groups)
    shifted = before + np.where(groups == 0, 0.3 * (2 * targets - 1), 0)
    apart = paired_drop(find_metric("logloss"), before, shifted, targets, groups)
    assert alike.high - alike.value < 0.006  # rows differ by 0.2: 1.96 * 0.2 / sqrt(10,000) is 0.004
    assert apart.high > 0 > apart.value  # what one group says does not speak for another sample of groups


def test_freedom_falls_where_one_unit_makes_the_difference() -> None:
    rng = np.random.default_rng(0)
    assert contribution_freedom(rng.normal(size=50_000)) == pytest.approx(50_000, rel=0.05)
    assert contribution_freedom(rng.standard_t(5, size=1_000)) < 800
    assert contribution_freedom(np.r_[np.zeros(1_000), 1.0]) == pytest.approx(2, abs=0.01)
    assert contribution_freedom(np.zeros(30)) == 29


def test_weights_of_groups_equal_rows_repeated() -> None:
    before, _, targets, groups = draw(5)
    value = weighted_auc(before, targets == 1, groups)
    for counts in draw_counts(40, 5, seed=1):
        rows = np.repeat(np.arange(400), counts[groups].astype(int))
        assert value(counts) == pytest.approx(roc_auc_score(targets[rows], before[rows]), abs=1e-12)


def test_grouped_auc_error_equals_the_jackknife_over_groups() -> None:
    before, after, targets, groups = draw(6, rows=3000, groups=300)
    left_out = [
        roc_auc_score(targets[groups != g], before[groups != g])
        - roc_auc_score(targets[groups != g], after[groups != g])
        for g in range(300)
    ]
    quick = [auc_without_each(scores, targets == 1, groups) for scores in (before, after)]
    assert quick[0] - quick[1] == pytest.approx(np.array(left_out), abs=1e-12)
    jackknife = math.sqrt(299**2 / 300 * np.var(left_out, ddof=1))
    error = bootstrap_auc([before, after], targets == 1, groups, 2000, seed=0).error
    assert error == pytest.approx(jackknife, rel=0.08)


def test_mean_of_rows_has_the_t_interval() -> None:
    before, after, targets, _ = draw(8)
    loss = [-np.log(np.where(targets == 1, s, 1 - s).clip(1e-15)) for s in (before, after)]
    expected = stats.ttest_rel(loss[1], loss[0]).confidence_interval()
    drop = paired_drop(find_metric("logloss"), before, after, targets, resamples=4000)
    assert drop.value == pytest.approx((loss[1] - loss[0]).mean())
    assert (drop.low, drop.high) == pytest.approx(tuple(expected), abs=0.04 * (expected.high - expected.low))


def test_many_rows_dealt_into_blocks_keep_the_error() -> None:
    before, after, targets, _ = draw(9, rows=30_000)
    squared = (after - targets) ** 2 - (before - targets) ** 2
    expected = squared.std() / np.sqrt(30_000)
    metric = Metric("mse", larger_is_better=False, function=lambda o, t: float(np.mean((o - t) ** 2)))
    roots = [estimate(find_metric("rmse"), s, targets).value for s in (before, after)]
    drop = paired_drop(find_metric("rmse"), before, after, targets)
    assert (drop.high - drop.value) / 1.96 * sum(roots) == pytest.approx(expected, rel=0.08)
    assert paired_drop(metric, before, after, targets).value == pytest.approx(squared.mean())


@pytest.mark.parametrize("metric", METRICS_TO_TRY, ids=lambda metric: metric.name)
def test_same_scores_lose_exactly_nothing(metric: Metric) -> None:
    before, _, targets, groups = draw(10)
    drop = paired_drop(metric, before, before.copy(), targets, groups, resamples=100)
    assert (drop.value, drop.low, drop.high) == (0.0, 0.0, 0.0)
    assert (drop.n, drop.groups is not None) == (400, True)


@pytest.mark.parametrize("name", ["auc", "gauc", "hit_rate@3", "recall@3", "ndcg@3"])
def test_recalibrated_scores_lose_exactly_nothing_by_order(name: str) -> None:
    before, _, targets, groups = draw(11)
    drop = paired_drop(find_metric(name), before, 3 * before - 1, targets, groups, resamples=100)
    assert (drop.value, drop.low, drop.high) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize("metric", METRICS_TO_TRY, ids=lambda metric: metric.name)
def test_a_drop_is_signed_so_that_worse_is_positive(metric: Metric) -> None:
    _, after, targets, groups = draw(12)
    perfect = targets.astype(float)
    drop = paired_drop(metric, perfect, after, targets, groups, resamples=100)
    gain = paired_drop(metric, after, perfect, targets, groups, resamples=100)
    assert drop.value > 0
    assert (gain.value, gain.low) == pytest.approx((-drop.value, -drop.high))
    assert drop.low <= drop.value <= drop.high


@pytest.mark.parametrize("metric", METRICS_TO_TRY, ids=lambda metric: metric.name)
def test_an_interval_is_the_same_for_the_same_seed(metric: Metric) -> None:
    before, after, targets, groups = draw(13)
    first, again = (paired_drop(metric, before, after, targets, groups, resamples=100, seed=4) for _ in range(2))
    assert first == again
    assert paired_drop(metric, before, after, targets, groups, resamples=100, seed=5).value == first.value


@pytest.mark.parametrize("metric", METRICS_TO_TRY, ids=lambda metric: metric.name)
def test_an_estimate_stays_within_the_metrics_limits(metric: Metric) -> None:
    _, _, targets, groups = draw(14)
    found = estimate(metric, np.clip(targets + 0.0, 0, 1), targets, groups, resamples=100)
    assert found.low <= found.value <= found.high
    if metric.name not in ("own", "logloss", "rmse"):
        assert found.low >= 0
        assert found.high <= 1


def test_few_changed_predictions_are_not_certain() -> None:
    before, targets = np.full(200, 0.9), np.ones(200, dtype=int)
    targets[:50] = 0
    drop = paired_drop(find_metric("accuracy"), before, before - 0.01, targets)
    assert drop.value == 0
    assert drop.high == pytest.approx(1.972 * math.sqrt(2) / 200, rel=1e-3)


def test_calibration_drop_is_not_hidden_by_chance() -> None:
    rng = np.random.default_rng(1)
    logit = -1.2 + 1.2 * rng.normal(size=5_000)
    targets = (rng.random(5_000) < 1 / (1 + np.exp(-logit))).astype(int)
    before, after = 1 / (1 + np.exp(-logit)), 1 / (1 + np.exp(-logit - 0.3))
    true_drop = (after - before).mean()  # `before` is calibrated by construction, `after` too high everywhere
    drop = paired_drop(CALIBRATION_ERROR, before, after, targets)
    assert drop.value < 0.8 * true_drop < true_drop < drop.high
    assert estimate(CALIBRATION_ERROR, before, targets).low == 0


def test_methods_and_units_are_said() -> None:
    before, after, targets, groups = draw(15)
    auc = find_metric("auc")
    assert paired_drop(auc, before, after, targets).method == "delong"
    grouped = paired_drop(auc, before, after, targets, groups, resamples=150)
    assert (grouped.method, grouped.groups) == ("grouped bootstrap, 150 resamples", 40)
    own = paired_drop(METRICS_TO_TRY[-1], before, after, targets)
    assert (own.method, own.groups) == ("bootstrap, 200 resamples", None)


def test_grouped_auc_of_78_000_rows_takes_no_pass_over_pairs() -> None:
    before, after, targets, groups = draw(16, rows=78_000, groups=2_500)
    started = time.process_time()
    paired_drop(find_metric("auc"), before, after, targets, groups)
    # 1 s where nothing else runs, 15 s on a crowded machine; sorting anew for each resample would take minutes.
    assert time.process_time() - started < 60


def test_a_resample_without_a_class_is_survived_or_refused() -> None:
    def strict(outputs: np.ndarray, targets: np.ndarray) -> float:
        if targets.all() or not targets.any():
            raise ValueError("one class")
        return float(outputs[targets == 1].mean())

    scores, targets = np.linspace(0, 1, 20), np.arange(20) % 10 == 0
    assert estimate(Metric("strict", function=strict), scores, targets).high > 0
    with pytest.raises(ValueError, match=r"auc is undefined on \d+ of 100 resamples of 2 units: a class"):
        estimate(find_metric("auc"), [0.1, 0.9], [0, 1], [0, 1], resamples=100, seed=0)


def test_too_few_units_are_refused() -> None:
    with pytest.raises(ValueError, match="interval on logloss needs at least two groups; seen 1"):
        estimate(find_metric("logloss"), [0.1, 0.9], [0, 1], [3, 3])
    with pytest.raises(ValueError, match="auc needs two rows of each class; seen 1 positive and 2 negative"):
        estimate(find_metric("auc"), [0.1, 0.9, 0.5], [0, 1, 0])


def test_bad_settings_are_refused() -> None:
    auc = find_metric("auc")
    with pytest.raises(ValueError, match=r"confidence must lie between 0 and 1, as in 0.95; seen 95"):
        estimate(auc, [0.1, 0.9], [0, 1], confidence=95)
    with pytest.raises(ValueError, match="resamples must be at least 100"):
        estimate(auc, [0.1, 0.9], [0, 1], resamples=5)
    with pytest.raises(ValueError, match=r"scores of the same rows; seen \(2,\) before and \(3,\) after"):
        paired_drop(auc, [0.1, 0.9], [0.1, 0.9, 0.3], [0, 1])
    with pytest.raises(ValueError, match=r"groups must have shape \(2,\), one a row; seen \(3,\)"):
        paired_drop(auc, [0.1, 0.9], [0.1, 0.9], [0, 1], [1, 2, 3])
    with pytest.raises(ValueError, match="margin is the largest drop allowed, zero or more; seen -1"):
        non_inferior(Estimate(0, 0, 0, n=1), -1)


def test_non_inferior_asks_the_bad_end() -> None:
    drop = Estimate(0.0004, -0.0002, 0.0010, n=1000)
    assert non_inferior(drop, 0.0010)
    assert not non_inferior(drop, 0.0009)
