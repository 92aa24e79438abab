"""The verb `profile`: where bytes and time go, what a request computes more than once, and what could be gained."""

from typing import TYPE_CHECKING, Annotated

import typer

from flyweight.cli.display import TerminalDisplay, ZooProgress, errors, out
from flyweight.cli.json_file import TERMINAL, check_writable, write_json
from flyweight.cli.stopping import stoppable

if TYPE_CHECKING:
    from flyweight.planning.profile import Profile


def profile(
    task: Annotated[str, typer.Argument(help="path/to/file.py:function that returns a Task, or a name of the zoo")],
    candidates: Annotated[int | None, typer.Option(help="candidates of the timed request; 500 otherwise")] = None,
    threads: Annotated[int | None, typer.Option(help="threads of one call; every core otherwise")] = None,
    json_path: Annotated[
        str | None, typer.Option("--json", help="all of it as JSON, to this file; - for the terminal")
    ] = None,
) -> None:
    """Show where a model's bytes and time go, what of it a request repeats, and what each method would gain."""
    if json_path is not None:
        check_writable(json_path)  # found out now, not after minutes of work
    display = TerminalDisplay(errors)
    try:
        with stoppable():
            found = _measured(task, candidates, threads, display)
    finally:
        display.close()
    if json_path is not None:
        from flyweight.planning.profile_data import as_data

        write_json(json_path, as_data(found))
    if json_path != TERMINAL:
        from flyweight.cli.profile_view import render

        out.print(render(found), soft_wrap=False)


def _measured(task: str, candidates: int | None, threads: int | None, display: TerminalDisplay) -> "Profile":
    from flyweight.cli.task_source import load_task
    from flyweight.planning.profile import profile as measure
    from flyweight.task.progress import shown_on

    source = load_task(task, ZooProgress(display))
    with shown_on(display):
        return measure(source, rows=candidates, threads=threads)
