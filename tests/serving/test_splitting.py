"""The canary's part of the requests: as large as asked for, and the same values wherever and whenever."""

import numpy as np
import pytest
from scipy.stats import binom, kstest

from flyweight.serving.rollout import Canary
from flyweight.serving.splitting import place_of, takes_canary, text_of

N = 20_000


def inside(chosen: int, percent: float) -> bool:
    """Whether a count is one that a fair draw gives but for once in a million."""
    low, high = binom.interval(1 - 1e-6, N, percent / 100)
    return bool(low <= chosen <= high)


@pytest.mark.parametrize("percent", [0.0, 1.0, 12.5, 50.0, 100.0])
@pytest.mark.parametrize("field", [None, "user_id"])
def test_a_canary_answers_its_percent(percent: float, field: str | None) -> None:
    canary = Canary("2", percent, field)
    chosen = sum(takes_canary("ranker", canary, {"user_id": np.array([user])}) for user in range(N))
    assert inside(chosen, percent)


def test_places_are_even() -> None:
    assert kstest([place_of(str(user), "ranker/2") / 100 for user in range(N)], "uniform").pvalue > 1e-4


def test_a_value_stays_with_its_version_and_a_larger_percent_only_adds() -> None:
    inputs = [{"user_id": np.array([user])} for user in range(2_000)]
    before: set[int] = set()
    for percent in (1, 5, 25, 75):
        now = {at for at, one in enumerate(inputs) if takes_canary("ranker", Canary("2", percent, "user_id"), one)}
        again = {at for at, one in enumerate(inputs) if takes_canary("ranker", Canary("2", percent, "user_id"), one)}
        assert now == again
        assert before <= now
        before = now


def test_another_canary_takes_other_values() -> None:
    of_two, of_three = (
        {user for user in range(N) if takes_canary("ranker", Canary(version, 50, "u"), {"u": np.array([user])})}
        for version in ("2", "3")
    )
    assert inside(len(of_two & of_three), 25)


def test_a_place_is_the_same_in_every_process_and_machine() -> None:
    """By `printf 'ranker/2\\0sku-17' | b2sum -l 64`; Python's own hash of a text is another one in each process."""
    assert place_of("sku-17", "ranker/2") == 0xf3f474ff312616ef / 2**64 * 100


@pytest.mark.parametrize(
    ("array", "text"),
    [
        (np.array([7]), "7"),
        (np.array([7], dtype=np.int32), "7"),
        (np.array([7.0]), "7"),
        (np.array(["sku-17"], dtype=object), "sku-17"),
        (np.array([["a"], ["b"]], dtype=object), "a"),
        (np.array([2**62 + 1]), str(2**62 + 1)),
        (np.array([0.5], dtype=np.float32), "0.5"),
        (np.array([[3, 4], [5, 6]]), "3,4"),
        (np.array([True]), "1"),
        (np.array(7), "7"),
    ],
)
def test_a_value_is_one_text_in_every_type(array: np.ndarray, text: str) -> None:
    assert text_of(array) == text


@pytest.mark.parametrize("inputs", [{}, {"user_id": np.array([], dtype=np.int64)}])
def test_a_request_without_the_field_is_never_the_canarys(inputs: dict[str, np.ndarray]) -> None:
    assert not takes_canary("ranker", Canary("2", 100, "user_id"), inputs)
