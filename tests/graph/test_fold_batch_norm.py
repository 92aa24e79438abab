"""Folded batch norm against the model it was folded from."""

import torch
from torch import Tensor, nn

from flyweight.graph.fold_batch_norm import fold_batch_norm
from flyweight.graph.trace import trace


def trained(model: nn.Module) -> nn.Module:
    """Give every batch norm statistics and weights that are not the first ones."""
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            for tensor in (module.weight, module.bias, module.running_mean, module.running_var):
                if tensor is not None:
                    tensor.data.uniform_(0.2, 3.0)
    return model.eval()


def norms_left(model: nn.Module, inputs: Tensor) -> tuple[int, float]:
    """Return how many batch norms are left, and how far the outputs are."""
    traced = trace(model, {"input": inputs})
    before = {name: value.clone() for name, value in traced.state_dict().items()}
    folded = fold_batch_norm(traced)
    assert all(torch.equal(value, before[name]) for name, value in traced.state_dict().items())
    left = folded.body.graph.find_nodes(op="call_function", target=torch.ops.aten.batch_norm.default)
    wanted = model(inputs).detach()
    return len(left), float((folded(input=inputs).detach() - wanted).abs().max() / wanted.abs().max())


def test_batch_norm_after_convolutions_is_folded_exactly() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=4), nn.BatchNorm2d(8)
    )
    left, far = norms_left(trained(model), torch.randn(4, 3, 9, 9))
    assert left == 0
    assert far < 1e-5


def test_batch_norm_after_linear_without_weights_is_folded_exactly() -> None:
    model = nn.Sequential(nn.Linear(5, 7), nn.BatchNorm1d(7, affine=False), nn.ReLU(), nn.Linear(7, 2))
    left, far = norms_left(trained(model), torch.randn(6, 5))
    assert left == 0
    assert far < 1e-5


class Twice(nn.Module):
    """One layer before two norms, and a norm before a layer: neither can be folded."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.one, self.two = nn.Linear(5, 5), nn.BatchNorm1d(5), nn.BatchNorm1d(5)

    def forward(self, input: Tensor) -> Tensor:
        return self.one(self.layer(input)) + self.two(self.layer(torch.relu(input)))


def test_a_shared_layer_keeps_its_norms() -> None:
    left, far = norms_left(trained(Twice()), torch.randn(6, 5))
    assert left == 2
    assert far == 0


def test_over_a_sequence_the_norm_of_another_dimension_stays() -> None:
    left, far = norms_left(trained(nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(6))), torch.randn(3, 6, 5))
    assert left == 1
    assert far == 0
