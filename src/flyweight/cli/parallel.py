"""The verbs `parallel plan` and `parallel run`: a model cut into stages, and run as a pipeline of processes."""

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flyweight.cli.display import TerminalDisplay, ZooProgress, errors, out
from flyweight.cli.parallel_train import train
from flyweight.cli.ranks import check_place, rank_of_torchrun
from flyweight.cli.stopping import stoppable
from flyweight.cli.task_source import load_task
from flyweight.errors import InputError

if TYPE_CHECKING:
    from flyweight.parallel.plan import Plan
    from flyweight.task.task import Split, Task

app = typer.Typer(
    no_args_is_help=True,
    help="Cut a model into stages and run them as a pipeline of processes, or train with its tables over processes.",
)
app.command()(train)
Source = Annotated[str, typer.Argument(help="path/to/file.py:function that returns a Task, or a name of the zoo")]
#: Numbers of stages that `plan` simulates.
SIMULATED = (1, 2, 4, 8, 16, 32, 64)
SPLITS = ("train", "validation", "test")


@app.command()
def plan(
    task: Source,
    stages: Annotated[int, typer.Option(help="how many stages")] = 2,
    rows: Annotated[int | None, typer.Option(help="rows of a micro-batch; a batch of the task otherwise")] = None,
    micro_batches: Annotated[int, typer.Option(min=1, help="micro-batches of a batch, in the simulation")] = 16,
    bandwidth: Annotated[
        float | None, typer.Option(help="of the link between stages, in GB/s; else it is measured between processes")
    ] = None,
    latency: Annotated[float, typer.Option(help="of that link, in microseconds")] = 50.0,
    out_path: Annotated[Path | None, typer.Option("--out", help="write the plan, for `parallel run --plan`")] = None,
) -> None:
    """Show where a model is cut, what each stage takes and sends, and what more stages would give."""
    from flyweight.parallel.balance import Link
    from flyweight.parallel.link import measure_link
    from flyweight.parallel.partition import partition
    from flyweight.parallel.plan import plan_of
    from flyweight.parallel.saturation import saturation
    from flyweight.task.progress import shown_on

    if bandwidth is not None and not bandwidth > 0:
        raise InputError(f"--bandwidth is in GB/s, above 0; seen {bandwidth:g}.")
    if not latency >= 0:
        raise InputError(f"--latency is in microseconds, 0 or more; seen {latency:g}.")
    if out_path is not None:
        check_place(out_path)
    display = TerminalDisplay(errors)
    try:
        with stoppable(), shown_on(display):
            link = measure_link() if bandwidth is None else Link(1e9 * bandwidth, 1e-6 * latency)
            found = partition(load_task(task, ZooProgress(display)), stages, rows=rows, link=link)
            more = saturation(found, micro_batches, SIMULATED)
    finally:
        display.close()
    out.print(str(found), markup=False)
    out.print(f"Link: {link.bytes_a_second / 1e9:.3g} GB/s, {1e6 * link.latency:.0f} us.", markup=False)
    head = f"Simulated with {micro_batches} micro-batches of {found.rows:,} rows, against one unit with the whole:"
    out.print("\n".join(["", head, *(f"  {one}" for one in more)]), markup=False)
    if out_path is not None:
        _written(out_path, lambda: plan_of(found).save(out_path))


@app.command()
def run(
    task: Source,
    stages: Annotated[int, typer.Option(help="how many stages, each a process of this machine")] = 2,
    plan_path: Annotated[
        Path | None, typer.Option("--plan", help="as `parallel plan --out` wrote it; torchrun's processes need one")
    ] = None,
    micro_batches: Annotated[int, typer.Option(min=1, help="micro-batches that each batch is cut into")] = 8,
    split: Annotated[str, typer.Option(help="train, validation or test")] = "validation",
    out_path: Annotated[Path, typer.Option("--out", help="where the scores go, as a NumPy file")] = Path("scores.npy"),
) -> None:
    """Score a split with a process for each stage. Begun by torchrun, be one of them, on any host."""
    from flyweight.parallel.partition import partition
    from flyweight.parallel.plan import cut_as_planned, read_plan
    from flyweight.parallel.run import infer_in_stages
    from flyweight.task.progress import shown_on

    if split not in SPLITS:
        raise InputError(f"--split {split!r} is unknown; use one of {', '.join(SPLITS)}.")
    known = None if plan_path is None else read_plan(plan_path)
    check_place(out_path)
    if "RANK" in os.environ:
        _be_one(task, known, micro_batches, split, out_path)  # type: ignore[arg-type]
        return
    display = TerminalDisplay(errors)
    try:
        with stoppable(), shown_on(display):
            source = load_task(task, ZooProgress(display))
            found = partition(source, stages) if known is None else cut_as_planned(source, known)
            scores = infer_in_stages(
                partial(quiet_task, task), found, micro_batches=micro_batches, split=split  # type: ignore[arg-type]
            )
    finally:
        display.close()
    out.print(str(found), markup=False)
    _save(scores, out_path)


def quiet_task(source: str) -> "Task":
    """Return the task that a source names, in a process that shows nothing."""
    return load_task(source, ZooProgress(TerminalDisplay(errors)))


def _be_one(source: str, known: "Plan | None", micro_batches: int, split: "Split", out_path: Path) -> None:
    """Be one of the processes that torchrun has begun."""
    from flyweight.parallel.run import be_a_rank

    if known is None:
        raise InputError(
            "Begun by torchrun, each process needs the same plan: `flyweight parallel plan ... --out plan.json` first, "
            "then --plan plan.json."
        )
    rank, ranks = rank_of_torchrun()
    scores = be_a_rank(partial(quiet_task, source), known, rank, ranks, micro_batches, split)
    if scores is not None:
        _save(scores, out_path)


def _save(scores: Any, path: Path) -> None:
    import numpy as np

    def write() -> None:
        with path.open("wb") as file:  # under the very name that was asked for
            np.save(file, scores.numpy())

    _written(path, write)


def _written(path: Path, write: Any) -> None:
    try:
        write()
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}; change --out.") from error
    out.print(f"Wrote {path}", markup=False)
