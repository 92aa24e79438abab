"""How far two versions' scores are apart: against SciPy, NumPy and formulas; summaries against all values at once."""

import itertools
import math

import numpy as np
import pytest
from scipy.stats import kendalltau

from flyweight.serving.agreement_of_scores import (
    REQUESTS,
    compare_scores,
    count_inversions,
    kendall_tau,
    top_overlap,
)
from flyweight.serving.drift import SHARES, SIZES, Drift, Summary, sum_drifts


@pytest.mark.parametrize("n", [2, 3, 10, 257, 2_000])
@pytest.mark.parametrize("values", [2, 5, 10**6])
def test_tau_is_scipys_with_and_without_ties(n: int, values: int) -> None:
    rng = np.random.default_rng(n + values)
    x = rng.integers(0, values, n).astype(np.float32)
    y = (x + rng.integers(0, values, n)).astype(np.float32)
    np.testing.assert_allclose(kendall_tau(x, y), kendalltau(x, y).statistic, rtol=1e-12, equal_nan=True)


def test_inversions_are_those_counted_pair_by_pair() -> None:
    for numbers in itertools.product(range(4), repeat=5):
        due = sum(a > b for a, b in itertools.combinations(numbers, 2))
        assert count_inversions(np.array(numbers)) == due


def test_tau_of_equal_scores_is_no_number() -> None:
    assert math.isnan(kendall_tau(np.zeros(5), np.arange(5)))
    assert compare_scores(np.zeros(5), np.arange(5.0), None, 3, ranks=True).taus == ()


def test_overlap_is_that_of_the_sets_of_best() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.permutation(100), rng.permutation(100)
    due = len(set(np.flatnonzero(x >= 80)) & set(np.flatnonzero(y >= 80))) / 20
    assert top_overlap(x, y, 20) == due
    assert top_overlap(x, y, 1_000) == 1


def test_difference_of_one_request_is_numpys() -> None:
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(2, 50)).astype(np.float32)
    found = compare_scores(x, y, None, 10, ranks=True)
    due = y.astype(np.float64) - x
    assert (found.shift, found.mean, found.largest) == (due.mean(), np.abs(due).mean(), np.abs(due).max())
    assert found.taus == (pytest.approx(kendalltau(x, y).statistic),)


def test_orders_of_joined_requests_are_compared_one_by_one() -> None:
    x, y = np.array([1.0, 2, 3, 4, 9]), np.array([1.0, 2, 4, 3, 9])
    found = compare_scores(x, y, np.array([0, 2, 4, 4, 5]), 1, ranks=True)
    assert found.taus == (1, -1)  # one candidate has no order, and none neither
    assert found.overlaps == (1, 0, 1)
    many = np.arange(0, 2 * REQUESTS + 4, 2)
    x, y = np.random.default_rng(2).random((2, len(many) * 2 - 2))
    assert len(compare_scores(x, y, many, 1, ranks=True).taus) == REQUESTS


def test_scores_by_class_have_a_difference_and_no_order() -> None:
    found = compare_scores(np.zeros((3, 2)), np.ones((3, 2)), None, 1, ranks=True)
    assert (found.shift, found.taus, found.overlaps) == (1, (), ())


@pytest.mark.parametrize(
    ("shadow", "words"), [(np.zeros(3), "have shape"), (np.array([1, np.nan]), "1 of 2 differences are not finite")]
)
def test_scores_that_cannot_be_compared_are_refused(shadow: np.ndarray, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        compare_scores(np.zeros(2), shadow, None, 1, ranks=True)


@pytest.mark.parametrize(("ends", "step"), [(SIZES, None), (SHARES, 0.01)])
def test_summary_is_that_of_all_values(ends: tuple[float, ...], step: float | None) -> None:
    rng = np.random.default_rng(3)
    values = rng.uniform(-1, 1, 3_000) if step else 10 ** rng.uniform(-7, 2, 3_000)
    summary = Summary(ends)
    for value in values.tolist():
        summary.add(value)
    told = summary.describe()
    assert (told["count"], told["min"], told["max"]) == (3_000, values.min(), values.max())
    assert told["mean"] == pytest.approx(values.mean())
    for share in (5, 50, 95, 99):
        due, seen = np.quantile(values, share / 100, method="inverted_cdf"), told[f"p{share:02d}"]
        assert due <= seen <= (due + step if step else due * 10**0.1) * (1 + 1e-9)
    assert len(summary.bins) == len(ends) + 1


def test_sums_of_processes_are_those_of_one() -> None:
    rng = np.random.default_rng(4)
    alone, parts = Drift(), [Drift(), Drift(), Drift()]
    for at in range(60):
        difference = compare_scores(*rng.normal(size=(2, 20)), None, 5, ranks=True)
        alone.add(difference)
        parts[at % 2].add(difference)
    parts[1].fail("no scores")
    alone.fail("no scores")
    found, due = sum_drifts([part.to_json() for part in parts]).describe(), alone.describe()
    for name, value in due.items():
        assert found[name] == (pytest.approx(value) if isinstance(value, (dict, float)) else value)
