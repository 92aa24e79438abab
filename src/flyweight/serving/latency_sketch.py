"""Quantiles of times from counts in buckets that grow by a factor, so that workers' counts can be added.

Source: Masson, Rim, Lee, DDSketch: a fast and fully-mergeable quantile sketch with relative-error guarantees, 2019.
"""

import math
from collections.abc import Mapping

#: How far a quantile may be off, as a share of itself.
ACCURACY = 0.02
_GROWTH = (1 + ACCURACY) / (1 - ACCURACY)
_LOG_GROWTH = math.log(_GROWTH)
#: Seconds below which times are not told apart.
SHORTEST = 1e-6


def bucket_of(seconds: float) -> int:
    """Return the number of the bucket that a time falls into: the i with growth**(i - 1) < seconds <= growth**i."""
    return math.ceil(math.log(seconds if seconds > SHORTEST else SHORTEST) / _LOG_GROWTH)


def quantile_of(counts: Mapping[int, int], share: float) -> float:
    """Return the quantile in seconds, within `ACCURACY` of the true one; NaN where nothing was counted.

    Args:
        counts: how many times fell into each bucket.
        share: of the times that lie at or below the quantile, 0 to 1.

    Example:
        >>> round(quantile_of({bucket_of(0.004): 99, bucket_of(0.5): 1}, 0.5), 3)
        0.004
    """
    rank = max(math.ceil(share * sum(counts.values())), 1)
    for bucket in sorted(counts):
        rank -= counts[bucket]
        if rank <= 0:
            return 2 * _GROWTH**bucket / (_GROWTH + 1)
    return math.nan
