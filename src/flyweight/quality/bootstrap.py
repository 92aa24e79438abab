"""The bootstrap over independent units: rows, or whole groups of rows (requests, users), drawn with replacement."""

from collections.abc import Callable, Iterator

import numpy as np

from flyweight.errors import InputError
from flyweight.quality.checks import Bools, Floats, Ints
from flyweight.quality.jackknife import auc_without_each, contribution_freedom, jackknife_error
from flyweight.quality.spread import Spread, check_units, weight_freedom
from flyweight.quality.tally import Tally, sum_by

#: More units than this are dealt at random into so many blocks, and blocks are drawn: the cost then does not grow with
#: the rows, and the standard error keeps its expectation (a sum of random blocks of units varies as the units do).
MOST_BLOCKS, FEWEST_BLOCKS, MOST_SUMS = 10_000, 500, 4_000_000
#: A metric that must be computed anew for every resample gets no more than so many.
MOST_RECOMPUTED = 200


def bootstrap_tallies(name: str, tallies: list[Tally], resamples: int, seed: int, *, grouped: bool) -> Spread:
    """Return the spread of the value of one tally, or of the first less the second, over the same units.

    Raises:
        InputError: fewer than two units, or the metric is undefined on most resamples.
    """
    weight = tallies[0].weight
    check_units(name, len(weight), grouped)
    rng = np.random.default_rng(seed)
    width = sum(tally.columns for tally in tallies)
    blocks = int(np.clip(MOST_SUMS // width, FEWEST_BLOCKS, MOST_BLOCKS))
    block = None
    if len(weight) > blocks:
        block = rng.permutation(len(weight)) % blocks
        weight = sum_by(block, weight, blocks)
    sums = np.hstack([tally.sums(block, blocks) for tally in tallies])

    def value(totals: Floats) -> Floats:
        first = tallies[0].finish(totals[:, : tallies[0].columns])
        return first - tallies[1].finish(totals[:, tallies[0].columns :]) if len(tallies) == 2 else first

    error = standard_error(name, value(resample_sums(sums, resamples, rng)), len(weight))
    left_out = value(sums.sum(axis=0) - sums)
    return _joined(error, left_out, weight, len(tallies[0].weight), _method(resamples, grouped))


def bootstrap_auc(scores: list[Floats], positive: Bools, units: Ints, resamples: int, seed: int) -> Spread:
    """Return the spread of one AUC, or of the first less the second, with whole groups drawn.

    Each score is sorted once; a resample is a weight on every group, and its AUC one cumulative sum over the negatives.

    Raises:
        InputError: fewer than two groups, or most resamples hold one class only.
    """
    rows = np.bincount(units)
    check_units("auc", len(rows), True)
    resampled = [weighted_auc(score, positive, units) for score in scores]
    values = np.array(
        [[value(counts) for value in resampled] for counts in draw_counts(len(rows), resamples, seed)]
    )  # (resamples, models)
    left_out = np.stack([auc_without_each(score, positive, units) for score in scores], axis=1)  # (units, models)
    contrast = np.array([1.0, -1.0])[: len(scores)]
    error = standard_error("auc", values @ contrast, len(rows))
    return _joined(error, left_out @ contrast, rows.astype(np.float64), len(rows), _method(resamples, True))


def bootstrap_recomputed(
    name: str, value: Callable[[Ints], float], units: Ints, resamples: int, seed: int, *, grouped: bool
) -> Spread:
    """Return the spread of `value(rows)`, any function of the row numbers drawn, by computing it anew each time.

    Raises:
        InputError: fewer than two units, or the function fails on most resamples.
    """
    rows = np.bincount(units)
    check_units(name, len(rows), grouped)
    order, start = np.argsort(units, kind="stable"), np.cumsum(rows) - rows
    rng = np.random.default_rng(seed)
    resamples = min(resamples, MOST_RECOMPUTED)
    values = np.full(resamples, np.nan)
    for number in range(resamples):
        drawn = rng.integers(len(rows), size=len(rows))
        size = rows[drawn]
        offset = np.arange(size.sum()) - np.repeat(np.cumsum(size) - size, size)
        try:
            values[number] = value(order[np.repeat(start[drawn], size) + offset])
        except (ValueError, ZeroDivisionError):  # a resample without one of the classes: counted by standard_error
            continue
    return Spread(
        error=standard_error(name, values, len(rows)),
        freedom=weight_freedom(rows.astype(np.float64)),
        units=len(rows),
        method=_method(resamples, grouped),
    )


def draw_counts(units: int, resamples: int, seed: int) -> Iterator[Floats]:
    """Yield how often each unit is drawn, shape (units,), once for each resample."""
    rng = np.random.default_rng(seed)
    for _ in range(resamples):
        yield np.bincount(rng.integers(units, size=units), minlength=units).astype(np.float64)


def resample_sums(sums: Floats, resamples: int, rng: np.random.Generator) -> Floats:
    """Return the column sums of `resamples` draws of as many units as there are: (units, c) -> (resamples, c)."""
    units = len(sums)
    at_once = max(1, 1_000_000 // units)
    parts = []
    for first in range(0, resamples, at_once):
        draws = min(at_once, resamples - first)
        place = rng.integers(units, size=(draws, units)) + units * np.arange(draws)[:, None]
        counts = np.bincount(place.ravel(), minlength=draws * units).reshape(draws, units)
        parts.append(counts.astype(np.float64) @ sums)
    return np.concatenate(parts)


def weighted_auc(scores: Floats, positive: Bools, units: Ints) -> Callable[[Floats], float]:
    """Return a function from the weight of each unit, (units,), to the AUC of rows so weighted; NaN for one class."""
    order = np.argsort(scores, kind="stable")
    ranked, above = scores[order], positive[order]
    below = np.searchsorted(ranked[~above], ranked[above], side="left")
    up_to = np.searchsorted(ranked[~above], ranked[above], side="right")
    ties = not np.array_equal(below, up_to)
    negative_unit, positive_unit = units[order][~above], units[order][above]
    running = np.zeros(len(negative_unit) + 1)

    def value(weight: Floats) -> float:
        np.cumsum(weight[negative_unit], out=running[1:])
        mine = weight[positive_unit]
        pairs = mine.sum() * running[-1]
        passed = (running[below] + running[up_to]) / 2 if ties else running[below]
        return float(mine @ passed / pairs) if pairs else np.nan

    return value


def standard_error(name: str, values: Floats, units: int) -> float:
    """Return the standard deviation of resampled values, less the bootstrap's bias of (units - 1) / units.

    Raises:
        InputError: more than half of the resamples have no value.
    """
    known = values[np.isfinite(values)]
    if 2 * len(known) < len(values):
        raise InputError(
            f"{name} is undefined on {len(values) - len(known)} of {len(values)} resamples of {units:,} units: "
            "a class or a positive is too rare for an interval. Take a larger split."
        )
    return float(known.std(ddof=1) * np.sqrt(units / (units - 1)))


def _joined(error: float, left_out: Floats, weight: Floats, units: int, method: str) -> Spread:
    """Return the spread from a bootstrap's error and the metric without each unit.

    The larger error, because the bootstrap's is 5 to 10% too small when group sizes are very uneven. The larger
    freedom, because each is too low somewhere: by weights where a large group is no more alike within than others, by
    contributions where few units change at all. Coverage of each choice: `docs/statistics.md`.
    """
    freedom = max(weight_freedom(weight), contribution_freedom(left_out))
    return Spread(error=max(error, jackknife_error(left_out)), freedom=freedom, units=units, method=method)


def _method(resamples: int, grouped: bool) -> str:
    return f"{'grouped ' if grouped else ''}bootstrap, {resamples:,} resamples"
