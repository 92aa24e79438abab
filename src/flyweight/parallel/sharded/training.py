"""A model trained by several processes, each with a part of its embedding tables and a share of each batch."""

import copy
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from flyweight.errors import InputError
from flyweight.parallel.agreement import check_alike, digest_of
from flyweight.parallel.launch import joined, run_ranks
from flyweight.parallel.sharded.files import gather_model, save_rest, save_shards
from flyweight.parallel.sharded.lesson import Lesson, MakeLesson, ShardedTraining
from flyweight.parallel.sharded.model import ShardedModel, plan_tables, shard_model
from flyweight.parallel.sharded.plan import By, TablePlan
from flyweight.parallel.sharded.rank_memory import forget_peak, peak_bytes
from flyweight.parallel.sharded.resume import Kept, identity_of
from flyweight.parallel.sharded.steps import Steps
from flyweight.parallel.sharded.torchrec_versions import check_versions, load_torchrec
from flyweight.task.progress import stage

PROGRESS = "batches.done"
#: Seconds between two looks at how far ranks are.
LOOK = 0.3


@dataclass(frozen=True)
class RankMemory:
    """What a rank held, in bytes.

    Args:
        tables: of embedding tables: its part, and those that all hold.
        optimizer: of what the optimisers remember.
        peak_start: most resident memory until training began: the packages, and the lesson as the user makes it.
        peak: most resident memory while it trained; None where the system does not say.
    """

    tables: int
    optimizer: int
    peak_start: int | None
    peak: int | None


@dataclass(frozen=True, eq=False)
class ShardedTrained:
    """What a training over processes gave.

    Args:
        model: trained, in evaluation mode, its tables gathered; None where they were to stay apart.
        plan: where rows were.
        losses: the mean loss of each step, over all rows of its batch.
        memory: of each rank.
        seconds: of the training, without the start of processes.
    """

    model: nn.Module | None
    plan: TablePlan
    losses: tuple[float, ...]
    memory: tuple[RankMemory, ...]
    seconds: float


def train_sharded(
    make: MakeLesson,
    *,
    ranks: int = 2,
    by: By = "auto",
    settings: ShardedTraining | None = None,
    folder: Path | None = None,
    gather: bool = True,
) -> ShardedTrained:
    """Train a model in so many processes of this machine, each with a part of its tables, and return it whole.

    Each rank takes its share of each batch; gradients are those of the whole batch, so that steps are those of one
    process up to rounding (batch norm alone takes the mean of a rank's rows).

    Args:
        make: the lesson, made in each process and once here.
        by: whether tables are cut by rows, placed whole ("table"), or either by size ("auto").
        folder: where each rank's rows are left beside the rest; a training that was stopped goes on from there, from
            what was kept each minute. None keeps no files.
        gather: whether the trained model is put together in this process; without it, `folder` has its parts.

    Raises:
        EngineError: TorchRec is missing or does not go with PyTorch, or a rank failed; with its traceback.
        InputError: a setting makes no sense, or nothing would be kept.

    Example:
        >>> done = train_sharded(partial(lesson_of_file, "mine.py"), ranks=2)  # doctest: +SKIP
        >>> print(done.plan)  # doctest: +SKIP
        25 tables of 187.1 MB over 2 processes: rank 0 93.6 MB, rank 1 93.5 MB
    """
    if not gather and folder is None:
        raise InputError("gather=False leaves the trained parts in a folder alone; give folder=.")
    check_versions()
    settings = settings or ShardedTraining()
    lesson = make()
    plan = plan_tables(lesson.model, *lesson.first(settings.batch_rows), ranks, by)
    with _place(folder) as place:
        work = partial(_work, make=make, by=by, settings=settings, place=place, resume=folder is not None)
        total = max(1, round(settings.epochs * lesson.count))
        with _watched(place / PROGRESS, total):
            left = run_ranks(work, ranks)
        model = gather_model(_whole_copy(lesson.model, plan), plan, place) if gather else None
    each = [left[f"rank-{rank}"] for rank in range(ranks)]
    losses = torch.tensor([one["losses"] for one in each], dtype=torch.float64).sum(0)
    memory = tuple(RankMemory(**one["memory"]) for one in each)
    return ShardedTrained(model, plan, tuple(losses.tolist()), memory, max(one["seconds"] for one in each))


def be_a_trainer(
    make: MakeLesson, *, rank: int, ranks: int, by: By, settings: ShardedTraining, folder: Path
) -> RankMemory:
    """Be one of the processes that `torchrun` has begun, on any host; leave this rank's rows in a folder.

    Rank 0 leaves the plan and the rest beside them. On hosts that share no disk each has its own rows.
    """
    load_torchrec()
    with joined(rank, ranks) as device:
        return RankMemory(**train_part(make(), by, settings, folder, device, resume=True)["memory"])


