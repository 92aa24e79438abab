"""Candidates: their words, the order of their steps, and the ways to plain values and to Optuna's and back."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyweight.distillation.distill import Distill
from flyweight.planning.search.candidate import Candidate, steps_of
from flyweight.planning.search.space import BITS, EPOCHS, LEAST_RATIO, UNITS, WEIGHTS, WHOLE, Space
from flyweight.pruning.factorize import Factorize
from flyweight.pruning.prune import Prune
from flyweight.quantization.quantize import Quantize

SPACE = Space(most=500.0, macs=10_000, least=0.01, layers=True, single=True, epochs=4.0, teacher=64.0, skipped=())
INSIDE = st.builds(
    Candidate,
    tables=st.one_of(st.just(1.0), st.floats(LEAST_RATIO, SPACE.most)),
    units=st.sampled_from(UNITS),
    macs=st.one_of(st.just(1.0), st.floats(SPACE.least, WHOLE)),
    epochs=st.sampled_from([one for one in EPOCHS if one <= SPACE.epochs]),
    learn_first=st.booleans(),
    bits=st.sampled_from(BITS),
)


@pytest.mark.parametrize(
    ("knobs", "words"),
    [
        ({}, "rewriting alone"),
        ({"tables": 1234.4}, "tables 1,234x"),
        ({"fields": 1}, "1 field fewer"),
        ({"fields": 2, "units": 0.875}, "2 fields fewer, 88% of units off"),
        ({"weights": 0.95, "epochs": 1.0}, "95.0% of weights off, 1 epoch"),
        ({"macs": 0.3, "epochs": 0.5}, "0.5 epochs, low rank 30.0%"),
        ({"macs": 0.3, "epochs": 2.0, "learn_first": False}, "low rank 30.0%, 2 epochs"),
        ({"tables": 10.0, "bits": "int8 weights"}, "tables 10x, int8 weights"),
    ],
)
def test_words_say_how_far_each_method_goes(knobs: dict[str, Any], words: str) -> None:
    assert str(Candidate(**knobs)) == words


def names(candidate: Candidate) -> list[str]:
    return [step.name for step in steps_of(candidate, 1_000)]


def test_steps_come_in_an_order_in_which_none_undoes_another() -> None:
    whole = Candidate(tables=10, fields=1, units=0.5, macs=0.5, epochs=1, teacher=20, bits="int8")
    first = ["encode_tables", "coded_teacher", "drop_fields", "prune"]
    assert names(whole) == [*first, "distill", "factorize", "quantize"]
    assert names(replace(whole, learn_first=False)) == [*first, "factorize", "distill", "quantize"]
    assert names(Candidate()) == []


def test_single_weights_go_in_rounds_that_learn_and_are_shared_last() -> None:
    steps = steps_of(Candidate(weights=0.9, epochs=2.0, macs=0.5), 1_000)
    assert [step.name for step in steps] == ["factorize", "prune", "share_weights"]
    prune, share = steps[1:]
    assert isinstance(prune, Prune)
    assert 3 * prune.recover + share.recover == pytest.approx(2.0)  # type: ignore[attr-defined]


def test_settings_reach_the_steps() -> None:
    ranks, learning, rounding = steps_of(
        Candidate(macs=0.3, epochs=0.5, learn_first=False, bits="int8 weights", seed=7), 1_000, checkpoint="here.pt"
    )
    assert isinstance(ranks, Factorize)
    assert (ranks.max_macs, ranks.seed) == (300, 7)
    assert isinstance(learning, Distill)
    assert (learning.epochs, learning.checkpoint, learning.seed) == (0.5, "here.pt", 7)
    assert isinstance(rounding, Quantize)
    assert (rounding.activations, rounding.force) == (None, True)


def test_no_teacher_is_coded_where_nothing_learns() -> None:
    assert names(Candidate(tables=10, teacher=20)) == ["encode_tables"]
    assert names(Candidate(tables=10, teacher=20, epochs=1).untrained()) == ["encode_tables"]


@given(INSIDE)
def test_plain_values_are_the_same_candidate_again(candidate: Candidate) -> None:
    assert Candidate(**candidate.plain()) == candidate


@given(INSIDE)
def test_optunas_values_are_the_same_candidate_again(candidate: Candidate) -> None:
    taught = replace(candidate, teacher=SPACE.teacher if candidate.learns else 1.0)
    assert SPACE.candidate(SPACE.params(candidate)) == taught


@given(
    st.builds(
        Candidate,
        tables=st.floats(0.1, 1e6),
        units=st.floats(0, 1),
        weights=st.floats(0, 1),
        macs=st.floats(1e-6, 2),
        epochs=st.floats(0, 100),
        bits=st.sampled_from(BITS),
    )
)
def test_what_lies_outside_is_held_within_what_can_be_varied(candidate: Candidate) -> None:
    params = SPACE.params(candidate)
    for name, distribution in SPACE.distributions().items():
        assert distribution._contains(distribution.to_internal_repr(params[name])), name
    held = SPACE.candidate(params)
    assert SPACE.candidate(SPACE.params(held)) == held
    assert held.epochs <= SPACE.epochs
    assert not (held.weights and held.bits != "float32")


def test_only_what_a_task_has_can_be_varied() -> None:
    nothing = Space(most=1.0, macs=0, least=0.85, layers=False, single=False, epochs=4.0, teacher=1.0, skipped=())
    assert nothing.distributions() == {}
    assert nothing.candidate({}) == Candidate()
    tables = replace(nothing, most=100.0)
    assert set(tables.distributions()) == {"tables", "epochs"}
    dense = replace(nothing, layers=True, macs=100)
    assert set(dense.distributions()) == {"units", "macs", "bits", "learn_first", "epochs"}
    assert set(replace(dense, single=True).distributions()) == {*dense.distributions(), "weights"}
    assert len(WEIGHTS) > 1
