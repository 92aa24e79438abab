"""A recovery of dense layers and codebooks by several processes: each has the model, and batches of its own."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from flyweight.distillation.recover import recover
from flyweight.distillation.standing import Standing
from flyweight.distillation.training import STEP_ROWS
from flyweight.errors import InputError
from flyweight.parallel.launch import run_ranks
from flyweight.parallel.rank_memory import peak_bytes
from flyweight.task.task import Task

#: Makes the task, whose teacher is learned from, and the model that is taught, in each process.
MakePair = Callable[[], tuple[Task, nn.Module]]


@dataclass(frozen=True, eq=False)
class RecoveredByRanks:
    """What a recovery gave.

    Args:
        model: the best found, in evaluation mode.
        before, after: how the start and the model stand on validation.
        lr: the learning rate that was used.
        seconds: of the slowest rank, without the start of processes.
        peaks: most resident memory of each rank, in bytes; None where the system does not say.
        notes: what went otherwise than asked, in words.
    """

    model: nn.Module
    before: Standing
    after: Standing
    lr: float
    seconds: float
    peaks: tuple[int | None, ...]
    notes: tuple[str, ...]


def recover_by_ranks(
    make: MakePair, *, ranks: int, epochs: float, batch_rows: int = STEP_ROWS, **settings: Any
) -> RecoveredByRanks:
    """Return what `distillation.recover` returns, trained by so many processes of this machine.

    A step is of `batch_rows` rows, over all ranks together, as in one process; each rank's are of another batch of the
    task. Embedding tables stay as they are; to train them as well, see `train_sharded`.

    Args:
        settings: as `distillation.recover` takes them.

    Raises:
        EngineError: a rank failed; with its traceback.
        InputError: the rows of a step cannot be shared out.
    """
    if isinstance(ranks, bool) or not isinstance(ranks, int) or ranks < 1:
        raise InputError(f"ranks must be a whole number of at least 1; seen {ranks!r}.")
    if batch_rows < 2 * ranks:
        raise InputError(f"batch_rows={batch_rows} leaves less than 2 rows for each of {ranks} processes; raise it.")
    if settings.get("tables"):
        raise InputError("Tables are trained over processes by `train_sharded`; leave tables=True out.")
    given = {**settings, "epochs": epochs, "batch_rows": batch_rows // ranks}
    left = run_ranks(partial(_work, make=make, settings=given), ranks)
    told = left["told"]
    return RecoveredByRanks(
        model=_with_state(make()[1], left["state"]),
        before=Standing(*told["before"]),
        after=Standing(*told["after"]),
        lr=told["lr"],
        seconds=max(left[f"rank-{rank}"]["seconds"] for rank in range(ranks)),
        peaks=tuple(left[f"rank-{rank}"]["peak"] for rank in range(ranks)),
        notes=tuple(told["notes"]),
    )


def _work(rank: int, ranks: int, folder: Path, *, make: MakePair, settings: dict[str, Any]) -> None:
    task, model = make()
    done = recover(task, model, **settings)
    torch.save({"seconds": done.seconds, "peak": peak_bytes()}, folder / f"rank-{rank}.pt")
    if rank == 0:
        stand = [[one.epoch, one.metric, one.loss] for one in (done.before, done.after)]
        told = {"before": stand[0], "after": stand[1], "lr": done.lr, "notes": list(done.notes)}
        torch.save(told, folder / "told.pt")
        torch.save(dict(done.model.state_dict()), folder / "state.pt")


def _with_state(model: nn.Module, state: Mapping[str, torch.Tensor]) -> nn.Module:
    """Return a copy of a model with the weights that a rank left."""
    copied = copy.deepcopy(model)
    copied.load_state_dict(dict(state))
    return copied.eval()
