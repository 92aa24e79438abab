"""Linear layers split in two of low rank."""

import pytest
import torch
from torch import nn

import flyweight as fw
from flyweight.cost.macs import count_macs
from flyweight.errors import InputError
from flyweight.pruning.factorize import Factorize, ranks_of
from flyweight.pruning.ranks import choose_ranks, split_weight
from small_tasks import ITEMS, USERS, Ranker, seeded, trained_task


class Wide(nn.Module):
    """A linear layer of rank 3 and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.head = nn.Linear(40, 40), nn.Linear(40, 1)
        self.wide.weight.data = torch.randn(40, 3) @ torch.randn(3, 40)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.wide(x)).squeeze(1)


class Crossing(nn.Module):
    """A cross layer and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.cross, self.head = nn.Linear(40, 40), nn.Linear(40, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(x * self.cross(x) + x).squeeze(1)


class TablesAlone(nn.Module):
    """A user's row times an item's."""

    def __init__(self) -> None:
        super().__init__()
        self.user, self.item = nn.Embedding(USERS, 4), nn.Embedding(ITEMS, 4)

    def forward(self, user_id: torch.Tensor, item_id: torch.Tensor, price: torch.Tensor) -> torch.Tensor:
        return (self.user(user_id) * self.item(item_id)).sum(1) + price


@pytest.fixture(scope="module")
def low_rank_task() -> fw.Task:
    torch.manual_seed(0)
    x = torch.randn(400, 40)
    model = Wide()
    with torch.no_grad():
        target = (model(x=x) > 0).float()
    data = [({"x": x[at : at + 100]}, target[at : at + 100]) for at in range(0, 400, 100)]
    return fw.Task(model, {"x": fw.Field()}, data, data, data, metric="auc", output="logit")


@pytest.fixture(scope="module")
def ranker() -> fw.Task:
    return trained_task(seeded(Ranker))


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


def test_a_ranker_keeps_its_tables(ranker: fw.Task) -> None:
    change = Factorize(max_macs=150, multiple=1).apply(ranker)
    assert count_macs(change.model, ranker.train[0][0], 512).total <= 150
    assert change.model.body.get_submodule("user").weight.data_ptr() == ranker.model.user.weight.data_ptr()


def test_given_ranks_split_as_the_budget_that_chose_them(ranker: fw.Task) -> None:
    found = Factorize(max_macs=200, multiple=1, seed=3).apply(ranker)
    assert list(ranks_of(found)) == ["mlp.0"]
    again = Factorize(ranks=ranks_of(found), seed=3).apply(ranker)
    one, other = found.model.state_dict(), again.model.state_dict()
    assert list(one) == list(other)
    assert all(torch.equal(value, other[name]) for name, value in one.items())
    assert again.done == found.done
    assert again.settings == {"ranks": ranks_of(found), "multiple": 4, "seed": 3, "force": False, "contract": False}


def test_layers_without_a_rank_stay_whole(low_rank_task: fw.Task) -> None:
    change = Factorize(ranks={"wide.weight": 5}).apply(low_rank_task)
    assert ranks_of(change) == {"wide": 5}
    assert not change.skipped
    assert count_macs(change.model, low_rank_task.train[0][0], 100).total == 5 * 80 + 40


def test_a_model_that_nothing_is_split_in_is_handed_back(ranker: fw.Task) -> None:
    assert Factorize(max_macs=10**6).apply(ranker).model is ranker.model


def test_a_model_without_linear_layers_is_handed_back() -> None:
    task = trained_task(seeded(TablesAlone))
    assert Factorize(max_macs=10**6).apply(task).model is task.model


@pytest.mark.parametrize(
    ("ranks", "words"),
    [
        ({"wdie": 3}, "There is no linear layer 'wdie'; the nearest is 'wide'"),
        ({"wide": 30}, "Layer 'wide' takes 1,600 multiply-accumulates as it is and 2,400 at rank 30; give at most 19"),
        ({"head": 1}, "Layer 'head' takes 40 multiply-accumulates as it is and 41 at rank 1; take it out of ranks="),
    ],
)
def test_ranks_that_do_not_fit_are_refused(low_rank_task: fw.Task, ranks: dict[str, int], words: str) -> None:
    with pytest.raises(InputError) as error:
        Factorize(ranks=ranks).apply(low_rank_task)
    assert words in str(error.value)


def test_a_layer_that_is_read_twice_is_named_with_the_reason() -> None:
    class Twice(Wide):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.wide(self.wide(x))).squeeze(1)

    torch.manual_seed(0)
    data = [({"x": torch.randn(50, 40)}, torch.rand(50).round()) for _ in range(3)]
    task = fw.Task(Twice(), {"x": fw.Field()}, data, data, data)
    with pytest.raises(InputError, match="Layer 'wide' cannot be split: its weight is read in several places"):
        Factorize(ranks={"wide": 3}).apply(task)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "exactly one of max_macs= and ranks=; seen none"),
        ({"max_macs": 9, "ranks": {"a": 1}}, "seen both, max_macs=9"),
        ({"ranks": {}}, 'ranks must map names of layers to ranks, as in {"mlp.0": 8}; seen {}'),
        ({"ranks": {"a": 0}}, "rank of layer 'a' must be a whole number of at least 1; seen 0"),
        ({"ranks": {"a": True}}, "seen True"),
        ({"ranks": {"a": 1}, "multiple": 0}, "multiple must be a whole number of at least 1; seen 0"),
    ],
)
def test_ranks_that_make_no_sense_are_refused(settings: dict[str, object], words: str) -> None:
    with pytest.raises(InputError) as error:
        Factorize(**settings)  # type: ignore[arg-type]
    assert words in str(error.value)


@pytest.mark.parametrize("wrong", [0, -3, 2.5, True])
def test_a_budget_that_is_no_whole_number_is_refused(wrong: object) -> None:
    with pytest.raises(InputError, match="max_macs must be a whole number"):
        Factorize(max_macs=wrong)  # type: ignore[arg-type]


def test_products_with_split_layers_are_summed_on_request() -> None:
    torch.manual_seed(0)
    x = torch.randn(400, 40)
    model = Crossing()
    data = [({"x": x[at : at + 100]}, (x[at : at + 100, 0] > 0).float()) for at in range(0, 400, 100)]
    task = fw.Task(model, {"x": fw.Field()}, data, data, data, metric="auc", output="logit")
    plain, summed = (Factorize(ranks={"cross": 2}, contract=contract).apply(task) for contract in (False, True))
    assert [done["what"] for done in summed.done] == ["low rank", "contracted"]
    assert ranks_of(summed) == ranks_of(plain) == {"cross": 2}
    with torch.no_grad():
        torch.testing.assert_close(summed.model(x=x), plain.model(x=x), rtol=1e-4, atol=1e-5)
    names = {name for name, _ in summed.model.named_parameters()}
    assert any("summed_products" in name for name in names)  # so what follows learns it
