"""Neighbours that are spread alike are spread once."""

import torch
from torch import Tensor, nn

from flyweight.graph.trace import trace
from flyweight.graph.traced import clean
from flyweight.rewrite.join_spreads import RULE
from flyweight.rewrite.spread import SPREAD, spread


class Beside(nn.Module):
    """Two values of the request, one of the rows, another two of the request, one of which comes by another index."""

    def forward(self, a: Tensor, b: Tensor, c: Tensor, d: Tensor, index: Tensor, other: Tensor) -> Tensor:
        parts = [spread(a, index), spread(b, index), c, spread(d, index), spread(a, other), spread(b, other)]
        return torch.cat(parts, 1)


def test_neighbours_are_joined_before_they_are_spread() -> None:
    inputs = {name: torch.randn(4, width) for name, width in zip("abcd", (1, 2, 3, 4), strict=True)}
    inputs |= {"index": torch.tensor([0, 0, 2, 3]), "other": torch.tensor([3, 2, 1, 0])}
    traced = trace(Beside(), inputs)
    wanted = traced(**inputs)
    (cat,) = RULE.find(traced.body)
    assert RULE.check(traced.body, cat) is None
    RULE.apply(traced.body, cat)
    clean(traced.body)
    assert torch.equal(traced(**inputs), wanted)
    assert len(traced.body.graph.find_nodes(op="call_function", target=SPREAD)) == 3
    assert RULE.find(traced.body) == []
