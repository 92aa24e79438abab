"""Precisions given layer by layer: the very bits of the run that chose them, and refusals by their words."""

from typing import Any

import pytest
import torch
from test_mixed import timed_as
from test_quantize import images
from torch import nn

import flyweight as fw
from flyweight.errors import InputError
from flyweight.planning.step_words import words_of
from flyweight.quantization.given_precisions import precisions_of, rounds_activations
from flyweight.quantization.mixed import ALL, FLOAT, WEIGHTS_ONLY
from flyweight.quantization.quantize import Quantize
from small_tasks import Ranker, seeded, trained_task

SOME = "1 smallest layers in float32"


@pytest.fixture(scope="module")
def ranker() -> fw.Task:
    return trained_task(seeded(Ranker))


def same(one: nn.Module, other: nn.Module) -> None:
    left, right = one.state_dict(), other.state_dict()
    assert list(left) == list(right)
    assert [name for name, value in left.items() if not torch.equal(value, right[name])] == []


def again(found: fw.Change, **settings: Any) -> Quantize:
    """What rounds a model as a change did, without choosing."""
    activations = "int8" if rounds_activations(found) else None
    return Quantize(precisions=precisions_of(found), activations=activations, **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("fastest", "layers", "whole"), [(ALL, ["int8", "int8"], True), (SOME, ["int8", "float32"], True),
                                     (WEIGHTS_ONLY, ["int8", "int8"], False)]
)  # fmt: skip
def test_given_precisions_round_as_the_run_that_chose_them(
    ranker: fw.Task, monkeypatch: pytest.MonkeyPatch, fastest: str, layers: list[str], whole: bool
) -> None:
    timed_as(monkeypatch, {FLOAT: 2.0, fastest: 1.0})
    found = Quantize(smooth=0.5, seed=3).apply(ranker)
    assert list(precisions_of(found).values()) == layers
    assert rounds_activations(found) is whole
    monkeypatch.setattr("flyweight.quantization.mixed.time_candidates", None)
    given = again(found, smooth=0.5, seed=3).apply(ranker)
    same(found.model, given.model)
    assert given.done == tuple(one for one in found.done if one["what"] not in ("sensitivity", "timing"))


def test_layers_of_four_and_eight_bits_are_rounded_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    timed_as(monkeypatch, {FLOAT: 2.0, ALL: 1.0})
    task = images()
    found = Quantize(weights="int4", group_size=16, max_error=0.02).apply(task)
    assert len(set(precisions_of(found).values())) > 1
    same(found.model, again(found, group_size=16).apply(task).model)


def test_a_layer_that_is_not_named_stays_float32(ranker: fw.Task) -> None:
    change = Quantize(precisions={"mlp.0.weight": "bfloat16"}).apply(ranker)
    assert precisions_of(change) == {"mlp.0": "bfloat16"}
    assert not rounds_activations(change)
    assert Quantize(precisions={"mlp.0": "float32"}).apply(ranker).model is ranker.model


def test_layers_all_too_sensitive_leave_the_model_as_it_was(
    ranker: fw.Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    timed_as(monkeypatch, {FLOAT: 2.0, ALL: 1.0})
    change = Quantize(max_error=0.0).apply(ranker)
    assert precisions_of(change) == {"mlp.0": "float32", "mlp.2": "float32"}
    assert change.model is ranker.model


def test_recovery_is_told_in_words(ranker: fw.Task) -> None:
    change = Quantize(precisions={"mlp.0": "int8"}, recover=0.3).apply(ranker)
    (words,) = words_of((change,))
    assert "weights trained for 0.25 epochs of soft, auc on validation 0." in words
    assert "weights=int8" not in words, "a setting that does not count is not told"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"precisions": {}}, 'precisions must map names of layers to precisions, as in {"mlp.0": "int8"}; seen {}'),
        ({"precisions": {"mlp.0": "int7"}}, "layer 'mlp.0' must be one of 'float32', 'bfloat16', 'int8', 'int4'; seen"),
        ({"precisions": {"mlp.0": 8}}, "seen 8"),
        ({"precisions": {"mlp.0": "int8"}, "dynamic": True}, "ranges every linear layer in each call; leave"),
    ],
)
def test_precisions_that_make_no_sense_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError) as error:
        Quantize(**settings)
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("precisions", "words"),
    [
        ({"mpl.0": "int8"}, "There is no layer 'mpl.0'; the nearest is 'mlp.0'"),
        ({"item": "int8"}, "Layer 'item' cannot be quantised: a table is left to the step that codes tables. Take it"),
        ({"mlp.0": "int4"}, "groups of group_size=32 do not divide them (17 = 0 * 32 + 17): group_size=17 divides"),
        ({"mlp.0": "int4", "mlp.2": "int4"}, "take \"int8\" for 'mlp.0'."),
    ],
)
def test_precisions_that_do_not_fit_are_refused(ranker: fw.Task, precisions: Any, words: str) -> None:
    with pytest.raises(InputError) as error:
        Quantize(precisions=precisions).apply(ranker)
    assert words in str(error.value)
