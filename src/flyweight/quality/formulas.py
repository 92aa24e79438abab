"""Every metric by name: its formula, and how it falls into sums that can be resampled."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flyweight.errors import InputError
from flyweight.quality.auc import auc, gauc, tally_gauc
from flyweight.quality.calibration_error import calibration_error, chance_excess, tally_calibration_error
from flyweight.quality.classification import (
    accuracy,
    f1,
    precision,
    recall,
    tally_accuracy,
    tally_f1,
    tally_precision,
    tally_recall,
)
from flyweight.quality.logloss import logloss, tally_logloss
from flyweight.quality.ranking import hit_rate, ndcg, recall_at, tally_hit_rate, tally_ndcg, tally_recall_at
from flyweight.quality.rmse import rmse, tally_rmse
from flyweight.quality.tally import Tally
from flyweight.task.metric import Metric


@dataclass(frozen=True)
class Sample:
    """Outputs (rows,) or (rows, columns), targets (rows, ...), groups (rows,) or None, and the cut-off k."""

    outputs: NDArray[Any]
    targets: NDArray[Any]
    groups: NDArray[Any] | None = None
    k: int = 0


@dataclass(frozen=True)
class Formula:
    """How a metric is computed.

    Args:
        value: the metric of a sample.
        tally: its sums by unit; None when it is no function of sums (AUC over all rows, a user's own).
        by_order: whether only the order of the scores counts, so that a recalibrated model has lost exactly nothing.
        is_rate: whether each row or query is simply right or wrong, and few of them change (see `intervals`).
        excess: how much chance alone can add to the value: the truth may be so much lower than what is measured.
        low, high: the metric's natural limits.
    """

    value: Callable[[Sample], float]
    tally: Callable[[Sample], Tally] | None = None
    by_order: bool = False
    is_rate: bool = False
    excess: Callable[[Tally], float] | None = None
    low: float = 0.0
    high: float = 1.0


#: The same names as `flyweight.task.metric.METRICS`, which holds what each metric asks of its data.
FORMULAS: dict[str, Formula] = {
    "auc": Formula(lambda s: auc(s.outputs, s.targets), by_order=True),
    "gauc": Formula(
        lambda s: gauc(s.outputs, s.targets, _groups(s, "gauc")),
        lambda s: tally_gauc(s.outputs, s.targets, s.groups),
        by_order=True,
    ),
    "logloss": Formula(
        lambda s: logloss(s.outputs, s.targets),
        lambda s: tally_logloss(s.outputs, s.targets, s.groups),
        high=np.inf,
    ),
    "accuracy": Formula(
        lambda s: accuracy(s.outputs, s.targets),
        lambda s: tally_accuracy(s.outputs, s.targets, s.groups),
        is_rate=True,
    ),
    "precision": Formula(
        lambda s: precision(s.outputs, s.targets),
        lambda s: tally_precision(s.outputs, s.targets, s.groups),
    ),
    "recall": Formula(
        lambda s: recall(s.outputs, s.targets),
        lambda s: tally_recall(s.outputs, s.targets, s.groups),
    ),
    "f1": Formula(
        lambda s: f1(s.outputs, s.targets),
        lambda s: tally_f1(s.outputs, s.targets, s.groups),
    ),
    "hit_rate@": Formula(
        lambda s: hit_rate(s.outputs, s.targets, s.groups, k=s.k),
        lambda s: tally_hit_rate(s.outputs, s.targets, s.groups, s.k),
        by_order=True,
        is_rate=True,
    ),
    "recall@": Formula(
        lambda s: recall_at(s.outputs, s.targets, s.groups, k=s.k),
        lambda s: tally_recall_at(s.outputs, s.targets, s.groups, s.k),
        by_order=True,
    ),
    "ndcg@": Formula(
        lambda s: ndcg(s.outputs, s.targets, s.groups, k=s.k),
        lambda s: tally_ndcg(s.outputs, s.targets, s.groups, s.k),
        by_order=True,
    ),
    "rmse": Formula(
        lambda s: rmse(s.outputs, s.targets),
        lambda s: tally_rmse(s.outputs, s.targets, s.groups),
        high=np.inf,
    ),
}

#: Guards that are no metric of a task; their `Metric` carries the function, and its sums are found here.
GUARDS: dict[Callable[..., float], Formula] = {
    calibration_error: Formula(
        lambda s: calibration_error(s.outputs, s.targets),
        lambda s: tally_calibration_error(s.outputs, s.targets, s.groups),
        excess=chance_excess,
    ),
}


def find_formula(metric: Metric) -> Formula:
    """Return the formula of a metric; a metric's own `function` goes before its name.

    Raises:
        InputError: the metric has no function and its name is unknown, or it ends in @ without a cut-off.
    """
    if metric.function in GUARDS:
        return GUARDS[metric.function]
    if metric.function is not None:
        own = metric.function
        return Formula(lambda s: _own_value(metric.name, own, s), low=-np.inf, high=np.inf)
    name = metric.name[: metric.name.index("@") + 1] if "@" in metric.name else metric.name
    if name not in FORMULAS:
        raise InputError(f"Metric {metric.name!r} has no formula and no function; known: {', '.join(FORMULAS)}.")
    if name.endswith("@") and not metric.at:
        raise InputError(f"Metric {metric.name!r} needs a cut-off, as in {name}20; use find_metric({name + '20'!r}).")
    return FORMULAS[name]


def _own_value(name: str, function: Callable[[Any, Any], float], sample: Sample) -> float:
    value = np.asarray(function(sample.outputs, sample.targets))
    if value.ndim != 0 or not np.isfinite(value):
        raise InputError(f"Metric {name!r} must return one finite number; seen {value!s} of shape {value.shape}.")
    return float(value)


def _groups(sample: Sample, name: str) -> NDArray[Any]:
    if sample.groups is None:
        raise InputError(f"{name} needs groups: the id that tells requests or users apart, as Task(group=...).")
    return sample.groups
