"""Rows taken out of a stack and put side by side again are one long row."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from flyweight.graph.trace import trace
from flyweight.rewrite.apply_rules import rewrite
from flyweight.rewrite.neighbouring_rows import RULE

aten = torch.ops.aten


class Picked(nn.Module):
    """Some rows of (n, 6, 3) side by side, with one more value among them."""

    def __init__(self, places: list[int], among: int) -> None:
        super().__init__()
        self.places, self.among = places, among

    def forward(self, rows: Tensor, more: Tensor) -> Tensor:
        parts = [rows[:, place] for place in self.places]
        return torch.cat([*parts[: self.among], more, *parts[self.among :]], -1)


@given(places=st.lists(st.integers(-6, 5), min_size=1, max_size=8), among=st.integers(0, 8))
@settings(max_examples=40, deadline=None, derandomize=True)
def test_any_choice_of_rows_is_the_same(places: list[int], among: int) -> None:
    batch = {"rows": torch.randn(5, 6, 3), "more": torch.randn(5, 2)}
    found = rewrite(trace(Picked(places, among), batch), [RULE], [batch])
    assert not found.undone
    assert found.far == 0.0


def test_a_whole_stack_is_no_more_than_another_shape() -> None:
    batch = {"rows": torch.randn(5, 6, 3), "more": torch.randn(5, 2)}
    found = rewrite(trace(Picked([0, 1, 2, 3, 4, 5], 0), batch), [RULE], [batch])
    assert [(one.rule, one.times) for one in found.done] == [("neighbouring rows", 1)]
    assert not found.model.body.graph.find_nodes(op="call_function", target=aten.select.int)
    assert not found.model.body.graph.find_nodes(op="call_function", target=aten.slice.Tensor)
