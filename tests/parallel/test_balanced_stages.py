"""Balanced stages against brute force."""

from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flyweight.parallel.balance import Crossing, Link, balanced


def slowest(seconds: list[float], ends: list[int], sent: list[Crossing], chosen: tuple[int, ...]) -> float:
    begin, worst, received = 0, 0.0, 0.0
    for cut in chosen:
        worst = max(worst, received + sum(seconds[begin : ends[cut] + 1]) + sent[cut].sender, sent[cut].link)
        begin, received = ends[cut] + 1, sent[cut].receiver
    return max(worst, received + sum(seconds[begin:]))


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_the_slowest_stage_is_as_quick_as_can_be(data: st.DataObject) -> None:
    operators = data.draw(st.integers(2, 9))
    seconds = data.draw(st.lists(st.floats(0.0, 10.0), min_size=operators, max_size=operators))
    ends = sorted(data.draw(st.sets(st.integers(0, operators - 2), min_size=1)))
    some = st.floats(0.0, 3.0)
    crossings = st.builds(Crossing, link=some, sender=some, receiver=some)
    sent = data.draw(st.lists(crossings, min_size=len(ends), max_size=len(ends)))
    stages = data.draw(st.integers(1, len(ends) + 1))
    chosen = balanced(seconds, ends, sent, stages)
    assert len(chosen) == stages - 1
    assert list(chosen) == sorted(set(chosen))
    best = min(slowest(seconds, ends, sent, one) for one in combinations(range(len(ends)), stages - 1))
    assert slowest(seconds, ends, sent, chosen) == pytest.approx(best, rel=1e-6, abs=1e-9)


def test_of_two_ways_as_quick_the_one_that_sends_less() -> None:
    assert balanced([1.0, 0.0, 1.0], [0, 1], [Crossing(0.5), Crossing(0.25)], 2) == (1,)


def test_a_link_takes_its_latency_and_its_bytes() -> None:
    assert Link(1e9, 1e-3).crossing(2e9).arrives == pytest.approx(2.001)
    assert Link(1e9, 1e-3).occupied(2e9) == pytest.approx(2.0)


def test_what_a_unit_copies_itself_is_its_own_time_and_not_waited_for_again() -> None:
    found = Link(1e9, 1e-3, sender=1.0, receiver=0.25).crossing(2e9)
    assert (found.link, found.sender, found.receiver, found.arrives) == pytest.approx((2.0, 2.0, 0.5, 1e-3))


def test_what_copying_takes_of_a_unit_moves_the_cut() -> None:
    """Units of 3 and 3 send for 2; of 2 and 4, for nothing."""
    assert balanced([2.0, 1.0, 3.0], [0, 1], [Crossing(), Crossing(2.0)], 2) == (1,)  # the link works beside them
    assert balanced([2.0, 1.0, 3.0], [0, 1], [Crossing(), Crossing(2.0, sender=2.0)], 2) == (0,)
