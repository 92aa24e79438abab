"""The clip with the least expected squared error when rounding is taken as noise: ACIQ's model, solved exactly.

Banner et al. 2019, "Post training 4-bit quantization of convolutional networks" (arXiv:1810.05723), take M bits as 2^M
bins over [-a, a], each value moved to the middle of its bin: a value inside errs by `(2a / 2^M)^2 / 12` on average, one
outside by `(|x| - a)^2` (equations 3 to 6). The sum of both,

    E(a) = 1/2 sum max(|x| - a, 0)^2 + n/2 * a^2 / (3 * 4^M),

is convex. For Laplace(b) its minimum is where `(a / b) e^(a / b) = 3 * 4^M`: 2.83b, 3.90b and 5.03b at 2, 3 and 4 bits.
(The paper prints 3.86b for 3 bits, its authors' code has 3.89b; the equation's root is 3.8972b.) The integers of a file
have a level at 0 and none at the ends, and few bits round coarsely: their own best clip is another, see `find_range`.
"""

import torch
from torch import Tensor


def noise_clip(rows: Tensor, bits: int, counts: Tensor | None = None) -> Tensor:
    """Return the clip of each row with the least expected squared error under the noise model.

    With the k largest magnitudes outside, `dE/da = 0` gives `a = (sum of them) / (k + n / (3 * 4^M))`; the k is right
    where that lies between the k-th and the next.

    Args:
        rows: (channels, n) float32.
        bits: M.
        counts: (channels, n), how often each value stands; None is once.

    Returns:
        (channels,) float32.

    Example:
        >>> places = (torch.arange(1_000_000) + 0.5) / 1_000_000
        >>> f"{noise_clip(-torch.log(places)[None], 4).item():.3f}"  # Laplace(1): magnitudes are exponential
        '5.029'
    """
    size, order = rows.abs().double().sort(1, descending=True)
    weight = torch.ones_like(size) if counts is None else counts.double().expand_as(size).gather(1, order)
    outside = weight.cumsum(1)
    clip = (size * weight).cumsum(1) / (outside + outside[:, -1:] / (3 * 4**bits))  # (channels, n): k = 1, 2, ...
    following = torch.cat([size[:, 1:], torch.zeros_like(size[:, :1])], 1)
    right = (clip >= following).to(torch.uint8).argmax(1, keepdim=True)  # the first k whose clip spares the next value
    found: Tensor = clip.gather(1, right)[:, 0].to(torch.float32)
    return found
