"""The verb `parallel train`: a model trained by several processes, each with a part of its embedding tables."""

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flyweight.cli.display import TerminalDisplay, ZooProgress, errors, out
from flyweight.cli.ranks import check_place, rank_of_torchrun
from flyweight.cli.stopping import stoppable
from flyweight.cli.task_source import load_task
from flyweight.errors import InputError

if TYPE_CHECKING:
    from torch import nn

    from flyweight.parallel.sharded.lesson import Lesson
    from flyweight.parallel.sharded.training import RankMemory
    from flyweight.task.task import Task


def train(
    task: Annotated[str, typer.Argument(help="path/to/file.py:function that returns a Task, or a name of the zoo")],
    ranks: Annotated[int, typer.Option(help="how many processes of this machine; torchrun says it otherwise")] = 2,
    tables: Annotated[
        str, typer.Option(help="row: each is cut by rows; table: each lies whole somewhere; auto: either by size")
    ] = "auto",
    epochs: Annotated[float, typer.Option(help="passes over the train split")] = 1.0,
    batch_rows: Annotated[int, typer.Option(help="rows of a step, over all processes")] = 1024,
    optimizer: Annotated[str, typer.Option(help="of tables: adam, adagrad, rowwise_adagrad or sgd")] = "adam",
    table_rate: Annotated[float, typer.Option(help="learning rate of tables")] = 0.002,
    dense_rate: Annotated[float, typer.Option(help="learning rate of everything else, by Adam")] = 0.001,
    fresh: Annotated[bool, typer.Option("--fresh", help="draw all weights anew; else training goes on")] = False,
    spread: Annotated[float, typer.Option(help="standard deviation of tables that are drawn anew")] = 1e-4,
    recover: Annotated[bool, typer.Option("--recover", help="learn what the task's teacher says, not labels")] = False,
    seed: Annotated[int, typer.Option(help="of all that is drawn")] = 0,
    folder: Annotated[
        Path | None, typer.Option(help="leave each process's rows here too; torchrun's processes need one")
    ] = None,
    out_path: Annotated[Path, typer.Option("--out", help="where the weights go, as a NumPy archive")] = Path(
        "trained.npz"
    ),
) -> None:
    """Train a model with its tables over processes. Begun by torchrun, be one of them, on any host."""
    from flyweight.parallel.sharded.lesson import ShardedTraining
    from flyweight.parallel.sharded.torchrec_versions import check_versions
    from flyweight.parallel.sharded.training import train_sharded
    from flyweight.task.progress import shown_on

    check_versions()
    settings = ShardedTraining(
        epochs=epochs, batch_rows=batch_rows, table_optimizer=optimizer, table_rate=table_rate,  # type: ignore[arg-type]
        dense_rate=dense_rate, spread=spread, seed=seed,
    )  # fmt: skip
    make = partial(_lesson, task, spread if fresh else None, seed, recover=recover)
    check_place(out_path)
    if "RANK" in os.environ:
        _be_one(make, tables, settings, folder, out_path)
        return
    display = TerminalDisplay(errors)
    try:
        with stoppable(), shown_on(display):
            source = load_task(task, ZooProgress(display))
            done = train_sharded(make, ranks=ranks, by=tables, settings=settings, folder=folder)  # type: ignore[arg-type]
            assert done.model is not None
            said = _compared(source, done.model)
    finally:
        display.close()
    out.print(str(done.plan), markup=False)
    for rank, one in enumerate(done.memory):
        out.print(_memory(rank, one), markup=False)
    losses = f"loss {done.losses[0]:.4f} to {done.losses[-1]:.4f}"
    out.print(f"{len(done.losses):,} steps in {done.seconds:.1f} s, {losses}.\n{said}", markup=False)
    _save(done.model, out_path)


def _lesson(source: str, spread: float | None, seed: int, *, recover: bool) -> "Lesson":
    """Return what a source teaches, in a process that shows nothing; its model drawn anew where a spread is given."""
    from flyweight.parallel.sharded.lesson import fresh, lesson_of

    task = load_task(source, ZooProgress(TerminalDisplay(errors)))
    if spread is not None:
        import copy

        task = task.with_model(fresh(copy.deepcopy(task.model), spread=spread, seed=seed))
    return lesson_of(task, recover=recover)


def _be_one(make: Any, tables: str, settings: Any, folder: Path | None, out_path: Path) -> None:
    """Be one of the processes that torchrun has begun."""
    from flyweight.parallel.sharded.files import gather_model, read_placed
    from flyweight.parallel.sharded.training import be_a_trainer

    if folder is None:
        raise InputError("Begun by torchrun, processes leave their rows in a folder; give --folder.")
    rank, ranks = rank_of_torchrun()
    folder.mkdir(parents=True, exist_ok=True)
    memory = be_a_trainer(make, rank=rank, ranks=ranks, by=tables, settings=settings, folder=folder)  # type: ignore[arg-type]
    out.print(_memory(rank, memory), markup=False)
    if rank == 0:
        plan = read_placed(folder)
        out.print(str(plan), markup=False)
        _save(gather_model(make().model, plan, folder), out_path)


def _memory(rank: int, one: "RankMemory") -> str:
    from flyweight.parallel.sharded.plan import size_words

    peak = "" if one.peak is None else f"; at most {size_words(one.peak)} resident while training"
    start = "" if one.peak_start is None else f" ({size_words(one.peak_start)} until then)"
    return f"Rank {rank}: {size_words(one.tables)} of tables, {size_words(one.optimizer)} of optimiser{peak}{start}"


def _compared(task: "Task", model: "nn.Module") -> str:
    """Return how the trained model stands on validation beside the task's own."""
    from flyweight.quality.intervals import paired_drop
    from flyweight.quality.measure import measure

    own, new = (task.scores("validation", one) for one in (task.model, model))
    first, second = (task.judged(task.spec, one.outputs) for one in (own, new))
    values = [measure(task.spec, one, own.targets, own.groups) for one in (first, second)]
    drop = paired_drop(task.spec, first, second, own.targets, own.groups)
    return f"Validation {task.spec.name}: {values[0]:.4f} of the task's model, {values[1]:.4f} trained; drop {drop}"


def _save(model: "nn.Module", path: Path) -> None:
    import numpy as np

    from flyweight.parallel.sharded.files import state_arrays

    try:
        with path.open("wb") as file:  # under the very name that was asked for
            np.savez(file, allow_pickle=False, **state_arrays(model))
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}; change --out.") from error
    out.print(f"Wrote {path}", markup=False)
