"""How a model stands on validation: the task's metric, and where that is equal the loss."""

from dataclasses import dataclass
from math import inf, isfinite

import numpy as np
import torch
from torch import nn

from flyweight.quality.measure import measure
from flyweight.task.task import Task


@dataclass(frozen=True)
class Standing:
    """Where a model stood on validation data at some point of its training.

    Args:
        epoch: passes over the train split until then, a fraction within one.
        metric: the task's metric, in its own unit; NaN where the outputs are not finite.
        loss: the task's mean loss; infinite where it is not a number.
    """

    epoch: float
    metric: float
    loss: float

    def above(self, other: "Standing", *, larger_is_better: bool) -> bool:
        """Return whether this is better: by the metric, and by the loss where the metric is equal."""
        return self._key(larger_is_better) > other._key(larger_is_better)

    def _key(self, larger_is_better: bool) -> tuple[float, float]:
        if not isfinite(self.metric):
            return -inf, -inf
        return (self.metric if larger_is_better else -self.metric), -self.loss


def stand(task: Task, model: nn.Module, epoch: float) -> Standing:
    """Return how a model stands on the validation split."""
    scores = task.scores("validation", model)
    if not bool(np.isfinite(scores.outputs).all()):
        return Standing(epoch, float("nan"), inf)
    metric = measure(task.spec, task.judged(task.spec, scores.outputs), scores.targets, scores.groups)
    with torch.no_grad():
        outputs, targets = torch.from_numpy(scores.outputs).float(), torch.from_numpy(np.asarray(scores.targets))
        loss = float(task.row_loss(outputs, targets).mean())
    return Standing(epoch, float(metric), loss if isfinite(loss) else inf)
