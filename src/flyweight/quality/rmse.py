"""Root mean squared error."""

from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from flyweight.errors import InputError
from flyweight.quality.checks import Floats, check_scores, number_groups
from flyweight.quality.tally import Tally, divide_columns, tally_mean


def rmse(predictions: ArrayLike, targets: ArrayLike) -> float:
    """Return `sqrt(mean((prediction - target)^2))`, in the targets' unit, over arrays of one shape (rows, ...).

    Raises:
        InputError: no rows, shapes differ, or a number is NaN or infinite.

    Example:
        >>> round(rmse([1.0, 2.0], [1.0, 4.0]), 4)
        1.4142
    """
    return tally_rmse(predictions, targets).value()


def tally_rmse(predictions: ArrayLike, targets: ArrayLike, groups: ArrayLike | None = None) -> Tally:
    """Return the tally of `rmse`: the sum of squared errors (mean of a row's own numbers) and the rows of each unit."""
    values = check_scores("rmse", predictions, targets)
    truth = check_scores("rmse (targets)", targets, predictions)
    if values.shape != truth.shape:
        raise InputError(f"rmse needs predictions and targets of one shape; seen {values.shape} and {truth.shape}.")
    squared = np.square(values - truth).reshape(len(values), -1).mean(axis=1)
    return replace(tally_mean(squared, number_groups("rmse", groups, len(values))), finish=_root)


def _root(sums: Floats) -> Floats:
    return np.sqrt(divide_columns(sums))
