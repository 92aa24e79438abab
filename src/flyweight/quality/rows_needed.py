"""How large a split must be for a drop to be certified: the sample size of a non-inferiority test."""

from math import ceil, isfinite
from statistics import NormalDist

from flyweight.errors import InputError
from flyweight.quality.checks import check_margin
from flyweight.task.estimate import Estimate

#: How probable the certificate is to be on a split of the rows asked for, unless told otherwise.
POWER = 0.8


def rows_needed(drop: Estimate, margin: float, power: float = POWER) -> int | None:
    """Return how many rows like these would certify a model of this drop with probability `power`; None where none do.

    The bad end lies `z_confidence s` above the value, and the value errs by the standard error `s` itself, which
    shrinks as one over the root of the rows (with groups: of as many more groups). The bad end is inside the margin
    with probability `power` when `margin - value = (z_confidence + z_power) s`: the sample size of a non-inferiority
    trial (Julious 2004, Statistics in Medicine 23, 1921-1986). The value measured is taken for the true one: at the
    margin or beyond, no number of rows helps.

    Args:
        drop: paired, with its interval at its confidence.
        margin: the drop allowed.
        power: 0.5 asks for the rows at which the bad end is expected to lie on the margin: certified every other time.

    Raises:
        InputError: the margin is negative or no number, the interval has no end, or the power is not between 0 and 1.

    Example:
        >>> drop = Estimate(0.0006, -0.0002, 0.0014, n=10_000)
        >>> rows_needed(drop, margin=0.001, power=0.5), rows_needed(drop, margin=0.001)
        (40000, 81729)
        >>> rows_needed(drop, margin=0.0005) is None
        True
    """
    check_margin(margin)
    if not 0 < power < 1:
        raise InputError(f"power is how probable the certificate is to be, between 0 and 1, as in 0.8; seen {power}.")
    half, room = drop.high - drop.value, margin - drop.value
    if not isfinite(half):
        raise InputError("The interval has no end, as there are too few rows or groups; how many more cannot be said.")
    if room < 0 or (room == 0 and half > 0):
        return None
    if half == 0:
        return drop.n
    normal = NormalDist()
    longer = 1 + normal.inv_cdf(power) / normal.inv_cdf(0.5 + drop.confidence / 2)  # (z_c + z_p) s over half = z_c s
    return max(1, ceil(round(drop.n * (half * longer / room) ** 2, 6)))


def rows_needed_in_words(drop: Estimate, margin: float, power: float = POWER) -> str:
    """Return `rows_needed` as a sentence's end, rounded to three digits; groups too where there are any.

    Raises:
        InputError: as `rows_needed`.

    Example:
        >>> rows_needed_in_words(Estimate(0.0006, -0.0002, 0.0014, n=10_000, groups=640), margin=0.001)
        'about 81,700 rows (5,230 groups) like these would be needed, 8.2 times the 10,000 here'
    """
    rows = rows_needed(drop, margin, power)
    if rows is None:
        return f"no number of rows would help: the drop itself, {drop.value:+.4f}, is not inside {margin:g}"
    times = rows / drop.n
    if times <= 1:
        return f"the {drop.n:,} rows here are enough"
    groups = "" if drop.groups is None else f" ({_rounded(drop.groups * times):,} groups)"
    times_in_words = f"{times:.1f}" if times < 100 else f"{_rounded(times):,}"
    return (
        f"about {_rounded(rows):,} rows{groups} like these would be needed, {times_in_words} times the {drop.n:,} here"
    )


def _rounded(number: float) -> int:
    """Return a number rounded to three significant digits."""
    return int(float(f"{number:.3g}"))
