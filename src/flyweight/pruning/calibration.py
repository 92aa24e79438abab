"""Rows of the train split on which saliencies are measured: spread over the split, the same ones for the same seed."""

from collections.abc import Iterator, Sized

import torch
from torch import Tensor

from flyweight.task.scores import cuts_by_row
from flyweight.task.task import Task

#: Rows that are looked at, and rows whose gradients are summed before they are squared. More rows change a ranking
#: little; larger pieces let gradients of a trained model cancel out.
CALIBRATION_ROWS = 2_048
PIECE_ROWS = 32
#: Batches that the rows are taken from, at most.
BATCHES = 64
Piece = tuple[dict[str, Tensor], Tensor]


def calibration_pieces(
    task: Task, *, seed: int = 0, rows: int = CALIBRATION_ROWS, piece: int = PIECE_ROWS
) -> Iterator[Piece]:
    """Yield inputs and targets of about `rows` train rows, `piece` at a time.

    Batches that cannot be cut by row (flat bags with offsets) come whole.
    """
    generator = torch.Generator().manual_seed(seed)
    total = len(task.train) if isinstance(task.train, Sized) else sum(1 for _ in task.batches("train"))
    chosen = set(torch.randperm(total, generator=generator)[:BATCHES].tolist())
    wanted = -(-rows // len(chosen))
    cuts: bool | None = None
    left = rows
    for number, (inputs, target, _) in enumerate(task.batches("train")):
        if number not in chosen:
            continue
        if cuts is None:
            cuts = cuts_by_row(task.model, inputs, len(target))
        if not cuts or any(len(value) != len(target) for value in inputs.values()):
            left -= len(target)
            yield inputs, target
        else:
            order = torch.randperm(len(target), generator=generator)[:wanted]
            for part in torch.split(order, piece):
                left -= len(part)
                yield {name: value[part] for name, value in inputs.items()}, target[part]
        chosen.discard(number)
        if left <= 0 or not chosen:
            return


def first_inputs(task: Task, rows: int = 64) -> dict[str, Tensor]:
    """Return a few train rows to trace a model with, or the first batch where its inputs cannot be cut by row."""
    inputs, target, _ = next(task.batches("train"))
    if not cuts_by_row(task.model, inputs, len(target)):
        return inputs
    return {name: value[:rows] for name, value in inputs.items()}
