"""A metric without each unit in turn: its standard error, and how evenly that is spread over the units."""

import numpy as np

from flyweight.quality.checks import Bools, Floats, Ints
from flyweight.quality.places import mid_ranks
from flyweight.quality.tally import safe_divide, sum_by


def jackknife_error(left_out: Floats) -> float:
    """Return the standard error of a metric from its values without each unit, shape (units,); NaN values do not count.

    `sqrt((G - 1) / G * sum (v_g - mean v)^2)` (Efron & Stein 1981); never too small in expectation.

    Example:
        >>> jackknife_error(np.array([0.0, 1.0]))
        0.5
    """
    known = left_out[np.isfinite(left_out)]
    return float(np.sqrt((len(known) - 1) * known.var())) if len(known) > 1 else 0.0


def contribution_freedom(left_out: Floats) -> float:
    """Return the degrees of freedom of a variance estimated from units, given the metric without each, shape (units,).

    A variance from G contributions of kurtosis k has a relative variance of (k - 1) / G, as one with `2 G / (k - 1)`
    degrees of freedom has (Satterthwaite 1946). Normal contributions (k = 3) give G; when one unit makes all the
    difference, 2 are left, however many units there are. At least 1, at most units - 1.

    Example:
        >>> round(contribution_freedom(np.array([1.0] + [0.0] * 99)), 2)
        2.06
    """
    known = left_out[np.isfinite(left_out)]
    units = len(known)
    if units < 3:
        return 1.0
    squared = np.square(known - known.mean())
    if squared.sum() == 0:
        return float(units - 1)
    kurtosis = units * float(np.square(squared).sum() / squared.sum() ** 2)
    return float(np.clip(2 * units / max(kurtosis - 1, 1e-9), 1, units - 1))


def auc_without_each(scores: Floats, positive: Bools, units: Ints) -> Floats:
    """Return the AUC of all rows but one unit's, for each unit, shape (units,); NaN where one class is left.

    The pairs won by a unit's rows are known from ranks, once over all rows and once within the unit: O(n log n) for all
    units together.

    Example:
        >>> positive = np.array([False, True, True, False])
        >>> auc_without_each(np.array([1.0, 2.0, 3.0, 0.0]), positive, np.array([0, 0, 1, 1])).tolist()
        [1.0, 1.0]
    """
    negative = ~positive
    won = np.empty(len(scores))  # pairs with the other class in which the positive scores higher
    everywhere = mid_ranks(scores)
    won[positive] = everywhere[positive] - mid_ranks(scores[positive])
    won[negative] = positive.sum() - (everywhere[negative] - mid_ranks(scores[negative]))
    above, below = sum_by(units, positive), sum_by(units, negative)
    inside = sum_by(units, mid_ranks(scores, units) * positive) - above * (above + 1) / 2
    # Pairs within the unit are counted from both of their rows, so they are given back once.
    left = won[positive].sum() - sum_by(units, won) + inside
    return safe_divide(left, (above.sum() - above) * (below.sum() - below))
