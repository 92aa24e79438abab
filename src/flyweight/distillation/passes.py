"""The order of training: which batch is the n-th, and how a large batch is cut into steps."""

from collections.abc import Iterator, Sized
from dataclasses import dataclass

import torch
from torch import Tensor

from flyweight.errors import InputError
from flyweight.task.batches import Batch
from flyweight.task.task import Task

#: How often a training is judged on validation, at least and at most.
LEAST_CHECKS, MOST_CHECKS = 4, 40


@dataclass(frozen=True)
class Passes:
    """How many batches there are to train on.

    Args:
        each: batches of one pass that each process gets.
        total: batches of the whole training, of each process.
        rank, world: which process this is of how many.
    """

    each: int
    total: int
    rank: int = 0
    world: int = 1

    def batches(self, task: Task, start: int) -> Iterator[tuple[int, int, Batch]]:
        """Yield `(number, place in the split, batch)` from batch `start` on, pass after pass."""
        for epoch in range(start // self.each, -(-self.total // self.each)):
            for place, batch in enumerate(task.batches("train")):
                turn, owner = divmod(place, self.world)
                number = epoch * self.each + turn
                if turn >= self.each or number >= self.total:
                    break
                if number >= start and owner == self.rank:
                    yield number, place, batch

    def epochs(self, number: int) -> float:
        """Return the passes made after so many batches."""
        return number / self.each

    def checks(self) -> frozenset[int]:
        """Return after how many batches the model is judged, evenly spaced, the last time at the end."""
        wanted = min(self.total, MOST_CHECKS, max(LEAST_CHECKS, round(2 * self.total / self.each)))
        return frozenset(round(self.total * (turn + 1) / wanted) for turn in range(wanted))


def plan_passes(task: Task, epochs: float, rank: int = 0, world: int = 1) -> Passes:
    """Count the batches of the train split.

    Raises:
        InputError: there are fewer batches than processes.
    """
    data = task.train
    count = len(data) if isinstance(data, Sized) else sum(1 for _ in task.batches("train"))
    if count < world:
        raise InputError(
            f"The train split has {count} batches for {world} processes; give smaller batches or fewer processes."
        )
    each = count // world
    return Passes(each, max(1, round(epochs * each)), rank, world)


def cut(rows: int, most: int, seed: int) -> list[Tensor]:
    """Return the rows of each step of a batch: up to `most` places each, drawn without putting back, of like number.

    Example:
        >>> sorted(len(piece) for piece in cut(10, 4, seed=0))
        [3, 3, 4]
    """
    order = torch.randperm(rows, generator=torch.Generator().manual_seed(seed))
    return list(order.tensor_split(-(-rows // most)))
