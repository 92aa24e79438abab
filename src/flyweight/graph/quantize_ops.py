"""Operators of PyTorch that stand for stored integers: the numbers of ONNX in eager mode, integers in an exported file.

A model holds its float weights and runs them through one of these; the export writes QuantizeLinear and
DequantizeLinear, and integers where what went in is a constant. All round half to even after a true division, as
`QuantizeLinear` does: `torch.fake_quantize_per_tensor_affine` multiplies by 1 / scale and lands elsewhere on ties.

    q = clip(round(x / scale) + zero_point, low, high);     y = (q - zero_point) * scale

The gradient goes straight through the rounding (Bengio et al. 2013, arXiv:1308.3432); the scale's is that of LSQ (Esser
et al. 2020, arXiv:1902.08153, equation 3), the zero point's that of LSQ+ (Bhalgat et al. 2020, arXiv:2004.09576).
"""

from typing import Any

import torch
from torch import Tensor

#: (low, high) of each type that a file can hold.
RANGES: dict[str, tuple[int, int]] = {"int8": (-128, 127), "uint8": (0, 255), "int4": (-8, 7), "uint4": (0, 15)}
_HALVES = {"bfloat16": torch.bfloat16, "float16": torch.float16}


def stored_type(low: int, high: int) -> str:
    """Return the smallest type that holds `low` to `high`: "int8", "uint8", "int4" or "uint4".

    Raises:
        ValueError: none does.

    Example:
        >>> stored_type(-7, 7)
        'int4'
    """
    for name in ("uint4", "int4", "uint8", "int8"):
        least, most = RANGES[name]
        if least <= low < high <= most:
            return name
    raise ValueError(f"low and high must lie within -128 to 127 or 0 to 255; seen {low} and {high}.")


@torch.library.custom_op("flyweight::quantize_dequantize", mutates_args=())
def quantize_dequantize(
    x: Tensor, scale: Tensor, zero_point: Tensor | None = None, axis: int = 0, low: int = -128, high: int = 127
) -> Tensor:
    """Return `x` rounded to a grid of integers `low` to `high`.

    Args:
        x: float32, any shape.
        scale: one positive number, shape (); or one for each place of dimension `axis`, shape (x.shape[axis],).
        zero_point: whole numbers of any type, shaped like `scale`; None is 0.
        axis: dimension of the scales, unused where there is one.
        low: of the grid; with `high` it says what the file stores, see `stored_type`.
        high: of the grid.

    Example:
        >>> quantize_dequantize(torch.tensor([0.5, 1.5, 99.0]), torch.tensor(1.0))
        tensor([  0.,   2., 127.])
    """
    scale, zero = _aligned(scale, x.ndim, axis), _zero(zero_point, x.ndim, axis)
    return ((torch.round(x / scale) + zero).clamp(low, high) - zero) * scale


@torch.library.custom_op("flyweight::quantize_dequantize_blocks", mutates_args=())
def quantize_dequantize_blocks(
    x: Tensor, scale: Tensor, zero_point: Tensor | None, axis: int, block: int, low: int = -8, high: int = 7
) -> Tensor:
    """Return `x` rounded to grids of integers, one for each `block` neighbours along `axis`.

    Args:
        x: float32; `block` divides x.shape[axis].
        scale: positive, shaped like `x` but for x.shape[axis] / block places along `axis`.
        zero_point: whole numbers shaped like `scale`; None is 0.
        axis: dimension that is cut into blocks; for a weight of (out, in), 1.
        block: neighbours that share a scale.
        low: of the grid.
        high: of the grid.

    Example:
        >>> quantize_dequantize_blocks(torch.tensor([[1.0, 2.0, 30.0, 40.0]]), torch.tensor([[1.0, 10.0]]), None, 1, 2)
        tensor([[ 1.,  2., 30., 40.]])
    """
    scale, zero = _spread(scale, block, axis), _spread(zero_point, block, axis)
    return ((torch.round(x / scale) + zero).clamp(low, high) - zero) * scale


