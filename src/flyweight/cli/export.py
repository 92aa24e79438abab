"""The verb `export`: a bundle as a folder that another server takes as it is."""

from pathlib import Path
from typing import Annotated

import typer

from flyweight.cli.display import TerminalDisplay, errors, out
from flyweight.cli.stopping import stoppable


def export(
    bundle: Annotated[Path, typer.Argument(help="a bundle, the folder name.fly")],
    to: Annotated[str, typer.Option(help="the server: triton, openvino-model-server or kserve")],
    folder: Annotated[Path, typer.Option("--out", help="where it goes, a folder that is not there yet")],
    name: Annotated[str | None, typer.Option(help="the model's name in the server; the bundle's otherwise")] = None,
    version: Annotated[int, typer.Option("--model-version", help="the model's version in the server")] = 1,
    storage_uri: Annotated[
        str | None, typer.Option(help="for kserve: the address that the model repository is uploaded to")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", metavar="", help="replace an older export")] = False,
) -> None:
    """Write a bundle for another server, after its scores were checked in that server's engine."""
    from flyweight.serving.repositories.export_bundle import export_bundle
    from flyweight.serving.repositories.instructions import raw_value_words
    from flyweight.task.progress import shown_on

    display = TerminalDisplay(errors)
    try:
        with stoppable(writes=True), shown_on(display):
            written = export_bundle(
                bundle,
                folder,
                to=to,
                name=name,
                version=version,
                storage_uri=storage_uri,
                overwrite=overwrite,
            )
    finally:
        display.close()
    out.print(f"Wrote {folder}: {written.model.name}, version {version}, {written.bytes:,} bytes", markup=False)
    if words := raw_value_words(written.model):
        out.print(" ".join(words.split()), markup=False, soft_wrap=True)
    out.print(f"Its stored requests, scored with these files: {written.agreement}", markup=False)
    out.print(f"Start it there (more in {folder / 'README.txt'}):\n{written.start}", markup=False, soft_wrap=True)
