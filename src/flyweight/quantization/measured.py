"""Candidates for a mixed model, exported and timed against each other in every engine here."""

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from flyweight.cost.latency import time_rounds
from flyweight.engines.engine import Prepared
from flyweight.engines.export import export_onnx
from flyweight.engines.registry import ENGINES
from flyweight.errors import EngineError
from flyweight.graph.traced import TracedModel
from flyweight.quantization.lookups_aside import lookups, lookups_alone, without_lookups
from flyweight.quantization.observe import Inputs
from flyweight.task.scores import cuts_by_row
from flyweight.task.task import Task

#: Rows of the call that is timed: candidates of a request, or rows where nothing is one.
CANDIDATES, ROWS = 500, 64
#: Seconds of timing for each candidate in each engine.
SECONDS = 0.6
#: Label of what all candidates look up alike.
LOOKUPS = "lookups"
#: A candidate whose median is within so much of the best is as fast.
AS_FAST = 1.05


@dataclass(frozen=True)
class Timed:
    """One candidate, as it ran.

    Args:
        label: what it is, in words.
        bytes: of its file, to within the few that a file takes by itself.
        milliseconds: the median of a call in the engine that is fastest for it.
        engine: that engine.
    """

    label: str
    bytes: int
    milliseconds: float
    engine: str


def time_candidates(models: Mapping[str, TracedModel], inputs: Inputs, threads: int = 1) -> dict[str, Timed]:
    """Export models, run each in each engine in turns, and return the best of each by label.

    Lookups that all of them share are written and timed once, by themselves, and count for each.

    Args:
        models: by label, all taking the same inputs.
        inputs: of the call that is timed.

    Raises:
        ExportError: one of them cannot be written.
        EngineError: no engine takes any of them.
    """
    first = next(iter(models.values()))
    common = set.intersection(*(set(lookups(model, inputs)) for model in models.values()))
    shared = {name: value for name, value in lookups(first, inputs).items() if name in common}
    written = {label: without_lookups(model, inputs, shared) for label, model in models.items()}
    if shared:
        written[LOOKUPS] = lookups_alone(first, inputs, shared)
    with tempfile.TemporaryDirectory(prefix="flyweight-mixed-") as folder, ExitStack() as held:
        calls: dict[tuple[str, str], Callable[[], object]] = {}
        sizes: dict[str, int] = {}
        for number, (label, (model, given)) in enumerate(written.items()):
            exported = export_onnx(model, given, Path(folder, str(number)))
            sizes[label] = exported.bytes
            for name, prepared in _prepared(exported.path, threads):
                held.callback(prepared.close)
                calls[name, label] = partial(prepared.run, _arrays(given, prepared.input_names))
        if shared:
            calls = {(name, label): call for (name, label), call in calls.items() if (name, LOOKUPS) in calls}
        if not calls:
            raise EngineError("No engine here takes any of the candidates; nothing was timed.")
        rows = len(next(iter(inputs.values())))
        named = {f"{name} {label}": call for (name, label), call in calls.items()}
        rounds = time_rounds(named, candidates=rows, threads=threads, seconds=SECONDS * len(calls))
    medians = {(name, label): rounds.latency(f"{name} {label}").p50 for name, label in calls}
    found: dict[str, Timed] = {}
    for (name, label), median in medians.items():
        whole = median + medians.get((name, LOOKUPS), 0.0)
        if label != LOOKUPS and (label not in found or whole < found[label].milliseconds):
            found[label] = Timed(label, sizes[label] + sizes.get(LOOKUPS, 0), whole, name)
    return found


def _prepared(path: Path, threads: int) -> Iterator[tuple[str, Prepared]]:
    """Yield every engine here that takes a file, with the file loaded."""
    for name, engine in ENGINES.items():
        if engine.available() is None and engine.cannot_run(path) is None:
            yield name, engine.prepare(path, threads)


def _arrays(inputs: Inputs, names: Iterable[str]) -> dict[str, NDArray[Any]]:
    return {name: inputs[name].detach().numpy() for name in names}


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
