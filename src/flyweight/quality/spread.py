"""How far a metric (or a difference of two) would move on another sample: a standard error and what it rests on."""

from dataclasses import dataclass

import numpy as np

from flyweight.errors import InputError
from flyweight.quality.checks import Floats
from flyweight.quality.student import student_quantile


@dataclass(frozen=True)
class Spread:
    """A standard error.

    Args:
        error: the standard error, in the metric's unit.
        freedom: degrees of freedom it rests on.
        units: how many independent units (rows, requests, users) there were.
        method: how it was made, in words.
    """

    error: float
    freedom: float
    units: int
    method: str

    def half_width(self, confidence: float) -> float:
        """Return half the width of the two-sided interval."""
        return student_quantile(confidence, self.freedom) * self.error if self.error else 0.0


def kish_freedom(weight: Floats) -> float:
    """Return `(sum w)^2 / sum w^2 - 1`: the effective number of units (Kish 1965) less one, and at least 1.

    Equal units give units - 1; when one user owns half of all rows, the interval rests on about four.

    Example:
        >>> kish_freedom(np.ones(30))
        29.0
    """
    return max(float(weight.sum() ** 2 / np.square(weight).sum()) - 1, 1.0)


def check_units(name: str, units: int, grouped: bool) -> None:
    """Raise `InputError` when there are fewer than two units: nothing can then be said about another sample."""
    if units < 2:
        what = "group" if grouped else "row"
        raise InputError(
            f"An interval on {name} needs at least two {what}s; seen {units}. Take a larger split"
            + (", or a finer Task(group=...)." if grouped else ".")
        )
