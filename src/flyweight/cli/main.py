"""The command line: one function a verb. Exit code 0: done. 1: done and saved, budget missed. 2: wrong input."""

import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from flyweight.cli.display import TerminalDisplay, ZooProgress
from flyweight.errors import FlyweightError, InputError

if TYPE_CHECKING:
    from flyweight.planning.budget import Budget
    from flyweight.planning.result import Result
    from flyweight.task.task import Task

BUDGET_MISSED, WRONG_INPUT, INTERRUPTED = 1, 2, 130
HELP = """Compress a trained model inside a budget, prove it, and save it ready to serve.

Exit code 0: done. 1: done and saved, budget missed. 2: wrong input. --debug shows tracebacks."""
#: What the command-line library raises for words it does not know; it shows itself.
_UsageError: Any = typer.BadParameter.__mro__[2]
app = typer.Typer(add_completion=False, no_args_is_help=True, help=HELP, pretty_exceptions_enable=False)
out = Console(highlight=False, soft_wrap=True)
errors = Console(stderr=True, highlight=False, soft_wrap=True)

Source = Annotated[str, typer.Argument(help="path/to/file.py:function that returns a Task, or complete-journey")]
BundlePath = Annotated[Path, typer.Argument(help="a bundle, the folder name.fly")]


@app.command()
def demo(folder: Annotated[Path, typer.Option(help="where the bundle and the report go")] = Path("demo")) -> None:
    """Run the main job on real data: train a ranker, compress its tables, certify, and save the bundle."""
    from flyweight.planning.budget import Budget

    task = _task("complete-journey")
    _compress(task, Budget(max_drop=0.001), folder / "ranker.fly", folder / "report.html", overwrite=True)


@app.command()
def compress(
    task: Source,
    out_path: Annotated[Path, typer.Option("--out", help="the bundle to write, name.fly")] = Path("model.fly"),
    max_drop: Annotated[float | None, typer.Option(help="the metric may fall by so much, interval included")] = None,
    max_bytes: Annotated[int | None, typer.Option(help="bytes of the model on disk")] = None,
    min_size_ratio: Annotated[float | None, typer.Option(help="bytes before / after")] = None,
    max_latency_ms: Annotated[float | None, typer.Option(help="median of one request of 500 candidates")] = None,
    min_speedup: Annotated[float | None, typer.Option(help="median before / after")] = None,
    report_path: Annotated[Path | None, typer.Option("--report", help="also write the HTML page here")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace an existing bundle")] = False,
) -> None:
    """Compress a task's model inside a budget and save it as a bundle."""
    from flyweight.planning.budget import Budget

    if out_path.exists() and not overwrite:  # found out now, not after minutes of work
        raise InputError(f"{out_path} exists; choose another --out or pass --overwrite.")
    limits = {"max_drop": max_drop, "max_bytes": max_bytes, "min_size_ratio": min_size_ratio}
    speed = {"max_latency_ms": max_latency_ms, "min_speedup": min_speedup}
    given: dict[str, Any] = {name: value for name, value in (limits | speed).items() if value is not None}
    budget = Budget(**(given or {"max_drop": 0.001}))
    _compress(_task(task), budget, out_path, report_path, overwrite=overwrite)


@app.command()
def inspect(
    bundle: BundlePath,
    json_path: Annotated[str | None, typer.Option("--json", help="write JSON to this file, - for the terminal")] = None,
) -> None:
    """Show what a bundle holds: sizes, quality, certificate, latency, engine, what was skipped."""
    from flyweight.bundle.inspect import inspect as read_facts

    text = json.dumps(read_facts(bundle), indent=2, ensure_ascii=False)
    if json_path not in (None, "-"):
        Path(str(json_path)).write_text(text + "\n", encoding="utf-8")
    else:
        sys.stdout.write(text + "\n")


@app.command()
def verify(
    bundle: BundlePath,
    engine: Annotated[str | None, typer.Option(help="only this engine; every one that is here otherwise")] = None,
) -> None:
    """Check a bundle's hashes and structure, and run its stored requests in the engines that are here."""
    from flyweight.bundle.verify import verify as check

    verification = check(bundle, engine=engine)
    out.print(str(verification), markup=False)
    if not verification.ok:
        raise typer.Exit(BUDGET_MISSED)


@app.command()
def report(
    bundle: BundlePath,
    out_path: Annotated[Path, typer.Option("--out", help="where to copy the page")] = Path("report.html"),
) -> None:
    """Copy the report page out of a bundle, after checking the bundle."""
    from flyweight.bundle.read import read_bundle

    read_bundle(bundle)
    try:
        shutil.copyfile(bundle / "report.html", out_path)
    except OSError as error:
        raise InputError(f"The page cannot be written to {out_path}: {error.strerror}; change --out.") from error
    out.print(f"Wrote {out_path}", markup=False)


def main() -> None:
    """Run the command line; errors become one line, with a traceback only after --debug."""
    debug = "--debug" in sys.argv
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    try:
        code = app(args=arguments, standalone_mode=False)
    except (FlyweightError, ImportError) as error:
        if debug:
            raise
        errors.print(f"error: {error}", markup=False)
        sys.exit(WRONG_INPUT)
    except _UsageError as error:
        error.show()
        sys.exit(error.exit_code)
    sys.exit(code or 0)


def _task(source: str) -> "Task":
    from flyweight.cli.task_source import load_task

    with _interruptible():
        return load_task(source, ZooProgress(TerminalDisplay(errors)))


def _compress(task: "Task", budget: "Budget", bundle: Path, page: Path | None, *, overwrite: bool) -> None:
    """Compress, save, show the table, and leave with the exit code of the outcome."""
    from flyweight.planning.compress import compress as run
    from flyweight.report.terminal import render_table
    from flyweight.task.progress import shown_on

    with _interruptible(), shown_on(TerminalDisplay(errors)):
        result: Result = run(task, budget)
    bundle, failed = _save(result, bundle, overwrite=overwrite)
    where = [f"{page or bundle / 'report.html'} (open it in a browser)", f"flyweight inspect {bundle}"]
    if page is not None and failed is None:
        result.report(page)
    out.print()
    out.print(render_table(replace(result.data, look_next=(*where, f"flyweight verify {bundle}"))))
    if result.interrupted:
        out.print(f"Interrupted: the best found until then is saved as {bundle}.", markup=False)
    for sentence in result.missed:
        out.print(f"Budget missed: {sentence}.", markup=False)
    if failed is not None:
        raise InputError(f"{failed} Nothing is lost: the bundle is saved as {bundle}.")
    if result.missed or result.interrupted:
        raise typer.Exit(BUDGET_MISSED)


@contextmanager
def _interruptible() -> Iterator[None]:
    """Say what an interrupt (Ctrl-C) cost, where no step caught it and went on with the best so far."""
    try:
        yield
    except KeyboardInterrupt:
        errors.print("Interrupted before anything met the target; nothing was saved.")
        raise typer.Exit(INTERRUPTED) from None


def _save(result: "Result", bundle: Path, *, overwrite: bool) -> tuple[Path, FlyweightError | None]:
    """Save a bundle, in a temporary folder where its own place fails after minutes of work; return where, and why."""
    try:
        return result.save(bundle, overwrite=overwrite), None
    except InputError as error:
        spare = Path(tempfile.mkdtemp(prefix="flyweight-saved-")) / bundle.name
        return result.save(spare), error
