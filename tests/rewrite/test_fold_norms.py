"""Batch norms folded away in traced models, and why some stay."""

import torch
from torch import Tensor, nn

from flyweight.graph.trace import trace
from flyweight.graph.traced import clean
from flyweight.rewrite.fold_norms import RULE


def settled(model: nn.Module) -> nn.Module:
    """Give every batch norm statistics and weights that are not the first ones."""
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            for tensor in (module.weight, module.bias, module.running_mean, module.running_var):
                if tensor is not None:
                    tensor.data.uniform_(0.2, 3.0)
    return model.eval()


def folded(model: nn.Module, value: Tensor) -> tuple[int, float, list[str]]:
    """Return norms that are left, how far the outputs are, and the reasons for refusing."""
    traced = trace(settled(model), {"input": value})
    for node in RULE.find(traced.body):
        if RULE.check(traced.body, node) is None:
            RULE.apply(traced.body, node)
    clean(traced.body)
    left = RULE.find(traced.body)
    wanted, got = model(value).detach(), traced(input=value).detach()
    reasons = [RULE.check(traced.body, node) or "" for node in left]
    return len(left), float((got - wanted).abs().max() / wanted.abs().max()), reasons


def test_a_norm_before_a_linear_layer_scales_its_columns() -> None:
    left, far, _ = folded(nn.Sequential(nn.BatchNorm1d(5), nn.Linear(5, 3)), torch.randn(6, 5))
    assert left == 0
    assert far < 1e-6


def test_a_norm_without_weights_before_layers_without_bias_gives_them_one() -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm1d(5, affine=False)
            self.one, self.two = nn.Linear(5, 3, bias=False), nn.Linear(5, 3)

        def forward(self, input: Tensor) -> Tensor:
            normed = self.norm(input.relu())
            return self.one(normed) * self.two(normed)

    left, far, _ = folded(Both(), torch.randn(6, 5))
    assert left == 0
    assert far < 1e-6


def test_a_weight_used_twice_is_changed_behind_the_norm_alone() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.layer = nn.BatchNorm1d(5), nn.Linear(5, 3)

        def forward(self, input: Tensor) -> Tensor:
            return self.layer(self.norm(input)) + self.layer(input)

    left, far, _ = folded(Shared(), torch.randn(6, 5))
    assert left == 0
    assert far < 1e-6


def test_norms_after_layers_and_convolutions_are_folded_into_them() -> None:
    convolution = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten()
    left, far, _ = folded(nn.Sequential(*convolution, nn.Linear(16, 5), nn.BatchNorm1d(5)), torch.randn(6, 3, 4, 4))
    assert left == 0
    assert far < 1e-5


def test_a_norm_that_others_read_stays_and_says_who() -> None:
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.layer = nn.BatchNorm1d(5), nn.Linear(5, 5)

        def forward(self, input: Tensor) -> Tensor:
            normed = self.norm(input)
            return normed + self.layer(normed)

    left, _, reasons = folded(Residual(), torch.randn(6, 5))
    assert left == 1
    assert "reads it too and is no linear layer" in reasons[0]


def test_a_norm_over_steps_of_a_history_stays() -> None:
    _, _, reasons = folded(nn.Sequential(nn.BatchNorm1d(4), nn.Linear(5, 2)), torch.randn(6, 4, 5))
    assert "more than one row of channels" in reasons[0]
