"""A thinner student: its widths, its weights, and that it learns."""

import pytest
import torch
from torch import Tensor, nn

import flyweight as fw
from flyweight.cost.macs import count_macs
from flyweight.distillation.distill import Distill
from flyweight.distillation.student import Thinner, make_student
from flyweight.zoo.models.resnet import ResNet
from small_tasks import Ranker, seeded, trained_task

IMAGES = {"image": torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))}


def test_half_the_channels_are_a_quarter_of_the_work() -> None:
    model = ResNet(widths=(8, 16, 32)).eval()
    student = make_student(model, Thinner(width=0.5), IMAGES)
    one = {"image": IMAGES["image"][:1]}
    assert all(entry["after"] * 2 == entry["before"] for entry in student.done)
    assert count_macs(model, one).total / count_macs(student.model, one).total > 3.5
    assert student.model(**IMAGES).shape == (4, 10)


def test_units_of_the_largest_weights_stay_with_their_weights() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(5, 4), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.first(x).relu())

    net = Net().eval()
    with torch.no_grad():
        net.first.weight[[0, 3]] *= 100
    student = make_student(net, Thinner(width=0.5), {"x": torch.rand(2, 5)}).model
    assert torch.equal(student.get_parameter("body.first.weight"), net.first.weight[[0, 3]])
    assert torch.equal(student.get_parameter("body.last.weight"), net.last.weight[:, [0, 3]])


def test_tables_stay_whole_and_shared() -> None:
    task = trained_task(seeded(Ranker))
    student = make_student(task.model, Thinner(width=0.5), task.train[0][0]).model
    table = student.get_parameter("body.item.weight")
    assert table.data_ptr() == task.model.item.weight.data_ptr()
    assert student.get_parameter("body.mlp.0.weight").shape == (8, 17)


def test_width_and_depth_go_together(digits: fw.Task) -> None:
    change = Distill(epochs=6, student=Thinner(width=0.5, depth=1 / 3)).apply(digits)
    whats = [entry["what"] for entry in change.done]
    assert whats.count("block left out") == 2
    assert "neurons" in whats
    assert change.done[-1]["validation_after"] > 0.9
    before, after = (sum(one.numel() for one in model.parameters()) for model in (digits.model, change.model))
    assert before / after > 4


def test_the_start_from_the_teachers_weights_is_better_than_a_fresh_one(digits: fw.Task) -> None:
    student = make_student(digits.model, Thinner(width=0.5), digits.train[0][0]).model
    kept = Distill(epochs=2, student=student).apply(digits).done[-1]["validation_after"]
    fresh = []
    for seed in range(3):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            for parameter in student.parameters():
                nn.init.normal_(parameter, std=parameter.shape[-1] ** -0.5)
        fresh.append(Distill(epochs=2, student=student).apply(digits).done[-1]["validation_after"])
    assert kept > max(fresh)


def test_a_model_with_nothing_to_cut_is_refused() -> None:
    class One(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x)

    with pytest.raises(fw.InputError, match=r"No thinner student can be derived.*Give one as student="):
        make_student(One(4, 3), Thinner(width=0.5), {"x": torch.rand(2, 4)})
