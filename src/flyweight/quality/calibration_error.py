"""Expected calibration error: how far predicted probabilities lie from what happens. A guard beside the metric."""

import numpy as np
from numpy.typing import ArrayLike

from flyweight.quality.checks import Floats, check_probabilities, number_groups
from flyweight.quality.tally import Tally, safe_divide, sum_by
from flyweight.task.metric import Metric

BINS = 20


def calibration_error(probabilities: ArrayLike, targets: ArrayLike) -> float:
    """Return `sum over bins of |sum(p) - sum(y)| / rows`, over 20 bins of equally many rows sorted by probability.

    Naeini, Cooper & Hauskrecht 2015, with equal-mass bins (Nixon et al. 2019, arXiv 1904.01685). Equal probabilities
    always share a bin, so the result does not depend on the order of rows. Arrays of shape (rows,), targets 0/1.

    Raises:
        InputError: no rows, lengths differ, a target is not 0/1, or a probability is NaN or outside [0, 1].

    Example:
        >>> round(calibration_error([0.2, 0.2, 0.2, 0.2], [0, 0, 0, 1]), 4)
        0.05
    """
    return tally_calibration_error(probabilities, targets).value()


def tally_calibration_error(probabilities: ArrayLike, targets: ArrayLike, groups: ArrayLike | None = None) -> Tally:
    """Return the tally of `calibration_error`; the bins are those of the whole sample and stay fixed."""
    values, positive = check_probabilities("calibration_error", probabilities, targets)
    units = number_groups("calibration_error", groups, len(values))
    edges = np.quantile(values, np.arange(1, BINS) / BINS, method="inverted_cdf")
    bins = np.searchsorted(edges, values, side="left")
    rows = len(values)
    return Tally(
        unit=np.concatenate([units, units]),
        column=np.concatenate([bins, np.full(rows, BINS)]),
        amount=np.concatenate([values - positive, np.ones(rows)]),
        weight=np.bincount(units).astype(np.float64),
        columns=BINS + 1,
        finish=_mean_gap,
    )


def chance_excess(tally: Tally) -> float:
    """Return the most that chance adds to a calibration error, in the mean: `sqrt(2 / pi) sum over bins of s_b / rows`.

    `s_b` is the standard error of a bin's summed gap over units. A perfectly calibrated model is not measured as 0 but
    as this, because the mean of |noise| is not 0; the true value lies between the measured one and so much less.

    Example:
        >>> rows = np.repeat(np.arange(20) / 20 + 0.025, 100)
        >>> round(chance_excess(tally_calibration_error(rows, np.arange(2000) % 100 < 100 * rows)), 3)
        0.031
    """
    cell, place = np.unique(tally.unit * tally.columns + tally.column, return_inverse=True)
    squares = sum_by(cell % tally.columns, np.square(sum_by(place, tally.amount)), tally.columns)
    return float(np.sqrt(2 / np.pi) * np.sqrt(squares[:BINS]).sum() / tally.weight.sum())


def _mean_gap(sums: Floats) -> Floats:
    return safe_divide(np.abs(sums[..., :BINS]).sum(axis=-1), sums[..., BINS])


#: What `measure`, `estimate` and `paired_drop` take to guard calibration.
CALIBRATION_ERROR = Metric("calibration_error", larger_is_better=False, kind="binary", function=calibration_error)
