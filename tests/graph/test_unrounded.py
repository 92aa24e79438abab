"""Without rounding, a quantised model gives what its float weights give."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flyweight.graph.quantize_ops import dynamic_linear, quantize_dequantize, stored
from flyweight.graph.unrounded import Unrounded


class Rounded(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = quantize_dequantize(x, torch.tensor(0.5))
        weight = quantize_dequantize(self.layer.weight, torch.tensor(0.2))
        return stored(F.linear(x, weight, self.layer.bias), "float16")


def test_unrounded_gives_the_float_models_outputs_and_says_that_it_rounds() -> None:
    model, x = Rounded(), torch.randn(5, 4)
    with torch.no_grad():
        with Unrounded() as mode:
            seen = model(x)
        assert mode.rounds
        assert torch.equal(seen, model.layer(x))
        assert not torch.equal(model(x), seen)


def test_unrounded_dynamic_linear_is_the_linear_of_its_stored_weights() -> None:
    x, weight = torch.randn(5, 4), torch.randint(-127, 128, (3, 4), dtype=torch.int8)
    scale = torch.rand(3) + 0.1
    with torch.no_grad(), Unrounded():
        seen = dynamic_linear(x, weight, scale)
    torch.testing.assert_close(seen, x @ (weight * scale[:, None]).T)


def test_a_float_model_does_not_round() -> None:
    with torch.no_grad(), Unrounded() as mode:
        nn.Linear(4, 3)(torch.randn(2, 4))
    assert not mode.rounds
