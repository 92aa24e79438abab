"""Whether the original knows anything: where it does not, no compression can lose quality, and that is no proof."""

import numpy as np

from flyweight.quality.intervals import estimate
from flyweight.task.scores import Scores
from flyweight.task.task import Task

#: Metrics for which knowing nothing gives one half.
_HALF = ("auc", "gauc")


def warn_of_chance(task: Task, scores: Scores, confidence: float) -> str:
    """Return what is to be said where the original's quality on validation is at chance; nothing where it is not.

    Looked at are AUC (chance: 0.5) and accuracy (chance: the share of the most frequent class).
    """
    metric = task.spec
    judged = task.judged(metric, scores.outputs)
    if metric.name in _HALF:
        chance = 0.5
    elif metric.name == "accuracy":
        chance = float(np.unique(scores.targets, return_counts=True)[1].max() / len(scores.targets))
    else:
        return ""
    found = estimate(metric, judged, scores.targets, scores.groups, confidence=confidence)
    if found.low > chance:
        return ""
    return (
        f"the original's {metric.name} on validation is {found.value:.4f} [{found.low:.4f}, {found.high:.4f}], at "
        f"chance ({chance:.4f}): there is nothing to lose here, so a certificate says nothing. "
        "Check the model and its targets"
    )
