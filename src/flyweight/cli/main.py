"""The command line: one function a verb. Exit code 0: done. 1: budget missed. 2: wrong input. 130: interrupted."""

import json
import shutil
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import flyweight
from flyweight.cli.bench import bench
from flyweight.cli.display import TerminalDisplay, ZooProgress, errors, out
from flyweight.cli.profile import profile
from flyweight.cli.stopping import INTERRUPTED, stoppable
from flyweight.errors import FlyweightError, InputError

if TYPE_CHECKING:
    from flyweight.planning.budget import Budget

NOT_VERIFIED, WRONG_INPUT = 1, 2
#: What installs a package that compressing needs and serving does not.
EXTRAS = {
    **dict.fromkeys(("torch", "onnxscript", "matplotlib", "jinja2"), "compress"),
    **dict.fromkeys(("polars", "pyarrow"), "demo"),
}
HELP = """Compress a trained model inside a budget, prove it, and save it ready to serve.

Exit code 0: done. 1: done and saved, budget missed. 2: wrong input. 130: interrupted."""
app = typer.Typer(add_completion=False, no_args_is_help=True, help=HELP, pretty_exceptions_enable=False)

Source = Annotated[str, typer.Argument(help="path/to/file.py:function that returns a Task, or complete-journey")]
BundlePath = Annotated[Path, typer.Argument(help="a bundle, the folder name.fly")]


def _show_version(wanted: bool) -> None:
    if wanted:
        out.print(f"flyweight {flyweight.__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[bool, typer.Option("--version", callback=_show_version, help="show the version")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="show tracebacks; anywhere on the line")] = False,
) -> None:
    """Take what holds for every verb; `main` takes --debug itself, wherever it stands."""


@app.command()
def demo(folder: Annotated[Path, typer.Option(help="where the bundle and the report go")] = Path("demo")) -> None:
    """Run the main job on real data: train a ranker, compress its tables, certify, and save the bundle."""
    from flyweight.planning.budget import Budget

    bundle, page = folder / "ranker.fly", folder / "report.html"
    _compress("complete-journey", Budget(max_drop=0.001), bundle, page, overwrite=True)


@app.command()
def compress(
    task: Source,
    out_path: Annotated[Path, typer.Option("--out", help="the bundle to write, name.fly")] = Path("model.fly"),
    max_drop: Annotated[
        float | None, typer.Option(help="largest loss of quality, with its interval; 0.001 if no limit is set")
    ] = None,
    max_bytes: Annotated[int | None, typer.Option(help="largest size of the model on disk, in bytes")] = None,
    min_size_ratio: Annotated[float | None, typer.Option(help="how many times smaller on disk, at least")] = None,
    max_latency_ms: Annotated[float | None, typer.Option(help="largest median time of a 500-candidate request")] = None,
    min_speedup: Annotated[float | None, typer.Option(help="how many times quicker at the median, at least")] = None,
    report_path: Annotated[Path | None, typer.Option("--report", help="also write the HTML page here")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace an existing bundle")] = False,
) -> None:
    """Compress a task's model inside a budget and save it as a bundle."""
    from flyweight.planning.budget import Budget

    limits = {"max_drop": max_drop, "max_bytes": max_bytes, "min_size_ratio": min_size_ratio}
    speed = {"max_latency_ms": max_latency_ms, "min_speedup": min_speedup}
    given: dict[str, Any] = {name: value for name, value in (limits | speed).items() if value is not None}
    budget = Budget(**(given or {"max_drop": 0.001}))
    _compress(task, budget, out_path, report_path, overwrite=overwrite)


@app.command()
def inspect(
    bundle: BundlePath,
    json_path: Annotated[
        str | None, typer.Option("--json", help="all of it as JSON, to this file; - for the terminal")
    ] = None,
) -> None:
    """Show what a bundle holds: sizes, quality, certificate, latency, engine, what was skipped."""
    from flyweight.bundle.inspect import inspect as read_facts

    facts = read_facts(bundle)
    text = json.dumps(facts, indent=2, ensure_ascii=False) + "\n"
    if json_path is None:
        from flyweight.cli.facts import report_of
        from flyweight.report.terminal import render_table

        out.print(render_table(report_of(facts)), soft_wrap=False)
    elif json_path == "-":
        sys.stdout.write(text)
    else:
        try:
            Path(json_path).write_text(text, encoding="utf-8")
        except OSError as error:
            raise InputError(f"The JSON cannot be written to {json_path}: {error.strerror}; change --json.") from error


@app.command()
def verify(
    bundle: BundlePath,
    engine: Annotated[str | None, typer.Option(help="only this engine; every one that is here otherwise")] = None,
) -> None:
    """Check a bundle's hashes and structure, and run its stored requests in the engines that are here."""
    from flyweight.bundle.verify import verify as check

    with stoppable():
        verification = check(bundle, engine=engine)
    out.print(str(verification), markup=False)
    if not verification.ok:
        raise typer.Exit(NOT_VERIFIED)


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


app.command()(bench)
app.command()(profile)


def main() -> None:
    """Run the command line; errors become one line, with a traceback only after --debug."""
    debug = "--debug" in sys.argv
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # asked to end, it saves the best so far, as on Ctrl-C
    try:
        app(args=arguments, prog_name="flyweight")
    except Exception as error:  # the last stop: whatever it is, a user sees one line
        if debug:
            raise
        errors.print(f"error: {_in_words(error)}", markup=False)
        sys.exit(WRONG_INPUT)


def _in_words(error: Exception) -> str:
    if isinstance(error, FlyweightError):
        return str(error)
    if isinstance(error, ModuleNotFoundError) and (missing := str(error.name).partition(".")[0]) in EXTRAS:
        return f"This needs {missing}, which serving does not: pip install 'flyweight[{EXTRAS[missing]}]'"
    return f"{type(error).__name__}: {error} (--debug shows where)"


def _compress(source: str, budget: "Budget", bundle: Path, page: Path | None, *, overwrite: bool) -> None:
    """Do the work and leave with the exit code of its outcome."""
    from flyweight.bundle.write import check_target

    check_target(bundle, overwrite=overwrite)  # found out now, not after minutes of work
    try:
        raise typer.Exit(_outcome(source, budget, bundle, page, overwrite=overwrite))
    except KeyboardInterrupt:
        errors.print("Interrupted; nothing was saved.")
        raise typer.Exit(INTERRUPTED) from None


def _outcome(source: str, budget: "Budget", bundle: Path, page: Path | None, *, overwrite: bool) -> int:
    """Read a task, compress it, hand over the result, and return the exit code."""
    display = TerminalDisplay(errors)
    if errors.is_terminal:  # PyTorch takes seconds to load, and the user's own training longer
        display.say(f"Building the task {source}")
    from flyweight.cli.deliver import deliver
    from flyweight.cli.task_source import load_task
    from flyweight.planning.compress import compress as run
    from flyweight.task.progress import shown_on

    try:
        task = load_task(source, ZooProgress(display))
        with shown_on(display):
            return deliver(run(task, budget), bundle, page, overwrite=overwrite)
    finally:
        display.close()
