"""How many rows certify a drop: against simulated tests, and at the edges."""

import doctest
import math

import numpy as np
import pytest

from flyweight.errors import InputError
from flyweight.quality import rows_needed as module
from flyweight.quality.intervals import non_inferior, paired_drop
from flyweight.quality.rows_needed import rows_needed, rows_needed_in_words
from flyweight.task.estimate import Estimate
from flyweight.task.metric import find_metric


def test_the_examples_are_right() -> None:
    assert doctest.testmod(module).failed == 0


def test_at_a_power_of_one_half_the_bad_end_is_expected_on_the_margin() -> None:
    drop = Estimate(0.0004, -0.0006, 0.0014, n=5_000)
    rows = rows_needed(drop, 0.001, power=0.5)
    assert rows == 13_889
    assert drop.value + 0.001 * math.sqrt(5_000 / rows) <= 0.001
    assert drop.value + 0.001 * math.sqrt(5_000 / (rows - 1)) > 0.001


@pytest.mark.parametrize("power", [0.6, 0.8, 0.95])
def test_normal_values_are_certified_as_often_as_asked(power: float) -> None:
    """A drop measured on n rows of a normal value: mean 0.3, standard deviation 2, margin 0.5."""
    n, spread, true, margin = 400, 2.0, 0.3, 0.5
    half = 1.959964 * spread / math.sqrt(n)
    rows = rows_needed(Estimate(true, true - half, true + half, n=n), margin, power)
    assert rows is not None
    values = true + spread / math.sqrt(rows) * np.random.default_rng(0).normal(size=100_000)
    certified = values + 1.959964 * spread / math.sqrt(rows) <= margin
    assert certified.mean() == pytest.approx(power, abs=0.005)


@pytest.mark.parametrize(("metric", "rows_at_once"), [("rmse", 300), ("accuracy", 500)])
def test_certificates_by_group_come_as_often_as_asked(metric: str, rows_at_once: int) -> None:
    """From one large sample the rows are worked out; of 300 samples of that many, four in five are certified."""
    random = np.random.default_rng(1)

    def draw(groups: int) -> tuple[np.ndarray, ...]:
        group = np.repeat(np.arange(groups), 10)
        targets = random.integers(0, 2, len(group))
        before = np.clip(0.6 * targets + 0.2 + 0.25 * random.normal(size=len(group)), 0, 1)
        shift = 0.1 * random.normal(size=groups)[group]
        return before, np.clip(before + shift + 0.1 * random.normal(size=len(group)), 0, 1), targets, group

    spec = find_metric(metric)
    population = paired_drop(spec, *draw(20_000))
    margin = population.value + 0.3 * abs(population.value)
    small = paired_drop(spec, *draw(rows_at_once))
    told = Estimate(population.value, 0.0, population.value + small.high - small.value, small.n, groups=small.groups)
    rows = rows_needed(told, margin)
    assert rows is not None
    found = [paired_drop(spec, *draw(rows // 10), resamples=200, seed=seed) for seed in range(300)]
    assert np.mean([non_inferior(one, margin) for one in found]) == pytest.approx(0.8, abs=0.08)


def test_no_number_of_rows_helps_when_the_value_is_outside() -> None:
    assert rows_needed(Estimate(0.0012, 0.0002, 0.0022, n=5_000), 0.001) is None
    assert rows_needed(Estimate(0.001, 0.0002, 0.0018, n=5_000), 0.001) is None
    assert rows_needed(Estimate(0.0, 0.0, 0.0, n=5_000), 0.0) == 5_000


def test_a_lower_confidence_and_a_lower_power_need_fewer_rows() -> None:
    wide, narrow = Estimate(0.0, -0.00196, 0.00196, 1_000), Estimate(0.0, -0.001645, 0.001645, 1_000, confidence=0.9)
    assert rows_needed(narrow, 0.001) < rows_needed(wide, 0.001)
    assert rows_needed(wide, 0.001, power=0.7) < rows_needed(wide, 0.001)


@pytest.mark.parametrize(
    ("drop", "margin", "power", "words"),
    [
        (Estimate(0.0, -1.0, 1.0, 10), -0.1, 0.8, "margin is the largest drop allowed"),
        (Estimate(0.0, -1.0, 1.0, 10), 0.1, 1.0, "power is how probable the certificate is to be.*seen 1.0"),
        (Estimate(0.0, -math.inf, math.inf, 10), 0.1, 0.8, "The interval has no end"),
    ],
)
def test_what_cannot_be_answered_is_refused(drop: Estimate, margin: float, power: float, words: str) -> None:
    with pytest.raises(InputError, match=words):
        rows_needed(drop, margin, power)


def test_words_say_rows_groups_and_times() -> None:
    drop = Estimate(0.0005, -0.0003, 0.0013, n=78_011, groups=5_033)
    assert rows_needed_in_words(drop, 0.001) == (
        "about 408,000 rows (26,300 groups) like these would be needed, 5.2 times the 78,011 here"
    )
    assert "groups" not in rows_needed_in_words(Estimate(0.0005, -0.0003, 0.0013, n=78_011), 0.001)
    assert rows_needed_in_words(Estimate(0.0, -0.0001, 0.0001, n=500), 0.001) == "the 500 rows here are enough"
    assert rows_needed_in_words(Estimate(0.002, 0.001, 0.003, n=500), 0.001) == (
        "no number of rows would help: the drop itself, +0.0020, is not inside 0.001"
    )
