"""The clock of a search: what is left, what a trial will take, and what another sitting goes on from."""

import json
import math

import pytest

from flyweight.planning.search import clock as module
from flyweight.planning.search.candidate import Candidate
from flyweight.planning.search.clock import Clock, clock_from


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that pass only when a test says so."""
    seconds = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: seconds[0])
    return seconds


def clock(limit: float = 60.0, reserve: float = 0.0, spent: float = 0.0) -> Clock:
    return Clock(limit, reserve, spent, _begun=module.time.monotonic())


def test_time_left_is_the_limit_less_reserve_and_what_has_passed(now: list[float]) -> None:
    one = clock(60.0, reserve=10.0, spent=5.0)
    now[0] += 7
    assert one.elapsed == pytest.approx(12)
    assert one.left == pytest.approx(60 - 10 - 12)
    assert clock(math.inf).left == math.inf


def test_a_trial_takes_its_plain_time_and_its_epochs(now: list[float]) -> None:
    one = clock()
    assert one.expected(Candidate(epochs=3)) == 0.0
    one.saw(plain=4.0)
    one.saw(epoch=2.0)
    assert one.expected(Candidate(epochs=3)) == pytest.approx(4 + 3 * 2)
    one.saw(plain=6.0, epoch=4.0)  # new times count half
    assert one.expected(Candidate(epochs=2)) == pytest.approx(5 + 2 * 3)


def test_epochs_fit_into_a_share_of_what_is_left(now: list[float]) -> None:
    one = clock(100.0)
    assert one.epochs(0.5) == 0.0
    one.saw(epoch=2.0)
    assert one.epochs(0.5) == pytest.approx(0.5 * 100 / 2)
    now[0] += 1_000
    assert one.epochs(0.5) == 0.0


def test_another_sitting_goes_on_from_what_was_noted(now: list[float]) -> None:
    first = clock(60.0)
    first.saw(plain=3.0, epoch=2.0)
    now[0] += 25
    noted = json.loads(json.dumps(first.noted()))
    now[0] += 1_000_000  # between sittings
    second = clock_from(noted, 60.0, 5.0)
    second._begun = now[0]
    assert second.elapsed == pytest.approx(25)
    assert second.left == pytest.approx(60 - 5 - 25)
    assert second.expected(Candidate(epochs=1)) == pytest.approx(5.0)


def test_a_sitting_may_have_begun_before_its_clock(now: list[float]) -> None:
    """What a run does before it searches is part of its minutes."""
    assert clock_from({"seconds": 5.0}, 60.0, 0.0, begun=now[0] - 20).left == pytest.approx(60 - 5 - 20)


def test_a_first_sitting_begins_at_nothing() -> None:
    one = clock_from({}, 60.0, 0.0)
    assert one.elapsed < 1
    assert one.expected(Candidate(epochs=1)) == 0.0
