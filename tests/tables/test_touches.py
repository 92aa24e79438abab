"""Lookups are told apart by row of the batch, in whatever shape they are made; ids are counted as they are."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import flyweight as fw
from flyweight.tables.sites import find_tables
from flyweight.tables.touches import watching
from flyweight.tables.usage import count_lookups, row_weights
from flyweight.task.scores import cuts_by_row
from small_tasks import splits, trained_task

ROWS, LENGTH = 6, 4
IDS = torch.arange(ROWS * LENGTH).view(ROWS, LENGTH)


class Lookup(nn.Module):
    def __init__(self, table: nn.Module, shaped: Any) -> None:
        super().__init__()
        self.table, self.shaped = table, shaped

    def forward(self, ids: Tensor) -> Tensor:
        return self.table(*self.shaped(ids))


@pytest.mark.parametrize(
    ("table", "shaped"),
    [
        (nn.Embedding(24, 3), lambda ids: (ids,)),
        (nn.Embedding(24, 3), lambda ids: (ids.T,)),
        (nn.Embedding(24, 3), lambda ids: (ids.reshape(-1),)),
        (nn.Embedding(24, 3), lambda ids: (ids.view(ROWS, 2, 2),)),
        (nn.Embedding(24, 3), lambda ids: (ids.view(ROWS, 2, 2).permute(1, 0, 2),)),
        (nn.EmbeddingBag(24, 3), lambda ids: (ids,)),
        (nn.EmbeddingBag(24, 3), lambda ids: (ids.reshape(-1), torch.arange(ROWS) * LENGTH)),
    ],
)
def test_each_id_counts_for_its_row(table: nn.Module, shaped: Any) -> None:
    model = Lookup(table, shaped)
    tables, _ = find_tables(model)
    with watching(model, tables) as watch:
        model(IDS)
    (touch,) = watch.touches
    assert torch.equal(touch.samples(ROWS), touch.ids // LENGTH)


@pytest.mark.parametrize("mode", ["sum", "mean"])
@pytest.mark.parametrize("padding", [None, 5])
def test_pull_at_a_bag_is_the_gradient_of_the_row(mode: str, padding: int | None) -> None:
    ids, offsets = torch.tensor([1, 5, 2, 9, 5, 3]), torch.tensor([0, 2, 2])
    weights = torch.rand(6) if mode == "sum" else None
    model = nn.EmbeddingBag(10, 3, mode=mode, padding_idx=padding)
    tables, _ = find_tables(model)
    slope = torch.randn(3, 3)
    (model(ids, offsets, per_sample_weights=weights) * slope).sum().backward()
    with watching(model, tables, gradients=True) as watch:
        model(ids, offsets, per_sample_weights=weights)
    (touch,) = watch.touches
    pulled = torch.zeros(10, 3).index_add_(0, touch.ids, touch.pull(slope))
    assert model.weight.grad is not None
    torch.testing.assert_close(pulled, model.weight.grad)


def test_bags_of_one_id_each_are_not_cut_by_row() -> None:
    """As many ids as rows, and still the offsets of later rows mean nothing without the earlier ones."""
    ids = torch.arange(8)
    assert cuts_by_row(nn.Embedding(8, 1), {"input": ids}, 8)
    assert not cuts_by_row(nn.EmbeddingBag(8, 1), {"input": ids, "offsets": torch.arange(8)}, 8)
    assert not cuts_by_row(nn.EmbeddingBag(8, 1), {"input": ids, "offsets": torch.arange(0, 8, 2)}, 4)


class Hashed(nn.Module):
    """Ids are hashed on their way, though not in the first batch."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.last = nn.Embedding(50, 4), nn.Linear(4, 1)

    def forward(self, item_id: Tensor) -> Tensor:
        return self.last(self.table(item_id % 50)).squeeze(1)


def test_hashed_ids_are_counted_where_they_land() -> None:
    data = splits()
    for split in data.values():
        for number, (inputs, _) in enumerate(split):
            del inputs["user_id"], inputs["price"]
            inputs["item_id"] %= 50 if number == 0 else 400
    task = trained_task(Hashed(), data, inputs={"item_id": fw.Field(rows=400)})
    tables, _ = find_tables(task.model)
    seen = torch.cat([inputs["item_id"] % 50 for inputs, _ in data["train"]])
    assert torch.equal(count_lookups(task, tables)["table"], torch.bincount(seen, minlength=50).float())


def test_row_weight_is_use_times_gradient_shrunk_to_the_mean() -> None:
    counts = torch.tensor([100.0, 100.0, 0.0])
    fisher, lookups = torch.tensor([40.0, 0.0, 0.0]), torch.tensor([10.0, 10.0, 0.0])
    heavy, light, unseen = row_weights(counts, fisher, lookups).tolist()
    # The mean squared gradient is 2; a prior of 8 lookups pulls each row's own towards it.
    assert heavy == pytest.approx(100.1 * (40 / 2 + 8) / 18, rel=1e-5)
    assert light == pytest.approx(100.1 * 8 / 18, rel=1e-5)
    assert unseen == pytest.approx(0.1, rel=1e-5)
