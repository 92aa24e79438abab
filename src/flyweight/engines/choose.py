"""The fastest engine that gives the right scores, found by running each of them here."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flyweight.cost.latency import time_interleaved
from flyweight.engines.agreement import agreement
from flyweight.engines.engine import Prepared
from flyweight.engines.registry import ENGINES, find_engine
from flyweight.errors import EngineError, InputError
from flyweight.task.measurement import Latency

Sample = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Skipped:
    """An engine that was not chosen from, and why."""

    engine: str
    why: str


@dataclass(frozen=True)
class Choice:
    """What was chosen, and all that was seen.

    Args:
        engine: name of the fastest engine, by the median.
        latencies: of every engine that was right, by name, measured in turns.
        skipped: engines that are missing, refused the model or gave other scores.
        agreements: in words, how close the scores of every engine were that was run.
    """

    engine: str
    latencies: dict[str, Latency]
    skipped: tuple[Skipped, ...]
    agreements: dict[str, str]


def choose_engine(
    path: Path,
    samples: Sequence[Sample],
    reference: Sequence[NDArray[Any]],
    *,
    threads: int,
    candidates: int = 500,
    seconds: float = 5.0,
    noise: Sequence[float] = (),
    engines: Sequence[str] = tuple(ENGINES),
) -> Choice:
    """Run a model in every engine, leave out those whose scores are not the reference's, and time the rest in turns.

    Args:
        path: the exported model.
        samples: batches by input name. Take ids from the whole of every vocabulary, the highest among them: an engine
            may be wrong on large ids alone.
        reference: the scores that PyTorch gave for each sample.
        threads: threads for one call; 0 leaves it to the engine.
        candidates: rows of the batches that are timed: the samples' rows, repeated or cut.
        seconds: the most that timing takes.
        noise: for a model rounded to few bits, what the rounding does to each reference (see `agreement`).
        engines: names of those that are tried; one of `ROUNDING` only where the model's own rounding allows for it.

    Raises:
        InputError: there are no samples, or not a reference for each.
        EngineError: no engine gives the right scores; the reasons of all.

    Example:
        >>> choose_engine(exported.path, [batch], [scores], threads=2).engine  # doctest: +SKIP
        'openvino'
    """
    if not samples or len(samples) != len(reference):
        raise InputError(f"choose_engine needs a reference for each sample; seen {len(samples)} and {len(reference)}.")
    ready: dict[str, Prepared] = {}
    skipped: list[Skipped] = []
    agreements: dict[str, str] = {}
    try:
        for name in engines:
            prepared, why = _prepare(name, path, threads)
            if prepared is not None:
                ready[name] = prepared
                agreements[name], why = _compare(prepared, samples, reference, noise)
            if why is not None:
                skipped.append(Skipped(name, why))
                if name in ready:
                    ready.pop(name).close()
        if not ready:
            reasons = "; ".join(f"{one.engine}: {one.why}" for one in skipped)
            raise EngineError(f"No engine runs {path.name} with the right scores ({reasons}).")
        latencies = _time(ready, samples, reference, threads=threads, candidates=candidates, seconds=seconds)
    finally:
        for prepared in ready.values():
            prepared.close()
    fastest = min(latencies, key=lambda name: latencies[name].p50)
    return Choice(fastest, latencies, tuple(skipped), agreements)


def _prepare(name: str, path: Path, threads: int) -> tuple[Prepared | None, str | None]:
    engine = find_engine(name)
    why = engine.available() or engine.cannot_run(path)
    if why is not None:
        return None, why
    try:
        return engine.prepare(path, threads), None
    except EngineError as error:
        return None, str(error)


def _compare(
    prepared: Prepared, samples: Sequence[Sample], reference: Sequence[NDArray[Any]], noise: Sequence[float]
) -> tuple[str, str | None]:
    """Return in words how close the scores are, and why they are not close enough, if so."""
    worst, words = -1.0, ""
    for number, (sample, scores) in enumerate(zip(samples, reference, strict=True)):
        try:
            shaped = _shaped(prepared.run(_wanted(prepared, sample)), scores)
            seen = agreement(scores, shaped, noise=noise[number] if noise else 0.0)
        except EngineError as error:
            return str(error), str(error)
        if not seen.ok:
            return seen.words, f"its scores of sample {number} are not the model's: {seen.words}"
        if seen.max_rel > worst:
            worst, words = seen.max_rel, seen.words
    return words, None


def _wanted(prepared: Prepared, sample: Sample) -> Sample:
    """Leave out what the graph does not read: an input that the model takes and never uses."""
    return {name: sample[name] for name in prepared.input_names if name in sample}


def _shaped(scores: NDArray[Any], like: NDArray[Any]) -> NDArray[Any]:
    """A column of scores (rows, 1) is the same as (rows,)."""
    return scores.reshape(like.shape) if scores.size == like.size and len(scores) == len(like) else scores


def _time(
    ready: dict[str, Prepared],
    samples: Sequence[Sample],
    reference: Sequence[NDArray[Any]],
    *,
    threads: int,
    candidates: int,
    seconds: float,
) -> dict[str, Latency]:
    batches, rows = _timed_batches(samples, [len(scores) for scores in reference], candidates)
    calls = {name: _caller(prepared, batches) for name, prepared in ready.items()}
    return time_interleaved(calls, candidates=rows, threads=threads, seconds=seconds)


def _caller(prepared: Prepared, batches: Sequence[Sample]) -> Callable[[], object]:
    """A call that takes another batch each time, so that no engine is timed on rows its caches still hold."""
    turn = cycle([_wanted(prepared, batch) for batch in batches])
    return lambda: prepared.run(next(turn))


def _timed_batches(samples: Sequence[Sample], rows: Sequence[int], candidates: int) -> tuple[list[Sample], int]:
    """Bring all samples to `candidates` rows; where an input has another length (flat ids), the first goes as it is."""
    if any(len(value) != count for sample, count in zip(samples, rows, strict=True) for value in sample.values()):
        return [samples[0]], rows[0]
    batches = [
        {name: value[np.arange(candidates) % count] for name, value in sample.items()}
        for sample, count in zip(samples, rows, strict=True)
        if count
    ]
    return batches, candidates
