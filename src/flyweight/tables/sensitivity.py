"""How the outputs and the loss feel the rows that were looked up: one backward pass a chunk of validation rows."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from flyweight.tables.recalibration import Recalibration
from flyweight.tables.sites import Table
from flyweight.tables.touches import Touch, watching
from flyweight.task.scores import call_model, cuts_by_row
from flyweight.task.task import Task

#: Rows of a chunk: bounds the memory of gradients, whatever the batch size of the user's data.
CHUNK_ROWS = 1_024
#: Rows of validation data used to predict damage; more would not change the choice.
EXPANSION_ROWS = 49_152


#: Parts of the validation data: what is chosen by one is judged by the other.
FOLDS = 2


@dataclass(frozen=True, eq=False)
class Feeling:
    """What one pass says about a chunk.

    Args:
        outputs: (rows,) or (rows, columns), detached.
        pulls: for each probe, for each touch, the gradient of the probe at each looked-up row, (t, dim).
    """

    outputs: Tensor
    touches: list[Touch]
    pulls: tuple[list[Tensor], ...]


Chunk = tuple[dict[str, Tensor], Tensor, Tensor]


def chunks(task: Task, limit: int = EXPANSION_ROWS) -> Iterator[Chunk]:
    """Yield up to about `limit` validation rows, evenly spread, in chunks of at most CHUNK_ROWS: inputs, target, fold.

    Batches that cannot be cut by row (flat bags with offsets) come whole.
    """
    total = sum(len(target) for _, target, _ in task.batches("validation"))
    keep = min(1.0, limit / total)
    owed = 0.0
    folds = validation_folds(task)
    cuts = None
    for inputs, target, _ in task.batches("validation"):
        rows = len(target)
        fold, folds = folds[:rows], folds[rows:]
        if cuts is None:
            cuts = cuts_by_row(task.model, inputs, rows)
        if not cuts or any(len(value) != rows for value in inputs.values()):
            owed += keep
            if owed >= 1 - 1e-9:
                owed -= 1
                yield inputs, target, fold
            continue
        stride = max(1, round(1 / keep))
        chosen = torch.arange(0, rows, stride)
        for piece in torch.split(chosen, CHUNK_ROWS):
            yield {name: value[piece] for name, value in inputs.items()}, target[piece], fold[piece]


def small_batch(task: Task, rows: int = 256) -> dict[str, Tensor]:
    """Return a few validation rows, or the first batch where its inputs cannot be cut by row."""
    inputs, _, _ = next(chunks(task))
    if len({len(value) for value in inputs.values()}) > 1:
        return inputs
    return {name: value[:rows] for name, value in inputs.items()}


def validation_folds(task: Task) -> Tensor:
    """Return which of FOLDS parts each validation row is in, (rows,); rows of one group stay together."""
    rows = [(len(target), group) for _, target, group in task.batches("validation")]
    total = sum(many for many, _ in rows)
    # Runs of rows, not every other row: neighbours in the data are often alike.
    runs = torch.arange(total) // max(1, min(64, total // (4 * FOLDS))) % FOLDS
    if rows[0][1] is None:
        return runs
    groups = torch.cat([group for _, group in rows if group is not None])
    kinds, place = torch.unique(groups, return_inverse=True)
    # A fixed mix of the group's number, so that neighbouring groups (weeks, stores) fall into both parts.
    mixed: Tensor = (place * 2_654_435_761 % 4_294_967_296 >> 16) % FOLDS
    if len(torch.unique(mixed)) < FOLDS:  # few groups may all fall into one part
        return runs if len(kinds) < FOLDS else place % FOLDS
    return mixed


def feel(
    task: Task, model: nn.Module, tables: tuple[Table, ...], inputs: dict[str, Tensor], target: Tensor, seed: int
) -> Feeling:
    """Return the gradient of each row's output, in one probe, or for outputs of several columns two probes.

    These are the gradients of the loss and of a sampled log-likelihood. The second is for curvature: with labels drawn
    from the model itself, the mean outer product of its gradients is the Fisher information (Martens 2014, eq. 3),
    which needs no second derivatives.
    """
    with torch.enable_grad(), watching(model, tables, gradients=True) as watch:
        outputs = call_model(model, inputs, len(target))
        fields = probes(task, outputs, target, seed)
        pulls = tuple(_pull(field, watch.touches, keep=len(fields) > 1) for field in fields)
        return Feeling(outputs.detach(), watch.touches, pulls)


def probes(task: Task, outputs: Tensor, target: Tensor, seed: int) -> tuple[Tensor, ...]:
    """Return what is differentiated of outputs, each a scalar: see `feel`."""
    if outputs.ndim == 1:
        return (outputs.sum(),)
    loss = task.row_loss(outputs, target)
    loss = loss.sum() if loss.ndim else loss * len(target)
    return loss, _sampled(outputs, torch.Generator().manual_seed(seed), classes=task.output == "columns")


def _sampled(outputs: Tensor, generator: torch.Generator, *, classes: bool) -> Tensor:
    """Return a log-likelihood, summed over rows, of labels drawn from outputs (rows, ...).

    For numbers it is the normal one, scaled to the curvature of the mean squared error: its gradient by an output is
    a random sign times the root of 2 / columns.
    """
    if classes:
        logs = torch.log_softmax(outputs, -1)
        return logs.gather(1, torch.multinomial(logs.detach().exp(), 1, generator=generator)).sum()
    signs = 2.0 * torch.randint(2, outputs.shape, generator=generator) - 1
    return (outputs * signs * math.sqrt(2 / outputs[0].numel())).sum()


def slopes(task: Task, recalibration: Recalibration, outputs: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Return the slope and the curvature of each row's loss by its single output, both (rows,) float64.

    The loss is that of the recalibrated output. The curvature is not the second derivative, which is blind to large
    moves (a confident logit has next to none), but that of the parabola with the same value and slope whose value is
    also right where the model says the same to everyone: the mean output. For a squared error the two are one.
    """
    with torch.enable_grad():
        leaf = outputs.detach().double().requires_grad_(True)
        loss = row_losses(task, recalibration.apply(leaf), target)
        (slope,) = torch.autograd.grad(loss.sum(), leaf)
    with torch.no_grad():
        way = leaf.mean() - leaf
        flat = row_losses(task, recalibration.apply(leaf.mean().expand_as(leaf)), target)
        rise = (flat - loss - slope * way).clamp_min(0)
        curvature = 2 * rise / way.square().clamp_min(1e-6 * float(way.square().mean()) + 1e-12)
    return slope.detach(), curvature.detach()


def row_losses(task: Task, outputs: Tensor, target: Tensor) -> Tensor:
    """Return the loss of each row; a loss of the user's own that is one number is spread evenly."""
    loss = task.row_loss(outputs, target)
    if loss.ndim == 0:
        return loss.expand(len(target))
    return loss if loss.ndim == 1 else loss.flatten(1).mean(1)


def _pull(field: Tensor, touches: list[Touch], *, keep: bool = False) -> list[Tensor]:
    if not touches:
        return []
    leaves = [touch.output for touch in touches]
    gradients = torch.autograd.grad(field, leaves, retain_graph=keep, allow_unused=True)
    return [touch.pull(gradient) for touch, gradient in zip(touches, gradients, strict=True)]
