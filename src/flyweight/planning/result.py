"""What `compress` hands back: the compressed model, the artefact, and the evidence."""

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from flyweight.bundle.write import Contents, write_bundle
from flyweight.errors import InputError
from flyweight.planning.exact_steps import inexact
from flyweight.planning.recipe import Recipe, write_recipe
from flyweight.report.data import ReportData
from flyweight.report.page import render_page
from flyweight.report.terminal import render_text
from flyweight.task.change import Change, Point
from flyweight.task.estimate import Estimate
from flyweight.task.measurement import Measurement


@dataclass(frozen=True, eq=False, repr=False)
class Result:
    """A compressed model with its evidence; `print(result)` shows it as a table.

    Args:
        model: the compressed module, for training on and for evaluation.
        before, after: measurements of both exported models.
        drop: the paired drop in the task's metric on test data; positive is worse.
        changes: what each step did and left out.
        rewrites: what the exported model computes once instead of for every candidate, and what was refused; `model`
            is as it was before.
        recipe: the steps with all that they chose, and whether they were rewritten: run on the same task, it gives the
            same model, byte by byte, without choosing anything.
        frontier: every point that was tried, on validation data.
        engine: the engine measured fastest on this machine.
        missed: what of the budget was not met, one sentence each; empty when all was.
        interrupted: whether the user stopped the search and this is the best found until then.
    """

    model: nn.Module
    before: Measurement
    after: Measurement
    drop: Estimate
    changes: tuple[Change, ...]
    rewrites: Change
    recipe: Recipe
    frontier: tuple[Point, ...]
    engine: str
    missed: tuple[str, ...]
    interrupted: bool
    data: ReportData
    contents: Contents
    folder: "tempfile.TemporaryDirectory[str]"

    @property
    def met(self) -> bool:
        """Whether the whole budget was met."""
        return not self.missed

    def __str__(self) -> str:
        return render_text(self.data)

    def __repr__(self) -> str:
        return str(self)

    def report(self, path: str | Path) -> Path:
        """Write the HTML page and return its path.

        Raises:
            InputError: the path cannot be written; says why.
        """
        target = Path(path)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(self.contents.report, encoding="utf-8")
        except OSError as error:
            raise InputError(f"The report cannot be written to {target}: {error.strerror}; choose another.") from error
        return target

    def save_recipe(self, path: str | Path) -> Path:
        """Write the recipe as TOML, to be read (`read_recipe`), edited and run again, and return its path.

        Raises:
            InputError: a step is of one's own or holds a module, or the path cannot be written.
        """
        notes = (self.data.name, *inexact(self.changes))
        return write_recipe(path, self.recipe.steps, rewrite=self.recipe.rewrite, notes=notes)

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write the bundle, a folder `name.fly`, whole or not at all, and return its path.

        Raises:
            InputError: it exists and `overwrite` is not set, or the disk is full.
            BundleError: the model holds what no bundle may.
        """
        return write_bundle(path, self.contents, overwrite=overwrite)


def make_result(folder: "tempfile.TemporaryDirectory[str]", data: ReportData, **parts: Any) -> Result:
    """Return a result whose report page is drawn now, so that it goes into the bundle."""
    contents: Contents = parts.pop("contents")
    page = replace(contents, report=render_page(data))
    return Result(data=data, contents=page, folder=folder, **parts)
