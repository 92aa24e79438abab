"""The verb `vocabulary`: the raw values that a bundle can be asked with."""

from pathlib import Path
from typing import Annotated

import typer

from flyweight.cli.display import out
from flyweight.cli.stopping import stoppable


def vocabulary(
    bundle: Annotated[Path, typer.Argument(help="a bundle, the folder name.fly")],
    source: Annotated[
        Path | None,
        typer.Option("--from", help='JSON to write into it: {"input": {"raw value": id}}, or a list in order of ids'),
    ] = None,
) -> None:
    """Show a bundle's vocabularies, or write some into it; scores and certificate stay what they were."""
    from flyweight.bundle.add_vocabularies import add_vocabularies, read_raw_values
    from flyweight.bundle.read import read_bundle
    from flyweight.bundle.shards.read import is_sharded, read_front

    if source is not None:
        given = read_raw_values(source)
        with stoppable(writes=True):
            counts = add_vocabularies(bundle, given)
        out.print(f"Wrote {', '.join(given)} into {bundle}", markup=False)
    else:
        read = read_front(bundle).bundle if is_sharded(bundle) else read_bundle(bundle)
        counts = {name: len(one) for name, one in read.vocabularies.items()}
    for name, count in counts.items():
        out.print(f"{name}: {count:,} raw values", markup=False)
    if not counts:
        out.print(f"{bundle} carries no vocabulary; write one into it with --from FILE.json", markup=False)
