"""The peer's search: passes give what they claim, every first recipe is one, and what fails is told."""

import sys
from pathlib import Path

import numpy as np
import optuna
import pytest
import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

import auto_peer
import auto_peer_passes
import flyweight as fw
from auto_peer_engines import OrtFile, open_file, probe
from auto_peer_passes import facts_of, make
from auto_peer_space import first_recipes, in_words, suggest
from flyweight.engines.export import export_onnx
from small_tasks import ITEMS, USERS, batches, trained_task, world


class Ranker(nn.Module):
    """Two tables 16 wide under a perceptron."""

    def __init__(self) -> None:
        super().__init__()
        self.user, self.item = nn.Embedding(USERS, 16), nn.Embedding(ITEMS, 16)
        self.mlp = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 1))

    def forward(self, user_id: Tensor, item_id: Tensor) -> Tensor:
        return self.mlp(torch.cat([self.user(user_id), self.item(item_id)], 1)).squeeze(1)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    torch.manual_seed(0)
    model = Ranker().eval()
    inputs = {"user_id": torch.randint(0, USERS, (200,)), "item_id": torch.randint(0, ITEMS, (200,))}
    path = export_onnx(model, inputs, tmp_path_factory.mktemp("ranker")).path
    arrays = {name: values.numpy() for name, values in inputs.items()}
    return path, arrays, OrtFile(path, 1).run(arrays)


def drawn(params, facts):
    study = optuna.create_study()
    study.enqueue_trial(params)
    trial = study.ask()
    recipe = suggest(trial, facts)
    assert {name: trial.params[name] for name in params} == params  # none is ignored
    return recipe


for package in ("nncf", "openvino"):
    pytest.importorskip(package, reason=f"{package} is not installed (flyweight[bench])")

FACTS = auto_peer_passes.Facts(tables=True, convolutions=False, attention=False)


@pytest.mark.parametrize("params", list(first_recipes(FACTS)), ids=lambda params: in_words(drawn(params, FACTS)))
def test_a_recipe_gives_a_file_that_stays_close(exported, params, tmp_path):
    path, arrays, expected = exported
    recipe = drawn(params, facts_of(path))
    made = make(path, recipe, [arrays], tmp_path)
    scores = open_file(made.path, made.engine, made.precision, 1).run(arrays).reshape(-1)
    assert np.corrcoef(scores, expected)[0, 1] > 0.98
    assert np.abs(scores - expected).max() < 0.35 * expected.std() * 4
    assert path.exists()


@pytest.mark.parametrize("facts", [(False, True, False), (True, False, True), (False, False, False)])
def test_first_recipes_are_in_the_space(facts):
    has = auto_peer_passes.Facts(*facts)
    assert all(drawn(params, has) for params in first_recipes(has))


def test_gemm_as_matmul_and_add_gives_the_same_scores(exported, tmp_path):
    path, arrays, expected = exported
    auto_peer_passes._gemm_to_matmul(path, tmp_path / "made.onnx")
    np.testing.assert_allclose(OrtFile(tmp_path / "made.onnx", 1).run(arrays), expected, atol=1e-5)


def test_tables_of_8_bits_take_a_byte_a_value_and_a_scale_a_block(exported, tmp_path):
    path, arrays, expected = exported
    auto_peer_passes._tables_8_bits(path, tmp_path / "made.onnx", 16)
    scores = OrtFile(tmp_path / "made.onnx", 1).run(arrays)
    assert 0 < np.abs(scores - expected).max() < 0.02
    saved = path.stat().st_size + path.with_name(f"{path.name}.data").stat().st_size
    rows = USERS + ITEMS
    assert saved - (tmp_path / "made.onnx").stat().st_size == pytest.approx(rows * (64 - 20), abs=3_000)


def test_a_file_is_tried_in_a_process_of_its_own(exported, tmp_path):
    path, arrays, _ = exported
    np.savez(tmp_path / "rows.npz", **arrays)
    assert probe(path, "onnxruntime", "f32", tmp_path / "rows.npz") is None
    (tmp_path / "bad.onnx").write_bytes(b"no model")
    assert "INVALID_PROTOBUF" in probe(tmp_path / "bad.onnx", "onnxruntime", "f32", tmp_path / "rows.npz")


def test_a_search_tells_every_point_and_keeps_the_best_file(tmp_path, monkeypatch):
    monkeypatch.setattr(auto_peer, "SECONDS", 0.1)
    made = auto_peer.make

    def failing(original, recipe, calibration, folder):
        if recipe["engine"] == "openvino":
            raise RuntimeError("no such pass")
        return made(original, recipe, calibration, folder)

    monkeypatch.setattr(auto_peer, "make", failing)

    def split(rows, seed):
        columns, clicked = world(rows, seed)
        return batches({name: columns[name] for name in ("user_id", "item_id")}, clicked)

    data = {"train": split(2_000, 1), "validation": split(1_000, 2), "test": split(1_000, 3)}
    fields = {"user_id": fw.Field(rows=USERS), "item_id": fw.Field(rows=ITEMS)}
    task = trained_task(Ranker(), data, inputs=fields)
    found = auto_peer.search(task, 0.2, 0.01, tmp_path, rows=64)
    failed = [point for point in found.points if point.recipe["engine"] == "openvino"]
    assert failed
    assert all(point.error == "RuntimeError: no such pass" and point.drop is None for point in failed)
    assert any(not point.error for point in found.points)
    assert found.best is not None
    assert found.best.made is not None
    assert found.best.made.path.exists()
    assert found.best.drop.value <= 0.01
    assert found.best.worth == max(point.worth for point in found.points if point.inside)
    told = auto_peer.found_json(found)
    assert len(told["points"]) == len(found.points) == len({point.words for point in found.points})
    assert found.bench.certify(found.best.made).margin == 0.01
