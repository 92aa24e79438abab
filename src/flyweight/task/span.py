"""A number that was worked out and not measured: what is likely, and between what it lies."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Span:
    """A prediction.

    Args:
        low, high: it should lie between them; one number where it is exact.
        likely: the single number to go by.
    """

    low: float
    likely: float
    high: float

    @property
    def exact(self) -> bool:
        """Whether it is one number."""
        return self.low == self.high

    def holds(self, value: float) -> bool:
        """Return whether a measured value lies inside.

        Example:
            >>> Span(1.0, 1.5, 2.0).holds(1.9)
            True
        """
        return self.low <= value <= self.high


def exactly(value: float) -> Span:
    """Return a span of one number."""
    return Span(value, value, value)
