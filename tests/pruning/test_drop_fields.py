"""Dropping inputs: the least useful go, what is left reads their means, and nothing asks for them any more."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

import flyweight as fw
from flyweight.engines.export import export_onnx
from flyweight.errors import InputError
from flyweight.graph.trace import trace
from flyweight.graph.traced import TracedModel
from flyweight.pruning.drop_fields import DropFields
from flyweight.pruning.input_fields import find_fields
from small_tasks import DIM, FIELDS, batches, seeded, trained_task

USERS, ITEMS = 20, 30
NOISE = {"noise": fw.Field(role="candidate", rows=20), "dust": fw.Field(role="request")}


class Noisy(nn.Module):
    """A ranker of user, item, price and two inputs that say nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.user, self.item, self.noise = nn.Embedding(USERS, DIM), nn.Embedding(ITEMS, DIM), nn.Embedding(20, DIM)
        self.mlp = nn.Sequential(nn.Linear(3 * DIM + 2, 16), nn.ReLU(), nn.Linear(16, 1))

    def forward(self, user_id: Tensor, item_id: Tensor, price: Tensor, noise: Tensor, dust: Tensor) -> Tensor:
        looked_up = [self.user(user_id), self.item(item_id), self.noise(noise)]
        return self.mlp(torch.cat([*looked_up, price.unsqueeze(1), dust.unsqueeze(1)], 1)).squeeze(1)


def noisy_world(rows: int, seed: int) -> tuple[dict[str, Tensor], Tensor]:
    """Clicks by the user's and the item's own liking and the price; "noise" and "dust" say nothing of them."""
    fixed = torch.Generator().manual_seed(7)
    likes = torch.randn(USERS, generator=fixed), torch.randn(ITEMS, generator=fixed)
    drawn = torch.Generator().manual_seed(seed)
    user, item = torch.randint(USERS, (rows,), generator=drawn), torch.randint(ITEMS, (rows,), generator=drawn)
    price, dust = torch.rand(rows, generator=drawn), torch.randn(rows, generator=drawn)
    chance = torch.sigmoid(2 * (likes[0][user] + likes[1][item] + price - 0.5))
    columns = {"user_id": user, "item_id": item, "price": price, "dust": dust}
    noise = torch.randint(20, (rows,), generator=drawn)
    return {**columns, "noise": noise}, (torch.rand(rows, generator=drawn) < chance).float()


@pytest.fixture(scope="module")
def task() -> fw.Task:
    sizes = {"train": 4_000, "validation": 1_500, "test": 1_500}
    data = {name: batches(*noisy_world(rows, seed)) for seed, (name, rows) in enumerate(sizes.items())}
    return trained_task(seeded(Noisy), data, inputs={**FIELDS, **NOISE})


def test_the_fields_that_say_nothing_go_first(task: fw.Task) -> None:
    change = DropFields(at_most=2).apply(task)
    assert {record["name"] for record in change.done} == {"noise", "dust"}
    assert isinstance(change.model, TracedModel)
    assert set(change.model.names) == {"user_id", "item_id", "price"}


def test_a_dropped_field_is_its_mean(task: fw.Task) -> None:
    """With the looked-up row replaced by hand, the original gives the same outputs."""
    change = DropFields(names=["noise"]).apply(task)
    inputs, target, _ = next(task.batches("validation"))
    mean = change.model.get_buffer("body.mean_of_noise")
    table = task.model.get_submodule("noise")
    hook = table.register_forward_hook(lambda *_: mean.expand(len(target), -1))
    with torch.no_grad():
        wanted = task.model(**inputs)
    hook.remove()
    with torch.no_grad():
        seen = change.model(**{name: inputs[name] for name in ("user_id", "item_id", "price", "dust")})
        ignoring = change.model(**inputs)
    assert torch.allclose(wanted, seen, atol=1e-6)
    assert torch.equal(seen, ignoring)
    assert torch.allclose(mean, torch.as_tensor(table.weight).mean(0), atol=0.3)


def test_a_limit_on_the_drop_is_kept(task: fw.Task) -> None:
    change = DropFields(max_drop=0.03).apply(task)
    assert change.done
    assert all(record["drop"]["high"] <= 0.03 for record in change.done)
    assert "user_id" not in {record["name"] for record in change.done}


def test_the_file_does_not_ask_for_a_dropped_field(task: fw.Task, tmp_path: Path) -> None:
    change = DropFields(names=["noise", "dust"]).apply(task)
    assert isinstance(change.model, TracedModel)
    inputs, _, _ = next(task.batches("validation"))
    exported = export_onnx(change.model, {name: inputs[name] for name in change.model.names}, tmp_path)
    asked = {value.name for value in onnx.load(exported.path, load_external_data=False).graph.input}
    assert asked == {"user_id", "item_id", "price"}


def test_the_models_weights_stay_as_they_were(task: fw.Task) -> None:
    before = {name: value.clone() for name, value in task.model.state_dict().items()}
    DropFields(at_most=1).apply(task)
    assert all(torch.equal(value, before[name]) for name, value in task.model.state_dict().items())


class Crossed(nn.Module):
    """Two ids that meet before they are looked up."""

    def __init__(self) -> None:
        super().__init__()
        self.pair, self.price = nn.Embedding(USERS * ITEMS, 1), nn.Linear(1, 1)

    def forward(self, user_id: Tensor, item_id: Tensor, price: Tensor) -> Tensor:
        return (self.pair(user_id * ITEMS + item_id) + self.price(price.unsqueeze(1))).squeeze(1)


def test_ids_that_meet_before_their_lookup_stay() -> None:
    inputs = {"user_id": torch.tensor([1, 2, 3]), "item_id": torch.tensor([4, 5, 6]), "price": torch.rand(3)}
    fields, left = find_fields(trace(Crossed().eval(), inputs))
    assert [field.name for field in fields] == ["price"]
    assert left.keys() == {"user_id", "item_id"}
    assert "meet other inputs before they are looked up" in left["user_id"]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "exactly one of at_most=, names=, max_drop=; seen none"),
        ({"at_most": 1, "max_drop": 0.1}, "seen at_most=1, max_drop=0.1"),
        ({"at_most": 0}, "at_most must be a whole number of at least 1; seen 0"),
        ({"max_drop": -1.0}, "max_drop must be a positive number; seen -1.0"),
        ({"names": "noise"}, "must be a list of inputs"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        DropFields(**settings)  # type: ignore[arg-type]


def test_unknown_names_and_all_names_are_refused(task: fw.Task) -> None:
    with pytest.raises(InputError, match="There is no field 'colour'; the model's inputs are user_id"):
        DropFields(names=["colour"]).apply(task)
    with pytest.raises(InputError, match="leave it at least one"):
        DropFields(names=list(task.inputs)).apply(task)


def test_dropping_pays_in_validation_as_recorded(task: fw.Task) -> None:
    change = DropFields(at_most=1).apply(task)
    scores = task.scores("validation", change.model)
    before = task.scores("validation")

    def auc(outputs: np.ndarray, targets: np.ndarray) -> float:
        positive, negative = outputs[targets == 1], outputs[targets == 0]
        return float((positive[:, None] > negative[None, :]).mean())

    drop = auc(before.outputs, before.targets) - auc(scores.outputs, scores.targets)
    assert change.done[-1]["drop"]["value"] == pytest.approx(drop, abs=1e-4)
