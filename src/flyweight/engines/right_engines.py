"""Engines that give the right scores, held ready to be timed, and why the others are not."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import cycle
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from flyweight.cost.hardware import allowed_cores
from flyweight.cost.latency import time_interleaved
from flyweight.engines.agreement import agreement
from flyweight.engines.engine import Prepared
from flyweight.engines.registry import find_engine, tolerance_in
from flyweight.errors import EngineError, InputError
from flyweight.task.field import REQUEST_INDEX
from flyweight.task.measurement import Latency

Sample = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Skipped:
    """An engine that was not chosen from, and why."""

    engine: str
    why: str


@dataclass(frozen=True)
class Reference:
    """What an engine is judged by.

    Args:
        samples: batches by input name. Take ids from the whole of every vocabulary, the highest among them: an engine
            may be wrong on large ids alone.
        scores: those that PyTorch gave for each sample.
        noise: for a model rounded to few bits, what the rounding does to each of them (see `agreement`).

    Raises:
        InputError: there are no samples, or not the scores of each.
    """

    samples: Sequence[Sample]
    scores: Sequence[NDArray[Any]]
    noise: Sequence[float] = ()

    def __post_init__(self) -> None:
        if not self.samples or len(self.samples) != len(self.scores):
            raise InputError(
                f"Choosing an engine needs a reference for each sample; seen {len(self.samples)} and "
                f"{len(self.scores)}."
            )


@dataclass(frozen=True)
class Ready:
    """Engines that were right, running.

    Args:
        running: by name and threads.
        skipped: engines that are missing, refused the model or gave other scores.
        agreements: in words, how close the scores of every engine were that was run.
    """

    running: Mapping[tuple[str, int], Prepared]
    skipped: tuple[Skipped, ...]
    agreements: Mapping[str, str]

    def time(self, batches: Sequence[Sample], rows: int, seconds: float) -> dict[tuple[str, int], Latency]:
        """Return the latency of each on batches of so many rows, measured in turns."""
        keys = {f"{name} {threads}": (name, threads) for name, threads in self.running}
        calls = {key: _caller(self.running[pair], batches) for key, pair in keys.items()}
        found = time_interleaved(calls, candidates=rows, threads=0, seconds=seconds)
        return {pair: replace(found[key], threads=pair[1]) for key, pair in keys.items()}


def thread_counts() -> tuple[int, ...]:
    """Return the numbers of threads worth trying: powers of two below the cores allowed, and all of these.

    Example: (1, 2) on two cores, (1, 2, 4, 6) on six.
    """
    cores = allowed_cores()
    powers = [2**power for power in range(cores.bit_length()) if 2**power < cores]
    return (*powers, cores)


@contextmanager
def right_engines(
    path: Path, reference: Reference, engines: Sequence[str], threads: Sequence[int], *, rounding: bool = False
) -> Iterator[Ready]:
    """Run a model in every engine and hold those ready whose scores are the reference's.

    Args:
        engines: names of those that are tried.
        threads: numbers of threads for one call, each tried; 0 leaves it to the engine.
        rounding: engines that compute in bfloat16 may differ by what that explains (`registry.tolerance_in`).
    """
    running: dict[tuple[str, int], Prepared] = {}
    skipped: list[Skipped] = []
    agreements: dict[str, str] = {}
    try:
        for name in engines:
            found, words, why = _start(name, path, reference, threads, rounding)
            running |= {(name, count): prepared for count, prepared in found.items()}
            agreements |= {name: words} if words else {}
            skipped += [Skipped(name, why.removeprefix(f"{name}: "))] if why is not None else []
        yield Ready(running, tuple(skipped), agreements)
    finally:
        for prepared in running.values():
            prepared.close()


def wanted(prepared: Prepared, sample: Sample) -> Sample:
    """Leave out what the graph does not read: an input that the model takes and never uses."""
    return {name: sample[name] for name in (*prepared.input_names, REQUEST_INDEX) if name in sample}


def _start(
    name: str, path: Path, reference: Reference, threads: Sequence[int], rounding: bool
) -> tuple[dict[int, Prepared], str, str | None]:
    """Return an engine's prepared models by threads, how close its scores are, and why it is left out, if so."""
    found: dict[int, Prepared] = {}
    words, why = "", None
    for count in threads:
        prepared, why = _prepare(name, path, count)
        if prepared is not None:
            found[count] = prepared
            words, why = _compare(prepared, reference, tolerance_in(name, rounding=rounding))
        if why is not None:
            for one in found.values():
                one.close()
            return {}, words, why
    return found, words, None


def _prepare(name: str, path: Path, threads: int) -> tuple[Prepared | None, str | None]:
    engine = find_engine(name)
    why = engine.available() or engine.cannot_run(path)
    if why is not None:
        return None, why
    try:
        return engine.prepare(path, threads), None
    except EngineError as error:
        return None, str(error)


def _compare(prepared: Prepared, reference: Reference, tolerance: float) -> tuple[str, str | None]:
    """Return in words how close the scores are, and why they are not close enough, if so."""
    worst, words = -1.0, ""
    for number, (sample, scores) in enumerate(zip(reference.samples, reference.scores, strict=True)):
        try:
            shaped = _shaped(prepared.run(wanted(prepared, sample)), scores)
            seen = agreement(scores, shaped, tolerance, noise=reference.noise[number] if reference.noise else 0.0)
        except EngineError as error:
            return str(error), str(error)
        if not seen.ok:
            return seen.words, f"its scores of sample {number} are not the model's: {seen.words}"
        if seen.max_rel > worst:
            worst, words = seen.max_rel, seen.words
    return words, None


def _shaped(scores: NDArray[Any], like: NDArray[Any]) -> NDArray[Any]:
    """A column of scores (rows, 1) is the same as (rows,)."""
    return scores.reshape(like.shape) if scores.size == like.size and len(scores) == len(like) else scores


def _caller(prepared: Prepared, batches: Sequence[Sample]) -> Callable[[], object]:
    """A call that takes another batch each time, so that no engine is timed on rows its caches still hold."""
    turn = cycle([wanted(prepared, batch) for batch in batches])
    return lambda: prepared.run(next(turn))
