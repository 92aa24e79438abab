"""Time and memory of the original and the bundle, side by side in one run."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from flyweight.cost.latency import Rounds, time_rounds
from flyweight.cost.resident import measure_resident
from flyweight.engines.choose import Choice, choose_engine
from flyweight.engines.engine import Prepared
from flyweight.engines.registry import ROUNDING, find_engine
from flyweight.engines.right_engines import Skipped, thread_counts
from flyweight.errors import EngineError
from flyweight.planning.artefact import Artefact
from flyweight.planning.requests import as_arrays
from flyweight.task.measurement import Latency
from flyweight.task.scores import evaluating

#: Whether quality bears that a model runs in the second engine, which rounds, instead of the first.
MayRound = Callable[[Prepared, Prepared], bool]
SECONDS = 8.0
#: For finding out which engines are right, and with how many threads each is fastest.
TRYING = 0.5


@dataclass(frozen=True, eq=False)
class Race:
    """Every engine that is right, running both models, and the original in eager PyTorch: all timed in turns.

    Args:
        engine: the one with the quickest median on the compressed model.
        original, compressed: the exported models running in it.
        original_engine: where the original runs; another one when its scores are wrong in `engine`.
        rounds: "before" (eager PyTorch), "exported" and "after" in the engine, and "after in NAME" for the others.
        choice: what agreed with PyTorch, and what was left out with the reason.
        threads: that the engine was fastest with on the compressed model; the rounds are all in the same number.
    """

    engine: str
    original: Prepared
    original_engine: str
    compressed: Prepared
    rounds: Rounds
    choice: Choice
    threads: int

    def close(self) -> None:
        """Stop both models."""
        self.original.close()
        self.compressed.close()


def race(
    before: Artefact, after: Artefact, request: dict[str, Tensor], threads: int, may_round: MayRound | None = None
) -> Race:
    """Time a request in every engine that gives PyTorch's scores on the samples, and keep the quickest running.

    Args:
        may_round: asked with the quickest exact engine and a surely quicker one that rounds to bfloat16, both running
            the compressed model, whether quality bears it; None tries no engine that rounds.

    Raises:
        EngineError: no engine gives the right scores.
    """
    first = choose_engine(before.exported.path, before.calls, before.reference, threads=threads, seconds=0.2)
    counts = tuple(dict.fromkeys((threads, *thread_counts())))
    choice = choose_engine(
        after.exported.path, after.calls, after.reference, threads=counts, seconds=TRYING, noise=after.noise,
        rounding=may_round is not None,
    )  # fmt: skip
    arrays = as_arrays(request)
    originals = {name: find_engine(name).prepare(before.exported.path, threads) for name in first.latencies}
    running = {name: find_engine(name).prepare(after.exported.path, threads) for name in choice.latencies}

    def eager() -> Any:
        with torch.inference_mode():
            return before.model(**request)

    calls: dict[str, Callable[[], object]] = {"before": eager}
    for which, artefact, engines in (("exported", before, originals), ("after", after, running)):
        for name, prepared in engines.items():
            calls[f"{which} in {name}"] = partial(prepared.run, artefact.one_call(_wanted(prepared, arrays)))
    rows = max(len(values) for values in arrays.values())
    with evaluating(before.model):
        rounds = time_rounds(calls, candidates=rows, threads=threads, seconds=SECONDS)
    latencies = {name: rounds.latency(f"after in {name}") for name in running}
    engine, why = quickest(latencies, lambda exact, other: _bears(may_round, running[exact], running[other]))
    choice = choice if why is None else replace(choice, skipped=(*choice.skipped, why))
    other = engine if engine in originals else next(iter(originals))
    for prepared in (*originals.values(), *running.values()):
        if prepared not in (originals[other], running[engine]):
            prepared.close()
    samples = dict(rounds.samples)
    samples["exported"], samples["after"] = samples.pop(f"exported in {other}"), samples.pop(f"after in {engine}")
    kept = {name: taken for name, taken in samples.items() if not name.startswith("exported in ")}
    best = choice.surely_fastest(engine, threads)
    return Race(engine, originals[other], other, running[engine], replace(rounds, samples=kept), choice, best)


def quickest(latencies: Mapping[str, Latency], bears: Callable[[str, str], bool]) -> tuple[str, Skipped | None]:
    """Return the engine with the least median; one that rounds only where it is surely quicker and quality bears it.

    Args:
        latencies: by engine, of the same rounds.
        bears: asked with the quickest exact engine and the one that rounds.

    Returns:
        the engine, and why a quicker one was left out, if it was.

    Raises:
        EngineError: every engine rounds.
    """
    order = sorted(latencies, key=lambda name: latencies[name].p50)
    exact = next((name for name in order if name not in ROUNDING), None)
    if exact is None:
        raise EngineError(f"Only engines that round have the right scores: {', '.join(order)}.")
    if order[0] == exact or latencies[order[0]].p50_high >= latencies[exact].p50_low:
        return exact, None
    if bears(exact, order[0]):
        return order[0], None
    return exact, Skipped(order[0], "quicker, but its rounding takes too much of the margin on validation data")


def _bears(may_round: MayRound | None, exact: Prepared, rounding: Prepared) -> bool:
    return may_round is not None and may_round(exact, rounding)


def _wanted(prepared: Prepared, arrays: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Leave out inputs that a model does not take, such as fields that were dropped."""
    return {name: arrays[name] for name in prepared.input_names}


def resident_growth(artefact: Artefact, engine: str, threads: int, request: dict[str, Tensor]) -> int | None:
    """Return by how many bytes a fresh process grows when an engine loads a model and scores one request.

    None where memory cannot be read off the system, or the process failed: a result is not lost for that.
    """
    arrays = artefact.one_call(as_arrays(request))
    path = artefact.exported.path
    feed = {name: (values.tolist(), str(values.dtype)) for name, values in arrays.items()}
    setup = (
        "import numpy\nfrom pathlib import Path\nfrom flyweight.engines.registry import find_engine\n"
        f"engine = find_engine({engine!r})\nengine.available()\n"
        f"feed = {{name: numpy.array(values, dtype) for name, (values, dtype) in {feed!r}.items()}}"
    )
    load = f"loaded = engine.prepare(Path({str(path)!r}), {threads})"
    call = "loaded.run({name: feed[name] for name in loaded.input_names})"
    try:
        return measure_resident(load, call, setup=setup).growth
    except EngineError:
        return None
