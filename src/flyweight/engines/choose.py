"""The fastest engine that gives the right scores, and how many threads for it, found by running each of them here."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flyweight.engines.registry import ENGINES, ROUNDING
from flyweight.engines.right_engines import Reference, Sample, Skipped, right_engines
from flyweight.errors import EngineError
from flyweight.task.field import REQUEST_INDEX
from flyweight.task.measurement import Latency

__all__ = ["Choice", "Sample", "Skipped", "choose_engine", "timed_batches", "with_rounding"]


@dataclass(frozen=True)
class Choice:
    """What was chosen, and all that was seen.

    Args:
        engine: name of the fastest engine, by the median.
        latencies: of every engine that was right, by name, with the threads it was fastest with; measured in turns.
        skipped: engines that are missing, refused the model or gave other scores.
        agreements: in words, how close the scores of every engine were that was run.
        tried: latencies by engine and threads.
    """

    engine: str
    latencies: dict[str, Latency]
    skipped: tuple[Skipped, ...]
    agreements: dict[str, str]
    tried: dict[tuple[str, int], Latency] = field(default_factory=dict)

    @property
    def threads(self) -> int:
        """Threads that the chosen engine was fastest with."""
        return self.latencies[self.engine].threads

    def surely_fastest(self, engine: str, threads: int) -> int:
        """Return the threads that an engine was surely faster with than with `threads`, else `threads`.

        Surely: the intervals of the medians lie apart.
        """
        known, best = self.tried[engine, threads], self.latencies[engine]
        return best.threads if best.p50_high < known.p50_low else threads


def choose_engine(
    path: Path,
    samples: Sequence[Sample],
    reference: Sequence[NDArray[Any]],
    *,
    threads: int | Sequence[int],
    candidates: int = 500,
    seconds: float = 5.0,
    noise: Sequence[float] = (),
    engines: Sequence[str] = tuple(ENGINES),
    rounding: bool = False,
) -> Choice:
    """Run a model in every engine, leave out those whose scores are not the reference's, and time the rest in turns.

    Args:
        path: the exported model.
        samples, reference, noise: what engines are judged by (see `right_engines.Reference`).
        threads: threads for one call, or several numbers to try; 0 leaves it to the engine.
        candidates: rows of the batches that are timed: the samples' rows, repeated or cut.
        seconds: the most that timing takes.
        engines: names of those that are tried.
        rounding: try the bfloat16 variant of each too, and let it differ by as much as bfloat16 explains
            (`registry.tolerance_in`). Only for a caller who then certifies quality on the scores of the engine that
            was chosen; what is lost is in that drop.

    Raises:
        InputError: there are no samples, or not a reference for each.
        EngineError: no engine gives the right scores; the reasons of all.

    Example:
        >>> choose_engine(exported.path, [batch], [scores], threads=(1, 2)).engine  # doctest: +SKIP
        'openvino'
    """
    due = Reference(samples, reference, noise)
    counts = (threads,) if isinstance(threads, int) else tuple(dict.fromkeys(threads))
    names = with_rounding(engines) if rounding else tuple(engines)
    with right_engines(path, due, names, counts, rounding=rounding) as ready:
        if not ready.running:
            reasons = "; ".join(f"{one.engine}: {one.why}" for one in ready.skipped)
            raise EngineError(f"No engine runs {path.name} with the right scores ({reasons}).")
        batches, rows = timed_batches(samples, [len(scores) for scores in reference], candidates)
        tried = ready.time(batches, rows, seconds)
        latencies = fastest_threads(tried)
    fastest = min(latencies, key=lambda name: latencies[name].p50)
    return Choice(fastest, latencies, ready.skipped, dict(ready.agreements), tried)


def with_rounding(engines: Sequence[str]) -> tuple[str, ...]:
    """Return names of engines, each followed by its bfloat16 variant where it has one.

    Example:
        >>> with_rounding(["onnxruntime", "openvino"])
        ('onnxruntime', 'openvino', 'openvino-bf16')
    """
    pairs = ((name, f"{name}-bf16") for name in engines)
    return tuple(dict.fromkeys(one for pair in pairs for one in pair if one in engines or one in ROUNDING))


def fastest_threads(tried: dict[tuple[str, int], Latency]) -> dict[str, Latency]:
    """Return the latency of each engine with the threads that its median is lowest with."""
    best: dict[str, Latency] = {}
    for (name, _), latency in tried.items():
        if name not in best or latency.p50 < best[name].p50:
            best[name] = latency
    return best


def timed_batches(samples: Sequence[Sample], rows: Sequence[int], candidates: int) -> tuple[list[Sample], int]:
    """Bring all samples to `candidates` rows; where an input has another length (flat ids), the first goes as it is.

    Of a hoisted model only the samples of one request are timed, whose fields have one row.
    """
    given = [(sample, count) for sample, count in zip(samples, rows, strict=True) if count]
    if any(REQUEST_INDEX in sample for sample in samples):
        given = [(sample, count) for sample, count in given if REQUEST_INDEX not in sample]
        fixed = {name for sample, _ in given for name, value in sample.items() if len(value) == 1}
    else:
        fixed = set()
    if any(len(value) != count for sample, count in given for name, value in sample.items() if name not in fixed):
        return [samples[0]], rows[0]
    places = np.arange(candidates)
    batches = [
        {name: value if name in fixed else value[places % count] for name, value in sample.items()}
        for sample, count in given
    ]
    return batches, candidates
