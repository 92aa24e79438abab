"""Area under the ROC curve: how often a positive row scores above a negative one."""

import numpy as np
from numpy.typing import ArrayLike

from flyweight.errors import InputError
from flyweight.quality.checks import check_binary, check_both_classes, number_groups
from flyweight.quality.places import mid_ranks
from flyweight.quality.tally import Tally, sum_by, tally_mean


def auc(scores: ArrayLike, targets: ArrayLike) -> float:
    """Return P(score of a positive > score of a negative) + P(equal) / 2.

    Scores of any scale and 0/1 targets, both of shape (rows,). Rank form of the Mann-Whitney statistic
    (Hanley & McNeil 1982): `(sum of positive mid-ranks - P (P + 1) / 2) / (P N)`.

    Raises:
        InputError: no rows, lengths differ, a score is NaN or infinite, or only one class is there.

    Example:
        >>> auc([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1])
        0.75
    """
    values, positive = check_binary("auc", scores, targets)
    check_both_classes("auc", positive)
    above = int(positive.sum())
    below = len(positive) - above
    return float((mid_ranks(values)[positive].sum() - above * (above + 1) / 2) / above / below)


def gauc(scores: ArrayLike, targets: ArrayLike, groups: ArrayLike) -> float:
    """Return the mean of the AUC of each group, weighted by the rows of the group.

    Groups (requests, users) with one class only have no AUC and are left out, with their rows. Zhou et al. 2018,
    Deep Interest Network (arXiv 1706.06978), section on metrics, with impressions as weights. All of shape (rows,).

    Raises:
        InputError: as `auc`, or no group has both classes.

    Example:
        >>> gauc([0.1, 0.9, 0.9, 0.1, 0.5, 0.7], [0, 1, 0, 1, 0, 1], [7, 7, 8, 8, 9, 9])
        0.6666666666666666
    """
    return tally_gauc(scores, targets, groups).value()


def tally_gauc(scores: ArrayLike, targets: ArrayLike, groups: ArrayLike | None) -> Tally:
    """Return the tally of `gauc`: one unit for each group with both classes."""
    if groups is None:
        raise InputError("gauc needs groups: the id that tells requests or users apart, as Task(group=...).")
    values, positive = check_binary("gauc", scores, targets)
    group = number_groups("gauc", groups, len(values))
    rows = np.bincount(group)
    above = sum_by(group, positive)
    below = rows - above
    both = (above > 0) & (below > 0)
    if not both.any():
        raise InputError(
            f"gauc needs a group with both classes; none of the {len(rows):,} groups has them. "
            "Group by user, or take more rows."
        )
    ranks = sum_by(group, mid_ranks(values, group) * positive)
    area = (ranks - above * (above + 1) / 2)[both] / (above * below)[both]
    return tally_mean(area, np.arange(int(both.sum())), rows[both].astype(np.float64))
