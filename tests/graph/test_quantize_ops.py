"""The operators that round give the numbers of ONNX's own, and gradients that go straight through."""

from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from flyweight.graph.quantize_ops import (
    RANGES,
    dynamic_linear,
    quantize_dequantize,
    quantize_dequantize_blocks,
    stored,
    stored_type,
)

DTYPES = {"int8": np.int8, "uint8": np.uint8, "int4": ml_dtypes.int4, "uint4": ml_dtypes.uint4}


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    """Normal numbers, half of them on the quarters, where ties lie."""
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 3
    return torch.where(torch.arange(x.numel()).reshape(shape) % 2 == 0, (x * 4).round() / 4, x)


def onnx_grid(x: Any, scale: Any, zero: Any, kind: str, **attributes: int) -> NDArray[Any]:
    """QuantizeLinear and DequantizeLinear as ONNX defines them."""
    constants = [numpy_helper.from_array(np.asarray(scale), "s")]
    constants.append(numpy_helper.from_array(np.asarray(zero).astype(DTYPES[kind]), "z"))
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], **attributes),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"], **attributes),
    ]
    graph = helper.make_graph(
        nodes,
        "grid",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, x.shape)],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)])
    return ReferenceEvaluator(model).run(None, {"x": x.numpy()})[0]  # type: ignore[no-any-return]


