"""The command line: one function a verb. Exit code 0: done. 1: budget missed. 2: wrong input. 130: interrupted."""

import json
import shutil
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import flyweight
from flyweight.cli import parallel
from flyweight.cli import shard as sharding
from flyweight.cli.bench import bench
from flyweight.cli.compress import compress, compress_source
from flyweight.cli.display import errors, out
from flyweight.cli.encode import encode
from flyweight.cli.export import export
from flyweight.cli.profile import profile
from flyweight.cli.serve import serve
from flyweight.cli.stopping import stoppable
from flyweight.cli.vocabulary import vocabulary
from flyweight.errors import FlyweightError, InputError

if TYPE_CHECKING:
    pass

NOT_VERIFIED, WRONG_INPUT = 1, 2
#: Minutes of searching that the demonstration takes.
DEMO_MINUTES = 5.0
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
    compress_source("complete-journey", Budget(max_drop=0.001, max_minutes=DEMO_MINUTES), bundle, page, overwrite=True)


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
        if facts["vocabularies"]:
            counts = ", ".join(f"{name} {one['values']:,}" for name, one in facts["vocabularies"].items())
            size = facts["files"]["vocabularies.safetensors"]
            out.print(f"Raw values, {size:,} bytes that are not the model's: {counts}", markup=False)
        if (split := facts.get("shards")) is not None:
            sizes, tables = ", ".join(f"{size:,}" for size in split["bytes"]), ", ".join(split["tables"])
            out.print(f"Split by {split['by']} over {split['count']} shards of {sizes} bytes: {tables}", markup=False)
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
    shard: Annotated[
        list[str] | None, typer.Option(help="of a sharded bundle, host:port of a server; once for each, in order")
    ] = None,
) -> None:
    """Check a bundle's hashes and structure, and run its stored requests in the engines that are here."""
    from flyweight.bundle.shards.read import is_sharded
    from flyweight.bundle.shards.verify_sharded import verify_sharded
    from flyweight.bundle.verify import verify as check

    with stoppable():
        if is_sharded(bundle):
            verification = verify_sharded(bundle, shard, engine=engine)
        else:
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


app.command()(compress)
app.command()(bench)
app.command()(profile)
app.command()(encode)
app.command()(export)
app.command()(sharding.shard)
app.command()(sharding.serve_shard)
app.command()(vocabulary)
app.command()(serve)
app.add_typer(parallel.app, name="parallel")


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