def _work(
    rank: int,
    ranks: int,
    folder: Path,
    *,
    make: MakeLesson,
    by: By,
    settings: ShardedTraining,
    place: Path,
    resume: bool,
) -> None:
    load_torchrec()
    found = train_part(make(), by, settings, place, torch.device("cpu"), resume=resume)
    torch.save(found, folder / f"rank-{rank}.pt")


def train_part(
    lesson: Lesson,
    by: By,
    settings: ShardedTraining,
    folder: Path,
    device: torch.device,
    *,
    resume: bool = False,
) -> dict[str, Any]:
    """Train this rank's part and leave its rows in a folder.

    Args:
        resume: whether the training is kept there as it goes, and gone on from.
    """
    rank = dist.get_rank()
    inputs, rows = lesson.first(settings.batch_rows)
    start = dict(lesson.model.state_dict())
    taught_by = {} if lesson.teacher is None else {f"teacher's {k}": v for k, v in lesson.teacher.state_dict().items()}
    check_alike({**start, **taught_by, **inputs}, device)
    # What it is to learn, and from where, tells a training from another as its settings do.
    known = (settings, lesson.count, lesson.teacher is not None, digest_of({**start, **taught_by}))
    del start, taught_by  # whole tables among them
    plan = plan_tables(lesson.model, inputs, rows, dist.get_world_size(), by)
    shard = partial(
        shard_model, inputs=inputs, rows=rows, optimizer=settings.table_optimizer, rate=settings.table_rate,
        device=device, spread=settings.spread, seed=settings.seed,
    )  # fmt: skip
    own = shard(lesson.model, plan)
    taught = None
    if lesson.teacher is not None:
        taught = shard(lesson.teacher, plan_tables(lesson.teacher, inputs, rows, plan.ranks, "auto"), trained=False)
    lesson = Lesson(nn.Identity(), lesson.batches, lesson.count, lesson.loss)  # lets go of whole tables
    before = peak_bytes()
    counted = forget_peak()
    steps = Steps(lesson, own, taught, settings, device)
    dist.barrier()
    began = time.monotonic()
    kept = Kept(folder, identity_of(plan, *known), device) if resume else None
    steps.run(_teller(folder / PROGRESS) if rank == 0 else lambda done: None, kept)
    seconds = time.monotonic() - began
    peak = peak_bytes() if counted else None
    save_shards(own, folder)
    if rank == 0:
        save_rest(own, folder)
        (folder / PROGRESS).unlink(missing_ok=True)
    if kept is not None:
        kept.clear()
    dist.barrier()
    memory = {
        "tables": sum(held.values.nbytes for held in own.rows()),
        "optimizer": _remembered(steps, own),
        "peak_start": before,
        "peak": peak,
    }
    return {"losses": steps.losses, "memory": memory, "seconds": seconds}


def _remembered(steps: Steps, sharded: ShardedModel) -> int:
    """Return the bytes of what optimisers remember."""
    kept = [value for one, _ in steps.optimizers for state in one.state.values() for value in state.values()]
    own = sum(value.nbytes for value in kept if isinstance(value, torch.Tensor))
    states = [state for group in sharded.groups for state in group.optimizer_states()]
    return own + sum(state.numel() * state.element_size() for state in states)


def _whole_copy(model: nn.Module, plan: TablePlan) -> nn.Module:
    """Return a copy of a model for other weights; tables on no device get room in main memory."""
    copied = copy.deepcopy(model)
    for table in plan.tables:
        own, kept = model.get_submodule(table.name).weight, copied.get_submodule(table.name).weight
        assert isinstance(own, torch.Tensor)
        if own.device.type != "meta":
            continue
        new = nn.Parameter(torch.empty(table.rows, table.dim), requires_grad=own.requires_grad)
        for module in copied.modules():
            if isinstance(module, (nn.Embedding, nn.EmbeddingBag)) and module.weight is kept:
                module.weight = new
    return copied


@contextmanager
def _place(folder: Path | None) -> Iterator[Path]:
    """Hold a folder: the user's, or one that is gone afterwards."""
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="flyweight-tables-") as made:
        yield Path(made)


def _teller(path: Path) -> Any:
    """Return how rank 0 says now and then how many batches are done."""
    said = [time.monotonic()]

    def tell(done: int) -> None:
        if time.monotonic() - said[0] > LOOK:
            path.write_text(str(done))
            said[0] = time.monotonic()

    return tell


@contextmanager
def _watched(path: Path, total: int) -> Iterator[None]:
    """Show how far rank 0 is, read from a file, while the block waits for it."""
    over = threading.Event()
    with stage("Training", total=total) as work:

        def look() -> None:
            shown = 0
            while not over.wait(LOOK):
                try:
                    text = path.read_text()
                except FileNotFoundError:  # not yet written, or the training is over
                    continue
                if text.isdigit() and int(text) > shown:
                    work.advance(int(text) - shown)
                    shown = int(text)

        watcher = threading.Thread(target=look, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            over.set()
            watcher.join()
            path.unlink(missing_ok=True)
