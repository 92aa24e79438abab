"""What hoisting moves to the request, what it refuses and undoes, and that it leaves the model alone."""

import torch
from torch import Tensor, nn

from flyweight.rewrite.hoist import hoist
from flyweight.rewrite.rules import RULES
from flyweight.task.field import Field

STEPS = 3


def _batch(rows: int = 7) -> dict[str, Tensor]:
    torch.manual_seed(rows)
    history, other = torch.randint(1, 7, (2, rows, STEPS))
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
