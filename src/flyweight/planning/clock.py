"""Time and memory of the original and the bundle, side by side in one run."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from flyweight.cost.latency import Rounds, speedup, time_rounds
from flyweight.cost.resident import measure_resident
from flyweight.engines.agreement import agreement
from flyweight.engines.choose import Choice, choose_engine
from flyweight.engines.engine import Prepared
from flyweight.engines.registry import find_engine
from flyweight.errors import FlyweightError
from flyweight.planning.artefact import Artefact
from flyweight.planning.requests import as_arrays
from flyweight.task.estimate import Estimate
from flyweight.task.scores import evaluating

SECONDS = 8.0
def pick_engine(after: Artefact, threads: int) -> Choice:
    """Return the fastest engine that gives the compressed model's scores on the samples.

    Raises:
        EngineError: none does.
    """
    return choose_engine(
        after.exported.path, after.samples, after.reference, threads=threads, candidates=500, seconds=3.0
    )


def start_original(before: Artefact, engine: str, threads: int) -> tuple[Prepared, str]:
    """Start the original's export in the bundle's engine, or in another one when its scores are wrong there.

    Returns:
        The running model and the name of its engine.
    """
    try:
        prepared = find_engine(engine).prepare(before.exported.path, threads)
        pairs = zip(before.samples, before.reference, strict=True)
        if all(agreement(reference, prepared.run(sample).reshape(reference.shape)).ok for sample, reference in pairs):
            return prepared, engine
        prepared.close()
    except FlyweightError:  # refused or failed there: another engine may do
        pass
    choice = choose_engine(before.exported.path, before.samples, before.reference, threads=threads, seconds=0.5)
    return find_engine(choice.engine).prepare(before.exported.path, threads), choice.engine


def time_both(
    before: Artefact, original: Prepared, compressed: Prepared, request: dict[str, Tensor], threads: int
) -> Rounds:
    """Time one request in eager PyTorch, in the exported original and in the compressed model, in turns."""
    arrays = as_arrays(request)
    rows = max(len(values) for values in arrays.values())

    def eager() -> Any:
        with torch.inference_mode():
            return before.model(**request)

    with evaluating(before.model):
        calls: dict[str, Callable[[], object]] = {
            "before": eager,
            "exported": partial(original.run, arrays),
            "after": partial(compressed.run, arrays),
        }
        return time_rounds(calls, candidates=rows, threads=threads, seconds=SECONDS)


def speed_ratio(rounds: Rounds) -> Estimate:
    """Return the median time before over that after."""
    return speedup(rounds, "before", "after")


def resident_growth(path: Path, engine: str, threads: int, request: dict[str, Tensor]) -> int | None:
    """Return by how many bytes a fresh process grows when an engine loads a model and scores one request.

    None where memory cannot be read off the system.
    """
    if not Path("/proc/self/status").exists():
        return None
    feed = {name: (values.tolist(), str(values.numpy().dtype)) for name, values in request.items()}
    setup = (
        "import numpy\nfrom pathlib import Path\nfrom flyweight.engines.registry import find_engine\n"
        f"engine = find_engine({engine!r})\nengine.available()\n"
        f"feed = {{name: numpy.array(values, dtype) for name, (values, dtype) in {feed!r}.items()}}"
    )
    load = f"loaded = engine.prepare(Path({str(path)!r}), {threads})"
    return measure_resident(load, "loaded.run(feed)", setup=setup).growth
