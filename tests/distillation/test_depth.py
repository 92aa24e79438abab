"""Blocks are left out where the model runs without them, those first that change least."""

import pytest
import torch
from torch import Tensor, nn

import flyweight as fw
from flyweight.distillation.depth import leave_out_blocks
from flyweight.distillation.distill import Distill
from flyweight.distillation.student import Thinner, make_student
from flyweight.task.scores import evaluating


def test_the_blocks_that_change_least_go(digits: fw.Task) -> None:
    model, inputs = digits.model, digits.train[0][0]
    with torch.no_grad():
        model.blocks[1].weight.zero_()
        model.blocks[1].bias.zero_()  # does nothing
    shallower = leave_out_blocks(model, inputs, depth=2 / 3)
    assert shallower.left_out == ("blocks.1",)
    assert len(shallower.model.blocks) == 2
    assert len(model.blocks) == 3
    with evaluating(model), evaluating(shallower.model), torch.no_grad():
        assert torch.equal(shallower.model(**inputs), model(**inputs))


def test_a_model_that_needs_every_block_says_so() -> None:
    class Numbered(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(2))

        def forward(self, x: Tensor) -> Tensor:
            return self.layers[1](self.layers[0](x))

    class Narrowing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))

        def forward(self, x: Tensor) -> Tensor:
            return self.layers(x)

    for model in (Numbered(), Narrowing()):
        with pytest.raises(fw.InputError, match="layers: it does not run without any one of its blocks"):
            make_student(model, Thinner(width=1, depth=0.5), {"x": torch.rand(3, 4)})


def test_a_shallower_student_learns_what_the_blocks_did(digits: fw.Task) -> None:
    change = Distill(epochs=8, student=Thinner(width=1, depth=1 / 3)).apply(digits)
    assert [entry["name"] for entry in change.done if entry["what"] == "block left out"]
    training = change.done[-1]
    assert len(change.model.blocks) == 1
    first, best = training["curve"][0], min(training["curve"], key=lambda entry: entry["loss"])
    assert best["loss"] < 0.9 * first["loss"]
    assert training["validation_after"] >= training["validation_before"]
    assert change.settings["student"] == {"width": 1, "depth": 1 / 3}
