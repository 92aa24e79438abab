"""A step whose rows are cut into a fixed number of shards, shared among processes: the same bits for any number.

Adding floating-point numbers in another order gives other last digits, and after thousands of steps other weights. So
each shard's gradient is computed whole by one process on one thread, all are gathered, and every process adds them in
the order of the shards (what an all-reduce adds in which order hangs on how many there are).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import reduce

import torch
import torch.distributed as dist
from torch import Tensor, nn

from flyweight.distillation.objective import Objective, Part
from flyweight.distillation.working import Working, moving_buffers
from flyweight.errors import InputError


@dataclass(frozen=True)
class Shards:
    """Which shards of a step this process computes.

    Args:
        count: shards of every step.
        rank, world: which process this is of how many.
    """

    count: int
    rank: int = 0
    world: int = 1

    def gradients(self, working: Working, objective: Objective, model: nn.Module, part: Part, seed: int) -> float:
        """Put the gradient of a step where optimizers look for it, and return the loss.

        The loss is the mean of the shards' losses, each by its rows. Every shard starts with the running statistics of
        before the step; after it they are the mean of what the shards made of them, counts those of the first.

        Args:
            model: the working model, as it is called; seed: of what a shard draws (dropout).
        """
        trained = [*working.trained.values(), *objective.parameters()]
        buffers = [value for _, value in moving_buffers(working.model)]
        before = [value.clone() for value in buffers]
        rows = len(part.target) + part.extra
        found = []
        for number, shard in enumerate(part.shards(self.count)):
            if number % self.world != self.rank:
                continue
            for value, was in zip(buffers, before, strict=True):
                value.copy_(was)
            torch.manual_seed(seed * self.count + number)
            share = (len(shard.target) + shard.extra) / rows
            gradients = _gradients(trained, objective, model, shard, share)
            changes = [_change(value, was, share, number) for value, was in zip(buffers, before, strict=True)]
            found.append(torch.cat([one.reshape(-1).cpu() for one in (*gradients, *changes)]))
        total = self._added(torch.stack(found))
        places = [*trained, *buffers]
        loss, *moved = _shaped(total, [torch.empty(()), *places])
        for parameter, gradient in zip(trained, moved[: len(trained)], strict=True):
            parameter.grad = gradient.to(parameter)
        for value, was, change in zip(buffers, before, moved[len(trained) :], strict=True):
            value.copy_(was + change.to(was))
        return float(loss)

    def _added(self, mine: Tensor) -> Tensor:
        """Return the sum over all shards, added in their order; `mine`: this process's, (shards of it, numbers)."""
        if self.world == 1:
            ordered = list(mine)
        else:
            gathered = [torch.empty_like(mine) for _ in range(self.world)]
            dist.all_gather(gathered, mine)
            ordered = [gathered[number % self.world][number // self.world] for number in range(self.count)]
        total: Tensor = reduce(torch.add, ordered)
        return total


def find_shards(count: int | None) -> Shards | None:
    """Return which of a step's shards this process computes; None where steps are not cut.

    Raises:
        InputError: there are more processes than shards, or they do not share them evenly.
    """
    if count is None:
        return None
    if not (dist.is_available() and dist.is_initialized()):
        return Shards(count)
    world = dist.get_world_size()
    if count % world:
        raise InputError(f"{count} shards cannot be shared evenly by {world} processes; take a divisor of {count}.")
    return Shards(count, dist.get_rank(), world)


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one thread: sums in another order have other last digits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _gradients(
    trained: list[Tensor], objective: Objective, model: nn.Module, shard: Part, share: float
) -> list[Tensor]:
    """Return a shard's part of the loss and of its gradients."""
    if not share:  # there are more shards than rows
        return [torch.zeros(()), *(torch.zeros_like(one) for one in trained)]
    loss = share * objective.loss(model, shard)
    found = torch.autograd.grad(loss, trained, allow_unused=True)
    gradients = (torch.zeros_like(one) if given is None else given for one, given in zip(trained, found, strict=True))
    return [loss.detach(), *gradients]


def _change(value: Tensor, was: Tensor, share: float, number: int) -> Tensor:
    """Return a shard's part of what a step changes in a buffer."""
    change = value - was
    return share * change if value.is_floating_point() else change.float() * (number == 0)


def _shaped(flat: Tensor, places: list[Tensor]) -> list[Tensor]:
    """Return a row of numbers cut into tensors of the shapes of others."""
    found, at = [], 0
    for place in places:
        found.append(flat[at : at + place.numel()].view(place.shape))
        at += place.numel()
    return found
