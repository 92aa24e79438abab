"""Agreement of scores with a reference."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from flyweight.engines.agreement import agreement

SCORES = np.array([-3.0, 0.5, 1.0, 2.0, 4.0])


@given(arrays(np.float64, st.integers(1, 30), elements=st.floats(-1e6, 1e6)))
def test_scores_agree_with_themselves(scores: np.ndarray) -> None:
    seen = agreement(scores, scores.copy())
    assert seen.ok
    assert seen.same_order
    assert seen.max_abs == seen.max_rel == 0.0


def test_difference_is_relative_to_score_and_scale() -> None:
    seen = agreement(SCORES, SCORES + np.array([0.0, 0.001, 0.0, 0.0, 0.002]))
    assert seen.max_abs == pytest.approx(0.002)
    assert seen.max_rel == pytest.approx(0.001 / 2.0)  # the median size is 2: the small score is held to that
    assert not seen.ok


def test_rounding_passes_and_is_worded() -> None:
    seen = agreement(SCORES, SCORES * (1 + 5e-5))
    assert seen.ok
    assert seen.words == "largest difference 0.0002, 5e-05 relative, over 5 scores"


def test_scale_of_scores_does_not_matter() -> None:
    for factor in (1e-6, 1.0, 1e6):
        assert agreement(SCORES * factor, SCORES * factor * (1 + 5e-5)).ok
        assert not agreement(SCORES * factor, SCORES * factor * (1 + 2e-4)).ok


def test_near_ties_may_swap_and_others_not() -> None:
    near = np.array([1.0, 1.00005, 3.0])
    assert agreement(near, np.array([1.00005, 1.0, 3.0])).same_order
    apart = np.array([1.0, 1.00015, 3.0])
    swapped = agreement(apart, np.array([1.00009, 1.00008, 3.0]))
    assert swapped.max_rel < 1e-4
    assert not swapped.same_order
    assert not swapped.ok
    assert "1 of them in another order" in swapped.words


def test_order_holds_within_each_column() -> None:
    columns = np.array([[1.0, 9.0], [2.0, 8.0], [3.0, 7.0]])
    assert agreement(columns, columns).ok
    assert not agreement(columns, columns[::-1]).same_order


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_number_that_is_none_is_refused(bad: float) -> None:
    seen = agreement(SCORES, np.array([-3.0, bad, 1.0, 2.0, 4.0]))
    assert not seen.ok
    assert seen.words == "1 of 5 scores are not finite"


def test_other_shape_is_refused() -> None:
    assert agreement(SCORES, SCORES[:4]).words == "shape (4,) instead of (5,)"


def test_all_zero_scores_agree() -> None:
    assert agreement(np.zeros(3), np.zeros(3)).ok


def test_rounded_scores_may_differ_by_what_rounding_does() -> None:
    reference = np.linspace(-1.0, 1.0, 101)
    flips = np.where(np.arange(101) % 2, 0.004, -0.004)  # root mean square 0.004
    assert not agreement(reference, reference + flips).ok
    assert agreement(reference, reference + flips, noise=0.005).ok
    refused = agreement(reference, reference + flips, noise=0.003)
    assert not refused.ok
    assert "133% of what rounding does" in refused.words
