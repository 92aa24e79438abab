"""One rank of a pipeline: its stage, passed micro-batches through by `torch.distributed.pipelining`."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.pipelining import PipelineStage, Schedule1F1B, ScheduleGPipe
from torch.distributed.pipelining.schedules import PipelineScheduleSingle

from flyweight.distillation.working import Working, working_copy
from flyweight.errors import InputError
from flyweight.parallel.partition import Partition
from flyweight.parallel.split import StageModule

Batch = tuple[dict[str, Tensor], Tensor]
#: Learning rate of a training, Adam's.
RATE = 1e-3
#: Where a stage's weights lie in its module.
BODY = "traced.body."


@dataclass(frozen=True)
class Trained:
    """What a rank's training gave.

    Args:
        losses: mean of each batch; of the last rank, empty elsewhere.
        weights: what moved in this rank's stage, running statistics included, by the names of the whole model, as it is
            stored.
    """

    losses: tuple[float, ...]
    weights: dict[str, Tensor]


def infer(
    partition: Partition, rank: int, batches: Iterable[Batch], micro_batches: int, device: torch.device
) -> Iterator[Tensor]:
    """Yield the outputs of each batch on the last rank, nothing on the others.

    Every rank is given the same batches, and reads of them what its stage does. A batch whose rows do not divide is
    filled up with its last row.
    """
    module = partition.module(rank).to(device).eval()
    schedule: PipelineScheduleSingle | None = None
    size = 0
    for inputs, target in batches:
        rows = len(target)
        wide = -(-rows // micro_batches) * micro_batches
        if schedule is None or wide != size:  # shapes are agreed upon once
            schedule, size = ScheduleGPipe(_stage(module, partition, rank, device), micro_batches), wide
        given: dict[str, Any] = {name: _filled(inputs[name], wide).to(device) for name in module.reads}
        with torch.no_grad():
            outputs = schedule.step(**given)
        if rank == len(partition.stages) - 1:
            yield outputs[:rows]


def train(
    partition: Partition,
    rank: int,
    batches: Iterable[Batch],
    micro_batches: int,
    device: torch.device,
    loss: Callable[[Tensor, Tensor], Tensor],
    rate: float = RATE,
) -> Trained:
    """Train a stage over batches, one forwards and one back, with an optimiser of its own.

    Dense layers and codebooks move, as in `distillation.recover`; embedding tables stay as they are.

    Args:
        batches: the same on every rank; those whose rows do not divide are left out.
        loss: mean loss of a micro-batch, of its outputs and targets.

    Raises:
        InputError: no batch divides into so many micro-batches.
    """
    working = _working(partition, rank)
    module = working.model
    assert isinstance(module, StageModule)
    module.to(device).train()
    optimizer = torch.optim.Adam(working.trained.values(), lr=rate) if working.trained else None
    last = rank == len(partition.stages) - 1
    schedule: PipelineScheduleSingle | None = None
    losses, size = [], 0
    for inputs, target in batches:
        if len(target) % micro_batches:
            continue
        if schedule is None or len(target) != size:  # shapes are agreed upon once
            stage = _stage(module, partition, rank, device)
            schedule, size = Schedule1F1B(stage, micro_batches, loss_fn=loss), len(target)
        given: dict[str, Any] = {name: inputs[name].to(device) for name in module.reads}
        each: list[Tensor] = []
        if optimizer is not None:
            optimizer.zero_grad()
        if last:
            schedule.step(**given, target=target.to(device), losses=each)
        else:
            schedule.step(**given)
        if optimizer is not None:
            optimizer.step()
        if last:
            losses.append(float(torch.stack(each).detach().mean()))
    if schedule is None:
        raise InputError(f"No batch has rows that divide into {micro_batches} micro-batches.")
    return Trained(
        tuple(losses), {name.removeprefix(BODY): value.cpu() for name, value in working.state().items()}
    )


def _working(partition: Partition, rank: int) -> Working:
    """Return a copy of a stage for training: of it moves what would move if the whole were trained.

    A stage alone would not do: where all of its weights are frozen, or of tables, it would train them.
    """
    moves = {name.removeprefix("body.") for name in working_copy(partition.traced).trained}
    try:
        working = working_copy(partition.module(rank))
    except InputError:  # nothing in it can be trained
        return Working(partition.module(rank).requires_grad_(False), {})
    kept = {name: one for name, one in working.trained.items() if name.removeprefix(BODY) in moves}
    for name, one in working.trained.items():
        one.requires_grad_(name in kept)
    dtypes = {name: dtype for name, dtype in working.dtypes.items() if name in kept}
    return replace(working, trained=kept, dtypes=dtypes)


def _stage(module: StageModule, partition: Partition, rank: int, device: torch.device) -> PipelineStage:
    stage: nn.Module = module
    return PipelineStage(stage, rank, len(partition.stages), device)


def _filled(value: Tensor, rows: int) -> Tensor:
    """Return a tensor of so many rows, the last one repeated where there are fewer."""
    short = rows - len(value)
    return value if not short else torch.cat([value, value[-1:].expand(short, *value.shape[1:])])
