"""What `compress` does when no steps are given: search for the recipe, and hand on what it made."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from flyweight.planning.budget import Budget
from flyweight.planning.run_steps import Applied
from flyweight.planning.search.candidate import steps_of
from flyweight.planning.search.outcome import frontier
from flyweight.planning.search.run_folder import RunFolder, opened
from flyweight.planning.search.search import Found, Search
from flyweight.planning.search.told import told
from flyweight.planning.search.workbench import Workbench
from flyweight.report.search_data import SearchTold
from flyweight.task.change import Point
from flyweight.task.step import Step
from flyweight.task.task import Split, Task

#: Seconds that measuring and certifying take beside what grows with the model: timing, limits, memory.
FINAL_SECONDS = 30.0


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

    def told(self, budget: Budget, before: int, recipe: tuple[str, ...]) -> SearchTold:
        """Return the search as the report shows it."""
        return told(self.found, budget, before, self.test_size, recipe, ())

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
    bench: Workbench, budget: Budget, folder: RunFolder, *, export_seconds: float, most_trials: int | None = None
) -> Automatic:
    """Search for the recipe that a budget asks for, and make its model.

    Args:
        export_seconds: about how long the export of the original took.
        most_trials: None for no limit but time.

    Raises:
        InputError: nothing that was tried could be measured.
    """
    size = test_size(bench.task)
    search = Search(bench, budget, folder, size, most_trials, FINAL_SECONDS + export_seconds)
    found = search.run()
    assert found.space is not None
    steps = steps_of(found.best.candidate, found.space.macs)
    made = bench.remade(steps, folder.learning)
    return Automatic(Applied(made.model, made.changes, made.dropped), steps, found, size)


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
        yield folder
