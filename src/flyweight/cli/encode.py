"""The verb `encode`: a table in a file coded into a folder, in memory for a block alone."""

from pathlib import Path
from typing import Annotated

import typer

from flyweight.cli.display import TerminalDisplay, errors, out
from flyweight.cli.stopping import stoppable


def encode(
    table: Annotated[Path, typer.Argument(help="a .npy or .safetensors file of float32, float16 or bfloat16 rows")],
    out_path: Annotated[Path, typer.Option("--out", help="a folder for codes and codebook; begun before, it goes on")],
    bits: Annotated[int, typer.Option(min=1, max=8, help="of a code")] = 4,
    stages: Annotated[int, typer.Option(min=1, max=8, help="codes that a piece of a row is the sum of")] = 1,
    groups: Annotated[int, typer.Option(min=1, help="pieces that a row is cut into")] = 1,
    name: Annotated[str, typer.Option(help="of the tensor, where a file holds several")] = "",
    weights: Annotated[Path | None, typer.Option(help="a file of (rows, 1): how much each row matters")] = None,
    seed: Annotated[int, typer.Option(help="of the rows that codewords are learned on")] = 0,
    workers: Annotated[
        int | None, typer.Option(min=1, help="at once; the bytes are the same however many. 1, or a cluster's cores")
    ] = None,
    cluster: Annotated[
        str, typer.Option(help="who codes: local, auto, or a Ray cluster that sees the table, ray://host:port")
    ] = "local",
) -> None:
    """Code a table of any size: killed, the same command goes on and ends with the same bytes."""
    from flyweight.parallel.cluster.find import LOCAL, find_cluster
    from flyweight.tables.coding import Coding
    from flyweight.tables.encode_file import encode_file
    from flyweight.tables.table_file import open_table
    from flyweight.task.progress import shown_on

    opened = open_table(table, name)
    felt = None if weights is None else open_table(weights)
    display = TerminalDisplay(errors)
    try:
        many = workers or (1 if cluster == LOCAL else None)
        coding = Coding(groups=groups, stages=stages, bits=bits)
        with stoppable(), shown_on(display), find_cluster(cluster, many) as runner:
            found = encode_file(opened, out_path, coding, weights=felt, seed=seed, runner=runner)
    finally:
        display.close()
    before = opened.rows * opened.dim * 4
    ratio = before / found.bytes
    size = f"{ratio:,.0f}x smaller" if ratio >= 1 else "more, for a codebook costs more than so few rows"
    out.print(
        f"{opened.rows:,} rows of {opened.dim}, {before:,} bytes as float32, became {found.bytes:,}, "
        f"{size}: {coding}. Wrote {found.folder}",
        markup=False,
    )
