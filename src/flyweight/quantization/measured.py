"""Candidates for a mixed model, exported and timed against each other in every engine here."""

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from flyweight.cost.latency import time_rounds
from flyweight.engines.export import export_onnx
from flyweight.engines.registry import ENGINES
from flyweight.errors import EngineError
from flyweight.quantization.observe import Inputs
from flyweight.task.scores import cuts_by_row
from flyweight.task.task import Task

#: Rows of the call that is timed: candidates of a request, or rows where nothing is one.
CANDIDATES, ROWS = 500, 64
#: Seconds of timing for each candidate in each engine.
SECONDS = 0.6
#: A candidate whose median is within so much of the best is as fast.
AS_FAST = 1.05


@dataclass(frozen=True)
class Timed:
    """One candidate, as it ran.

    Args:
        label: what it is, in words.
        bytes: of its file.
        milliseconds: the median of a call in the engine that is fastest for it.
        engine: that engine.
    """

    label: str
    bytes: int
    milliseconds: float
    engine: str


def time_candidates(models: Mapping[str, nn.Module], inputs: Inputs, threads: int = 1) -> dict[str, Timed]:
    """Export models, run each in each engine in turns, and return the best of each by label.

    Args:
        models: by label, all taking the same inputs.
        inputs: of the call that is timed.

    Raises:
        ExportError: one of them cannot be written.
        EngineError: no engine takes any of them.
    """
    arrays = {name: value.detach().numpy() for name, value in inputs.items()}
    calls: dict[str, Callable[[], object]] = {}
    sizes: dict[str, int] = {}
    held = []
    with tempfile.TemporaryDirectory(prefix="flyweight-mixed-") as folder:
        try:
            for number, (label, model) in enumerate(models.items()):
                exported = export_onnx(model, inputs, Path(folder, str(number)))
                sizes[label] = exported.bytes
                for name, engine in ENGINES.items():
                    if engine.available() is None and engine.cannot_run(exported.path) is None:
                        prepared = engine.prepare(exported.path, threads)
                        held.append(prepared)
                        given = {one: arrays[one] for one in prepared.input_names}
                        calls[f"{name}\n{label}"] = partial(prepared.run, given)
            if not calls:
                raise EngineError("No engine here takes any of the candidates; nothing was timed.")
            rows = len(next(iter(inputs.values())))
            rounds = time_rounds(calls, candidates=rows, threads=threads, seconds=SECONDS * len(calls))
        finally:
            for prepared in held:
                prepared.close()
    found: dict[str, Timed] = {}
    for key in calls:
        engine_name, _, label = key.partition("\n")
        median = rounds.latency(key).p50
        if label not in found or median < found[label].milliseconds:
            found[label] = Timed(label, sizes[label], median, engine_name)
    return found


def served_inputs(task: Task, model: nn.Module) -> Inputs:
    """Return the inputs of a call as it is served: one request with 500 candidates, or 64 rows; bags as they come."""
    wanted = CANDIDATES if any(field.role != "sample" for field in task.inputs.values()) else ROWS
    inputs, target, _ = next(task.batches("validation"))
    if not cuts_by_row(model, inputs, len(target)):
        return inputs
    places = torch.arange(wanted) % len(target)
    served: dict[str, Tensor] = {}
    for name, value in inputs.items():
        one = task.inputs[name].role == "request"
        served[name] = value[:1].expand(wanted, *value.shape[1:]).clone() if one else value[places]
    return served
