"""The quantiser against NumPy's formula, its gradients against LSQ's, and the histogram against all numbers."""

import numpy as np
import pytest
import torch

from flyweight.errors import InputError
from flyweight.quantization.fake_quantize import FakeQuantize, from_blocks, in_blocks
from flyweight.quantization.histogram import BINS, Histogram
from flyweight.quantization.ranges import Range, find_range


def a_range(scale: list[float] | float, low: int, high: int, zero: int = 0) -> Range:
    steps = torch.tensor(scale)
    return Range(steps, torch.full_like(steps, zero, dtype=torch.int32), low, high, steps.double())


def test_rounds_as_the_formula_says() -> None:
    values = torch.randn(3, 40, generator=torch.Generator().manual_seed(0))
    found = a_range(0.03, 0, 255, 96)
    wanted = (np.clip(np.rint(values.numpy() / np.float32(0.03)) + 96, 0, 255) - 96) * np.float32(0.03)
    assert np.array_equal(FakeQuantize(found)(values).numpy(), wanted.astype(np.float32))


def test_a_scale_a_channel_and_a_scale_a_block() -> None:
    values = torch.tensor([[1.0, 2.0, 30.0, 40.0], [5.0, 6.0, 0.7, 0.8]])
    by_row = FakeQuantize(a_range([10.0, 1.0], -8, 7), axis=0)(values)
    assert by_row.tolist() == [[0.0, 0.0, 30.0, 40.0], [5.0, 6.0, 1.0, 1.0]]
    blocks = in_blocks(values, 2, 1, "layer")
    found = find_range(blocks, 4, axis=0, method="minmax")
    scales = from_blocks(found.scale, values.shape, 2, 1)
    assert scales.shape == (2, 2)
    assert scales[1, 1].item() == pytest.approx(0.8 / 7)
    shaped = Range(scales, torch.zeros(2, 2, dtype=torch.int32), -8, 7, found.error)
    rounded = FakeQuantize(shaped, axis=1, block=2)(values)
    assert 0.5 * (rounded - values).square().sum().item() == pytest.approx(found.error.sum().item(), rel=1e-4)


def test_blocks_along_dimension_zero_are_those_of_the_transpose() -> None:
    values = torch.randn(8, 3, generator=torch.Generator().manual_seed(1))
    one = find_range(in_blocks(values, 4, 0, "a"), 4, axis=0).scale
    other = find_range(in_blocks(values.T.contiguous(), 4, 1, "b"), 4, axis=0).scale
    assert torch.equal(from_blocks(one, values.shape, 4, 0), from_blocks(other, values.T.shape, 4, 1).T)


def test_a_group_that_does_not_divide_is_refused_with_the_numbers() -> None:
    with pytest.raises(InputError, match=r"'mlp.0' has 50 inputs; .*50 = 1 \* 32 \+ 18.* group_size=25"):
        in_blocks(torch.zeros(4, 50), 32, 1, "mlp.0")


def test_the_gradients_are_those_of_lsq() -> None:
    quantizer = FakeQuantize(a_range(0.5, -8, 7))
    quantizer.scale.requires_grad_(True)
    values = torch.tensor([0.6, -9.0, 9.0, 0.2], requires_grad=True)
    quantizer(values).sum().backward()
    assert values.grad is not None
    assert values.grad.tolist() == [1.0, 0.0, 0.0, 1.0]
    inside = (1 - 1.2) + (0 - 0.4)  # equation 3: round(x / s) - x / s inside, low or high outside
    assert quantizer.scale.grad is not None
    assert quantizer.scale.grad.item() == pytest.approx((inside - 8 + 7) / (4 * 7) ** 0.5, rel=1e-5)


def test_the_rate_of_an_activation_counts_one_row() -> None:
    quantizer = FakeQuantize(a_range(0.5, 0, 255), rows=True)
    quantizer.scale.requires_grad_(True)
    quantizer(torch.full((10, 4), 1_000.0)).sum().backward()
    assert quantizer.scale.grad is not None
    assert quantizer.scale.grad.item() == pytest.approx(40 * 255 / (4 * 255) ** 0.5, rel=1e-5)


def test_switched_off_it_hands_on_what_it_got() -> None:
    quantizer = FakeQuantize(a_range(0.5, -8, 7))
    quantizer.enabled = False
    values = torch.rand(5)
    assert quantizer(values) is values


def test_a_histogram_that_grew_gives_nearly_the_range_of_all_numbers() -> None:
    torch.manual_seed(0)
    parts = [torch.randn(4_000), 3 * torch.randn(4_000), torch.zeros(100), torch.tensor([-70.0])]
    seen = Histogram()
    for part in parts:
        seen.add(part)
    values, counts = seen.values()
    everything = torch.cat(parts)
    assert counts.sum().item() == pytest.approx(len(everything))
    assert (values * counts).sum().item() == pytest.approx(everything.sum().item(), abs=1e-2)
    assert len(values) <= BINS + 3
    for symmetric in (True, False):
        close = find_range(values, 8, counts=counts, symmetric=symmetric)
        best = find_range(everything, 8, symmetric=symmetric)
        true = FakeQuantize(close)(everything).sub(everything).square().sum().item() / 2
        assert true <= 1.02 * best.error.item()
    ends = find_range(values, 8, counts=counts, method="minmax")
    assert ends.least.item() == pytest.approx(-70)


def test_a_histogram_counts_what_is_not_finite_apart() -> None:
    seen = Histogram()
    seen.add(torch.tensor([1.0, torch.nan, torch.inf]))
    assert (seen.count, seen.bad) == (1, 2)
