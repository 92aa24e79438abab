"""The verbs `shard` and `serve-shard`: a bundle split over servers, and the server of one part."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flyweight.cli.display import TerminalDisplay, ZooProgress, errors, out
from flyweight.cli.stopping import stoppable
from flyweight.cli.task_source import load_task
from flyweight.errors import InputError

if TYPE_CHECKING:
    from flyweight.task.task import Task

#: Of --over: 1 MiB, as `flyweight.bundle.shards.shard.OVER`.
OVER = 2**20


def shard(
    bundle: Annotated[Path, typer.Argument(help="a bundle, the folder name.fly")],
    out_path: Annotated[Path, typer.Option("--out", help="the folder to write: the front, and a folder a shard")],
    shards: Annotated[int, typer.Option(help="how many servers the tables are split over")],
    by: Annotated[
        str, typer.Option(help="rows: each table is dealt over all; tables: each table lies in one shard")
    ] = "rows",
    over: Annotated[int, typer.Option(help="tables of fewer bytes stay in the front")] = OVER,
    task: Annotated[
        str | None,
        typer.Option(help="a task whose training rows say how often each row is asked for: stand-ins are weighted so"),
    ] = None,
) -> None:
    """Split a bundle's large tables over servers; scores stay what they were."""
    from flyweight.bundle.shards.shard import shard as split
    from flyweight.task.progress import shown_on

    if by not in ("rows", "tables"):
        raise InputError(f"--by takes rows or tables; seen {by!r}.")
    display = TerminalDisplay(errors)
    try:
        with stoppable(), shown_on(display):
            traffic = None if task is None else _batches(load_task(task, ZooProgress(display)))
            found = split(bundle, out_path, shards=shards, by=by, over=over, traffic=traffic)  # type: ignore[arg-type]
    finally:
        display.close()
    out.print(str(found), markup=False)
    out.print(
        f"Serve each shard where its rows lie: flyweight serve-shard {out_path}/shard-0 --port 7400\n"
        f"Score: fw.load({str(out_path)!r}, shards=['host:port', ...])",
        markup=False,
    )


def serve_shard(
    folder: Annotated[Path, typer.Argument(help="a shard's folder, shard-0 of a sharded bundle")],
    port: Annotated[int, typer.Option(help="where to listen; 0 takes a free port and says which")] = 7400,
    host: Annotated[str, typer.Option(help="0.0.0.0 for all of this host's networks, which must be private")] = (
        "127.0.0.1"
    ),
) -> None:
    """Answer lookups of one shard's rows until Ctrl-C; rows are mapped from the disk, not loaded."""
    from flyweight.serving.shard_server import ShardServer
    from flyweight.task.progress import shown_on

    display = TerminalDisplay(errors)
    try:
        with shown_on(display):
            server = ShardServer(folder, host, port)
    finally:
        display.close()
    with server:
        record = server.shard.record
        rows = sum(table.rows for table in record.tables)
        out.print(
            f"Serving shard {record.shard} of {record.shards} of {record.name}, {rows:,} rows, "
            f"{record.file.bytes:,} bytes, on {server.address}",
            markup=False,
            soft_wrap=True,
        )
        try:
            server.serve_forever(poll_interval=0.1)
        except KeyboardInterrupt:
            server.end_links()
            out.print("Stopped.")


def _batches(task: "Task") -> Iterator[Mapping[str, Any]]:
    for inputs, _, _ in task.batches("train"):
        yield {name: value.numpy() for name, value in inputs.items()}
