"""What one run of `compress` works with: the task, the original exported, sample requests, the timed request."""

import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from flyweight.cost.hardware import allowed_cores
from flyweight.cost.sizes import model_bytes
from flyweight.planning.artefact import Artefact, make_artefact
from flyweight.planning.gate import Gate
from flyweight.planning.requests import sample_requests, served_rows, timed_request
from flyweight.planning.widen import widen_weights
from flyweight.task.change import Change
from flyweight.task.progress import stage
from flyweight.task.task import Task


@dataclass(frozen=True, eq=False)
class Setting:
    """What one run works with.

    Args:
        task: with weights of 16 bits widened, which `widened` tells.
        samples, rows: sample requests, and rows of the first.
        request: what is timed; threads: of the engines.
        before: the original, exported.
        folder: where exports lie.
        export_seconds: what the export of the original took.
    """

    task: Task
    widened: tuple[Change, ...]
    samples: list[dict[str, Tensor]]
    rows: int
    request: dict[str, Tensor]
    threads: int
    before: Artefact
    folder: "tempfile.TemporaryDirectory[str]"
    export_seconds: float
    begun: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        """Since the run began."""
        return time.monotonic() - self.begun

    def gate(self) -> Gate:
        """Return what says whether a step pays."""
        return Gate(self.samples, self.rows, self.request, self.threads)


def prepare(task: Task, rows: int | None) -> Setting:
    """Export the original and choose what is timed.

    Args:
        rows: of the timed call; None takes 500 candidates of one request, and 64 rows where nothing is scored so.

    Raises:
        ExportError: the model cannot be exported; names the operator and the module.
    """
    begun = time.monotonic()
    task, widened = widen_weights(task)
    samples = sample_requests(task)
    batch = len(next(iter(task.batches("validation")))[1])
    sample_rows = min(batch, _rows_of(samples, batch))
    request = timed_request(task, rows or served_rows(task))
    folder = tempfile.TemporaryDirectory(prefix="flyweight-")
    exporting = time.monotonic()
    with stage("Exporting the original", seconds=export_seconds(task.model)):
        before = make_artefact(task.model, samples, sample_rows, Path(folder.name, "before"))
    return Setting(
        task=task,
        widened=widened,
        samples=samples,
        rows=sample_rows,
        request=request,
        threads=torch.get_num_threads() or allowed_cores(),
        before=before,
        folder=folder,
        export_seconds=time.monotonic() - exporting,
        begun=begun,
    )


def export_seconds(model: nn.Module) -> float:
    """Return about how long an export takes: a few seconds of capturing, then writing at disk speed."""
    return 4.0 + model_bytes(model) / 200e6


def _rows_of(samples: list[dict[str, Tensor]], rows: int) -> int:
    """Return how many outputs a sample request has: as many as its inputs are long, where they were cut by row."""
    lengths = {len(values) for values in samples[0].values()}
    return lengths.pop() if len(lengths) == 1 else rows
