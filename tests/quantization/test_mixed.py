"""Which layers are rounded: the knapsack, the groups, what is taken of what was timed, and recovery."""

from pathlib import Path

import pytest
import torch
from test_quantize import images
from torch import nn

import flyweight as fw
from flyweight.errors import InputError
from flyweight.graph.trace import trace
from flyweight.quantization.learning import learn, quantizers
from flyweight.quantization.measured import Timed
from flyweight.quantization.mixed import ALL, FLOAT, groups_by_work, pick
from flyweight.quantization.quantize import Quantize
from flyweight.quantization.sensitivity import Price, raise_precision
from flyweight.quantization.sites import find_sites
from small_tasks import Ranker, seeded, trained_task


def test_the_most_error_for_a_byte_is_taken_off_first() -> None:
    prices = {
        "small": {"int4": Price(10, 0.006), "int8": Price(20, 0.0), "float32": Price(80, 0.0)},
        "large": {"int4": Price(1_000, 0.007), "int8": Price(2_000, 0.0), "float32": Price(8_000, 0.0)},
    }
    assert raise_precision(prices, "int4", 0.008) == {"small": "int8", "large": "int4"}
    assert raise_precision(prices, "int4", 0.001) == {"small": "int8", "large": "int8"}
    assert raise_precision(prices, "int4", 0.02) == {"small": "int4", "large": "int4"}


def test_fewest_bytes_among_the_fast_are_taken() -> None:
    timed = {
        name: Timed(name, size, time, "onnxruntime")
        for name, size, time in ((FLOAT, 400, 1.0), (ALL, 100, 1.3), ("some", 150, 1.04))
    }
    assert pick(timed) == "some"
    assert pick({name: one for name, one in timed.items() if name != "some"}) == FLOAT


def test_layers_of_like_work_stay_together() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 5), nn.Linear(5, 300), nn.Linear(300, 300))
    traced = trace(model.eval(), {"input": torch.rand(3, 4)})
    assert groups_by_work(traced, find_sites(traced)[0]) == [["0", "1"], ["2"], ["3"]]


@pytest.fixture(scope="module")
def ranker() -> fw.Task:
    return trained_task(seeded(Ranker))


def timed_as(monkeypatch: pytest.MonkeyPatch, times: dict[str, float]) -> None:
    def fake(models: dict[str, nn.Module], inputs: object) -> dict[str, Timed]:
        return {label: Timed(label, 100, times.get(label, 9.0), "onnxruntime") for label in models}

    monkeypatch.setattr("flyweight.quantization.mixed.time_candidates", fake)


def test_a_layer_that_does_not_pay_stays_float_and_the_numbers_are_said(
    ranker: fw.Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    timed_as(monkeypatch, {FLOAT: 2.0, ALL: 1.5, "1 smallest layers in float32": 1.0})
    change = Quantize().apply(ranker)
    assert [one["name"] for one in change.done if one["what"] == "layer"] == ["mlp.0"]
    (left,) = [one for one in change.skipped if one.what == "mlp.2"]
    assert "1 ms with it in float32 (onnxruntime) and 1.5 ms with all layers rounded" in str(left)
    assert "ms" not in left.why, "a manifest holds no number of the clock's"


def test_a_model_that_is_fastest_in_float_is_left_unless_forced(
    ranker: fw.Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    timed_as(monkeypatch, {FLOAT: 1.0, ALL: 1.5})
    left = Quantize().apply(ranker)
    assert left.model is ranker.model
    assert {"mlp.0", "mlp.2"} <= {one.what for one in left.skipped}
    forced = Quantize(force=True).apply(ranker)
    assert {one["name"] for one in forced.done if one["what"] == "layer"} == {"mlp.0", "mlp.2"}


def test_layers_too_sensitive_for_four_bits_get_more(monkeypatch: pytest.MonkeyPatch) -> None:
    timed_as(monkeypatch, {FLOAT: 2.0, ALL: 1.0})
    task = images()
    most = 1.0
    for wanted in ({"int4"}, {"int4", "int8"}):
        change = Quantize(weights="int4", group_size=16, max_error=most).apply(task)
        assert {one["to"] for one in change.done if one["what"] == "layer"} == wanted
        summed = sum(one[one["chosen"]] for one in change.done if one["what"] == "sensitivity")
        assert summed <= most
        most = 0.5 * summed


def test_recovery_brings_back_what_coarse_weights_took(ranker: fw.Task) -> None:
    rough = Quantize(mixed=False).apply(ranker).model
    for quantizer in quantizers(rough):
        if quantizer.zero_point is None:  # a weight: as coarse as four bits with a bad range
            quantizer.scale.data *= 30.0
    before = [quantizer.scale.detach().clone() for quantizer in quantizers(rough)]
    found = learn(ranker, rough, epochs=4, lr=3e-3)
    assert found.after.metric > found.before.metric + 0.005
    moved = [quantizer.scale.detach() for quantizer in quantizers(found.model)]
    assert any(not torch.equal(one, other) for one, other in zip(before, moved, strict=True))
    assert all(bool((scale > 0).all()) for scale in moved)
    assert not any(quantizer.scale.requires_grad for quantizer in quantizers(found.model))
    assert torch.equal(found.model.body.user.weight, ranker.model.user.weight)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"max_error": 2.0}, "max_error must be a number from 0 to 1; seen 2.0"),
        ({"smooth": -0.5}, "smooth must be a number from 0 to 1; seen -0.5"),
        ({"recover": -1.0}, "recover must be a number of at least 0; seen -1.0"),
        ({"dynamic": True, "weights": "int4"}, "dynamic=True needs weights='int8'.*seen weights='int4'"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        Quantize(**settings)  # type: ignore[arg-type]


def test_layers_ranged_by_the_call_need_no_calibration(ranker: fw.Task, tmp_path: Path) -> None:
    change = Quantize(dynamic=True).apply(ranker)
    assert [one["activations"] for one in change.done] == ["uint8, ranged in each call"] * 2
    inputs = next(ranker.batches("validation"))[0]
    with torch.no_grad():
        wanted, seen = ranker.model(**inputs), change.model(**inputs)
    assert 0 < float((wanted - seen).square().mean().sqrt() / wanted.std()) < 0.03
