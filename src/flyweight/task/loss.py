"""The training loss that goes with a metric, one value a row, for gradients and distillation."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from flyweight.task.metric import Metric

Loss = Callable[[Tensor, Tensor], Tensor]

#: "logit" and "probability" are one score a row; "columns" one score a class or item; "value" a number of any size.
OutputKind = str


def default_loss(metric: Metric, output: OutputKind) -> Loss:
    """Return `loss(outputs, targets) -> (rows,)` for a metric and the kind of output the model has.

    Binary targets get the cross-entropy of a logit or a probability, class and item indices the softmax
    cross-entropy, numbers the squared error.
    """
    if output == "columns":
        return softmax_cross_entropy
    if output == "probability":
        return probability_cross_entropy
    if output == "value" or metric.kind == "real":
        return squared_error
    return logit_cross_entropy


def logit_cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the binary cross-entropy of logits, natural log, shape (rows,)."""
    return F.binary_cross_entropy_with_logits(outputs, targets.to(outputs.dtype), reduction="none")


def probability_cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the binary cross-entropy of probabilities, natural log, shape (rows,)."""
    safe = outputs.clamp(1e-7, 1 - 1e-7)
    return F.binary_cross_entropy(safe, targets.to(outputs.dtype), reduction="none")


def softmax_cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the softmax cross-entropy of (rows, columns) scores and (rows,) indices, shape (rows,)."""
    return F.cross_entropy(outputs, targets.long(), reduction="none")


def squared_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the squared error, averaged over all but the first dimension, shape (rows,)."""
    error = torch.square(outputs - targets.to(outputs.dtype))
    return error.flatten(1).mean(1) if error.ndim > 1 else error
