"""What hoisting moves to the request, what it refuses and undoes, and that it leaves the model alone."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from flyweight.rewrite.hoist import hoist
from flyweight.rewrite.hoisted_model import HoistedModel
from flyweight.rewrite.rules import RULES
from flyweight.task.field import Field

STEPS = 3


def _batch(rows: int = 7) -> dict[str, Tensor]:
    torch.manual_seed(rows)
    history, other = torch.randint(1, 7, (2, rows, STEPS)).sort(-1).values
    return {"history": history, "other": other, "number": torch.randn(rows)}


def _fields(*names: str) -> dict[str, Field]:
    return {name: Field("candidate" if name == "number" else "request") for name in names}


class ViewsOfSums(nn.Module):
    """Views of views, which are dropped one by one, and the sum that reads the last."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(7, 4, padding_idx=0)

    def forward(self, history: Tensor, number: Tensor) -> Tensor:
        return self.table(history).reshape(-1, 3, 4).flatten(1).sum(1) + number


def test_a_node_that_an_earlier_change_left_nothing_to_do_at_is_passed_over() -> None:
    batch = _batch()
    del batch["other"]
    found = hoist(ViewsOfSums().eval(), _fields(*batch), [batch], RULES)
    assert "drop identities" in [done.rule for done in found.done]
    assert found.undone == ()


class ViewOfALookup(nn.Module):
    """Two lookups in one table, one of which is viewed as a long row."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(7, 4, padding_idx=0)

    def forward(self, history: Tensor, other: Tensor, number: Tensor) -> Tensor:
        read, first = self.table(other), self.table(history)
        return (read.sum(1) ** 2).relu().sum(1) + first.view(-1, 12).sum(1) * number


def test_a_view_of_a_fused_lookup_keeps_its_scores() -> None:
    batch = _batch()
    found = hoist(ViewOfALookup().eval(), _fields(*batch), [batch], RULES)
    assert "fuse tables" in [done.rule for done in found.done]
    assert found.undone == ()


class Mixing(nn.Module):
    """Reads other rows of what the request has."""

    def __init__(self, mix: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.table = nn.Embedding(7, 1)
        self.mix = mix

    def forward(self, history: Tensor, number: Tensor) -> Tensor:
        return self.mix(self.table(history).sum(1)).squeeze(1) * number


MIXES = {
    "mean": lambda value: value - value.mean(0),
    "softmax": lambda value: value.softmax(0),
    "first": lambda value: value + value[:1],
    "last": lambda value: value + value[-1:],
    "largest": lambda value: value * value.amax(0),
    "shifted": lambda value: value.roll(1, 0),
}


@pytest.mark.parametrize("mix", MIXES.values(), ids=MIXES)
@pytest.mark.parametrize("rows", [6, 7, 12])
def test_rows_that_read_other_rows_of_a_request_value_are_left_as_they_were(
    mix: Callable[[Tensor], Tensor], rows: int
) -> None:
    batch = _batch(rows)
    del batch["other"]
    model = Mixing(mix).eval()
    found = hoist(model, _fields(*batch), [batch], RULES)
    assert not isinstance(found.model, HoistedModel)
    (undone,) = found.undone
    assert undone.what == "request only"
    assert undone.why.startswith("undone: largest difference")
    assert torch.allclose(found.model(**batch), model(**batch))


def test_rows_that_read_other_rows_are_found_where_a_batch_begins_with_many_of_one_request() -> None:
    batch = _batch(6)
    del batch["other"]
    long = {name: torch.cat([value[:1].expand_as(value), value]) for name, value in batch.items()}
    found = hoist(Mixing(MIXES["largest"]).eval(), _fields(*batch), [long], RULES)
    assert [one.what for one in found.undone] == ["request only"]