@pytest.mark.parametrize("kind", RANGES)
def test_one_scale_gives_onnx_numbers(kind: str) -> None:
    x, (low, high) = numbers(40, 5), RANGES[kind]
    zero = torch.tensor((low + high + 1) // 2 + 1)
    seen = quantize_dequantize(x, torch.tensor(0.5), zero, 0, low, high)
    np.testing.assert_array_equal(seen.numpy(), onnx_grid(x, np.float32(0.5), zero.numpy(), kind))


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_scale_of_each_channel_gives_onnx_numbers(axis: int) -> None:
    x = numbers(4, 6, 3)
    scale = torch.linspace(0.01, 0.3, x.shape[axis])
    seen = quantize_dequantize(x, scale, None, axis)
    due = onnx_grid(x, scale.numpy(), np.zeros(len(scale)), "int8", axis=axis)
    np.testing.assert_array_equal(seen.numpy(), due)


@pytest.mark.parametrize("axis", [0, 1])
def test_scale_of_each_block_gives_onnx_numbers(axis: int) -> None:
    x = numbers(8, 12)
    shape = (2, 12) if axis == 0 else (8, 3)
    scale = 0.2 + torch.rand(shape, generator=torch.Generator().manual_seed(1))
    zero = torch.arange(scale.numel()).reshape(shape) % 5
    seen = quantize_dequantize_blocks(x, scale, zero, axis, 4)
    due = onnx_grid(x, scale.numpy(), zero.numpy(), "int4", axis=axis, block_size=4)
    np.testing.assert_array_equal(seen.numpy(), due)


@pytest.mark.parametrize("kind", ["bfloat16", "float16"])
def test_stored_halves_round_as_numpy_does(kind: str) -> None:
    x = numbers(200)
    due = x.numpy().astype(getattr(ml_dtypes, kind, np.float16)).astype(np.float32)
    np.testing.assert_array_equal(stored(x, kind).numpy(), due)


def test_narrow_grid_stops_at_its_ends() -> None:
    seen = quantize_dequantize(torch.tensor([-9.0, 9.0]), torch.tensor(1.0), None, 0, -7, 7)
    assert seen.tolist() == [-7.0, 7.0]


@pytest.mark.parametrize(
    ("low", "high", "kind"),
    [(-127, 127, "int8"), (0, 255, "uint8"), (-8, 7, "int4"), (0, 15, "uint4"), (-1, 8, "int8")],
)
def test_smallest_type_that_holds_the_grid_is_stored(low: int, high: int, kind: str) -> None:
    assert stored_type(low, high) == kind


def test_grid_that_no_type_holds_is_refused() -> None:
    with pytest.raises(ValueError, match="seen -1 and 255"):
        stored_type(-1, 255)


def test_gradients_are_those_of_straight_through_and_lsq() -> None:
    """Esser et al. 2020, equation 3: round(v) - v inside the grid, its ends outside; nothing for x outside."""
    x = torch.tensor([0.3, 1.75, -9.0, 9.0], requires_grad=True)
    scale = torch.tensor(0.5, requires_grad=True)
    zero = torch.tensor(1.0, requires_grad=True)
    quantize_dequantize(x, scale, zero, 0, -4, 3).backward(torch.tensor([1.0, 10.0, 100.0, 1000.0]))
    assert x.grad is not None
    assert x.grad.tolist() == [1.0, 0.0, 0.0, 0.0]  # 1.75 / 0.5 rounds to 4, and 4 + 1 > 3
    assert scale.grad is not None
    assert scale.grad.item() == pytest.approx((1 - 0.6) + 10 * 2 + 100 * -5 + 1000 * 2)
    assert zero.grad is not None
    assert zero.grad.item() == pytest.approx(-0.5 * (10 + 100 + 1000))


def test_gradients_of_channels_and_blocks_are_those_of_each_alone() -> None:
    x, upstream = numbers(3, 8), numbers(3, 8, seed=3)
    scale = torch.tensor([0.1, 0.2, 0.3])
    alone = []
    for row in range(3):
        one = scale[row].clone().requires_grad_()
        quantize_dequantize(x[row], one, None, 0, -8, 7).backward(upstream[row])
        alone.append(one.grad.item())  # type: ignore[union-attr]
    channels = scale.clone().requires_grad_()
    quantize_dequantize(x, channels, None, 0, -8, 7).backward(upstream)
    blocks = scale.reshape(3, 1).clone().requires_grad_()
    quantize_dequantize_blocks(x, blocks, None, 1, 8).backward(upstream)
    for seen in (channels.grad, blocks.grad):
        assert seen is not None
        assert seen.flatten().tolist() == pytest.approx(alone)


def test_dynamic_linear_is_near_the_exact_product() -> None:
    x, scale = numbers(7, 64), torch.linspace(0.01, 0.02, 5)
    weight = torch.randint(-127, 128, (5, 64), generator=torch.Generator().manual_seed(0), dtype=torch.int8)
    bias = torch.arange(5.0)
    exact = x @ (weight * scale.unsqueeze(1)).T + bias
    step = (x.max() - x.min()) / 255
    bound = step / 2 * (weight.abs() * scale.unsqueeze(1)).sum(1)  # half a step in each input
    assert ((dynamic_linear(x, weight, scale, bias) - exact).abs() <= bound + 1e-4).all()


def test_dynamic_linear_of_zeros_is_the_bias() -> None:
    seen = dynamic_linear(torch.zeros(2, 3), torch.ones(4, 3, dtype=torch.int8), torch.ones(4), torch.arange(4.0))
    assert seen.tolist() == [[0.0, 1.0, 2.0, 3.0]] * 2


@pytest.mark.parametrize(
    ("operator", "inputs"),
    [
        ("quantize_dequantize", (numbers(3, 4), torch.full((4,), 0.1), torch.zeros(4, dtype=torch.int8), 1, -128, 127)),
        ("quantize_dequantize_blocks", (numbers(3, 4), torch.full((3, 2), 0.1), None, 1, 2)),
        ("dynamic_linear", (numbers(3, 4), torch.ones(5, 4, dtype=torch.int8), torch.ones(5), None)),
        ("stored", (numbers(3, 4), "bfloat16")),
    ],
)
def test_operator_keeps_the_rules_of_torch(operator: str, inputs: tuple[Any, ...]) -> None:
    torch.library.opcheck(getattr(torch.ops.flyweight, operator).default, inputs)
