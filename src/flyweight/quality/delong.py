"""DeLong's variance of an AUC, and of the difference of two AUCs on the same rows, in O(n log n)."""

import numpy as np

from flyweight.errors import InputError
from flyweight.quality.checks import Bools, Floats
from flyweight.quality.places import mid_ranks
from flyweight.quality.spread import Spread


def structural_components(scores: Floats, positive: Bools) -> Floats:
    """Return, for each row, the share of the other class it stands on the right side of, ties counted half.

    Shape (rows,): for a positive the share of negatives below it, for a negative the share of positives above it. Their
    mean over either class is the AUC. Ranks within everything less ranks within the class (Sun & Xu 2014, eqs. 5 to 7)
    replace the P x N comparisons of DeLong, DeLong & Clarke-Pearson 1988.

    Example:
        >>> structural_components(np.array([0.1, 0.4, 0.35, 0.8]), np.array([False, False, True, True])).tolist()
        [1.0, 0.5, 0.5, 1.0]
    """
    everywhere = mid_ranks(scores)
    negative = ~positive
    share = np.empty(len(scores))
    share[positive] = (everywhere[positive] - mid_ranks(scores[positive])) / negative.sum()
    share[negative] = 1 - (everywhere[negative] - mid_ranks(scores[negative])) / positive.sum()
    return share


def delong_spread(scores: list[Floats], positive: Bools) -> Spread:
    """Return the spread of one AUC, or of the first AUC less the second, for independent rows.

    The difference of two AUCs is the mean of the differences of their components, so its variance takes the covariance
    of the two in by itself: `S10 / P + S01 / N`. Welch's degrees of freedom, because positives may be few.

    Raises:
        InputError: fewer than two rows of a class.
    """
    share = structural_components(scores[0], positive)
    if len(scores) == 2:
        share = share - structural_components(scores[1], positive)
    counts = int(positive.sum()), int((~positive).sum())
    if min(counts) < 2:
        raise InputError(
            f"An interval on auc needs two rows of each class; seen {counts[0]:,} positive and {counts[1]:,} negative."
        )
    parts = [float(share[rows].var(ddof=1)) / count for rows, count in zip((positive, ~positive), counts, strict=True)]
    variance = sum(parts)
    squares = sum(part**2 / (count - 1) for part, count in zip(parts, counts, strict=True))
    return Spread(
        error=variance**0.5,
        freedom=variance**2 / squares if squares else 1.0,
        units=len(positive),
        method="delong",
    )
