"""Simulated schedules against the published formulas."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flyweight.errors import InputError
from flyweight.parallel.simulate import Schedule, StageCost, simulate


@pytest.mark.parametrize("stages", [1, 2, 4, 8])
@pytest.mark.parametrize("micro_batches", [1, 4, 16])
@pytest.mark.parametrize("schedule", ["fill-drain", "1f1b"])
def test_equal_stages_take_fill_and_drain_beside_their_work(
    stages: int, micro_batches: int, schedule: Schedule
) -> None:
    """(m + n - 1)(f + b): Huang et al. 2019, section 2; the same for 1F1B (Narayanan et al. 2021, section 2.2)."""
    found = simulate([StageCost(1.0, 2.0)] * stages, micro_batches, schedule)
    assert found.seconds == pytest.approx(3.0 * (micro_batches + stages - 1))
    assert found.busy == pytest.approx(micro_batches / (micro_batches + stages - 1))


@pytest.mark.parametrize("turns", [2, 4])
def test_turns_shorten_the_bubble_by_as_many_times(turns: int) -> None:
    """Bubble over work: (n - 1) / (v m), Narayanan et al. 2021, section 2.2."""
    units, micro_batches = 4, 8
    found = simulate([StageCost(1.0 / turns, 2.0 / turns)] * units * turns, micro_batches, "interleaved", turns)
    work = 3.0 * micro_batches
    assert (found.seconds - work) / work == pytest.approx((units - 1) / (turns * micro_batches))


def test_one_forward_one_backward_holds_no_more_than_there_are_stages() -> None:
    costs = [StageCost(1.0, 2.0)] * 4
    assert simulate(costs, 32, "1f1b").held == 4
    assert simulate(costs, 32, "fill-drain").held == 32


@given(st.lists(st.floats(0.1, 5.0), min_size=1, max_size=6), st.integers(1, 12), st.floats(0.0, 2.0))
@settings(max_examples=40, deadline=None)
def test_inference_is_bound_by_the_slowest_stage_and_the_way_through(
    seconds: list[float], micro_batches: int, sends: float
) -> None:
    found = simulate([StageCost(one, sends=sends) for one in seconds], micro_batches)
    through = sum(seconds) + sends * (len(seconds) - 1)
    assert found.seconds == pytest.approx(through + (micro_batches - 1) * max(seconds))


def test_what_makes_no_pipeline_is_refused() -> None:
    with pytest.raises(InputError, match="seen 0 and 4"):
        simulate([], 4)
    with pytest.raises(InputError, match="micro-batches in rounds of 4, one for each unit; 5 do not"):
        simulate([StageCost(1.0, 2.0)] * 12, 5, "interleaved", 3)
    with pytest.raises(InputError, match="5 stages cannot be dealt out to units in 2 turns"):
        simulate([StageCost(1.0)] * 5, 4, "interleaved", 2)


@pytest.mark.parametrize("micro_batches", [1, 10])
def test_a_link_that_is_slower_than_the_units_decides(micro_batches: int) -> None:
    """Each of m sends waits for the one before: 1 + 3 m, then a last stage of 1."""
    found = simulate([StageCost(1.0, sends=3.0, occupies=3.0), StageCost(1.0)], micro_batches)
    assert found.seconds == pytest.approx(1 + 3 * micro_batches + 1)
