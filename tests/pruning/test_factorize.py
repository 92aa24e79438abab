"""Linear layers split in two of low rank."""

import pytest
import torch
from torch import nn

import flyweight as fw
from flyweight.cost.macs import count_macs
from flyweight.errors import InputError
from flyweight.pruning.factorize import Factorize
from flyweight.pruning.ranks import choose_ranks, split_weight
from small_tasks import FIELDS, Ranker, splits, train


class Wide(nn.Module):
    """A linear layer of rank 3 and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.head = nn.Linear(40, 40), nn.Linear(40, 1)
        self.wide.weight.data = torch.randn(40, 3) @ torch.randn(3, 40)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.wide(x)).squeeze(1)


@pytest.fixture(scope="module")
def low_rank_task() -> fw.Task:
    torch.manual_seed(0)
    x = torch.randn(400, 40)
    model = Wide()
    with torch.no_grad():
        target = (model(x=x) > 0).float()
    data = [({"x": x[at : at + 100]}, target[at : at + 100]) for at in range(0, 400, 100)]
    return fw.Task(model, {"x": fw.Field()}, data, data, data, metric="auc", output="logit")


def test_full_rank_gives_the_weight_back() -> None:
    torch.manual_seed(1)
    weight, x = torch.randn(6, 9), torch.randn(200, 9)
    split = split_weight(weight, x.T @ x / 200, torch.rand(6))
    first, second = split.halves(6)
    torch.testing.assert_close(second @ first, weight, rtol=1e-4, atol=1e-5)
    assert float(split.damage[6]) == 0


def test_damage_is_the_weighted_squared_error_of_the_outputs() -> None:
    torch.manual_seed(2)
    weight, x, felt = torch.randn(6, 9), torch.randn(500, 9), torch.rand(6) + 0.1
    split = split_weight(weight, x.T @ x / 500, felt, ridge=0.0)
    first, second = split.halves(2)
    error = (x @ weight.T - x @ first.T @ second.T).square() * felt
    assert float(split.damage[2]) == pytest.approx(float(error.sum(1).mean()), rel=1e-3)


def test_no_other_pair_of_the_rank_is_nearer() -> None:
    torch.manual_seed(3)
    weight, moments = torch.randn(5, 5), torch.diag(torch.tensor([4.0, 1.0, 1.0, 1.0, 0.01]))
    split = split_weight(weight, moments, torch.ones(5), ridge=0.0)
    plain = torch.linalg.svd(weight)
    other = plain.U[:, :2] @ torch.diag(plain.S[:2]) @ plain.Vh[:2]
    error = (weight - other) @ moments.sqrt()
    assert float(split.damage[2]) < float(error.square().sum())


def test_ranks_stay_inside_the_budget_and_go_where_the_damage_is() -> None:
    flat = split_weight(torch.eye(16), torch.eye(16), torch.ones(16))
    steep = split_weight(torch.diag(torch.tensor([1.0] + [0.01] * 15)), torch.eye(16), torch.ones(16))
    ranks = choose_ranks({"flat": flat, "steep": steep}, budget=8 * 32, multiple=1)
    assert ranks is not None
    assert ranks["steep"] == 1
    assert ranks["flat"] is None or ranks["flat"] >= 5


def test_a_budget_below_the_least_ranks_is_refused_with_the_number() -> None:
    assert choose_ranks({"a": split_weight(torch.eye(16), torch.eye(16), torch.ones(16))}, 10, 4) is None


def test_a_layer_of_rank_three_is_split_without_loss(low_rank_task: fw.Task) -> None:
    change = Factorize(max_macs=400, multiple=1).apply(low_rank_task)
    inputs = low_rank_task.train[0][0]
    assert change.done[0]["rank"] == 3
    assert count_macs(change.model, inputs, 100).total == 3 * 80 + 40
    torch.testing.assert_close(
        change.model(**inputs), low_rank_task.model(**inputs), rtol=1e-3, atol=1e-3
    )
    assert low_rank_task.model.wide.weight.shape == (40, 40)


def test_what_cannot_be_reached_is_said(low_rank_task: fw.Task) -> None:
    with pytest.raises(InputError, match="leave 120 multiply-accumulates"):
        Factorize(max_macs=50, multiple=1).apply(low_rank_task)


def test_a_ranker_keeps_its_tables() -> None:
    data = splits()
    torch.manual_seed(0)
    model = Ranker()
    train(model, data["train"])
    task = fw.Task(model, FIELDS, **data, metric="auc")
    change = Factorize(max_macs=150, multiple=1).apply(task)
    assert count_macs(change.model, data["train"][0][0], 512).total <= 150
    assert change.model.body.get_submodule("user").weight.data_ptr() == model.user.weight.data_ptr()


@pytest.mark.parametrize("wrong", [0, -3, 2.5, True])
def test_a_budget_that_is_no_whole_number_is_refused(wrong: object) -> None:
    with pytest.raises(InputError, match="max_macs must be a whole number"):
        Factorize(max_macs=wrong)  # type: ignore[arg-type]
