"""A number with its interval: the only form in which Flyweight states quality."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Estimate:
    """A value with a confidence interval.

    For a *drop* (quality lost, before minus after in the metric's good direction) positive is worse, and `high`
    is the interval's bad end.

    Args:
        value: the point estimate, in the metric's own unit.
        low, high: ends of the two-sided interval at `confidence`.
        n: rows it was computed from.
        confidence: two-sided coverage, 0.95 unless told otherwise.
        groups: how many independent groups (requests, users) the rows fall into; None when rows are independent.
        method: how the interval was made ("delong", "bootstrap", "grouped bootstrap", ...).

    Example:
        >>> print(Estimate(-0.0002, -0.0005, 0.0001, n=78_053))
        -0.0002 [-0.0005, +0.0001], 95%, n=78,053
    """

    value: float
    low: float
    high: float
    n: int
    confidence: float = 0.95
    groups: int | None = None
    method: str = ""

    def __str__(self) -> str:
        groups = "" if self.groups is None else f" in {self.groups:,} groups"
        return (
            f"{self.value:+.4f} [{self.low:+.4f}, {self.high:+.4f}], {self.confidence:.0%}, n={self.n:,}{groups}"
        )
