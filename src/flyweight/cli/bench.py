"""The verb `bench`: a bundle measured in every engine that is here, as a table or as JSON."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.table import Table
from rich.text import Text

from flyweight.cli.display import TerminalDisplay, errors, out
from flyweight.cli.json_file import TERMINAL, check_writable, write_json
from flyweight.cli.stopping import stoppable


def bench(
    bundle: Annotated[Path, typer.Argument(help="a bundle, the folder name.fly")],
    threads: Annotated[int | None, typer.Option(help="threads for one call; several are tried otherwise")] = None,
    seconds: Annotated[float, typer.Option(help="the most that timing takes at each number of candidates")] = 10.0,
    candidates: Annotated[
        list[int] | None, typer.Option(help="candidates in a request, 500 otherwise; may be given several times")
    ] = None,
    engine: Annotated[list[str] | None, typer.Option(help="only this engine; may be given several times")] = None,
    choose: Annotated[bool, typer.Option("--choose", help="write the fastest into the bundle, for `load`")] = False,
    json_path: Annotated[
        str | None, typer.Option("--json", help="all of it as JSON, to this file; - for the terminal")
    ] = None,
) -> None:
    """Measure a bundle here, in every engine that gives its scores, and say which is the fastest."""
    from flyweight.bundle.bench import EVERY
    from flyweight.bundle.bench import bench as measure
    from flyweight.task.progress import shown_on

    if json_path is not None:
        check_writable(json_path)  # found out now, not after minutes of work
    display = TerminalDisplay(errors)
    try:
        with stoppable(writes=choose), shown_on(display):
            found = measure(
                bundle,
                threads=threads,
                candidates=tuple(candidates or (500,)),
                seconds=seconds,
                engines=tuple(engine or EVERY),
                choose=choose,
            )
    finally:
        display.close()
    if json_path is not None:
        write_json(json_path, {**asdict(found), "path": str(found.path)})
    if json_path == TERMINAL:
        return
    out.print(_table(found))
    for name, words in found.agreements.items():
        if name in {one.engine for one in found.timed}:
            out.print(f"scores of {name}: {words}", style="dim", markup=False)
    for one in found.skipped:
        out.print(f"not timed: {one.engine}: {one.why}", style="dim", markup=False)
    best = found.chosen
    wrote = f"; {bundle} says so now" if choose else ""
    out.print(f"fastest: {best.engine} with {_threads(best.threads)}, {best.latency.p50:.3f} ms{wrote}", markup=False)


def _threads(count: int) -> str:
    """Return a number of threads in words.

    Example:
        >>> _threads(0), _threads(1), _threads(4)
        ('threads as it likes', '1 thread', '4 threads')
    """
    return "threads as it likes" if count == 0 else f"{count} thread{'' if count == 1 else 's'}"


def _table(found: Any) -> Table:
    """Return a table with a line for each engine, number of threads and number of candidates."""
    table = Table(box=box.SIMPLE_HEAD)
    for heading in ("engine", "threads", "candidates", "p50 ms", "p95 ms", "p99 ms"):
        table.add_column(heading, justify="left" if heading == "engine" else "right", no_wrap=True)
    for one in found.timed:
        numbers = (one.threads or "its own", f"{one.latency.candidates:,}")
        times = (f"{value:.3f}" for value in (one.latency.p50, one.latency.p95, one.latency.p99))
        table.add_row(*map(Text, (one.engine, *map(str, numbers), *times)), style="bold" if one == found.chosen else "")
    return table