@torch.library.custom_op("flyweight::dynamic_linear", mutates_args=())
def dynamic_linear(x: Tensor, weight: Tensor, scale: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return `x @ (weight * scale).T + bias` with `x` rounded to uint8 over the range it has in this very call.

    The range, widened to hold 0, is that of the whole tensor, as `DynamicQuantizeLinear` takes it: the scores of a row
    depend a little on the rows beside it.

    Args:
        x: float32, (..., in).
        weight: int8, (out, in).
        scale: float32, (out,).
        bias: float32, (out,).
    """
    least, most = x.amin().clamp(max=0), x.amax().clamp(min=0)
    step = (most - least) / 255
    step = torch.where(step == 0, torch.ones_like(step), step)
    zero = torch.round(-least / step).clamp(0, 255)
    whole = (torch.round(x / step) + zero).clamp(0, 255) - zero
    # Sums of products of 8-bit numbers are exact in float64 whatever the width, in float32 only up to 512 inputs.
    total = whole.double() @ weight.double().T
    y = total.float() * (step * scale)
    return y if bias is None else y + bias


@torch.library.custom_op("flyweight::stored", mutates_args=())
def stored(x: Tensor, kind: str) -> Tensor:
    """Return float32 numbers rounded to what the file stores: `kind` "bfloat16" or "float16".

    Example:
        >>> stored(torch.tensor([1.001]), "bfloat16")
        tensor([1.])
    """
    return x.to(_HALVES[kind]).to(torch.float32)


@quantize_dequantize.register_fake
def _(
    x: Tensor, scale: Tensor, zero_point: Tensor | None = None, axis: int = 0, low: int = -128, high: int = 127
) -> Tensor:
    return torch.empty_like(x)


@quantize_dequantize_blocks.register_fake
def _(
    x: Tensor, scale: Tensor, zero_point: Tensor | None, axis: int, block: int, low: int = -8, high: int = 7
) -> Tensor:
    return torch.empty_like(x)


@dynamic_linear.register_fake
def _(x: Tensor, weight: Tensor, scale: Tensor, bias: Tensor | None = None) -> Tensor:
    return x.new_empty((*x.shape[:-1], weight.shape[0]))


@stored.register_fake
def _(x: Tensor, kind: str) -> Tensor:
    return torch.empty_like(x, dtype=torch.float32)


def _keep_grid(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, scale, zero_point, ctx.axis, ctx.low, ctx.high = inputs
    ctx.save_for_backward(x, scale, zero_point)


def _grid_gradient(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    x, scale, zero_point = ctx.saved_tensors
    spread, zero = _aligned(scale, x.ndim, ctx.axis), _zero(zero_point, x.ndim, ctx.axis)
    for_x, for_scale, for_zero = _gradients(x, spread, zero, gradient, ctx.low, ctx.high)
    others = [place for place in range(x.ndim) if place != ctx.axis % x.ndim] if scale.ndim else None
    wants = ctx.needs_input_grad
    return (
        for_x if wants[0] else None,
        _summed(for_scale, others) if wants[1] else None,
        _summed(for_zero, others) if zero_point is not None and wants[2] else None,
        None,
        None,
        None,
    )


def _keep_blocks(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, scale, zero_point, ctx.axis, ctx.block, ctx.low, ctx.high = inputs
    ctx.save_for_backward(x, scale, zero_point)


def _block_gradient(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    x, scale, zero_point = ctx.saved_tensors
    axis, block = ctx.axis % x.ndim, ctx.block
    spread, zero = _spread(scale, block, axis), _spread(zero_point, block, axis)
    for_x, for_scale, for_zero = _gradients(x, spread, zero, gradient, ctx.low, ctx.high)
    wants = ctx.needs_input_grad
    return (
        for_x if wants[0] else None,
        _block_sums(for_scale, axis, block) if wants[1] else None,
        _block_sums(for_zero, axis, block) if zero_point is not None and wants[2] else None,
        None,
        None,
        None,
        None,
    )


def _gradients(
    x: Tensor, scale: Tensor, zero: Tensor, gradient: Tensor, low: int, high: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients for x, scale and zero point, all of the shape of x."""
    exact = x / scale
    whole = torch.round(exact)
    below, above = whole + zero < low, whole + zero > high
    inside = ~(below | above)
    clipped = torch.where(below, low - zero, high - zero)
    for_scale = gradient * torch.where(inside, whole - exact, clipped)
    return gradient * inside, for_scale, -gradient * scale * ~inside


def _summed(gradient: Tensor, dims: list[int] | None) -> Tensor:
    """Sum over all dimensions but those of the scales; over all where there is one scale."""
    if dims is None:
        return gradient.sum()
    return gradient.sum(dims) if dims else gradient


def _block_sums(gradient: Tensor, axis: int, block: int) -> Tensor:
    shape = gradient.shape
    return gradient.reshape(*shape[:axis], shape[axis] // block, block, *shape[axis + 1 :]).sum(axis + 1)


quantize_dequantize.register_autograd(_grid_gradient, setup_context=_keep_grid)
quantize_dequantize_blocks.register_autograd(_block_gradient, setup_context=_keep_blocks)
stored.register_autograd(lambda ctx, gradient: (gradient, None))


def _aligned(value: Tensor, rank: int, axis: int) -> Tensor:
    """Shape per-axis numbers so that they spread over the other dimensions."""
    if value.ndim == 0:
        return value
    shape = [1] * rank
    shape[axis] = -1
    return value.reshape(shape)


def _zero(zero_point: Tensor | None, rank: int, axis: int) -> Tensor:
    return torch.zeros(()) if zero_point is None else _aligned(torch.round(zero_point.float()), rank, axis)


def _spread(value: Tensor | None, block: int, axis: int) -> Tensor:
    return torch.zeros(()) if value is None else value.float().repeat_interleave(block, axis)
