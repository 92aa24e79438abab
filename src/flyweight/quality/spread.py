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


def weight_freedom(weight: Floats) -> float:
    """Return `(sum w^2)^2 / sum w^4 - 1`: degrees of freedom when each unit's error is in proportion to its weight.

    After Bell & McCaffrey 2002 and Imbens & Kolesar 2016, for effects shared by the rows of a group. Equal units give
    units - 1; uneven ones fewer, because the largest say most. At least 1.

    Example:
        >>> weight_freedom(np.ones(30))
        29.0
        >>> round(weight_freedom(np.arange(1.0, 31.0)), 1)
        16.0
    """
    squared = np.square(weight)
    return max(float(squared.sum() ** 2 / np.square(squared).sum()) - 1, 1.0)


def check_units(name: str, units: int, grouped: bool) -> None:
    """Raise `InputError` when there are fewer than two units: nothing can then be said about another sample."""
    if units < 2:
        what = "group" if grouped else "row"
        raise InputError(
            f"An interval on {name} needs at least two {what}s; seen {units}. Take a larger split"
            + (", or a finer Task(group=...)." if grouped else ".")
        )
