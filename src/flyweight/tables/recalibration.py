"""Two numbers that put a ranker's calibration right after compression: a scale and a bias of the logit.

Platt, "Probabilistic outputs for support vector machines", 1999: fitted on validation by Newton's method, then folded
into the last layer, so that the served graph does no extra work.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from flyweight.task.task import Task

NEWTON_STEPS = 25
#: A model whose logloss a recalibration of its own would improve by less than this (nats) is taken as calibrated.
CALIBRATED = 0.01


@dataclass(frozen=True)
class Recalibration:
    """`logit -> scale * logit + bias`; for a model that returns probabilities, on the logit of its output.

    Example:
        >>> Recalibration(2.0, 1.0).apply(torch.tensor([3.0])).tolist()
        [7.0]
    """

    scale: float = 1.0
    bias: float = 0.0
    probability: bool = False

    @property
    def is_identity(self) -> bool:
        """Whether nothing would change."""
        return self.scale == 1.0 and self.bias == 0.0

    def apply(self, outputs: Tensor) -> Tensor:
        """Return recalibrated outputs, the same shape."""
        if self.is_identity:
            return outputs
        if not self.probability:
            return self.scale * outputs + self.bias
        return torch.sigmoid(self.scale * torch.logit(outputs, eps=1e-7) + self.bias)

    def direction(self, outputs: Tensor) -> Tensor:
        """Return how outputs move with the bias, (rows,) float64: a move that recalibration undoes for free.

        A move along the scale is no such thing: undoing it would scale up whatever else has changed.
        """
        values = outputs.double()
        return values * (1 - values) if self.probability else torch.ones_like(values)


class Recalibrated(nn.Module):
    """A model whose outputs are recalibrated; used where the two numbers cannot be folded into its last layer."""

    def __init__(self, model: nn.Module, recalibration: Recalibration) -> None:
        super().__init__()
        self.model = model
        self.recalibration = recalibration

    def forward(self, **inputs: Tensor) -> Tensor:
        """Return the model's outputs, recalibrated."""
        return self.recalibration.apply(self.model(**inputs))


def recalibrates(task: Task) -> bool:
    """Return whether a task's outputs are logits or probabilities of 0/1 targets, one a row."""
    return task.output in ("logit", "probability")


def fit(task: Task, outputs: NDArray[np.float64], targets: NDArray[np.float64]) -> Recalibration:
    """Return the recalibration of least logloss on these outputs and 0/1 targets.

    Falls back to no change when the scale would not be positive, which would turn the ranking round, and when all
    targets are one class, which no finite bias fits.
    """
    probability = task.output == "probability"
    if not recalibrates(task):
        return Recalibration()
    if len(np.unique(targets)) < 2:
        return Recalibration(probability=probability)
    scale, bias = _newton(_logits(outputs, probability=probability), targets)
    if not np.isfinite(scale) or not np.isfinite(bias) or scale <= 0:
        return Recalibration(probability=probability)
    return Recalibration(scale, bias, probability)


def fit_like(
    task: Task, before: NDArray[np.float64], after: NDArray[np.float64], targets: NDArray[np.float64]
) -> Recalibration:
    """Return the recalibration for a compressed model: to the labels, or to the scale its original had.

    A calibrated original gets calibrated logits. An original whose scores are on a scale of their own (a dot product
    trained for ranking) keeps that scale: the labels' fit of the one is undone by that of the other.
    """
    fitted = fit(task, after, targets)
    own = fit(task, before, targets)
    if not recalibrates(task):
        return fitted
    logits = _logits(before, probability=own.probability)
    gain = _logloss(logits, targets) - _logloss(own.scale * logits + own.bias, targets)
    if gain <= CALIBRATED:
        return fitted
    return Recalibration(fitted.scale / own.scale, (fitted.bias - own.bias) / own.scale, own.probability)


def fold(model: nn.Module, recalibration: Recalibration, inputs: dict[str, Tensor]) -> tuple[nn.Module, str]:
    """Return a model that gives recalibrated outputs, and how: folded into its last linear layer, or wrapped.

    Args:
        model: a copy that may be changed.
        inputs: one batch, to check that folding into the last layer does what it should.
    """
    if recalibration.is_identity:
        return model, "not needed"
    with torch.no_grad():
        wanted = recalibration.apply(model(**inputs))
    name, layer = _last_linear(model, inputs)
    if layer is None:
        return Recalibrated(model, recalibration), "a scale and a bias after the model"
    folded = _folded(layer, recalibration)
    model.set_submodule(name, folded)
    with torch.no_grad():
        if torch.allclose(model(**inputs), wanted, rtol=1e-4, atol=1e-5):
            return model, f"folded into {name}"
    model.set_submodule(name, layer)
    return Recalibrated(model, recalibration), "a scale and a bias after the model"


def _folded(layer: nn.Linear, recalibration: Recalibration) -> nn.Linear:
    """Return a linear layer whose output is the recalibrated output of `layer`."""
    folded = nn.Linear(layer.in_features, 1, dtype=layer.weight.dtype)
    bias = torch.zeros(1, dtype=layer.weight.dtype) if getattr(layer, "bias", None) is None else layer.bias.detach()
    folded.weight = nn.Parameter(layer.weight.detach() * recalibration.scale)
    folded.bias = nn.Parameter(bias * recalibration.scale + recalibration.bias)
    return folded.train(layer.training)


def _last_linear(model: nn.Module, inputs: dict[str, Tensor]) -> tuple[str, nn.Linear | None]:
    """Return the linear layer of one output that ran last."""
    ran: list[tuple[str, nn.Linear]] = []
    handles = [
        module.register_forward_hook(lambda _m, _i, _o, name=name, module=module: ran.append((name, module)))
        for name, module in model.named_modules()
        if type(module) is nn.Linear and module.out_features == 1
    ]
    with torch.no_grad():
        model(**inputs)
    for handle in handles:
        handle.remove()
    once = [entry for entry in ran if sum(entry[1] is other for _, other in ran) == 1]
    return once[-1] if once else ("", None)


def _logits(outputs: NDArray[np.float64], *, probability: bool) -> NDArray[np.float64]:
    if not probability:
        return outputs
    safe = np.clip(outputs, 1e-7, 1 - 1e-7)
    return np.asarray(np.log(safe) - np.log1p(-safe))


def _logloss(logits: NDArray[np.float64], targets: NDArray[np.float64]) -> float:
    return float(np.mean(np.logaddexp(0, logits) - targets * logits))


def _newton(logits: NDArray[np.float64], targets: NDArray[np.float64]) -> tuple[float, float]:
    """Minimise the logloss over scale and bias; two parameters, convex, a handful of damped steps."""
    point = np.array([1.0, 0.0])
    design = np.stack([logits, np.ones_like(logits)])  # (2, rows)
    best = _logloss(logits, targets)
    for _ in range(NEWTON_STEPS):
        chance = 1 / (1 + np.exp(-np.clip(point @ design, -500, 500)))
        gradient = design @ (chance - targets) / len(targets)
        hessian = (design * (chance * (1 - chance))) @ design.T / len(targets) + 1e-12 * np.eye(2)
        step = np.linalg.solve(hessian, gradient)
        while np.abs(step).max() > 1e-10:
            value = _logloss((point - step) @ design, targets)
            if value < best:
                break
            step = step / 2
        else:
            break
        point, best = point - step, value
    return float(point[0]), float(point[1])
