"""The range of a quantiser: which numbers its integers stand for, found by minimum squared error.

A grid of `2**bits` integers stands for `(q - zero_point) * scale`. A wide range keeps the large values and rounds
coarsely, a narrow one the other way round; the best is the one with the least `E = 1/2 sum (x^ - x)^2`. E is not convex
in the range (each value that changes its integer bends it), so the search is a grid first, then a finer one round its
best place, then least squares: with the integers fixed E is a parabola in the scale, whose minimum is
`sum x (q - z) / sum (q - z)^2`. That last part is Lloyd's iteration (1982) and never raises E. A symmetric range of few
bits or few values is found as the global minimum instead, see `exact_scale`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from flyweight.errors import InputError
from flyweight.quantization.exact_scale import exact_scale, worth_exact
from flyweight.quantization.noise_clip import noise_clip

Method = Literal["mse", "minmax", "percentile", "noise"]
METHODS: tuple[Method, ...] = ("mse", "minmax", "percentile", "noise")
#: Percent of the values that method "percentile" keeps inside.
KEPT = 99.99
#: The least scale: what is below it is nothing, and the product with another scale still is a normal float32.
LEAST_SCALE = 1e-20
_SMALLEST_RATIO, _COARSE, _FINE, _LLOYD = 1e-3, 72, 17, 8
#: Values of a channel that the coarse grid looks at; the fine one looks at all.
_COARSE_VALUES = 4_096


@dataclass(frozen=True, eq=False)
class Range:
    """What the integers of a quantiser stand for.

    `x^ = (clip(round(x / scale) + zero_point, low, high) - zero_point) * scale`

    Args:
        scale: float32, shape () or (channels,).
        zero_point: int32, shaped like `scale`; 0 where symmetric.
        low, high: the integers, both ends included.
        error: `E = 1/2 sum (x^ - x)^2`, float64, shaped like `scale`.
    """

    scale: Tensor
    zero_point: Tensor
    low: int
    high: int
    error: Tensor

    @property
    def least(self) -> Tensor:
        """The smallest number that is represented."""
        return (self.low - self.zero_point) * self.scale

    @property
    def most(self) -> Tensor:
        """The largest number that is represented."""
        return (self.high - self.zero_point) * self.scale


def integer_grid(bits: int, *, symmetric: bool) -> tuple[int, int]:
    """Return the smallest and the largest integer: (-128, 127) for 8 symmetric bits, (0, 255) for 8 affine ones."""
    return (-(1 << bits - 1), (1 << bits - 1) - 1) if symmetric else (0, (1 << bits) - 1)


def find_range(
    values: Tensor,
    bits: int,
    *,
    symmetric: bool = True,
    method: Method = "mse",
    axis: int | None = None,
    counts: Tensor | None = None,
) -> Range:
    """Find the range of a quantiser for some values.

    Args:
        values: float32, any shape.
        bits: 2 to 8.
        symmetric: zero point 0, signed integers; else unsigned ones and a zero point, with 0 always represented.
        method: "mse" has the least squared error; "minmax" holds all values; "percentile" 99.99% of them; "noise" has
            the least *expected* squared error where rounding is taken as noise (ACIQ), symmetric only.
        axis: a dimension, each place of which gets a range of its own; None is one range for all.
        counts: how often each value stands, shaped like `values` (a histogram); None is once.

    Returns:
        A range whose scale has shape () or (values.shape[axis],). Of nothing but zeros the scale is 1.

    Raises:
        InputError: bits out of range, an unknown method, no values, or values that are not finite.

    Example:
        >>> round(float(find_range(torch.tensor([-1.0, 0.5, 1.27]), 8, method="minmax").scale), 4)
        0.01
    """
    _check(values, bits, method, symmetric=symmetric)
    low, high = integer_grid(bits, symmetric=symmetric)
    rows, weights = _rows(values, axis), None if counts is None else _rows(counts, axis)
    scale, zero = _ends_to_grid(*_ends(rows, weights, method), low, high, symmetric=symmetric)
    if method == "noise":
        scale = noise_clip(rows, bits, weights) / high
    elif method == "mse":
        if symmetric and worth_exact(rows, high):
            scale = exact_scale(rows, low, high, weights)
        else:
            scale, zero = _least_error(rows, weights, low, high, symmetric=symmetric)
    nothing = rows.abs().amax(1) == 0
    scale = torch.where(nothing, torch.ones_like(scale), scale.clamp_min(LEAST_SCALE))
    error = squared_error(rows, scale, zero, low, high, weights)
    shape = () if axis is None else (-1,)
    return Range(scale.reshape(shape), zero.to(torch.int32).reshape(shape), low, high, error.reshape(shape))


def squared_error(
    rows: Tensor, scale: Tensor, zero: Tensor, low: int, high: int, counts: Tensor | None = None
) -> Tensor:
    """Return `E = 1/2 sum (x^ - x)^2` of each row: (channels, n) with (channels,) scales gives (channels,) float64."""
    scale, zero = scale[:, None], zero[:, None]
    error = (((torch.round(rows / scale) + zero).clamp_(low, high) - zero) * scale).sub_(rows).square_()
    return 0.5 * (error if counts is None else error * counts).sum(1, dtype=torch.float64)


def _check(values: Tensor, bits: int, method: str, *, symmetric: bool) -> None:
    if not 2 <= bits <= 8:
        raise InputError(f"A range is found for 2 to 8 bits; seen bits={bits}.")
    if method not in METHODS:
        raise InputError(f"Range method {method!r} is unknown; use one of {', '.join(METHODS)}.")
    if method == "noise" and not symmetric:
        raise InputError('Range method "noise" is for symmetric ranges; leave symmetric=True or take method="mse".')
    if values.numel() == 0:
        raise InputError(f"There are no values to find a range for: a tensor of shape {tuple(values.shape)}.")
    if not bool(torch.isfinite(values).all()):
        bad = int((~torch.isfinite(values)).sum())
        raise InputError(f"{bad} of {values.numel()} values are NaN or infinite; a range needs finite values.")


def _rows(values: Tensor, axis: int | None) -> Tensor:
    """Return values as (channels, n) float32."""
    values = values.detach().to(torch.float32)
    return values.reshape(1, -1) if axis is None else values.movedim(axis, 0).reshape(values.shape[axis], -1)


def _ends(rows: Tensor, counts: Tensor | None, method: str) -> tuple[Tensor, Tensor]:
    """Return the ends of what is to be represented, (channels,) each, with 0 between them."""
    if method == "percentile":
        least, most = _quantile(rows, counts, 0.5 - KEPT / 200), _quantile(rows, counts, 0.5 + KEPT / 200)
    else:
        seen = rows if counts is None else rows.masked_fill(counts == 0, 0.0)
        least, most = seen.amin(1), seen.amax(1)
    return least.clamp(max=0), most.clamp(min=0)


def _quantile(rows: Tensor, counts: Tensor | None, share: float) -> Tensor:
    """Return the first value of each row that so large a share of the row is at or below."""
    ordered, order = rows.sort(1)
    mass = torch.ones_like(ordered) if counts is None else counts.gather(1, order)
    reached = mass.double().cumsum(1)
    place = torch.searchsorted(reached, share * reached[:, -1:], right=False).clamp_max(rows.shape[1] - 1)
    return ordered.gather(1, place)[:, 0]


def _ends_to_grid(least: Tensor, most: Tensor, low: int, high: int, *, symmetric: bool) -> tuple[Tensor, Tensor]:
    """Return scale and zero point (float32 whole numbers) of the smallest grid that spans `least` to `most`."""
    if symmetric:
        return torch.maximum(most / high, least / low).clamp_min(LEAST_SCALE), torch.zeros_like(most)
    scale = ((most - least) / (high - low)).clamp_min(LEAST_SCALE)
    return scale, torch.round(low - least / scale).clamp(low, high)


def _least_error(
    rows: Tensor, counts: Tensor | None, low: int, high: int, *, symmetric: bool
) -> tuple[Tensor, Tensor]:
    """Return scale and zero point of the least squared error: a coarse grid, finer ones, then least squares."""
    least, most = _ends(rows, counts, "minmax")
    step = 1 if counts is not None else max(1, rows.shape[1] // _COARSE_VALUES)
    thin = rows[:, ::step]
    shares = torch.ones(2, len(rows))  # of the ends, (2, channels)

    def error_of(shares: Tensor, seen: Tensor) -> Tensor:
        scale, zero = _ends_to_grid(least * shares[0], most * shares[1], low, high, symmetric=symmetric)
        return squared_error(seen, scale, zero, low, high, counts)

    coarse = torch.logspace(0, torch.tensor(_SMALLEST_RATIO).log10().item(), _COARSE)
    shares = _best(shares, coarse, (0, 1), lambda tried: error_of(tried, thin))
    width = float(coarse[0] / coarse[1])
    for sides in [(0, 1), (0, 1)] if symmetric else [(0,), (1,), (0,), (1,), (0,), (1,)]:
        around = torch.logspace(-1, 1, _FINE, base=width if symmetric else width**4)
        shares = _best(shares, around, sides, lambda tried: error_of(tried, rows))
        width = width ** (3 / _FINE) if symmetric or sides == (1,) else width
    scale, zero = _ends_to_grid(least * shares[0], most * shares[1], low, high, symmetric=symmetric)
    return _lloyd(rows, counts, scale, zero, low, high), zero


def _best(shares: Tensor, factors: Tensor, sides: tuple[int, ...], error_of: Callable[[Tensor], Tensor]) -> Tensor:
    """Multiply the shares of some sides by each factor and keep, for each channel, what has the least error."""
    best, least = shares, error_of(shares)
    for factor in factors.tolist():
        tried = shares.clone()
        tried[list(sides)] = (tried[list(sides)] * factor).clamp_max(1.0)
        error = error_of(tried)
        best = torch.where(error < least, tried, best)
        least = torch.minimum(error, least)
    return best


def _lloyd(rows: Tensor, counts: Tensor | None, scale: Tensor, zero: Tensor, low: int, high: int) -> Tensor:
    """Fit the scale to the integers and the integers to the scale, in turns; E never rises."""
    for _ in range(_LLOYD):
        whole = (torch.round(rows / scale[:, None]) + zero[:, None]).clamp_(low, high) - zero[:, None]
        weighted = whole if counts is None else whole * counts
        square = (weighted * whole).sum(1, dtype=torch.float64)
        fitted = ((weighted * rows).sum(1, dtype=torch.float64) / square.clamp_min(1e-300)).to(torch.float32)
        moved = torch.where((square > 0) & (fitted > 0), fitted, scale)
        if torch.equal(moved, scale):
            break
        scale = moved
    return scale
