"""A metric as a function of sums over units, so that a bootstrap resamples sums and never recomputes the metric."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from flyweight.quality.checks import Bools, Floats, Ints


@dataclass(frozen=True)
class Tally:
    """What each unit (a row, a request, a user) adds to the sums that a metric is made from.

    Entries with the same unit and column add up, so that a row with 1,000 classes needs two entries, not 1,000.

    Args:
        unit, column: where each entry goes, shape (entries,).
        amount: what it adds, shape (entries,).
        weight: how much of the metric rests on each unit (rows, or 1 for a query), shape (units,).
        columns: number of sums.
        finish: turns sums of shape (..., columns) into values of shape (...); NaN where the metric is undefined.
    """

    unit: Ints
    column: Ints
    amount: Floats
    weight: Floats
    columns: int
    finish: Callable[[Floats], Floats]

    def value(self) -> float:
        """Return the metric over all units; NaN where it is undefined."""
        return float(self.finish(sum_by(self.column, self.amount, self.columns)))

    def sums(self, block: Ints | None = None, blocks: int = 0) -> Floats:
        """Return the sums of each unit, or of each block of units, shape (units or blocks, columns)."""
        place = self.unit if block is None else block[self.unit]
        height = len(self.weight) if block is None else blocks
        flat = sum_by(place * self.columns + self.column, self.amount, height * self.columns)
        return flat.reshape(height, self.columns)


def tally_mean(values: Floats, units: Ints, weights: Floats | None = None) -> Tally:
    """Return the tally of a (weighted) mean: values and weights of shape (rows,), `units` the unit of each row.

    Example:
        >>> tally_mean(np.array([1.0, 2.0, 6.0]), np.array([0, 0, 1])).value()
        3.0
    """
    weights = np.ones(len(values)) if weights is None else weights
    return Tally(
        unit=np.concatenate([units, units]),
        column=np.repeat(np.array([0, 1]), len(values)),
        amount=np.concatenate([values * weights, weights]),
        weight=sum_by(units, weights),
        columns=2,
        finish=divide_columns,
    )


def sum_by(place: Ints, amount: Floats | Bools, length: int = 0) -> Floats:
    """Return the sum of the amounts at each place, shape (at least `length`,)."""
    return np.asarray(np.bincount(place, amount, minlength=length), dtype=np.float64)


def divide_columns(sums: Floats) -> Floats:
    """Return the first sum over the second, shape (..., 2) -> (...)."""
    return safe_divide(sums[..., 0], sums[..., 1])


def safe_divide(above: Floats, below: Floats, empty: float = np.nan) -> Floats:
    """Return `above / below`, and `empty` where `below` is zero."""
    return np.where(below == 0, empty, above / np.where(below == 0, 1.0, below))
