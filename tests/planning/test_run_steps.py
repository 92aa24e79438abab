"""Steps that break the model or do not pay are taken back, with the reason, and the rest goes on."""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

import flyweight as fw
from flyweight.planning.gate import Gate, is_slower
from flyweight.planning.requests import sample_requests, timed_request
from flyweight.planning.run_steps import Applied, run_steps
from flyweight.task.change import Change
from flyweight.task.estimate import Estimate
from small_tasks import Ranker, seeded, trained_task


@dataclass(frozen=True)
class Edit:
    """A step that edits a copy of the model."""

    edit: Callable[[nn.Module], None]
    force: bool = True
    name: str = "edit"

    def apply(self, task: fw.Task) -> Change:
        model = copy.deepcopy(task.model)
        self.edit(model)
        return Change(self.name, model, done=({"what": "edit"},))


class Slow(nn.Module):
    """A layer that does the same a thousand times over."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer
        self.wide = nn.Linear(16, 6000)
        self.back = nn.Linear(6000, 16)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) + 0 * self.back(torch.relu(self.wide(self.layer(x))))


@pytest.fixture(scope="module")
def task() -> fw.Task:
    return trained_task(seeded(Ranker))


def run(task: fw.Task, *steps: Edit) -> Applied:
    samples = sample_requests(task)
    return run_steps(task, steps, Gate(samples, 64, timed_request(task), 1))


def scale_last(factor: float) -> Callable[[nn.Module], None]:
    def edit(model: nn.Module) -> None:
        with torch.no_grad():
            model.mlp[2].weight.mul_(factor)

    return edit


def break_layer(model: nn.Module) -> None:
    with torch.no_grad():
        model.mlp[0].weight[3, 5] = float("nan")


def double_outputs(model: nn.Module) -> None:
    model.mlp[2] = nn.Linear(16, 3)


def slow_down(model: nn.Module) -> None:
    model.mlp[0] = nn.Sequential(model.mlp[0], nn.ReLU(), Slow(nn.Identity()))


def test_a_nan_weight_takes_the_step_back_and_names_the_layer(task: fw.Task) -> None:
    applied = run(task, Edit(scale_last(0.5)), Edit(break_layer, name="breaker"), Edit(scale_last(3.0)))
    assert torch.equal(applied.model.mlp[2].weight, task.model.mlp[2].weight * 0.5 * 3.0)
    assert not torch.isnan(applied.model.mlp[0].weight).any()
    reason = str(applied.changes[1].skipped[0])
    assert "breaker: taken back: mlp.0.weight holds 1 NaN or infinite values of 272" in reason
    assert applied.changes[1].done == ()


def test_other_output_shapes_take_the_step_back(task: fw.Task) -> None:
    applied = run(task, Edit(double_outputs))
    assert applied.model is task.model
    assert "outputs have shape" in str(applied.changes[0].skipped[0])


def test_a_slower_model_is_kept_out_unless_forced(task: fw.Task) -> None:
    refused, forced = run(task, Edit(slow_down, force=False)), run(task, Edit(slow_down, force=True))
    assert refused.model is task.model
    left = refused.changes[0].skipped[0]
    assert "a request became slower in the quickest engine; force=True keeps it, 0." in str(left)
    assert "times" not in left.why
    assert "force=True keeps it" in str(refused.changes[0].skipped[0])
    assert forced.model is not task.model


@pytest.mark.parametrize(
    ("gain", "slower"),
    [((0.5, 0.4, 0.6), True), ((0.5, 0.4, 1.1), False), ((0.98, 0.975, 0.99), False), ((1.4, 1.2, 1.5), False)],
)
def test_only_what_is_surely_slower_is_slower(gain: tuple[float, float, float], slower: bool) -> None:
    assert is_slower(Estimate(*gain, n=50)) is slower


def test_samples_of_images_are_few_and_of_ids_two() -> None:
    rows = [({"image": torch.rand(100, 3, 32, 32)}, torch.randint(0, 2, (100,)))]
    net = nn.Sequential(nn.Flatten(), nn.Linear(3072, 2))
    net.forward = lambda image: nn.Sequential.forward(net, image)  # type: ignore[method-assign]
    images = fw.Task(net, {"image": fw.Field()}, rows, rows, rows, metric="accuracy")
    (only,) = sample_requests(images)
    assert only["image"].shape == (2, 3, 32, 32)
    plain, spread = sample_requests(trained_task(seeded(Ranker)))
    assert len(plain["item_id"]) == len(spread["item_id"]) == 64
