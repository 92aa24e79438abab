"""What changes nothing goes, and everything else stays: by hand, and on random chains of operators."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from flyweight.graph.trace import trace
from flyweight.graph.traced import TracedModel, clean
from flyweight.rewrite.drop_identities import RULE

Step = Callable[[Tensor], Tensor]


class Chain(nn.Module):
    """Operators one after the other on (rows, 4, 6)."""

    def __init__(self, *steps: Step) -> None:
        super().__init__()
        self.steps = steps

    def forward(self, input: Tensor) -> Tensor:
        for step in self.steps:
            input = step(input)
        return input


def without(model: nn.Module, value: Tensor) -> TracedModel:
    """The trace with the rule applied until nothing is left to do."""
    traced = trace(model.eval(), {"input": value})
    for _ in range(100):
        fitting = [node for node in RULE.find(traced.body) if RULE.check(traced.body, node) is None]
        if not fitting:
            break
        RULE.apply(traced.body, fitting[0])
    else:
        raise AssertionError("the rule finds no end")
    clean(traced.body)
    return traced


def operators(traced: TracedModel) -> list[str]:
    return [str(node.target).split(".")[1] for node in traced.body.graph.nodes if node.op == "call_function"]


@pytest.mark.parametrize(
    "step",
    [
        lambda x: F.dropout(x, 0.5, training=False),
        lambda x: x + 0,
        lambda x: x - 0.0,
        lambda x: x * 1,
        lambda x: x / 1,
        lambda x: x**1,
        lambda x: x.view(-1, 4, 6),
        lambda x: x.reshape(x.shape[0], 2, 12).view(-1, 4, 6),
        lambda x: x.flatten(1).unflatten(1, (4, 6)),
        lambda x: x.unsqueeze(1).squeeze(1),
        lambda x: x.expand(-1, 4, 6),
        lambda x: torch.cat([x], 1),
        lambda x: x[:, :4, 0:],
        lambda x: x.permute(0, 1, 2),
        lambda x: x.to(torch.float32),
        lambda x: x.to(torch.float64).to(torch.float32),
        lambda x: x.squeeze(1),
    ],
)
def test_an_operator_that_changes_nothing_is_dropped(step: Step) -> None:
    assert operators(without(Chain(torch.relu, step, torch.sigmoid), torch.randn(3, 4, 6))) == ["relu", "sigmoid"]


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("add", lambda x: x + 1),
        ("mul", lambda x: x * 0),
        ("slice", lambda x: x[:, 1:]),
        ("slice", lambda x: x[:, ::2]),
        ("permute", lambda x: x.permute(0, 2, 1)),
        ("to", lambda x: x.to(torch.float16).to(torch.float32)),
        ("to", lambda x: x.to(torch.int32).to(torch.float32)),
        ("reshape", lambda x: x.reshape(x.shape[0], 24)),
        ("cat", lambda x: torch.cat([x, x], 1)),
    ],
)
def test_an_operator_that_changes_something_stays(name: str, step: Step) -> None:
    value = torch.randn(3, 4, 6)
    kept = without(Chain(torch.relu, step, torch.sigmoid), value)
    assert name in operators(kept)
    assert torch.equal(kept(input=value), step(value.relu()).sigmoid())


def test_views_of_views_become_one() -> None:
    value = torch.randn(3, 4, 6)
    model = Chain(lambda x: x.flatten(1), lambda x: x.view(-1, 2, 12), lambda x: x.reshape(-1, 24, 1))
    traced = without(model, value)
    assert operators(traced) == ["reshape"]
    assert torch.equal(traced(input=value), value.reshape(3, 24, 1))


def test_what_is_written_to_in_place_keeps_its_copy() -> None:
    def step(x: Tensor) -> Tensor:
        return (x * 1).relu_() - x

    value = torch.randn(3, 4, 6)
    traced = trace(Chain(step), {"input": value})
    reasons = [RULE.check(traced.body, node) for node in RULE.find(traced.body)]
    if any(reasons):  # torch.export may have made a plain relu of it
        assert any("in place" in reason for reason in reasons if reason)
    torch.testing.assert_close(without(Chain(step), value)(input=value), value.relu() - value)


STEPS: list[Step] = [
    lambda x: F.dropout(x, 0.5, training=False),
    torch.relu,
    lambda x: x + 0,
    lambda x: x * 1.0,
    lambda x: x * 2,
    lambda x: x.flatten(1),
    lambda x: x.reshape(-1, 24),
    lambda x: x.reshape(x.shape[0], 4, -1),
    lambda x: x.reshape(-1, 2, 3, 4),
    lambda x: x.unsqueeze(1),
    lambda x: x.unsqueeze(-1),
    lambda x: x.squeeze(1),
    lambda x: x.transpose(1, -1),
    lambda x: x.to(torch.float64),
    lambda x: x.to(torch.float16),
    lambda x: x.to(torch.float32),
    lambda x: torch.cat([x], -1),
    lambda x: x[:, 0:],
    lambda x: x.expand_as(x),
]


class Chains(nn.Module):
    """Several chains of operators that keep 24 numbers a row."""

    def __init__(self, chains: list[list[int]]) -> None:
        super().__init__()
        self.chains = [Chain(*(STEPS[place] for place in chain)) for chain in chains]

    def forward(self, input: Tensor) -> Tensor:
        return torch.stack([chain(input).reshape(-1, 24).to(torch.float64) for chain in self.chains], 1)


@given(
    chains=st.lists(st.lists(st.integers(0, len(STEPS) - 1), min_size=1, max_size=8), min_size=4, max_size=6),
    seed=st.integers(0, 99),
)
@settings(max_examples=8, deadline=None)
def test_random_chains_give_the_same_numbers(chains: list[list[int]], seed: int) -> None:
    value = torch.randn(5, 4, 6, generator=torch.Generator().manual_seed(seed))
    model = Chains(chains).eval()
    traced = without(model, value)
    for rows in (5, 2, 1):
        assert torch.equal(traced(input=value[:rows]), model(value[:rows]))
