"""Adam for dense weights, its sparse form for tables, and how the learning rate goes up and down."""

import math
from typing import Any

import torch
from torch import Tensor

from flyweight.distillation.working import Working

#: The share of all steps over which the rate rises: Adam's first steps know little of the size of gradients.
WARM_UP = 0.05
#: Gradients longer than this are shortened to it.
LONGEST_GRADIENT = 1.0
Optimizers = tuple[torch.optim.Optimizer, ...]


def make_optimizers(working: Working, lr: float, others: tuple[Tensor, ...] = ()) -> Optimizers:
    """Return the optimizers of all that is trained; `others` are trained beside the model and thrown away."""
    of_rate: dict[float, list[Tensor]] = {1.0: list(others)} if others else {}
    for name, parameter in working.trained.items():
        if name not in working.sparse:
            of_rate.setdefault(working.rates[name], []).append(parameter)
    dense = [{"params": some, "lr": lr * rate, "full": lr * rate} for rate, some in of_rate.items()]
    sparse = [{"params": [working.trained[name]], "lr": lr, "full": lr} for name in sorted(working.sparse)]
    made: list[torch.optim.Optimizer] = [torch.optim.Adam(dense)] if dense else []
    return (*made, torch.optim.SparseAdam(sparse)) if sparse else tuple(made)


def set_rate(optimizers: Optimizers, done: float) -> None:
    """Set the learning rate after a share `done` of the training: a short rise, then half a cosine down to 0.

    Loshchilov, Hutter, "SGDR", 2017 (arXiv 1608.03983), eq. 5, without restarts.
    """
    share = min(1.0, (done + 1e-3) / WARM_UP) * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["full"] * share


def move(optimizers: Optimizers, loss: Tensor) -> float:
    """Take a step down the loss and return the length of the dense gradient; none is taken where it is not finite."""
    for optimizer in optimizers:
        optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    return step_down(optimizers)


def step_down(optimizers: Optimizers) -> float:
    """Take a step down the gradients that are there; return what `move` does."""
    dense = [one for optimizer in optimizers for group in optimizer.param_groups for one in group["params"]]
    dense = [one for one in dense if one.grad is not None and not one.grad.is_sparse]
    length = float(torch.nn.utils.clip_grad_norm_(dense, LONGEST_GRADIENT)) if dense else 0.0
    if math.isfinite(length):
        for optimizer in optimizers:
            optimizer.step()
    return length


def states(optimizers: Optimizers) -> list[dict[str, Any]]:
    """Return what the optimizers remember."""
    return [optimizer.state_dict() for optimizer in optimizers]
