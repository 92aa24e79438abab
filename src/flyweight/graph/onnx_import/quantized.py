"""ONNX operators on stored integers. A pair QuantizeLinear, DequantizeLinear runs as one operator of `quantize_ops`,
which an export writes as the same pair again."""

from collections.abc import Mapping

import torch
from torch import Tensor

from flyweight.graph import quantize_ops
from flyweight.graph.onnx_import.elementwise import TYPES, Handler
from flyweight.graph.onnx_import.node import Call

LIMITS = {torch.int8: (-128, 127), torch.uint8: (0, 255), torch.int16: (-(2**15), 2**15 - 1)}


def _scale(call: Call, x: Tensor) -> tuple[Tensor, Tensor | None]:
    """Return scale and zero point: of no dimension where there is one, else one for each place of the axis."""
    scale = call.tensor(1).float()
    zero = call.tensor(2) if call.given(2) else None
    single = scale.numel() == 1 and (scale.ndim == 0 or x.ndim == 0 or x.shape[call.attribute("axis", 1)] != 1)
    return (scale.reshape(()), None if zero is None else zero.reshape(())) if single else (scale, zero)


def _grid(call: Call) -> Tensor:
    """Round to the grid: the pair of quantisation and its inverse, joined."""
    x = call.tensor(0)
    low, high = call.attribute("low"), call.attribute("high")
    block, axis = call.attribute("block_size", 0), call.attribute("axis", 1)
    if block:
        zero = call.tensor(2) if call.given(2) else None
        scales = call.tensor(1).float()
        blocks: Tensor = quantize_ops.quantize_dequantize_blocks(x, scales, zero, axis, block, low, high)
        return blocks
    scale, zero = _scale(call, x)
    rounded: Tensor = quantize_ops.quantize_dequantize(x, scale, zero, axis if scale.ndim else 0, low, high)
    return rounded


def _spread(value: Tensor, rank: int, axis: int) -> Tensor:
    return value if value.ndim == 0 else value.reshape([-1 if at == axis % rank else 1 for at in range(rank)])


def _quantize(call: Call) -> Tensor:
    x = call.tensor(0)
    _no_blocks(call)
    scale, zero = _scale(call, x)
    kind = zero.dtype if zero is not None else TYPES.get(call.attribute("output_dtype", 0) or 2, torch.uint8)
    if kind not in LIMITS:
        call.node.refuse(f"integers of type {kind}.")
    axis = call.attribute("axis", 1)
    shift = 0.0 if zero is None else _spread(zero.float(), x.ndim, axis)
    return (torch.round(x / _spread(scale, x.ndim, axis)) + shift).clamp(*LIMITS[kind]).to(kind)


def _dequantize(call: Call) -> Tensor:
    x = call.tensor(0)
    _no_blocks(call)
    scale, zero = _scale(call, x)
    axis = call.attribute("axis", 1)
    shift = 0.0 if zero is None else _spread(zero.float(), x.ndim, axis)
    return (x.float() - shift) * _spread(scale, x.ndim, axis)


def _no_blocks(call: Call) -> None:
    if call.attribute("block_size", 0):
        call.node.refuse("block_size, where what it rounds is not a constant.")


def _dynamic(call: Call) -> tuple[Tensor, ...]:
    x = call.tensor(0)
    least, most = x.amin().clamp(max=0), x.amax().clamp(min=0)
    scale = (most - least) / 255
    scale = torch.where(scale == 0, torch.ones_like(scale), scale)
    zero = torch.round(-least / scale).clamp(0, 255)
    return (torch.round(x / scale) + zero).clamp(0, 255).to(torch.uint8), scale, zero.to(torch.uint8)


def _whole_product(call: Call) -> Tensor:
    """Multiply integers exactly: float64 holds sums of 8-bit products whatever the width."""
    a, b = call.tensor(0).double(), call.tensor(1).double()
    if call.given(2):
        a = a - call.tensor(2).double()
    if call.given(3):
        b = b - call.tensor(3).double()
    return torch.matmul(a, b).to(torch.int32)


QUANTIZED: Mapping[str, Handler] = {
    "Grid": _grid,
    "QuantizeLinear": _quantize,
    "DequantizeLinear": _dequantize,
    "DynamicQuantizeLinear": _dynamic,
    "MatMulInteger": _whole_product,
}
