"""Linear layers that read the same values: merged where it pays, with reasons where not."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, fx, nn

from flyweight.graph.quantize_ops import quantize_dequantize
from flyweight.graph.trace import trace
from flyweight.graph.traced import TracedModel, clean
from flyweight.rewrite.merge_linears import RULE
from flyweight.rewrite.spread import spread

linear = torch.ops.aten.linear.default


class Heads(nn.Module):
    """Layers of some widths, with a bias or without, all reading the input; their outputs side by side."""

    def __init__(self, widths: list[int], biases: list[bool]) -> None:
        super().__init__()
        self.heads = nn.ModuleList(nn.Linear(6, width, bias) for width, bias in zip(widths, biases, strict=True))

    def forward(self, input: Tensor) -> Tensor:
        return torch.cat([torch.relu(head(input)) for head in self.heads], -1)


def merged(model: nn.Module, inputs: dict[str, Tensor]) -> tuple[TracedModel, list[str]]:
    """Return the trace after the rule, checked to give the same, and the reasons for what it left."""
    traced = trace(model.eval(), inputs)
    wanted = traced(**inputs)
    for node in RULE.find(traced.body):
        if RULE.check(traced.body, node) is None:
            RULE.apply(traced.body, node)
    clean(traced.body)
    torch.testing.assert_close(traced(**inputs), wanted)
    return traced, [RULE.check(traced.body, node) or "" for node in RULE.find(traced.body)]


def layers(body: fx.GraphModule) -> int:
    return len(body.graph.find_nodes(op="call_function", target=linear))


@given(
    heads=st.lists(st.tuples(st.integers(1, 4), st.booleans()), min_size=2, max_size=5), long=st.booleans()
)
@settings(max_examples=4, deadline=None)
def test_narrow_layers_become_one(heads: list[tuple[int, bool]], long: bool) -> None:
    model = Heads([width for width, _ in heads], [bias for _, bias in heads])
    traced, _ = merged(model, {"input": torch.randn(5, 3, 6) if long else torch.randn(5, 6)})
    assert layers(traced.body) == 1


def test_wide_layers_of_every_row_stay_with_the_width_as_reason() -> None:
    traced, (reason,) = merged(Heads([32, 1], [True, True]), {"input": torch.randn(5, 6)})
    assert layers(traced.body) == 2
    assert "the 32 outputs" in reason


def test_wide_layers_of_a_request_are_merged() -> None:
    class Requests(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(6, 32), nn.Linear(6, 32)

        def forward(self, input: Tensor, index: Tensor) -> Tensor:
            return spread(self.one(input) * self.two(input), index)

    traced, _ = merged(Requests(), {"input": torch.randn(5, 6), "index": torch.zeros(5, dtype=torch.long)})
    assert layers(traced.body) == 1


class Rounded(nn.Module):
    """Two layers with rounded weights."""

    def __init__(self, scales: list[Tensor], highs: tuple[int, int]) -> None:
        super().__init__()
        self.one, self.two, self.highs = nn.Linear(6, 2), nn.Linear(6, 3), highs
        self.scale_one, self.scale_two = (nn.Parameter(scale) for scale in scales)

    def forward(self, input: Tensor) -> Tensor:
        one = quantize_dequantize(self.one.weight, self.scale_one, None, 0, -127, self.highs[0])
        two = quantize_dequantize(self.two.weight, self.scale_two, None, 0, -127, self.highs[1])
        return torch.cat([nn.functional.linear(input, one, self.one.bias), nn.functional.linear(input, two)], 1)


def test_weights_rounded_by_output_are_merged_before_they_are_rounded() -> None:
    model = Rounded([torch.rand(2) / 50 + 0.01, torch.rand(3) / 50 + 0.01], (127, 127))
    traced, _ = merged(model, {"input": torch.randn(5, 6)})
    assert layers(traced.body) == 1
    rounding = traced.body.graph.find_nodes(op="call_function", target=quantize_dequantize._opoverload)
    assert len(rounding) == 1


@pytest.mark.parametrize(
    ("scales", "highs"),
    [
        ([torch.full((2,), 0.01), torch.full((3,), 0.02)], (127, 7)),
        ([torch.tensor(0.01), torch.tensor(0.02)], (127, 127)),
    ],
)
def test_weights_rounded_otherwise_stay(scales: list[Tensor], highs: tuple[int, int]) -> None:
    traced, (reason,) = merged(Rounded(scales, highs), {"input": torch.randn(5, 6)})
    assert layers(traced.body) == 2
    assert "not rounded in the same way" in reason
