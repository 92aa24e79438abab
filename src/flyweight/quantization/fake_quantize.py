"""A quantiser in a model: numbers rounded to what a file's integers will stand for, with gradients straight through."""

import torch
from torch import Tensor, nn

from flyweight.errors import InputError
from flyweight.graph.quantize_ops import quantize_dequantize, quantize_dequantize_blocks
from flyweight.quantization.ranges import LEAST_SCALE, Range


class FakeQuantize(nn.Module):
    """Rounds to a grid of integers; written to a file it becomes QuantizeLinear and DequantizeLinear.

    The scale is learned where `scale.requires_grad` is set: its gradient is that of LSQ (Esser et al. 2020,
    arXiv:1902.08153), made smaller by `1 / sqrt(n high)` with n the numbers that share a scale (of an activation, in
    one row; section 2.2), so that it moves about as fast as the weights. The zero point stays.

    Args:
        found: the grid; its scale has shape (), (channels,) or, with `block`, any shape that the blocks have.
        axis: dimension of the scales; with `block` the one that is cut.
        block: neighbours along `axis` that share a scale; None for one scale a tensor or a channel.
        rows: whether dimension 0 holds rows of a batch, as in an activation.

    Example:
        >>> from flyweight.quantization.ranges import find_range
        >>> values = torch.tensor([-1.0, 0.3, 1.27])
        >>> [round(value, 2) for value in FakeQuantize(find_range(values, 8, method="minmax"))(values).tolist()]
        [-1.0, 0.3, 1.27]
    """

    zero_point: Tensor | None

    def __init__(self, found: Range, *, axis: int = 0, block: int | None = None, rows: bool = False) -> None:
        super().__init__()
        self.scale = nn.Parameter(found.scale.detach().clone(), requires_grad=False)
        shifted = found.low >= 0 or bool((found.zero_point != 0).any())
        self.register_buffer("zero_point", found.zero_point.clone() if shifted else None)
        self.low, self.high, self.axis, self.block, self.rows = found.low, found.high, axis, block, rows
        self.enabled = True
        self.recovery_rate = 1.0

    @property
    def bits(self) -> int:
        """Bits of an integer."""
        return (self.high - self.low).bit_length()

    def forward(self, values: Tensor) -> Tensor:
        """Return the numbers that the integers stand for, shaped like `values`."""
        if not self.enabled:
            return values
        scale = self._slowed(values) if self.scale.requires_grad and torch.is_grad_enabled() else self.scale
        rounded: Tensor
        if self.block is None:
            rounded = quantize_dequantize(values, scale, self.zero_point, self.axis, self.low, self.high)
        else:
            rounded = quantize_dequantize_blocks(
                values, scale, self.zero_point, self.axis, self.block, self.low, self.high
            )
        return rounded

    def _slowed(self, values: Tensor) -> Tensor:
        """Return the scale, positive, with a gradient smaller by 1 / sqrt(n high)."""
        sharing = values.numel() / (len(values) if self.rows else self.scale.numel())
        rate = (max(sharing, 1.0) * self.high) ** -0.5
        positive = self.scale.clamp_min(LEAST_SCALE)
        slowed: Tensor = positive * rate + (positive * (1 - rate)).detach()
        return slowed

    def settle(self) -> None:
        """Make a scale positive again that an optimiser took below zero."""
        self.scale.data.clamp_min_(LEAST_SCALE)

    def extra_repr(self) -> str:
        """Return what stands between the brackets when printed."""
        shared = f"block={self.block}" if self.block else f"{self.scale.numel()} scales"
        return f"{self.low} to {self.high}, {shared}, axis={self.axis}"


def in_blocks(weight: Tensor, block: int, axis: int, name: str) -> Tensor:
    """Return a weight of two dimensions as one row a block: (out, in) cut along 1 gives (out * in / block, block).

    Raises:
        InputError: `block` does not divide.
    """
    size = weight.shape[axis]
    if size % block:
        fits = [number for number in range(block, 1, -1) if size % number == 0]
        hint = f"take group_size={fits[0]}" if fits else "leave this layer at 8 bits"
        raise InputError(
            f"Layer {name!r} has {size} inputs; groups of group_size={block} do not divide them "
            f"({size} = {size // block} * {block} + {size % block}). Choose a divisor: {hint}."
        )
    return weight.movedim(axis, -1).reshape(-1, block)


def from_blocks(values: Tensor, shape: torch.Size, block: int, axis: int) -> Tensor:
    """Return one number a block, as `in_blocks` numbers them, shaped like the weight but for size / block on `axis`."""
    moved = [size for place, size in enumerate(shape) if place != axis % len(shape)]
    return values.reshape(*moved, shape[axis] // block).movedim(-1, axis)


class Stored(nn.Module):
    """Rounds a weight to what a file stores: "bfloat16" or "float16"."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.enabled = True

    def forward(self, values: Tensor) -> Tensor:
        """Return float32 numbers that the kind can hold."""
        if not self.enabled:
            return values
        rounded: Tensor = torch.ops.flyweight.stored(values, self.kind)
        return rounded
