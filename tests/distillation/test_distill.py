"""The step: what it trains, what it records, what it leaves."""

import json

import torch
from torch import Tensor, nn

import flyweight as fw
from flyweight.distillation.distill import Distill
from small_tasks import Ranker, seeded, trained_task


class Thin(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(64, 16), nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.first(x).relu())


def test_the_current_model_learns_from_the_original(digits: fw.Task, damaged: nn.Module) -> None:
    change = Distill(epochs=8).apply(digits.with_model(damaged))
    (record,) = change.done
    assert record["parameters"] == sum(one.numel() for one in damaged.parameters())
    assert record["epochs"] == 8
    assert record["loss"] == "soft"
    assert record["metric"] == "accuracy"
    assert record["validation_after"] > 0.92 > record["validation_before"]
    assert record["curve"][0]["epoch"] == 0
    json.dumps([change.settings, change.done])


def test_a_student_of_ones_own_is_trained_with_its_tables() -> None:
    task = trained_task(seeded(Ranker), metric="logloss")
    with torch.no_grad():
        student = seeded(Ranker)
        student.user.weight *= 4
    change = Distill(epochs=6, student=student, lr=0.01).apply(task)
    record = change.done[-1]
    assert record["parameters"] == sum(one.numel() for one in student.parameters())
    assert record["validation_after"] < record["validation_before"]
    assert change.settings["student"] == "Ranker"
    assert Distill(epochs=1, student=student, tables=False).training().tables is False


def test_a_small_student_learns_from_scratch(digits: fw.Task) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        student = Thin()
    change = Distill(epochs=20, student=student, lr=0.01).apply(digits)
    assert change.done[-1]["validation_after"] > 0.9


def test_a_student_that_got_no_better_is_handed_on_as_it_was_and_said(digits: fw.Task) -> None:
    change = Distill(epochs=0.1, lr=1e3).apply(digits)
    assert "nothing was better on validation than the start" in change.skipped[0].why
    for one, other in zip(change.model.parameters(), digits.model.parameters(), strict=True):
        assert torch.equal(one, other)
