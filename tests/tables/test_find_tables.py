"""Which tables are found, and the words with which others are left."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import flyweight as fw
from flyweight.tables.exact import works_coded
from flyweight.tables.replace import copy_model, with_tables
from flyweight.tables.rounded_table import RoundedTable
from flyweight.tables.sites import find_tables
from small_tasks import Ranker, seeded, world


class Around(nn.Module):
    """A model that holds one embedding and looks it up."""

    def __init__(self, table: nn.Module) -> None:
        super().__init__()
        self.table, self.last = table, nn.Linear(4, 1)

    def forward(self, ids: Tensor) -> Tensor:
        return self.last(self.table(ids)).squeeze(-1)


class Noisy(nn.Embedding):
    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) + 1


def hooked() -> nn.Module:
    table = nn.Embedding(10, 4)
    table.register_forward_hook(lambda *_: None)
    return table


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (Noisy(10, 4), "Noisy is a subclass of an embedding with behaviour of its own"),
        (nn.Embedding(10, 4, max_norm=1.0), "max_norm=1.0 rewrites rows while they are looked up"),
        (nn.EmbeddingBag(10, 4, max_norm=2.0), "max_norm=2.0"),
        (nn.EmbeddingBag(10, 4, mode="max"), 'mode="max" is not linear in the rows'),
        (nn.Embedding(1, 4), "its shape is (1, 4); there is nothing to code"),
        (hooked(), "it has forward hooks, which a coded table would lose"),
        (nn.utils.parametrizations.weight_norm(nn.Embedding(10, 4)), "is a subclass of an embedding"),
    ],
)
def test_embedding_that_is_more_than_a_table_is_left_with_its_reason(table: nn.Module, words: str) -> None:
    tables, skipped = find_tables(Around(table))
    assert tables == ()
    assert [one.what for one in skipped] == ["table"]
    assert words in skipped[0].why


def test_decoder_tied_to_a_table_is_named() -> None:
    class Tied(Around):
        def __init__(self) -> None:
            super().__init__(nn.Embedding(10, 4))
            self.decoder = nn.Linear(4, 10, bias=False)
            self.decoder.weight = self.table.weight

    tables, skipped = find_tables(Tied())
    assert tables == ()
    assert "shared with decoder.weight" in skipped[0].why


def test_raw_parameter_is_named_with_its_shape() -> None:
    class Raw(Ranker):
        def __init__(self) -> None:
            super().__init__()
            self.rows = nn.Parameter(torch.zeros(5_000, 3))

    tables, skipped = find_tables(Raw())
    assert [table.name for table in tables] == ["user", "item"]
    assert [(one.what, one.why[:31]) for one in skipped] == [("rows", "a raw parameter of 5,000 x 3; o")]


def test_one_table_in_several_modules_is_one_table() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Embedding(10, 4)
            self.b = self.a
            self.c = nn.EmbeddingBag(10, 4)
            self.c.weight = self.a.weight

    (table,), skipped = find_tables(Shared())
    assert table.modules == ("a", "b", "c")
    assert (table.rows, table.dim, table.bytes) == (10, 4, 160)
    assert skipped == ()


def reason(model: nn.Module, **inputs: Tensor) -> str | None:
    (table, *_), _ = find_tables(model)
    found = works_coded(model.eval(), table, inputs)
    return None if found is None else found.why


IDS = torch.arange(6)


def test_plain_lookups_can_be_replaced() -> None:
    assert reason(Around(nn.Embedding(10, 4)), ids=IDS) is None
    assert reason(Around(nn.EmbeddingBag(10, 4)), ids=IDS.view(3, 2)) is None
    assert reason(Around(nn.Embedding(10, 4)).requires_grad_(False), ids=IDS) is None


class Reads(Around):
    def forward(self, ids: Tensor) -> Tensor:
        return self.table(ids) @ self.table.weight.sum(0)


class Functional(Around):
    def forward(self, ids: Tensor) -> Tensor:
        return F.embedding(ids, self.table.weight).sum(1)


class Unused(Around):
    def forward(self, ids: Tensor) -> Tensor:
        return self.last(torch.ones(len(ids), 4)).squeeze(-1)


class Blind(Around):
    @torch.no_grad()
    def forward(self, ids: Tensor) -> Tensor:
        return super().forward(ids)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (Reads, "the model does more with it than look rows up"),
        (Functional, "the model does more with it than look rows up"),
        (Unused, "never looked it up"),
        (Blind, "no gradient comes through"),
    ],
)
def test_other_uses_are_left_with_their_reason(kind: Any, words: str) -> None:
    found = reason(kind(nn.Embedding(10, 4)), ids=IDS)
    assert found is not None
    assert words in found


def test_copy_shares_nothing_that_changes_and_leaves_the_model_alone() -> None:
    model = seeded(Ranker)
    tables, _ = find_tables(model)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    coded = with_tables(model, tables, {"item": RoundedTable(model.item.weight.detach().half(), torch.float32)})
    assert coded.user.weight is model.user.weight  # not replaced, not copied: tables are large
    assert coded.mlp[0].weight is not model.mlp[0].weight
    with torch.no_grad():
        coded.mlp[0].weight.zero_()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert type(model.item) is nn.Embedding


def test_model_that_is_itself_an_embedding_is_replaced() -> None:
    model = nn.EmbeddingBag(10, 4, mode="sum")
    tables, _ = find_tables(model)
    coded = with_tables(model, tables, {"": RoundedTable(model.weight.detach(), torch.float32)})
    assert torch.equal(coded(IDS.view(3, 2)), model(IDS.view(3, 2)))


def test_model_that_keeps_its_last_outputs_can_be_copied() -> None:
    class Keeps(Ranker):
        def forward(self, **inputs: Tensor) -> Tensor:
            self.last = super().forward(**inputs)
            self.all = {"history": [self.last, (self.last * 2,)]}
            return self.last

    model = Keeps()
    columns, _ = world(8, 1)
    expected = model(**columns)
    assert torch.equal(copy_model(model, {})(**columns), expected)


def test_model_that_cannot_be_copied_is_said_so() -> None:
    model = Ranker()
    model.rows = (row for row in range(3))  # type: ignore[assignment]
    with pytest.raises(fw.InputError, match=r"cannot be copied .*generator"):
        copy_model(model, {})
