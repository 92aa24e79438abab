"""Products with layers of low rank are summed over the rank: the same scores, and nothing as wide as x written out."""

import pytest
import torch
from torch import Tensor, fx, nn

from flyweight.cost.macs import count_macs
from flyweight.graph.trace import trace
from flyweight.graph.traced import TracedModel
from flyweight.rewrite.apply_rules import Rewritten, rewrite
from flyweight.rewrite.low_rank_products import RULE

WIDTH, ROWS = 64, 40
aten = torch.ops.aten


class Thin(nn.Module):
    """A layer split in two."""

    def __init__(self, rank: int, *, bias: bool = True) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(WIDTH, rank, bias=False), nn.Linear(rank, WIDTH, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.outer(self.inner(x))


class Crossed(nn.Module):
    """Cross layers beside an MLP, a head of so many outputs over both."""

    def __init__(self, ranks: tuple[int, ...] = (4, 3), outputs: int = 1, *, bias: bool = True) -> None:
        super().__init__()
        self.cross = nn.ModuleList(Thin(rank, bias=bias) for rank in ranks)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 16), nn.ReLU())
        self.head = nn.Linear(WIDTH + 16, outputs, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        crossed = x
        for layer in self.cross:
            crossed = x * layer(crossed) + crossed
        return self.head(torch.cat([self.mlp(x), crossed], dim=-1))


class Gated(nn.Module):
    """A gate of low rank, (value * gate) read by two layers, without residual or concatenation."""

    def __init__(self) -> None:
        super().__init__()
        self.value, self.gate = nn.Linear(WIDTH, WIDTH), Thin(2)
        self.one, self.other = nn.Linear(WIDTH, 1), nn.Linear(WIDTH, 2)

    def forward(self, x: Tensor) -> Tensor:
        gated = self.gate(x) * self.value(x)
        return self.one(gated) + self.other(gated).sum(1, keepdim=True)


class Shown(Crossed):
    """The crossed values are read by something else than a linear layer too."""

    def forward(self, x: Tensor) -> Tensor:
        crossed = x * self.cross[0](x) + x
        return self.head(torch.cat([self.mlp(x), crossed], dim=-1)) + crossed.square().mean(1, keepdim=True)


def batch() -> dict[str, Tensor]:
    return {"x": torch.randn(ROWS, WIDTH, generator=torch.Generator().manual_seed(1))}


def traced(model: nn.Module) -> TracedModel:
    return trace(model.eval(), batch())


def rewritten(model: nn.Module) -> Rewritten:
    torch.manual_seed(0)
    return rewrite(traced(model), (RULE,), [batch()])


def widest(body: fx.GraphModule) -> int:
    """The widest product or sum."""
    made = [one for one in body.graph.nodes if one.target in (aten.mul.Tensor, aten.add.Tensor)]
    return max(int(one.meta["val"].shape[-1]) for one in made)


@pytest.mark.parametrize(
    "model",
    [Crossed(), Crossed((5,)), Crossed((1, 2, 3)), Crossed((4, 2), outputs=3), Crossed((4, 3), bias=False)],
    ids=["two layers", "one layer", "three layers", "three outputs", "no biases"],
)
def test_cross_layers_leave_no_wide_values(model: nn.Module) -> None:
    found = rewritten(model)
    assert [(one.rule, one.times) for one in found.done] == [("low rank products", 1)]
    assert not found.undone
    assert found.far < 1e-6
    assert widest(traced(model).body) == WIDTH
    assert widest(found.model.body) < WIDTH / 2


def test_a_gate_that_two_layers_read_is_summed_for_both() -> None:
    found = rewritten(Gated())
    assert found.done
    assert found.far < 1e-6
    assert widest(found.model.body) < WIDTH / 2


def test_values_that_are_read_elsewhere_stay() -> None:
    found = rewritten(Shown((3,)))
    assert not found.done
    assert widest(found.model.body) == WIDTH


def test_a_rank_too_high_to_pay_is_left_with_the_reason() -> None:
    found = rewritten(Crossed((16, 16)))
    assert not found.done
    assert "low rank products" in str(found.refused[0])
    assert "its new operators take" in str(found.refused[0])


def test_few_multiplications_are_added() -> None:
    model = Crossed()
    before, after = (count_macs(one, batch(), ROWS).total for one in (traced(model), rewritten(model).model))
    assert after <= before + 4 * 3 * WIDTH


def test_rows_that_are_multiplied_with_each_other_are_as_large() -> None:
    torch.manual_seed(0)
    model = Crossed((1, 1))
    with torch.no_grad():
        for layer in model.cross:  # as singular values leave them, with all of the size on one side
            layer.inner.weight *= 40
            layer.outer.weight /= 40
    found = rewritten(model)
    assert found.far < 1e-5
    (rows,) = (one for name, one in found.model.named_parameters() if name.endswith("summed_products.weight"))
    sizes = rows.detach().square().mean(1).sqrt()
    assert float(sizes.max() / sizes.min()) < 10
