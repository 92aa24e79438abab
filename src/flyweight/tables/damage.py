"""What a set of codings will do to the loss, predicted as a quadratic form so that interactions count.

Let `d_o(x)` be how much option `o` (a coding of one band) moves the output of validation row `x`: the gradient of the
output at the looked-up rows times the rows' change. Shifts of several options add up well where damages do not, so

    loss(c) - loss  ~  sum_o mean_x l'(x) d_o(x)  +  1/2 sum_op mean_x l''(x) d_o(x) d_p(x)

with `l'`, `l''` the derivatives of the loss by the output. The gradient is the mean of that at the original and at the
current choice (trapezoid rule: exact for outputs quadratic in the rows). Moves along scale and bias of the logit are
projected out, because recalibration undoes them. Chunk by chunk only sums are kept: memory does not grow with data.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from flyweight.tables.allocation import Choice, Damage, Menu
from flyweight.tables.coding import CodedBand
from flyweight.tables.recalibration import Recalibration, recalibrates
from flyweight.tables.sensitivity import FOLDS, Feeling, chunks, feel_loss, feel_outputs, slopes
from flyweight.tables.sites import Table
from flyweight.task.scores import evaluating
from flyweight.task.task import Task

#: Standard errors by which a predicted gain is cut.
NOISE = 1.0


@dataclass(frozen=True, eq=False)
class Item:
    """One choice to make: the band [start, stop) of a table and the codings to choose from."""

    table: str
    start: int
    stop: int
    options: tuple[CodedBand, ...]


def menu_of(items: tuple[Item, ...]) -> Menu:
    """Return the sizes of all options, as the allocation wants them."""
    starts = np.cumsum([0, *(len(item.options) for item in items)])
    return Menu(starts, np.array([band.bytes for item in items for band in item.options], dtype=np.float64))


def fisher_information(task: Task, tables: tuple[Table, ...]) -> dict[str, tuple[Tensor, Tensor]]:
    """Return, for each table, the sum of squared gradients at each row and its lookups, over validation rows.

    The gradient is that of the loss with labels drawn from the model (true Fisher information), so rows that training
    has memorised still count.
    """
    sums = {table.name: (torch.zeros(table.rows), torch.zeros(table.rows)) for table in tables}
    nothing = Recalibration(probability=task.output == "probability")
    with evaluating(task.model):
        for number, (inputs, target, _) in enumerate(chunks(task)):
            feeling = _feel(task, task.model, tables, inputs, target, number)
            strength = torch.ones(len(target))
            if len(feeling.pulls) == 1:
                strength = slopes(task, nothing, feeling.outputs, target)[1].float()
            for touch, pull in zip(feeling.touches, feeling.pulls[-1], strict=True):
                squares, lookups = sums[touch.table]
                squares.index_add_(0, touch.ids, pull.square().sum(1) * strength[touch.samples(len(target))])
                lookups.index_add_(0, touch.ids, torch.ones(len(touch.ids)))
    return sums


@dataclass
class _Sums:
    """Running sums over the rows of one fold, from which the quadratic form is made."""

    options: int
    rows: int = 0

    def __post_init__(self) -> None:
        self.linear = torch.zeros(self.options).double()
        self.noise = torch.zeros(self.options).double()
        self.curvature = torch.zeros(self.options, self.options)
        self.undone = torch.zeros(2, self.options).double()
        self.directions = torch.zeros(2, 2).double()

    def add(self, shifts: Tensor, first: Tensor, second: Tensor, free: Tensor | None) -> None:
        """Add rows: shifts (options, rows), slopes of the loss (rows,), recalibration's directions (2, rows)."""
        self.rows += len(first)
        weighted = shifts * second.float()
        self.linear += shifts.double() @ first
        self.noise += shifts.double().square() @ first.square()
        self.curvature += weighted @ shifts.T
        if free is not None:
            self.undone += free @ weighted.double().T
            self.directions += (free * second) @ free.T

    def add_columns(self, shifts: Tensor, sampled: Tensor) -> None:
        """Add rows of a model with several outputs: shifts of the loss and of a sampled log-likelihood."""
        self.rows += shifts.shape[1]
        self.linear += shifts.double().sum(1)
        self.noise += shifts.double().square().sum(1)
        self.curvature += sampled @ sampled.T


