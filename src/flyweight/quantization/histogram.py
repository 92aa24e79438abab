"""A histogram of a stream of numbers whose range grows as it goes, in bounded memory."""

import torch
from torch import Tensor

#: Bins over [-reach, reach]: where all numbers have one sign, 16 for each of 256 levels.
BINS = 8_192


class Histogram:
    """Counts and sums of numbers in bins over `[-reach, reach]`.

    When a number lies outside, the reach is doubled until it does not, and bins are merged in pairs, so that nothing is
    lost but the place within a bin. Zero has a bin of its own.

    Example:
        >>> seen = Histogram()
        >>> seen.add(torch.tensor([1.0, -3.0, 0.0, 0.0]))
        >>> seen.add(torch.tensor([50.0]))
        >>> seen.least, seen.most, seen.count
        (-3.0, 50.0, 5)
    """

    def __init__(self) -> None:
        self.counts = torch.zeros(BINS, dtype=torch.float64)
        self.sums = torch.zeros(BINS, dtype=torch.float64)
        self.reach = 0.0
        self.zeros = self.count = self.bad = 0
        self.least, self.most = float("inf"), float("-inf")

    def add(self, values: Tensor) -> None:
        """Count some numbers; NaN and infinite ones are only counted as `bad`."""
        flat = values.detach().reshape(-1).float()
        finite = flat[torch.isfinite(flat)]
        self.bad += flat.numel() - finite.numel()
        if not finite.numel():
            return
        self.count += finite.numel()
        self.least, self.most = min(self.least, finite.min().item()), max(self.most, finite.max().item())
        other = finite[finite != 0]
        self.zeros += finite.numel() - other.numel()
        if other.numel():
            self._reach(other.abs().max().item())
            place = ((other / self.reach + 1) * (BINS / 2)).long().clamp_(0, BINS - 1)
            self.counts += torch.bincount(place, minlength=BINS)
            self.sums += torch.bincount(place, weights=other.double(), minlength=BINS)

    def _reach(self, far: float) -> None:
        if self.reach == 0.0:
            self.reach = far
        while self.reach < far:
            self.reach *= 2
            self.counts, self.sums = _merged(self.counts), _merged(self.sums)

    def values(self) -> tuple[Tensor, Tensor]:
        """Return the mean of each bin that is not empty, (bins,) float32, and how many numbers it holds.

        The least and the most number stand for themselves, so that a range that holds all can be read off.
        """
        full = self.counts > 0
        means, counts = self.sums[full] / self.counts[full], self.counts[full]
        ends = torch.tensor([0.0, self.least, self.most] if self.count else [0.0], dtype=torch.float64)
        # The ends weigh next to nothing: they are counted in their bins already.
        weights = torch.tensor([float(self.zeros), 1e-6, 1e-6][: len(ends)], dtype=torch.float64)
        return torch.cat([ends, means]).float(), torch.cat([weights, counts]).float()


def _merged(bins: Tensor) -> Tensor:
    """Return bins over twice the reach: each half of them in pairs, with empty ones round them."""
    inner = bins.reshape(-1, 2).sum(1)  # (BINS / 2,): bin pairs do not straddle zero, which is between two bins
    outer = torch.zeros(BINS // 4, dtype=bins.dtype)
    return torch.cat([outer, inner, outer])
