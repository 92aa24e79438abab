"""What compress makes of a ranker whose requests repeat work: hoisted and measured, or left with a reason."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

import flyweight as fw
from flyweight.planning import rewriting
from flyweight.planning.compress import compress
from flyweight.task.estimate import Estimate
from small_tasks import DIM, FIELDS, ITEMS, USERS, Ranker, trained_task


class Wide(nn.Module):
    """A deep user tower, so that there is something to save."""

    def __init__(self) -> None:
        super().__init__()
        self.user, self.item = nn.Embedding(USERS, DIM), nn.Embedding(ITEMS, DIM)
        self.tower = nn.Sequential(nn.Linear(DIM, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, DIM))
        self.mlp = nn.Sequential(nn.Linear(2 * DIM + 1, 16), nn.ReLU(), nn.Linear(16, 1))

    def forward(self, user_id: Tensor, item_id: Tensor, price: Tensor) -> Tensor:
        user = self.tower(self.user(user_id))
        return self.mlp(torch.cat([user, self.item(item_id), price.unsqueeze(1)], 1)).squeeze(1)


@pytest.fixture(scope="module")
def task() -> fw.Task:
    torch.manual_seed(0)
    return trained_task(Wide())


def test_a_users_tower_is_computed_once_and_the_bundle_gives_the_same_scores(task: fw.Task, tmp_path: Path) -> None:
    result = compress(task, steps=[])
    assert {done["rule"] for done in result.rewrites.done} >= {"request only", "split linear"}
    assert result.data.speedup.value > 2
    (entry,) = [one for one in result.contents.evidence.recipe if one.step == "rewrite"]
    assert {"request only", "split linear"} <= entry.settings.keys()
    assert "Each request is worked out once: " in str(result)
    once = 7  # the table, five of the tower, and the request's part of the first layer
    assert result.data.hoisted == f"Each request is worked out once: {once} operators; split linear x 1"
    assert result.drop.value == pytest.approx(0.0, abs=1e-4)
    inputs, _ = task.test[0]
    with fw.load(result.save(tmp_path / "r.fly")) as ranker, torch.no_grad():
        assert ranker.bundle.graph.requests == {"user_id"}
        flat = {name: value.numpy() for name, value in inputs.items()}
        np.testing.assert_allclose(ranker.predict(flat), task.model(**inputs).numpy(), atol=1e-4)
    assert fw.verify(tmp_path / "r.fly").ok


def test_rewrites_that_make_a_request_slower_are_taken_back(task: fw.Task, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rewriting.Gate, "gain", lambda *_: Estimate(0.5, 0.4, 0.6, 100))
    result = compress(task, steps=[])
    assert not result.rewrites.done
    assert any("taken back: a request became slower, 0.50 times" in str(one) for one in result.rewrites.skipped)
    kept = [one.why for one in result.contents.evidence.skipped if one.what == "rewrite"]
    assert kept == ["taken back: a request became slower"], "the manifest holds no number of the clock's"
    assert not [one for one in result.contents.evidence.recipe if one.step == "rewrite"]
    assert result.data.hoisted == ""
    graph = onnx.load(result.contents.exported / "model.onnx", load_external_data=False).graph
    assert {value.name for value in graph.input} == set(FIELDS)


def test_nothing_to_hoist_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    fields = {name: fw.Field("candidate", field.rows) for name, field in FIELDS.items()}
    result = compress(trained_task(Ranker(), inputs=fields), steps=[])
    assert any("no input has the role 'request'" in str(one) for one in result.rewrites.skipped)
