"""Binary cross-entropy of probabilities."""

import numpy as np
from numpy.typing import ArrayLike

from flyweight.quality.checks import check_probabilities, number_groups
from flyweight.quality.tally import Tally, tally_mean

#: Probabilities are kept this far from 0 and 1, as in scikit-learn: one certain mistake costs 36 nats, not infinity.
CLIP = float(np.finfo(np.float64).eps)


def logloss(probabilities: ArrayLike, targets: ArrayLike) -> float:
    """Return `-mean(y log p + (1 - y) log(1 - p))` in nats; both of shape (rows,), targets 0/1.

    Raises:
        InputError: no rows, lengths differ, a target is not 0/1, or a probability is NaN or outside [0, 1].

    Example:
        >>> round(logloss([0.9, 0.2], [1, 0]), 4)
        0.1643
    """
    return tally_logloss(probabilities, targets).value()


def tally_logloss(probabilities: ArrayLike, targets: ArrayLike, groups: ArrayLike | None = None) -> Tally:
    """Return the tally of `logloss`: the sum of losses and the rows of each unit."""
    values, positive = check_probabilities("logloss", probabilities, targets)
    right = np.clip(np.where(positive, values, 1 - values), CLIP, 1 - CLIP)
    return tally_mean(-np.log(right), number_groups("logloss", groups, len(values)))
