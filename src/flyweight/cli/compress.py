"""`flyweight compress`: search for the best bundle inside a budget, or take another point of an earlier search."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flyweight.cli.display import TerminalDisplay, ZooProgress, errors
from flyweight.cli.stopping import INTERRUPTED
from flyweight.errors import InputError

if TYPE_CHECKING:
    from flyweight.planning.budget import Budget
    from flyweight.planning.recipe import Recipe

Source = Annotated[
    str | None, typer.Argument(help="path/to/file.py:function that returns a Task, or a name as complete-journey")
]


def compress(
    task: Source = None,
    out_path: Annotated[Path, typer.Option("--out", help="the bundle to write, name.fly")] = Path("model.fly"),
    max_drop: Annotated[
        float | None, typer.Option(help="largest loss of quality, with its interval; 0.001 if no limit is set")
    ] = None,
    max_bytes: Annotated[int | None, typer.Option(help="largest size of the model on disk, in bytes")] = None,
    min_size_ratio: Annotated[float | None, typer.Option(help="how many times smaller on disk, at least")] = None,
    max_latency_ms: Annotated[float | None, typer.Option(help="largest median time of a 500-candidate request")] = None,
    min_speedup: Annotated[float | None, typer.Option(help="how many times quicker at the median, at least")] = None,
    max_minutes: Annotated[float | None, typer.Option(help="of searching and certifying; 10 or less otherwise")] = None,
    max_trials: Annotated[int | None, typer.Option(help="recipes that are tried at most")] = None,
    workers: Annotated[
        int | None, typer.Option(help="processes that search; one for every four cores otherwise")
    ] = None,
    cluster: Annotated[
        str | None, typer.Option(help="who makes trials and scores the test split: local, auto or ray://host:port")
    ] = None,
    confidence: Annotated[float | None, typer.Option(help="of the intervals, 0.95 otherwise")] = None,
    run: Annotated[
        Path | None, typer.Option(help="where the search is kept; goes on there after a kill. OUT.run otherwise")
    ] = None,
    from_run: Annotated[Path | None, typer.Option("--from", help="take a point of the search kept here")] = None,
    pick: Annotated[int | None, typer.Option(help="with --from: the number of the point, as the page shows it")] = None,
    steps: Annotated[Path | None, typer.Option(help="a recipe to run instead of searching, recipe.toml")] = None,
    report_path: Annotated[Path | None, typer.Option("--report", help="also write the HTML page here")] = None,
    recipe_path: Annotated[Path | None, typer.Option("--recipe", help="also write what was done as a recipe")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace an existing bundle")] = False,
) -> None:
    """Compress a task's model inside a budget and save it as a bundle."""
    from flyweight.planning.budget import Budget

    limits = {"max_drop": max_drop, "max_bytes": max_bytes, "min_size_ratio": min_size_ratio, "confidence": confidence}
    speed = {"max_latency_ms": max_latency_ms, "min_speedup": min_speedup, "max_minutes": max_minutes}
    given: dict[str, Any] = {name: value for name, value in (limits | speed).items() if value is not None}
    asked: dict[str, Any] = {"max_trials": max_trials, "workers": workers, "cluster": cluster}
    if steps is not None:
        searching = {"--max-trials": max_trials, "--run": run, "--from": from_run, "--pick": pick}
        recipe = _recipe(steps, [name for name, value in searching.items() if value is not None])
        asked = {"cluster": cluster, "workers": workers, "steps": recipe}
    elif from_run is not None:
        if pick is None:
            raise InputError("--from takes a point of an earlier search; say which with --pick NUMBER.")
        asked |= {"run": from_run, "pick": pick}
        task = task or source_of(from_run)
    elif pick is not None:
        raise InputError("--pick is the number of a point of an earlier search; name its folder with --from RUN.")
    else:
        asked |= {"run": run or out_path.with_name(f"{out_path.name}.run")}
    if task is None:
        raise InputError("Name a task: path/to/file.py:function that returns a Task, or complete-journey.")
    quality = {name for name in given if name not in ("max_minutes", "confidence")}
    if not quality and from_run is None and steps is None:
        given["max_drop"] = 0.001
    budget = Budget(**given) if given else None
    compress_source(task, budget, out_path, report_path, overwrite=overwrite, recipe=recipe_path, **asked)


def _recipe(path: Path, searching: list[str]) -> "Recipe":
    """Read a recipe, before the minutes that a task may take."""
    if searching:
        raise InputError(f"--steps runs a recipe and searches nothing; leave out {', '.join(searching)}.")
    from flyweight.planning.recipe import read_recipe

    return read_recipe(path)


def source_of(run: Path) -> str:
    """Return how the task of an earlier search was named.

    Raises:
        InputError: the folder holds no search, or one that was begun without a name.
    """
    from flyweight.planning.search.run_folder import RunFolder

    source = RunFolder(run).facts().get("source")
    if not isinstance(source, str) or not source:
        raise InputError(f"{run} does not say how its task is named; give the task first, as the search had it.")
    return source


def compress_source(
    source: str,
    budget: "Budget | None",
    bundle: Path,
    page: Path | None,
    *,
    overwrite: bool,
    recipe: Path | None = None,
    **asked: Any,
) -> None:
    """Do the work and leave with the exit code of its outcome."""
    from flyweight.bundle.write import check_target

    check_target(bundle, overwrite=overwrite)  # found out now, not after minutes of work
    try:
        raise typer.Exit(_outcome(source, budget, bundle, page, recipe, overwrite=overwrite, **asked))
    except KeyboardInterrupt:
        errors.print("Interrupted; nothing was saved.")
        raise typer.Exit(INTERRUPTED) from None


def _outcome(
    source: str,
    budget: "Budget | None",
    bundle: Path,
    page: Path | None,
    recipe: Path | None,
    *,
    overwrite: bool,
    **asked: Any,
) -> int:
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
            result = run(task, budget, source=_absolute(source), **asked)
            return deliver(result, bundle, page, recipe, overwrite=overwrite)
    finally:
        display.close()


def _absolute(source: str) -> str:
    """Return a task's name so that it is found from any folder."""
    path, colon, function = source.rpartition(":")
    return f"{Path(path).resolve()}{colon}{function}" if colon and Path(path).is_file() else source



