"""What `compress` does when no steps are given: search for the recipe, and hand on what it made."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from flyweight.distillation.kept_teachers import keeping_teachers
from flyweight.errors import InputError
from flyweight.planning.budget import Budget
from flyweight.planning.chance import warn_of_chance
from flyweight.planning.feasible import check_feasible
from flyweight.planning.run_steps import Applied
from flyweight.planning.search.candidate import steps_of
from flyweight.planning.search.outcome import frontier
from flyweight.planning.search.peers import peer_points
from flyweight.planning.search.run_folder import RunFolder, opened
from flyweight.planning.search.search import Found, Search
from flyweight.planning.search.told import told
from flyweight.planning.search.workbench import Workbench
from flyweight.planning.what_would_help import points_that_help
from flyweight.quality.measure import measure
from flyweight.report.data import ReportData
from flyweight.report.search_data import PeerPoint
from flyweight.task.change import Point
from flyweight.task.progress import teller
from flyweight.task.runner import Runner
from flyweight.task.step import Step
from flyweight.task.task import Split, Task

#: Seconds that measuring and certifying take beside what grows with the model: timing, limits, memory.
FINAL_SECONDS = 35.0


@dataclass(frozen=True, eq=False)
class Automatic:
    """What a search handed on.

    Args:
        applied: the model of the best recipe with its changes, as `run_steps` would give it.
        steps: that recipe.
        found: the whole search.
        test_size: rows (groups, where there are any) of the test split for each one of validation.
    """

    applied: Applied
    steps: tuple[Step, ...]
    found: Found
    test_size: float
    peers: tuple[PeerPoint, ...] = ()
    run: str = ""
    warning: str = ""

    def in_report(self, data: ReportData, budget: Budget, before: int) -> ReportData:
        """Return what the report shows, the search included."""
        search = told(self.found, budget, before, self.test_size, data.changes, self.peers)
        warned = (self.warning,) if self.warning else ()
        helps = points_that_help(self.found, budget, before, self.test_size) if data.missed else []
        return replace(
            data,
            search=replace(search, run=self.run),
            curve=(),
            notes=(*warned, *data.notes),
            helps=(*data.helps, *helps),
        )

    def points(self) -> Iterator[Point]:
        """Yield what was measured as points, those that nothing beats marked."""
        front = frontier(self.found.outcomes)
        tables = max((one.measured.table_bytes for one in self.found.outcomes if one.measured), default=1)
        for one in self.found.outcomes:
            if one.state == "done" and one.measured is not None and one.drop is not None:
                yield Point(
                    table_bytes=one.measured.table_bytes,
                    ratio=tables / max(one.measured.table_bytes, 1),
                    drop=one.drop,
                    chosen=one is self.found.best,
                    label=str(one.candidate),
                    bytes=one.measured.bytes,
                    latency_ms=one.measured.latency_ms,
                    front=one in front,
                )


def find_recipe(
    bench: Workbench,
    budget: Budget,
    folder: RunFolder,
    *,
    export_seconds: float,
    begun: float | None = None,
    most_trials: int | None = None,
    workers: int = 1,
    runner: Runner | None = None,
) -> Automatic:
    """Search for the recipe that a budget asks for, and make its model.

    Args:
        export_seconds: about how long the export of the original took.
        begun: when the work began, the export included, of `time.monotonic`; None for now.
        most_trials: None for no limit but time.
        workers: processes that search.
        runner: of a cluster that trials are made on; None, or one of this machine, has processes share the search.

    Raises:
        InputError: nothing that was tried could be measured.
    """
    check_metric(bench)
    check_feasible(bench, budget)
    size = test_size(bench.task)
    search = Search(bench, budget, folder, size, most_trials, FINAL_SECONDS + export_seconds, workers, begun)
    search = search if runner is None or runner.local else replace(search, runner=runner)
    with keeping_teachers():
        found = search.run()
    taken = _taken(bench, folder, found, size)
    return taken if found.interrupted else replace(taken, peers=peer_points(bench))


def take(bench: Workbench, budget: Budget, folder: RunFolder, number: int) -> Automatic:
    """Make the model of a trial that an earlier search kept; what it learned is read from its file.

    Raises:
        InputError: there is no such trial, or it was not measured; says which there are.
    """
    size = test_size(bench.task)
    found = Search(bench, budget, folder, size).kept()
    known = {one.number: one for one in found.outcomes if one.state == "done"}
    if number not in known:
        seen = ", ".join(str(one) for one in known)
        raise InputError(f"Trial {number} is none of those that were measured in {folder.path}: {seen}.")
    return _taken(bench, folder, replace(found, best=known[number]), size)


def _taken(bench: Workbench, folder: RunFolder, found: Found, size: float) -> Automatic:
    steps = steps_of(found.best.candidate, found.macs)
    made = bench.remade(steps, folder.learning)
    applied = Applied(made.model, made.changes, made.dropped)
    warning = warn_of_chance(bench.task, bench.original, bench.confidence)
    if warning:
        teller()(f"Warning: {warning}.")
    return Automatic(applied, steps, found, size, (), str(folder.path) if folder.kept else "", warning)


def check_metric(bench: Workbench) -> None:
    """Refuse a task whose metric is not a number for the original itself.

    Raises:
        InputError: with the metric and what it gave.
    """
    task, scores = bench.task, bench.original
    try:
        measure(task.spec, task.judged(task.spec, scores.outputs), scores.targets, scores.groups)
    except InputError as error:
        raise InputError(
            f"{error} That is of the original itself on validation, so no drop can be measured. Check the metric's "
            "function and the validation targets."
        ) from error


def test_size(task: Task) -> float:
    """Return how many rows (groups, where there are any) the test split has for each of validation; ids only."""
    counts = []
    splits: tuple[Split, ...] = ("validation", "test")
    for split in splits:
        rows, groups = 0, []
        for _, target, group in task.batches(split):
            rows += len(target)
            if group is not None:
                groups.append(group)
        counts.append(len(np.unique(torch.cat(groups).numpy())) if groups else rows)
    return counts[1] / counts[0]


@contextmanager
def folder_of(run: Path | None, task: Task, source: str) -> Iterator[RunFolder]:
    """Open the folder of a search; one for this time only where none is named."""
    if run is not None:
        with opened(run, task, source) as folder:
            yield folder
        return
    with tempfile.TemporaryDirectory(prefix="flyweight-search-") as path, opened(Path(path), task, source) as folder:
        yield replace(folder, kept=False)
