"""The scale with the least squared error of all, for few bits: every way of rounding is looked at, by sorting once.

As the scale falls, values change their integer one after another: `x` goes from k to k + 1 as the scale passes
`x / (k + 1/2)`. With the integers q fixed, the best scale is `sum x q / sum q^2` and then
`E = 1/2 (sum x^2 - (sum x q)^2 / sum q^2)`. Rounding to the nearest is the best way to round for a scale, so the
least E over all scales is the least over these ways to round: sort the n * high places where one changes, add up, and
take the largest `(sum x q)^2 / sum q^2`. This is exact, and takes O(n high log(n high)).
"""

import torch
from torch import Tensor

#: Places of change up to which sorting them pays: a second here. Beyond, there are so many values that E is smooth.
MOST_PLACES = {7: 1 << 25, 127: 1 << 22}
#: Places that are held at once.
_BLOCK = 1 << 22


def worth_exact(rows: Tensor, high: int) -> bool:
    """Return whether (channels, n) rows are few enough, and the grid small enough, to look at every way to round."""
    return rows.numel() * (high + 1) <= next(most for bits, most in MOST_PLACES.items() if high <= bits)


def exact_scale(rows: Tensor, low: int, high: int, counts: Tensor | None = None) -> Tensor:
    """Return the scale of each row whose integers `low` to `high` have the least squared error.

    Args:
        rows: (channels, n) float32.
        low, high: of a symmetric grid, low < 0 < high; low may be one further out than high.
        counts: (channels, n), how often each value stands; None is once.

    Returns:
        (channels,) float32; 0 for a row of zeros.

    Example: 1 and 3 on the grid -1 to 1: rounded to (0, 1), scale 3, E = 1/2; to (1, 1), scale 2, E = 1.
        >>> exact_scale(torch.tensor([[1.0, 3.0]]), -2, 1).tolist()
        [3.0]
    """
    size = max(1, _BLOCK // (rows.shape[1] * (high + 1)))
    parts = [slice(start, start + size) for start in range(0, len(rows), size)]
    return torch.cat([_scale(rows[part], low, high, None if counts is None else counts[part]) for part in parts])


def _scale(rows: Tensor, low: int, high: int, counts: Tensor | None) -> Tensor:
    size = rows.abs().double()  # (channels, n)
    weight = torch.ones_like(size) if counts is None else counts.double().expand_as(size)
    most = torch.where(rows < 0, -low, high)  # how many steps each value can go
    steps = torch.arange(max(-low, high), dtype=torch.float64)  # k; the change is from k to k + 1
    place = size[..., None] / (steps + 0.5)  # (channels, n, steps)
    place = place.masked_fill(steps >= most[..., None], 0.0).flatten(1)
    order = place.argsort(1, descending=True)
    product = (size * weight)[..., None].expand(*size.shape, len(steps)).flatten(1).gather(1, order).cumsum(1)
    square = (weight[..., None] * (2 * steps + 1)).flatten(1).gather(1, order).cumsum(1)
    possible = (place.gather(1, order) > 0) & (square > 0)
    gain = torch.where(possible, product.square() / square.clamp_min(1e-300), -1.0)
    best = gain.argmax(1, keepdim=True)
    found = product.gather(1, best) / square.gather(1, best).clamp_min(1e-300)
    return torch.where(gain.gather(1, best) > 0, found, 0.0)[:, 0].to(torch.float32)
