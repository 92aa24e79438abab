"""Proposals: what comes first, what is one step away from the best, and that nothing is proposed twice."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_up_outcomes import done

from flyweight.planning.budget import Budget
from flyweight.planning.search.candidate import Candidate
from flyweight.planning.search.outcome import Outcome
from flyweight.planning.search.proposals import first_candidates, neighbours, next_candidate
from flyweight.planning.search.space import Space

DEEP = Space(most=500.0, macs=10_000, least=0.01, layers=True, single=False, epochs=4.0, teacher=1.0, skipped=())
SPACES = {
    "tables and layers": DEEP,
    "layers alone": replace(DEEP, most=1.0, single=True),
    "tables alone": replace(DEEP, layers=False, macs=0),
    "nothing": replace(DEEP, most=1.0, layers=False, macs=0),
}
BUDGET = Budget(max_drop=0.01)


@pytest.fixture(params=SPACES)
def space(request: pytest.FixtureRequest) -> Space:
    return SPACES[request.param]


def proposed(space: Space) -> list[Candidate]:
    tables = 50.0 if space.most > 1 else 1.0
    return first_candidates(space, tables, 1.0, [])


def test_tables_alone_come_first_and_rewriting_alone_next(space: Space) -> None:
    found = proposed(space)
    assert found[:2][-1 if space.most > 1 else 0] == Candidate()
    if space.most > 1:
        assert found[0] == Candidate(tables=50.0)
    assert len(set(found)) == len(found)


def test_first_candidates_hold_nothing_that_cannot_be_varied(space: Space) -> None:
    for candidate in proposed(space):
        held = space.candidate(space.params(candidate))
        assert (held.tables > 1) == (candidate.tables > 1)
        assert (held.units > 0) == (candidate.units > 0)
        assert (held.weights > 0) == (candidate.weights > 0)


def test_plans_come_after_what_is_known_the_safest_first() -> None:
    plans = [Candidate(tables=40.0, macs=0.5), Candidate(tables=80.0, macs=0.2)]
    assert first_candidates(DEEP, 50.0, 1.0, plans)[2:4] == plans


def tried_until_the_end(space: Space, drop: float) -> list[Outcome]:
    """Take every proposal, each a little smaller than the one before, until there is none."""
    outcomes = [done(0, drop=drop)]
    while len(outcomes) < 500:
        candidate = next_candidate(outcomes, space, BUDGET, 10_000, 1.0)
        if candidate is None:
            return outcomes
        outcomes.append(replace(done(len(outcomes), 1_000, drop=drop), candidate=candidate))
    raise AssertionError("proposals have no end")


@pytest.mark.parametrize("drop", [0.0, 1.0], ids=["inside", "outside"])
def test_proposals_come_to_an_end_and_none_comes_twice(space: Space, drop: float) -> None:
    words = [str(one.candidate) for one in tried_until_the_end(space, drop)]
    assert len(set(words)) == len(words)


@given(st.lists(st.sampled_from([-1, 1]), min_size=1, max_size=40), st.integers(0, 3))
def test_nothing_is_proposed_twice_whatever_comes_of_it(sides: list[int], number: int) -> None:
    space = list(SPACES.values())[number]
    outcomes = [done(0)]
    for side in sides:
        candidate = next_candidate(outcomes, space, BUDGET, 10_000, 1.0)
        if candidate is None:
            break
        assert str(candidate) not in {str(one.candidate) for one in outcomes}
        assert space.candidate(space.params(candidate)) == candidate
        size = 1_000 - len(outcomes)
        outcomes.append(replace(done(len(outcomes), size, drop=0.1 * side), candidate=candidate))


def test_steps_go_further_from_inside_and_back_from_outside() -> None:
    best = Candidate(tables=50.0, macs=0.5, units=0.5, epochs=1.0)
    further = next(neighbours(best, DEEP))
    assert further.macs < best.macs
    back = next(neighbours(best, DEEP, {"drop"}))
    assert (back.epochs > best.epochs) or (back.macs > best.macs)
    assert set(neighbours(best, DEEP)) == set(neighbours(best, DEEP, {"drop"}))


def test_what_is_too_large_is_first_made_to_fit_by_its_tables() -> None:
    best = done(0, 2_000, drop=-0.01, tables=50.0, macs=0.5, epochs=0.5)  # half of it tables
    step = next_candidate([best], DEEP, Budget(max_drop=0.001, max_bytes=1_500), 10_000, 1.0)
    assert step is not None
    assert step == DEEP.candidate(DEEP.params(replace(best.candidate, tables=step.tables)))
    assert 2_000 - 1_000 + 1_000 * 50 / step.tables <= 1_500
    assert step.tables < 1.1 * 2 * 50
    small = next_candidate([best], DEEP, Budget(max_drop=0.001, max_bytes=900), 10_000, 1.0)
    assert small is not None
    assert small.tables < 2 * 50  # by tables alone it cannot be, so it goes on by steps


def test_nothing_is_proposed_before_anything_was_measured() -> None:
    assert next_candidate([], DEEP, BUDGET, 10_000, 1.0) is None


def test_thinner_layers_keep_about_their_ranks() -> None:
    best = Candidate(tables=50.0, macs=0.1, units=0.0, epochs=0.5, bits="int8")
    thinner = next(neighbours(best, DEEP))
    assert thinner.units > 0
    assert 1 - thinner.units < thinner.macs / best.macs < 1  # inputs stay, units go
    whole = next(neighbours(replace(best, macs=1.0), DEEP))
    assert whole == replace(best, macs=1.0, units=thinner.units)
    learned = Candidate(tables=60.0, macs=0.02, epochs=0.5, learn_first=False, bits="int8")
    assert first_candidates(DEEP, 50.0, 0.5, [replace(learned, epochs=0.0), learned])[-1] == replace(
        learned, units=0.5, macs=0.02 * 0.5**0.5
    )
