"""The certificate: the exported models compared once on the untouched test split."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flyweight.quality.calibration_error import calibration_error
from flyweight.quality.intervals import estimate, non_inferior, paired_drop
from flyweight.task.estimate import Estimate
from flyweight.task.metric import Metric
from flyweight.task.scores import Scores
from flyweight.task.task import Task

#: Metrics watched beside the task's own wherever outputs are probabilities of 0/1 targets.
LOGLOSS = Metric("logloss", larger_is_better=False, kind="binary")
CALIBRATION = Metric("calibration_error", larger_is_better=False, kind="binary", function=calibration_error)
#: A rise of the calibration error (mean gap between probability and frequency) that is surely above this is an alarm.
#: Its interval is wide, because chance hides small shifts of it, so that it cannot be certified as small.
CALIBRATION_ALARM = 0.01


@dataclass(frozen=True, eq=False)
class Comparison:
    """Both models on the same rows.

    Args:
        before, after: the task's metric with its interval.
        drop: the paired drop; positive is worse.
        guards_before, guards_after, guard_drops: the same for the guards, by name.
        guard_margins: how much a guard may get worse, for those that are certified too; empty without a margin.
        margin: the drop allowed, None where none was named.
        certified: whether every bad end lies inside its margin.
    """

    before: Estimate
    after: Estimate
    drop: Estimate
    guards_before: dict[str, Estimate]
    guards_after: dict[str, Estimate]
    guard_drops: dict[str, Estimate]
    guard_margins: dict[str, float]
    margin: float | None
    certified: bool

    def losses(self, metric: str) -> dict[str, Estimate]:
        """Return the drops that `max_drop` holds for: the metric's and, where outputs are probabilities, logloss'."""
        held = {name: drop for name, drop in self.guard_drops.items() if name == LOGLOSS.name}
        return {metric: self.drop, **held}


def compare(task: Task, before: Scores, after: Scores, margin: float | None, confidence: float) -> Comparison:
    """Compare two models' scores of the test split, paired, by group where the task names one."""
    guards = _guards(task)

    def one(metric: Metric, scores: Scores) -> Estimate:
        judged = task.judged(metric, scores.outputs)
        return estimate(metric, judged, scores.targets, scores.groups, confidence=confidence)

    def drop_in(metric: Metric) -> Estimate:
        pair: list[NDArray[np.float64]] = [task.judged(metric, scores.outputs) for scores in (before, after)]
        return paired_drop(metric, pair[0], pair[1], before.targets, before.groups, confidence=confidence)

    drops = {guard.name: drop_in(guard) for guard in guards}
    margins = {LOGLOSS.name: margin} if margin is not None and LOGLOSS.name in drops else {}
    drop = drop_in(task.spec)
    inside = margin is not None and non_inferior(drop, margin)
    alarm = CALIBRATION.name in drops and drops[CALIBRATION.name].low > CALIBRATION_ALARM
    return Comparison(
        before=one(task.spec, before),
        after=one(task.spec, after),
        drop=drop,
        guards_before={guard.name: one(guard, before) for guard in guards},
        guards_after={guard.name: one(guard, after) for guard in guards},
        guard_drops=drops,
        guard_margins=margins,
        margin=margin,
        certified=inside and not alarm and all(non_inferior(drops[name], margins[name]) for name in margins),
    )


def _guards(task: Task) -> tuple[Metric, ...]:
    if task.output not in ("logit", "probability"):
        return ()
    return tuple(guard for guard in (LOGLOSS, CALIBRATION) if guard.name != task.spec.name)

