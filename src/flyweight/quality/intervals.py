"""Quality and quality lost, each with its interval, and the decision that rests on it."""

from dataclasses import replace
from math import sqrt

import numpy as np
from numpy.typing import ArrayLike

from flyweight.errors import InputError
from flyweight.quality.bootstrap import bootstrap_auc, bootstrap_recomputed, bootstrap_tallies
from flyweight.quality.checks import Floats, Ints, check_binary, check_margin, number_groups
from flyweight.quality.delong import delong_spread
from flyweight.quality.formulas import FORMULAS, Formula, Sample, find_formula
from flyweight.quality.places import same_order
from flyweight.quality.spread import Spread, weight_freedom
from flyweight.task.estimate import Estimate
from flyweight.task.metric import Metric


def estimate(
    metric: Metric,
    outputs: ArrayLike,
    targets: ArrayLike,
    groups: ArrayLike | None = None,
    *,
    confidence: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> Estimate:
    """Return a metric with its two-sided interval, in the metric's unit.

    Outputs (rows,) or (rows, columns), targets (rows, ...), groups (rows,) where rows are not independent. DeLong for
    AUC of independent rows, otherwise the bootstrap over rows or groups; `docs/statistics.md` says why and how well.

    Raises:
        InputError: as `measure`, or fewer than two independent units.

    Example:
        >>> from flyweight.task.metric import find_metric
        >>> print(estimate(find_metric("auc"), [0.1, 0.4, 0.35, 0.8, 0.2, 0.7], [0, 0, 1, 1, 0, 1]))
        +0.8889 [+0.4526, +1.0000], 95%, n=6
    """
    _check_settings(confidence, resamples)
    sample = _sample(metric, outputs, targets, groups)
    formula = find_formula(metric)
    value = formula.value(sample)
    spread = find_spread(metric, [sample], resamples, seed)
    half = spread.half_width(confidence)
    low = max(value - half - _find_excess(formula, sample), formula.low)
    high = min(value + half, formula.high)
    return _as_estimate(sample, spread, (value, low, high), confidence)


def paired_drop(
    metric: Metric,
    before: ArrayLike,
    after: ArrayLike,
    targets: ArrayLike,
    groups: ArrayLike | None = None,
    *,
    confidence: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> Estimate:
    """Return the quality lost from `before` to `after` on the same rows, with its interval; positive is worse.

    Arguments and errors as `estimate`, and `before` and `after` of one shape. It is before - after where larger is
    better, after - before otherwise. Scores that are the same, or for a metric of order in the same order, have lost
    exactly 0 [0, 0].

    Example:
        >>> from flyweight.task.metric import find_metric
        >>> drop = paired_drop(find_metric("auc"), [0.1, 0.4, 0.5, 0.8], [0.1, 0.4, 0.3, 0.8], [0, 0, 1, 1])
        >>> drop.value
        0.25
    """
    _check_settings(confidence, resamples)
    samples = [_sample(metric, outputs, targets, groups) for outputs in (before, after)]
    first, second = samples
    if first.outputs.shape != second.outputs.shape:
        raise InputError(
            f"A paired drop needs scores of the same rows; seen {first.outputs.shape} before "
            f"and {second.outputs.shape} after."
        )
    formula = find_formula(metric)
    value = formula.value(first) - formula.value(second)
    value = value if metric.larger_is_better else -value
    spread = find_spread(metric, samples, resamples, seed)
    if value == 0 and _same_scores(formula, samples):
        return _as_estimate(first, spread, (0.0, 0.0, 0.0), confidence)
    half = spread.half_width(confidence)
    # What chance added to the first value may be missing from the difference, and the other way round.
    of_before, of_after = (_find_excess(formula, sample) for sample in samples)
    below, above = (of_before, of_after) if metric.larger_is_better else (of_after, of_before)
    return _as_estimate(first, spread, (value, value - half - below, value + half + above), confidence)


def non_inferior(drop: Estimate, margin: float) -> bool:
    """Return whether the interval's bad end is inside the margin: no more than `margin` was lost, at its confidence.

    Raises:
        InputError: the margin is negative or not a number.

    Example:
        >>> non_inferior(Estimate(-0.0002, -0.0005, 0.0001, n=78_053), margin=0.001)
        True
    """
    check_margin(margin)
    return drop.high <= margin


def find_spread(metric: Metric, samples: list[Sample], resamples: int, seed: int) -> Spread:
    """Return the spread of the metric of one sample, or of the first less the second, by the method that fits."""
    formula = find_formula(metric)
    grouped = samples[0].groups is not None
    if formula.tally is not None:
        tallies = [formula.tally(sample) for sample in samples]
        spread = bootstrap_tallies(metric.name, tallies, resamples, seed, grouped=grouped)
        return _with_unseen_flips(spread, tallies[0].weight) if formula.is_rate else spread
    units = number_groups(metric.name, samples[0].groups, len(samples[0].targets))
    if formula is FORMULAS["auc"]:
        checked = [check_binary("auc", sample.outputs, sample.targets) for sample in samples]
        scores, positive = [scores for scores, _ in checked], checked[0][1]
        return bootstrap_auc(scores, positive, units, resamples, seed) if grouped else delong_spread(scores, positive)

    def value(rows: Ints) -> float:
        values = [formula.value(replace(s, outputs=s.outputs[rows], targets=s.targets[rows])) for s in samples]
        return values[0] - values[1] if len(values) == 2 else values[0]

    return bootstrap_recomputed(metric.name, value, units, resamples, seed, grouped=grouped)


def _with_unseen_flips(spread: Spread, weight: Floats) -> Spread:
    """Add the variance of two more rows, one turned right and one turned wrong (Bonett & Price 2012).

    Compression changes few predictions. When 0 of 200 changed, their plain variance is 0 and would certify anything;
    with two more flips the interval reaches 2.8 / 200 (Clopper & Pearson for 0 of 200: 3.7 / 200).
    """
    error = sqrt(spread.error**2 + 2 / float(weight.sum()) ** 2)
    return replace(spread, error=error, freedom=weight_freedom(weight))


def _find_excess(formula: Formula, sample: Sample) -> float:
    return formula.excess(formula.tally(sample)) if formula.excess and formula.tally else 0.0


def _same_scores(formula: Formula, samples: list[Sample]) -> bool:
    before, after = (np.asarray(sample.outputs, dtype=np.float64) for sample in samples)
    return bool(np.array_equal(before, after)) or (formula.by_order and same_order(before, after))


def _as_estimate(sample: Sample, spread: Spread, ends: tuple[float, float, float], confidence: float) -> Estimate:
    value, low, high = ends
    return Estimate(
        value=value,
        low=low,
        high=high,
        n=len(sample.targets),
        confidence=confidence,
        groups=None if sample.groups is None else spread.units,
        method=spread.method,
    )


def _sample(metric: Metric, outputs: ArrayLike, targets: ArrayLike, groups: ArrayLike | None) -> Sample:
    return Sample(
        np.asarray(outputs), np.asarray(targets), None if groups is None else np.asarray(groups), metric.at or 0
    )


def _check_settings(confidence: float, resamples: int) -> None:
    if not 0 < confidence < 1:
        raise InputError(f"confidence must lie between 0 and 1, as in 0.95; seen {confidence}.")
    if resamples < 100:
        raise InputError(f"resamples must be at least 100, or the interval is mostly chance; seen {resamples}.")
