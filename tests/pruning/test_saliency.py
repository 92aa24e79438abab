"""Saliencies: closed forms on linear models, dead units worth nothing, controls random, clear words without a loss."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import flyweight as fw
from flyweight.errors import InputError
from flyweight.graph.coupling import find_groups
from flyweight.graph.trace import trace
from flyweight.pruning.calibration import calibration_pieces, first_inputs
from flyweight.pruning.saliency import SALIENCIES, unit_saliency
from flyweight.pruning.weight_saliency import lamp, weight_saliency
from small_tasks import Ranker, batches, seeded, splits, trained_task

HIDDEN = 6


class Sums(nn.Module):
    """Numbers through one hidden layer; one output."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, HIDDEN), nn.Linear(HIDDEN, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.relu(self.first(x))).squeeze(1)


def regression(rows: int = 512, seed: int = 0) -> list[tuple[dict[str, Tensor], Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, 4, generator=generator)
    return batches({"x": x}, x[:, 0] - 2 * x[:, 1].relu())


def task_of(model: nn.Module) -> fw.Task:
    data = {name: regression(seed=seed) for seed, name in enumerate(("train", "validation", "test"))}
    return fw.Task(model=model.eval(), inputs={"x": fw.Field()}, metric="rmse", **data)


@pytest.fixture
def task() -> fw.Task:
    model = seeded(Sums)
    with torch.no_grad():
        model.first.weight[2] = 0.0  # type: ignore[union-attr]
        model.first.bias[2] = -1.0  # type: ignore[union-attr, index]
    return task_of(model)


@pytest.mark.parametrize("saliency", ["taylor", "fisher", "activation"])
def test_a_dead_unit_is_worth_nothing(task: fw.Task, saliency: str) -> None:
    traced = trace(task.model, first_inputs(task))
    (group,), _ = find_groups(traced)
    found = unit_saliency(task, traced, [group], saliency)["first"]
    assert found.shape == (HIDDEN,)
    assert float(found[2]) == 0.0
    assert bool((found[[0, 1, 3, 4, 5]] > 0).all())


def test_taylor_of_the_readers_is_the_mean_squared_gradient_times_activation(task: fw.Task) -> None:
    """By piece: (dL/dh . h)^2 for what reads a unit; the same, weight and bias apart, for what makes it."""
    traced = trace(task.model, first_inputs(task))
    (group,), _ = find_groups(traced)
    found = unit_saliency(task, traced, [group], "taylor", rows=128)["first"]
    wanted = torch.zeros(HIDDEN, dtype=torch.float64)
    pieces = list(calibration_pieces(task, rows=128))
    for inputs, target in pieces:
        first, second = task.model.first, task.model.second
        hidden = torch.relu(F.linear(inputs["x"], first.weight, first.bias)).detach().requires_grad_(True)  # type: ignore[arg-type]
        loss = task.row_loss(second(hidden).squeeze(1), target).mean()  # type: ignore[operator]
        (slope,) = torch.autograd.grad(loss, hidden)
        readers = (slope * hidden).sum(0).double().detach()
        live = (hidden > 0).double()
        weights = slope.double() * live
        by_weight = (weights.T @ inputs["x"].double() * first.weight.double()).sum(1)  # type: ignore[operator]
        by_bias = weights.sum(0) * first.bias.double()  # type: ignore[operator]
        wanted += (readers.square() + by_weight.square() + by_bias.square()).detach() / len(pieces)
    assert torch.allclose(found, wanted, rtol=1e-4)


def test_magnitude_is_the_norm_of_a_units_weights_over_the_groups_mean(task: fw.Task) -> None:
    traced = trace(task.model, first_inputs(task))
    (group,), _ = find_groups(traced)
    found = unit_saliency(task, traced, [group], "magnitude")["first"]
    first, second = task.model.first.weight, task.model.second.weight
    norm = (first.square().sum(1) + second[0].square()).sqrt().double().detach()  # type: ignore[operator, index, union-attr]
    assert torch.allclose(found, norm / norm.mean(), rtol=1e-5)


def test_activation_is_the_mean_absolute_feature(task: fw.Task) -> None:
    traced = trace(task.model, first_inputs(task))
    (group,), _ = find_groups(traced)
    found = unit_saliency(task, traced, [group], "activation", rows=10_000)["first"]
    x = torch.cat([inputs["x"] for inputs, _, _ in task.batches("train")])
    hidden = torch.relu(task.model.first(x)).mean(0).double().detach()  # type: ignore[operator]
    assert torch.allclose(found, hidden / hidden.mean(), rtol=1e-4)


@pytest.mark.parametrize("saliency", SALIENCIES)
def test_the_same_seed_gives_the_same_saliency_and_random_another(saliency: str) -> None:
    task = trained_task(seeded(Ranker))
    traced = trace(task.model, first_inputs(task))
    groups, _ = find_groups(traced)
    first, again, other = (unit_saliency(task, traced, groups, saliency, seed=seed) for seed in (0, 0, 1))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert all(bool(torch.isfinite(values).all()) for values in first.values())
    if saliency == "random":
        assert not torch.equal(first["mlp.0"], other["mlp.0"])


def test_a_dimension_of_a_table_is_felt_through_what_is_looked_up() -> None:
    """Weight times gradient summed over a column is the same whether it is taken at the table or at the lookups."""
    task = trained_task(seeded(Ranker))
    traced = trace(task.model, first_inputs(task))
    groups, _ = find_groups(traced)
    group = next(group for group in groups if group.kind == "embedding" and group.name == "item")
    found = unit_saliency(task, traced, [group], "fisher", rows=64)["item"]
    assert bool((found > 0).all())
    pieces = list(calibration_pieces(task, rows=64))
    model = seeded(Ranker)
    model.load_state_dict(task.model.state_dict())
    table = torch.zeros(len(group.units), dtype=torch.float64)
    taylor = unit_saliency(task, traced, [group], "taylor", rows=64)["item"]
    for inputs, target in pieces:
        model.zero_grad()
        task.row_loss(model(**inputs), target).mean().backward()
        column = (model.item.weight * model.item.weight.grad).sum(0).double()  # type: ignore[operator, union-attr]
        linear = model.mlp[0]  # type: ignore[index]
        reads = (linear.weight * linear.weight.grad)[:, 8:16].sum(0).double()  # type: ignore[operator, union-attr]
        table += (column.square() + reads.square()).detach() / len(pieces)
    assert torch.allclose(taylor, table, rtol=1e-4)


def test_unknown_saliency_names_the_known(task: fw.Task) -> None:
    traced = trace(task.model, first_inputs(task))
    with pytest.raises(InputError, match="'vibes' is unknown; use one of taylor, fisher, magnitude, activation"):
        unit_saliency(task, traced, find_groups(traced)[0], "vibes")


def test_a_loss_that_cannot_be_computed_is_said_so(task: fw.Task) -> None:
    def broken(outputs: Tensor, targets: Tensor) -> Tensor:
        raise ValueError("no labels here")

    traced = trace(task.model, first_inputs(task))
    with pytest.raises(InputError, match=r"'taylor' needs the gradient.*no labels here.*'magnitude' or 'activation'"):
        unit_saliency(replace(task, loss=broken), traced, find_groups(traced)[0], "taylor")


def test_a_loss_without_a_gradient_or_not_finite_is_said_so(task: fw.Task) -> None:
    traced = trace(task.model, first_inputs(task))
    groups, _ = find_groups(traced)
    with pytest.raises(InputError, match="it has none"):
        unit_saliency(replace(task, loss=lambda outputs, targets: (outputs > 0).float()), traced, groups, "fisher")
    with pytest.raises(InputError, match="it is nan on 32 calibration rows"):
        unit_saliency(replace(task, loss=lambda outputs, targets: outputs * float("nan")), traced, groups, "fisher")


def test_targets_that_are_missing_are_said_so(task: fw.Task) -> None:
    inputs, target = task.train[0]  # type: ignore[index]
    unlabelled = task.with_model(task.model)
    object.__setattr__(unlabelled, "train", [(inputs, torch.full_like(target, float("nan")))])
    traced = trace(task.model, inputs)
    with pytest.raises(InputError, match="target holds 512 NaN"):
        unit_saliency(unlabelled, traced, find_groups(traced)[0], "taylor")


def test_lamp_shares_out_the_squares_that_are_no_smaller() -> None:
    """Lee et al. 2021, eq. 2: of 1, 4, 9 the scores are 1/14, 4/13 and 1."""
    assert lamp(torch.tensor([[4.0, 1.0, 9.0]])).tolist()[0] == pytest.approx([4 / 13, 1 / 14, 1.0])


def test_a_single_weights_taylor_is_its_squared_gradient_times_its_square(task: fw.Task) -> None:
    traced = trace(task.model, first_inputs(task))
    found = weight_saliency(task, traced, ["second.weight"], "taylor", rows=64)["second.weight"]
    wanted = torch.zeros(1, HIDDEN)
    pieces = list(calibration_pieces(task, rows=64))
    for inputs, target in pieces:
        loss = task.row_loss(task.model(**inputs), target).mean()
        weight = task.model.second.weight
        (slope,) = torch.autograd.grad(loss, [weight])  # type: ignore[list-item]
        wanted += (slope * weight).square().detach() / len(pieces)  # type: ignore[operator]
    assert torch.allclose(found, wanted, rtol=1e-4)


def test_calibration_rows_are_spread_over_the_split() -> None:
    data = splits()
    task = trained_task(seeded(Ranker), data)
    pieces = list(calibration_pieces(task, rows=256, piece=32))
    assert sum(len(target) for _, target in pieces) >= 256
    assert max(len(target) for _, target in pieces) == 32
    firsts = [inputs["price"] for inputs, _ in data["train"]]
    drawn = torch.cat([inputs["price"] for inputs, _ in pieces])
    assert all(bool(torch.isin(first, drawn).any()) for first in firsts)
