"""Handing over what minutes of work found: bundle, page, table. Nothing is lost where one cannot be written."""

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

from flyweight.cli.display import errors, out
from flyweight.errors import FlyweightError, InputError
from flyweight.planning.interrupts import interrupts_wait
from flyweight.planning.result import Result
from flyweight.report.terminal import render_table

MET, MISSED, WRONG_INPUT = 0, 1, 2


def deliver(
    result: Result, bundle: Path, page: Path | None, recipe: Path | None = None, *, overwrite: bool = False
) -> int:
    """Save a result, show it, and return the exit code: 0 budget met, 1 missed, 2 not written."""
    with interrupts_wait("Saving first; Ctrl-C again stops it."):
        saved, troubles = _save(result, bundle, overwrite=overwrite)
        if page is not None:
            troubles += _write_page(result, page, saved)
        if recipe is not None:
            troubles += _write_recipe(result, recipe)
    out.print()
    out.print(render_table(replace(result.data, look_next=_look_next(saved, page))), soft_wrap=False, crop=False)
    if result.interrupted:
        out.print(f"Interrupted: this is the best found until then, saved as {saved}.", markup=False)
    for sentence in result.missed:
        out.print(f"Budget missed: {sentence}.", markup=False)
    for words in result.data.helps:
        out.print(f"What would help: {words}.", markup=False)
    for trouble in troubles:
        errors.print(f"error: {trouble}", markup=False)
    if troubles:
        return WRONG_INPUT
    return MISSED if result.missed or result.interrupted else MET


def _save(result: Result, bundle: Path, *, overwrite: bool) -> tuple[Path | None, list[str]]:
    """Save a bundle, in a temporary folder where its own place fails; return where, and what went wrong."""
    try:
        return result.save(bundle, overwrite=overwrite), []
    except InputError as error:
        trouble = str(error)
    except FlyweightError as error:  # the model holds what no bundle may, wherever it is saved
        return None, [str(error)]
    spare = Path(tempfile.mkdtemp(prefix="flyweight-saved-"))
    try:
        saved = result.save(spare / bundle.name)
    except FlyweightError as error:
        shutil.rmtree(spare, ignore_errors=True)
        return None, [trouble, str(error)]
    return saved, [f"{trouble} Nothing is lost: the bundle is saved as {saved}"]


def _write_page(result: Result, page: Path, saved: Path | None) -> list[str]:
    try:
        result.report(page)
    except InputError as error:
        return [f"{error} The bundle holds it too: {saved / 'report.html'}" if saved else str(error)]
    return []


def _write_recipe(result: Result, recipe: Path) -> list[str]:
    try:
        result.save_recipe(recipe)
    except InputError as error:
        return [str(error)]
    return []


def _look_next(saved: Path | None, page: Path | None) -> tuple[str, ...]:
    if saved is None:
        return ()
    shown = page if page is not None and page.is_file() else saved / "report.html"
    return (f"{shown} (open it in a browser)", f"flyweight inspect {saved}", f"flyweight verify {saved}")
