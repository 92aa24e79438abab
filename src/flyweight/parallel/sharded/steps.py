"""One rank's steps of a training with tables over processes: its share of a batch, and gradients of the whole one."""

from collections.abc import Callable, Iterator
from math import isfinite
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from flyweight.errors import FlyweightError, InputError
from flyweight.parallel.sharded.lesson import Lesson, ShardedTraining
from flyweight.parallel.sharded.model import ShardedModel
from flyweight.parallel.sharded.resume import Kept
from flyweight.task.batches import Batch
from flyweight.task.scores import call_model

DENSE: dict[str, type[torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "adagrad": torch.optim.Adagrad,
    "sgd": torch.optim.SGD,
}
#: For gradients of the rows of a batch alone.
SPARSE: dict[str, type[torch.optim.Optimizer]] = {
    "adam": torch.optim.SparseAdam,
    "adagrad": torch.optim.Adagrad,
    "sgd": torch.optim.SGD,
}
Inputs = dict[str, Tensor]


class Steps:
    """A training under way on one rank.

    Args:
        lesson: what is learned; its model is `sharded`.
        sharded: this rank's part of the model.
        teacher: this rank's part of the teacher, or None.
        settings: how.
        device: where the rank computes.
    """

    def __init__(
        self,
        lesson: Lesson,
        sharded: ShardedModel,
        teacher: ShardedModel | None,
        settings: ShardedTraining,
        device: torch.device,
    ) -> None:
        self.lesson, self.sharded, self.teacher = lesson, sharded, teacher
        self.settings, self.device = settings, device
        self.rank, self.ranks = dist.get_rank(), dist.get_world_size()
        self.dense = [one for one in sharded.body.parameters() if one.requires_grad]
        self.optimizers = _optimizers(sharded, settings)
        self.losses: list[float] = []  # of this rank's rows, each a share of the whole batch's loss
        self.total = max(1, round(settings.epochs * lesson.count))

    def run(self, advance: Callable[[int], None], kept: Kept | None = None) -> None:
        """Take all steps; `advance` is told how many batches of the task are behind.

        Args:
            kept: where the training is kept, and gone on from.

        Raises:
            EngineError: the training could not be kept.
            FlyweightError: the loss is no longer a finite number.
            InputError: what was kept is of another training.
        """
        found = kept.found() if kept is not None else None
        begun = self._take_up(found) if found is not None else 0
        self.sharded.body.train()
        for number, (inputs, target, _) in enumerate(self._batches()):
            if number < begun:
                continue
            torch.manual_seed((self.settings.seed * 1_000_003 + number) * 64 + self.rank % 64)  # of dropout
            pieces = -(-len(target) // self.settings.batch_rows)
            for turn in range(pieces):
                place = slice(turn * self.settings.batch_rows, (turn + 1) * self.settings.batch_rows)
                done = (number + turn / pieces) / self.total
                self._step({name: value[place] for name, value in inputs.items()}, target[place], done)
            advance(number + 1)
            if kept is not None and kept.due():
                kept.keep(number + 1, self._state(number + 1))
        _agree_on_buffers(self.sharded.body)
        self.sharded.body.eval()

    def _state(self, number: int) -> dict[str, Any]:
        """Return all that this rank's further steps hang on, `number` batches being behind."""
        return {
            "number": number,
            "losses": self.losses,
            "body": dict(self.sharded.body.state_dict()),
            "tables": self._tables(),
            "optimizers": [one.state_dict() for one, _ in self.optimizers],
        }

    def _take_up(self, found: dict[str, Any]) -> int:
        """Go on from what `_state` returned; return how many batches are behind."""
        self.losses = list(found["losses"])
        self.sharded.body.load_state_dict(found["body"])
        for own, before in zip(self._tables(), found["tables"], strict=True):
            own.copy_(before)
        for (optimizer, _), state in zip(self.optimizers, found["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        return int(found["number"])

    def _tables(self) -> list[Tensor]:
        """Return this rank's rows, and what optimisers within the backward pass remember of them."""
        own = [held.values for held in self.sharded.rows()]
        return own + [state for group in self.sharded.groups for state in group.optimizer_states()]

    def _batches(self) -> Iterator[Batch]:
        """Yield the batches of all passes."""
        left = self.total
        while left > 0:
            before = left
            for batch in self.lesson.batches():
                if left == 0:
                    return
                yield batch
                left -= 1
            if left == before:
                raise InputError("The train split is empty; give at least one batch.")

    def _step(self, inputs: Inputs, target: Tensor, done: float) -> None:
        """Take a step on this rank's rows of a batch, weighed so that ranks together step as one on all rows."""
        rows, share = len(target), 1 - (1 - self.settings.final_rate) * done
        own, weight = _share(rows, self.rank, self.ranks)
        mine = {name: value[own].to(self.device) for name, value in inputs.items()}
        aim = target[own].to(self.device)
        for optimizer, rate in self.optimizers:
            optimizer.zero_grad()
            for group in optimizer.param_groups:
                group["lr"] = rate * share
        for tables in self.sharded.groups:
            tables.set_rate(self.settings.table_rate * share)
        said = None if self.teacher is None else _said(self.teacher, mine, len(aim))
        with self.sharded.lookups.of_batch(mine):
            loss = self.lesson.loss(call_model(self.sharded.body, mine, len(aim)), aim, said)
            if not isfinite(float(loss.detach())):
                raise FlyweightError(
                    f"The loss is {float(loss.detach())} after {len(self.losses):,} steps; "
                    f"lower table_rate={self.settings.table_rate} or dense_rate={self.settings.dense_rate}."
                )
            (loss * weight).backward()  # type: ignore[no-untyped-call]
        _average([one.grad for one in self.dense if one.grad is not None])
        for optimizer, _ in self.optimizers:
            optimizer.step()
        self.losses.append(float(loss.detach()) * weight / self.ranks)


def _share(rows: int, rank: int, ranks: int) -> tuple[slice, float]:
    """Return a rank's rows of a batch and the weight of their mean loss: the mean over ranks is that of all rows.

    A rank without rows takes the first one, with a weight of 0: all ranks must ask for rows together.
    """
    start, end = rank * rows // ranks, (rank + 1) * rows // ranks
    return (slice(start, end), ranks * (end - start) / rows) if end > start else (slice(0, 1), 0.0)


def _said(teacher: ShardedModel, inputs: Inputs, rows: int) -> Tensor:
    with torch.no_grad(), teacher.lookups.of_batch(inputs):
        return call_model(teacher.body, inputs, rows)


def _average(gradients: list[Tensor]) -> None:
    """Put the mean over ranks in the place of each gradient, in one exchange."""
    if dist.get_world_size() == 1 or not gradients:
        return
    flat = parameters_to_vector(gradients)
    dist.all_reduce(flat)
    vector_to_parameters(flat / dist.get_world_size(), gradients)


def _agree_on_buffers(body: nn.Module) -> None:
    """Take the mean over ranks of running statistics: each has seen rows of its own."""
    _average([one for one in body.buffers() if one.is_floating_point() and one.numel()])


def _optimizers(sharded: ShardedModel, settings: ShardedTraining) -> list[tuple[torch.optim.Optimizer, float]]:
    """Return each optimizer of this rank with its full rate; those within the backward pass are not among them."""
    dense = [one for one in sharded.body.parameters() if one.requires_grad]
    tables = [one for group in sharded.groups for one in group.weights()]
    made: list[tuple[torch.optim.Optimizer, float]] = []
    if dense:
        made.append((_made(DENSE[settings.dense_optimizer], dense, settings.dense_rate), settings.dense_rate))
    if tables:
        made.append((_made(SPARSE[settings.table_optimizer], tables, settings.table_rate), settings.table_rate))
    return made


def _made(kind: type[torch.optim.Optimizer], weights: list[nn.Parameter], rate: float) -> torch.optim.Optimizer:
    return kind(weights, lr=rate)  # type: ignore[call-arg]
