"""Recovery training shared among the processes of a machine or of a cluster; one that is killed costs time alone.

Each step's rows are cut into the same shards whoever computes them (`distillation.shards`), so weights are the same to
the last bit for any number of ranks. When one dies, all begin again at the last checkpoint.
"""

import pickle
import tempfile
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from flyweight.distillation.recover import Recovered, train
from flyweight.distillation.run import AfterStep
from flyweight.distillation.training import Training
from flyweight.distillation.working import working_copy
from flyweight.errors import InputError
from flyweight.parallel.cluster.find import find_cluster
from flyweight.parallel.cluster.ranks import run_on_cluster
from flyweight.parallel.launch import RankLostError, run_ranks
from flyweight.task.progress import teller
from flyweight.task.runner import RETRIES, Runner
from flyweight.task.task import Task

#: Shards of a step where the settings name none: one, two or four ranks share them evenly.
SHARDS = 4


@dataclass(frozen=True, eq=False)
class _Sent:
    """What every rank needs."""

    task: Task
    model: nn.Module
    training: Training
    teacher: nn.Module | None
    after_step: AfterStep | None


def recover_together(
    task: Task,
    model: nn.Module,
    training: Training,
    *,
    ranks: int = 2,
    cluster: str = "local",
    teacher: nn.Module | None = None,
    after_step: AfterStep | None = None,
    checkpoint: Path | None = None,
) -> Recovered:
    """Do what `distillation.recover` does with as many processes; the weights are those of one.

    Args:
        task, model, teacher: as there; they can be sent to another process.
        training: its `shards` (4 where None) are what ranks share, evenly.
        ranks: processes, each with a core; "cluster" says where, as `find_cluster` takes it.
        after_step: called in every rank; can be sent to another process.
        checkpoint: a file to go on from if it is there, kept here as training goes; None keeps one for this call.

    Raises:
        InputError: the ranks cannot share the shards evenly, or something cannot be sent; what `recover` raises.
        EngineError: a rank failed, with its traceback, or was killed too often.

    Example:
        >>> settings = Training(epochs=1, lr=1e-3, shards=4)
        >>> recover_together(task, pruned, settings, ranks=2, cluster="auto")  # doctest: +SKIP
    """
    if isinstance(ranks, bool) or not isinstance(ranks, int) or ranks < 1:
        raise InputError(f"ranks must be a whole number of at least 1; seen {ranks!r}.")
    count = training.shards or SHARDS
    if count % ranks:
        raise InputError(f"{count} shards cannot be shared evenly by {ranks} ranks; take a divisor of {count}.")
    settings = Training(**{**vars(training), "shards": count})
    own = tempfile.TemporaryDirectory(prefix="flyweight-together-") if checkpoint is None else nullcontext("")
    with own as folder, find_cluster(cluster, ranks) as runner:
        if not runner.local and runner.workers < ranks:
            raise InputError(f"{ranks} ranks need a core each, and {cluster} has {runner.workers}; ask for fewer.")
        kept = checkpoint or Path(folder, "training")
        packed = runner.packed(_Sent(task, model, settings, teacher, after_step))
        found, state = pickle.loads(_until_done(_begin(runner, packed, ranks, kept)))  # our own ranks'
    assert isinstance(found, Recovered)
    return replace(found, model=working_copy(model, tables=settings.tables).finished(state))


def recover_in_ranks(
    task: Task, model: nn.Module, training: Training, *, most: int, cluster: str, **named: Any
) -> Recovered:
    """Do what `recover_together` does with as many ranks as share the shards evenly, at most `most`."""
    count = training.shards or SHARDS
    ranks = max(one for one in range(1, min(most, count) + 1) if count % one == 0)
    return recover_together(task, model, training, ranks=ranks, cluster=cluster, **named)


def _begin(runner: Runner, packed: bytes, ranks: int, kept: Path) -> Callable[[], bytes]:
    """Return what runs all ranks once and gives the first one's result."""
    if runner.local:
        return lambda: bytes(run_ranks(partial(_local_rank, packed=packed, kept=kept), ranks)["recovered"].numpy())
    return partial(run_on_cluster, partial(_recovered, packed), ranks, kept)


def _until_done(run: Callable[[], bytes]) -> bytes:
    """Run all ranks, again where one was killed.

    Raises:
        RankLostError: each time.
    """
    for left in reversed(range(RETRIES + 1)):
        try:
            return run()
        except RankLostError as error:
            if not left:
                raise
            first = str(error).splitlines()[0]
            teller()(f"{first} Going on from the last checkpoint.")
    raise AssertionError("the last try returns or raises")


def _local_rank(rank: int, ranks: int, folder: Path, *, packed: bytes, kept: Path) -> None:
    found = _recovered(packed, kept)
    if rank == 0:
        torch.save(torch.frombuffer(bytearray(found), dtype=torch.uint8), folder / "recovered.pt")


def _recovered(packed: bytes, kept: Path) -> bytes:
    """Be one of the ranks, which have joined already; return what came of it."""
    sent: _Sent = pickle.loads(packed)  # our own driver's
    found = train(
        sent.task, sent.model, sent.training, teacher=sent.teacher, after_step=sent.after_step, checkpoint=kept
    )
    # What moved alone: tables stay where they are, and classes of the user's own files need not come back.
    tensors = {**dict(found.model.named_parameters()), **dict(found.model.named_buffers())}
    moved = working_copy(sent.model, tables=sent.training.tables).state()
    state = {name: tensors[name].detach().clone() for name in moved}
    return pickle.dumps((replace(found, model=nn.Identity()), state), protocol=pickle.HIGHEST_PROTOCOL)
