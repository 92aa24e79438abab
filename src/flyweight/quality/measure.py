"""The value of a metric, by its specification."""

from numpy import asarray
from numpy.typing import ArrayLike

from flyweight.quality.formulas import Sample, find_formula
from flyweight.task.metric import Metric


def measure(metric: Metric, outputs: ArrayLike, targets: ArrayLike, groups: ArrayLike | None = None) -> float:
    """Return the metric of outputs (rows,) or (rows, columns) against targets.

    Probabilities are wanted where the metric is about them (logloss, and accuracy, precision, recall or f1 of one
    score a row); for the others any scores will do.

    Raises:
        InputError: no rows, lengths differ, NaN, one class where two are needed, or groups missing.

    Example:
        >>> from flyweight.task.metric import find_metric
        >>> measure(find_metric("recall@1"), [[0.1, 0.9], [0.8, 0.2]], [1, 1])
        0.5
    """
    sample = Sample(asarray(outputs), asarray(targets), None if groups is None else asarray(groups), metric.at or 0)
    return find_formula(metric).value(sample)
