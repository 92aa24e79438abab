"""A workbench that applies real steps and scores real models, but reads sizes and times off their weights.

An export takes a second and its latency another value each time; on paper a search of many trials is quick, and two
searches see the same.
"""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

import flyweight as fw
from flyweight.cost.sizes import model_bytes
from flyweight.planning.requests import sample_requests, timed_request
from flyweight.planning.search.outcome import Measured
from flyweight.planning.search.run_folder import RunFolder
from flyweight.planning.search.search import Search
from flyweight.planning.search.workbench import Made, Workbench
from flyweight.tables.sizes import table_bytes
from flyweight.task.estimate import Estimate


class OnPaper(Workbench):
    """Reads sizes and times off weights, and takes learning for as long as a test says."""

    seconds = 0.01

    def measure(self, made: Made) -> Measured:
        return on_paper(made)

    def judge(self, made: Made) -> tuple[Measured, dict[str, Estimate]]:
        made = self.finished(made)
        return on_paper(made), self.drops(self.task.scores("validation", made.model))


def on_paper(made: Made) -> Measured:
    """Bytes as in memory, a quarter of it for layers in int8; time by what layers hold."""
    tables = table_bytes(made.model)
    layers = model_bytes(made.model) - tables
    if any(change.step == "quantize" and change.done for change in made.changes):
        layers //= 4
    latency = 0.01 + 1e-5 * layers
    return Measured(tables + layers, tables, layers // 4, latency, 1 / latency, "paper")


def bench_of(task: fw.Task, folder: RunFolder | None = None, confidence: float = 0.95) -> OnPaper:
    """Return a workbench; its codings are kept in a folder where one is given."""
    before: Any = SimpleNamespace(
        exported=SimpleNamespace(bytes=model_bytes(task.model)), model=task.model, macs=SimpleNamespace(total=500)
    )
    samples = sample_requests(task)
    keep = None if folder is None else (folder.path, str(folder.facts().get("task")))
    rows = len(next(iter(samples[0].values())))
    return OnPaper(
        task, before, samples, rows, timed_request(task, 64), torch.get_num_threads(), confidence, keep, folder
    )


def begun(path: Path, task: str = "a task") -> RunFolder:
    """Return the folder of a search that nobody else uses."""
    path.mkdir(exist_ok=True)
    folder = RunFolder(path)
    if not (path / "run.json").exists():
        folder.note(task=task)
    return folder


def search_of(task: fw.Task, folder: RunFolder, budget: fw.Budget, trials: int | None = None) -> Search:
    """Return a search on paper; one that is made anew each time, as another process would."""
    return Search(bench_of(task, folder), budget, folder, 1.0, trials)
