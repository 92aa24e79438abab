"""Predicted damage against the true change of the loss, where a quadratic form can be exact; folds of the data."""

from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import flyweight as fw
from flyweight.tables.coding import CodedBand, Coding
from flyweight.tables.damage import Anchor, Item, _believed, expand, fisher_information, menu_of
from flyweight.tables.recalibration import Recalibration
from flyweight.tables.replace import build_table, with_tables
from flyweight.tables.sensitivity import chunks, validation_folds
from flyweight.tables.sites import Table, find_tables
from small_tasks import ITEMS, USERS, Split, batches, seeded, trained_task, world

FIELDS = {"user_id": fw.Field(rows=USERS), "item_id": fw.Field(rows=ITEMS)}


class Additive(nn.Module):
    """A linear model over embeddings: the output is the sum of one number for the user and one for the item."""

    def __init__(self) -> None:
        super().__init__()
        self.user, self.item = nn.Embedding(USERS, 2), nn.Embedding(ITEMS, 2)

    def forward(self, user_id: Tensor, item_id: Tensor) -> Tensor:
        return (self.user(user_id) + self.item(item_id)) @ torch.tensor([1.0, -0.5])


def data_of(numbers: bool) -> dict[str, Split]:
    def make(rows: int, seed: int) -> Split:
        columns, clicked = world(rows, seed)
        del columns["price"]
        return batches(columns, clicked + 0.1 * columns["user_id"] if numbers else clicked)

    return {"train": make(3_000, 1), "validation": make(1_000, 2), "test": make(200, 3)}


def moved(table: Table, scale: float, seed: int) -> Item:
    """Three options: the rows as they are, and two random moves away from them."""
    generator = torch.Generator().manual_seed(seed)
    moves = [0.0, scale, 2 * scale]
    nothing = torch.empty(0, dtype=torch.uint8)
    options = []
    for size in moves:
        rows = (table.weight + size * torch.randn(table.weight.shape, generator=generator)).half().float()
        options.append(CodedBand(0, table.rows, Coding(rounded=True), nothing, rows[None, None]))
    return Item(table.name, 0, table.rows, tuple(options))


def true_loss(task: fw.Task, tables: tuple[Table, ...], items: tuple[Item, ...], choice: tuple[int, ...]) -> float:
    coded = {
        table.name: build_table((item.options[option],), table.dtype)
        for table, item, option in zip(tables, items, choice, strict=True)
    }
    scores = task.scores("validation", with_tables(task.model, tables, coded, share=True))
    return float(task.row_loss(torch.from_numpy(scores.outputs), torch.from_numpy(scores.targets)).mean())


def predictions(numbers: bool, scale: float) -> tuple[list[float], list[float]]:
    """Predicted and true rises of the loss for all choices of two tables."""
    loss: Any = nn.functional.mse_loss if numbers else None
    settings: dict[str, Any] = {"metric": "rmse"} if numbers else {}
    task = trained_task(seeded(Additive), data_of(numbers), loss=loss, inputs=FIELDS, **settings)
    tables, _ = find_tables(task.model)
    items = tuple(moved(table, scale, seed) for seed, table in enumerate(tables))
    ((damage, *_),) = expand(task, tables, items, (Anchor(task.model, Recalibration()),))
    menu = menu_of(items)
    scores = task.scores("validation")
    before = float(task.row_loss(torch.from_numpy(scores.outputs), torch.from_numpy(scores.targets)).mean())
    choices = list(product(range(3), repeat=2))
    predicted = [damage.of(menu.picks(np.array(choice))) for choice in choices]
    return predicted, [true_loss(task, tables, items, choice) - before for choice in choices]


def test_squared_error_of_a_linear_model_is_predicted_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    """With what two tables do together; slopes are believed in full here, which the product does not."""
    monkeypatch.setattr("flyweight.tables.damage.NOISE", 0.0)
    predicted, true = predictions(numbers=True, scale=1.0)
    assert max(true) > 1.0
    assert predicted == pytest.approx(true, rel=2e-3, abs=1e-4)


def test_slopes_count_as_far_as_they_stand_out_of_their_noise() -> None:
    measured, noise = torch.tensor([-3.0, -1.0, -0.1, 0.0, 0.1, 1.0, 3.0]), torch.ones(7)
    believed = _believed(measured, noise)
    assert torch.equal(believed, -believed.flip(0))
    assert bool((believed.diff() > 0).all())
    assert believed.tolist()[4:] == pytest.approx([0.001 / 1.01, 0.5, 2.7])
    assert torch.allclose(_believed(measured, 0 * noise), measured)


def test_logloss_of_a_linear_model_is_predicted_for_moderate_moves() -> None:
    predicted, true = predictions(numbers=False, scale=0.5)
    assert max(true) > 0.02
    assert np.corrcoef(predicted, true)[0, 1] > 0.97
    assert predicted[-1] == pytest.approx(true[-1], rel=0.5)


def test_fisher_information_is_summed_where_rows_are_looked_up() -> None:
    task = trained_task(seeded(Additive), data_of(False), inputs=FIELDS)
    tables, _ = find_tables(task.model)
    found = fisher_information(task, tables)
    users = torch.cat([inputs["user_id"] for inputs, _, _ in task.batches("validation")])
    squares, lookups = found["user"]
    assert torch.equal(lookups, torch.bincount(users, minlength=USERS).float())
    assert bool((squares[lookups == 0] == 0).all())
    assert bool((squares[lookups > 0] > 0).all())


def folds_of(rows: int, groups: Tensor | None = None) -> Tensor:
    columns, clicked = world(rows, 1)
    clicked[:2] = torch.tensor([0.0, 1.0])
    del columns["price"]
    if groups is not None:
        columns["visit"] = groups
    data = batches(columns, clicked, size=37)
    group = None if groups is None else "visit"
    task = fw.Task(model=Additive(), inputs=FIELDS, train=data, validation=data, test=data, group=group)
    return validation_folds(task)


@pytest.mark.parametrize("rows", [8, 40, 200, 1_000])
def test_every_row_is_in_one_of_two_filled_folds(rows: int) -> None:
    folds = folds_of(rows)
    assert folds.shape == (rows,)
    assert folds.bincount().min() > rows / 5
    assert len(folds.bincount()) == 2


@pytest.mark.parametrize("groups", [2, 3, 5, 40])
def test_rows_of_one_group_stay_together(groups: int) -> None:
    visit = torch.randint(0, groups, (300,), generator=torch.Generator().manual_seed(0))
    visit[:groups] = torch.arange(groups)
    folds = folds_of(300, visit * 7)
    assert len(torch.unique(folds)) == 2
    assert all(len(torch.unique(folds[visit == number])) == 1 for number in range(groups))


def test_chunks_hold_every_validation_row_once_or_an_even_share() -> None:
    task = trained_task(seeded(Additive), data_of(False), inputs=FIELDS)
    whole = [(inputs["item_id"], target) for inputs, target, _ in chunks(task)]
    assert sum(len(target) for _, target in whole) == 1_000
    some = sum(len(target) for _, target, _ in chunks(task, limit=250))
    assert 200 <= some <= 300