def _damage(parts: list[_Sums]) -> Damage:
    rows = sum(part.rows for part in parts)
    linear = sum((part.linear for part in parts), torch.zeros(1).double()) / rows
    noise = (sum((part.noise for part in parts), torch.zeros(1).double()) / rows / rows).sqrt()
    curvature = sum((part.curvature for part in parts), torch.zeros(1)).double()
    undone = sum((part.undone for part in parts), torch.zeros(1).double())
    directions = sum((part.directions for part in parts), torch.zeros(1).double()) + 1e-9 * torch.eye(2).double()
    curvature = curvature - undone.T @ torch.linalg.solve(directions, undone)
    # What looks like a gain counts only as far as it stands out of its own noise: else the choice fits the noise.
    believed = torch.where(linear < 0, (linear + NOISE * noise).clamp_max(0), linear)
    return Damage(believed.numpy(), (curvature / rows).numpy())


def expand(
    task: Task,
    tables: tuple[Table, ...],
    items: tuple[Item, ...],
    current: tuple[Choice, nn.Module, Recalibration] | None,
) -> tuple[Damage, ...]:
    """Return the predicted damage of every option, alone and with every other, around the current choice.

    Args:
        task: the original model and the validation data.
        items: the bands and their options.
        current: the choice in force, its model and its recalibration; None expands around the original, with the
            options' shifts measured from the original rows.

    Returns:
        First that of all rows, then that of the rows outside each fold.
    """
    menu = menu_of(items)
    sums = [_Sums(int(menu.starts[-1])) for _ in range(FOLDS)]
    recalibration = current[2] if current else Recalibration(probability=task.output == "probability")
    with evaluating(task.model):
        for number, (inputs, target, folds) in enumerate(chunks(task)):
            feeling = _feel(task, task.model, tables, inputs, target, number)
            if current is not None:
                feeling = _middle(feeling, _feel(task, current[1].eval(), tables, inputs, target, number))
            shifts = [
                _shifts(items, menu, tables, feeling, pulls, current and current[0], len(target))
                for pulls in feeling.pulls
            ]
            for fold, part in enumerate(sums):
                here = torch.nonzero(folds == fold).squeeze(1)
                if len(shifts) == 2:
                    part.add_columns(shifts[0][:, here], shifts[1][:, here])
                    continue
                outputs = feeling.outputs[here]
                free = recalibration.directions(outputs) if recalibrates(task) else None
                part.add(shifts[0][:, here], *slopes(task, recalibration, outputs, target[here]), free)
    others = [[part for number, part in enumerate(sums) if number != fold] for fold in range(FOLDS)]
    return _damage(sums), *(_damage(parts) for parts in others)


def _feel(
    task: Task, model: nn.Module, tables: tuple[Table, ...], inputs: dict[str, Tensor], target: Tensor, seed: int
) -> Feeling:
    if task.output == "columns":
        return feel_loss(task, model, tables, inputs, target, seed)
    return feel_outputs(model, tables, inputs, len(target))


def _middle(first: Feeling, second: Feeling) -> Feeling:
    """Return the mean of two models' gradients, beside the outputs of the second."""
    pulls = tuple(
        [(one + other) / 2 for one, other in zip(ones, others, strict=True)]
        for ones, others in zip(first.pulls, second.pulls, strict=True)
    )
    return Feeling(second.outputs, first.touches, pulls)


def _shifts(
    items: tuple[Item, ...],
    menu: Menu,
    tables: tuple[Table, ...],
    feeling: Feeling,
    pulls: list[Tensor],
    current: Choice | None,
    rows: int,
) -> Tensor:
    """Return how much each option moves each row's output, (options, rows) float32."""
    weights = {table.name: table.weight for table in tables}
    shifts = torch.zeros(int(menu.starts[-1]), rows)
    for number, item in enumerate(items):
        for touch, pull in zip(feeling.touches, pulls, strict=True):
            if touch.table != item.table:
                continue
            inside = torch.nonzero((touch.ids >= item.start) & (touch.ids < item.stop)).squeeze(1)
            if not len(inside):
                continue
            places, felt = touch.ids[inside] - item.start, pull[inside]
            samples = touch.samples(rows)[inside]
            if current is None:
                now = weights[item.table][touch.ids[inside]].float()
            else:
                now = item.options[current[number]].decode(places)
            base = (now * felt).sum(1)
            for option, band in enumerate(item.options):
                moved = (band.decode(places) * felt).sum(1) - base
                shifts[menu.starts[number] + option].index_add_(0, samples, moved)
    return shifts
