"""Measuring a bundle again where it is to run: every engine here, on its stored samples, judged and timed in turns."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flyweight.bundle.ranker import Ranker
from flyweight.bundle.read import Bundle, read_bundle
from flyweight.bundle.retime import retime
from flyweight.bundle.timing import EngineTried, Hardware, Latencies, LatencyEntry, Timing, TimingFile
from flyweight.bundle.verify import scored
from flyweight.cost.hardware import describe_hardware
from flyweight.engines.choose import fastest_threads, timed_batches, with_rounding
from flyweight.engines.registry import CUDA, ENGINES, ROUNDING, TORCH, find_engine
from flyweight.engines.right_engines import Ready, Reference, Sample, Skipped, right_engines, thread_counts
from flyweight.engines.threads import checked_threads
from flyweight.errors import EngineError, InputError
from flyweight.task.measurement import Latency
from flyweight.task.progress import stage

#: All that may be here, each followed by its bfloat16 variant.
EVERY = with_rounding((*ENGINES, *TORCH, *CUDA))


@dataclass(frozen=True)
class Timed:
    """One engine with one number of threads, on requests of one size."""

    engine: str
    threads: int
    latency: Latency


@dataclass(frozen=True)
class Bench:
    """What was measured of a bundle here.

    Args:
        path: the bundle.
        timed: every engine that gives the reference's scores; by candidates, then as they are tried.
        agreements: in words, how close the scores of each were.
        skipped: engines that are missing, refuse the model or give other scores, and why.
        chosen: the fastest at the first number of candidates among those whose scores were certified: those that round
            no more than the file asks for, and the engine that the bundle was certified in.
    """

    path: Path
    timed: tuple[Timed, ...]
    agreements: dict[str, str]
    skipped: tuple[Skipped, ...]
    chosen: Timed


def bench(
    path: str | Path,
    *,
    threads: int | None = None,
    candidates: Sequence[int] = (500,),
    seconds: float = 10.0,
    engines: Sequence[str] = EVERY,
    choose: bool = False,
) -> Bench:
    """Measure a bundle in every engine that is here, on its stored samples.

    Args:
        threads: threads for one call; None tries the powers of two and all cores.
        candidates: sizes of request to time; the engine is chosen at the first.
        seconds: the most that timing takes at each size; starting engines comes on top, compiling too (see
            `engines.inductor`).
        engines: names of those that are tried.
        choose: write what was chosen into the bundle's `timing.json`, with this machine's times.

    Raises:
        BundleError: the bundle is damaged or not to be trusted.
        InputError: it holds no samples; a number is out of range or an engine unknown; all engines round to bfloat16
            and none was certified so; `timing.json` cannot be written.
        EngineError: no engine gives the right scores.

    Example:
        >>> bench("ranker.fly", threads=1).chosen.engine  # doctest: +SKIP
        'openvino'
    """
    _check(candidates, seconds, engines)
    counts = thread_counts() if threads is None else (checked_threads(threads),)
    bundle = read_bundle(path)
    _check_certified(bundle, engines)
    reference = _reference(bundle)
    ready_engines = right_engines(bundle.model, reference, engines, counts, rounding=True)
    with stage("Timing every engine, in turns", seconds=seconds * len(candidates) + 10.0), ready_engines as ready:
        timed = tuple(one for count in candidates for one in _time(ready, reference, count, seconds))
    chosen = _fastest(bundle, timed, candidates[0], ready.skipped)
    if choose:
        retime(bundle, _timing(bundle.timing, timed, ready.skipped, chosen))
    return Bench(bundle.path, timed, dict(ready.agreements), ready.skipped, chosen)


def _check(candidates: Sequence[int], seconds: float, engines: Sequence[str]) -> None:
    if not candidates or min(candidates) < 1 or not 0 < seconds < float("inf"):
        raise InputError(
            f"bench takes 1 candidate or more and a finite number of seconds above 0; seen "
            f"candidates={list(candidates)}, seconds={seconds}."
        )
    if isinstance(engines, str) or not engines:
        raise InputError(f"engines must be a list of names, such as ['onnxruntime']; seen {engines!r}.")
    for name in engines:
        find_engine(name)


def _check_certified(bundle: Bundle, engines: Sequence[str]) -> None:
    """Refuse to look for the fastest among engines of which none may be chosen."""
    if all(name in ROUNDING and name != bundle.timing.engine for name in engines):
        raise InputError(
            f"{', '.join(engines)}: bf16 was not certified for {bundle.path}, so there is none to choose from; add a "
            f"certified engine, such as {next(iter(ENGINES))}."
        )


class _Listener:
    """Takes the place of an engine and keeps what the ranker gives it."""

    input_names: tuple[str, ...] = ()

    def __init__(self, scores: NDArray[Any]) -> None:
        self.heard: Sample = {}
        self._scores = scores

    def run(self, inputs: Sample) -> NDArray[Any]:
        self.heard = inputs
        return self._scores

    def close(self) -> None:
        pass


def _reference(bundle: Bundle) -> Reference:
    """Return the stored samples as the ranker hands them to an engine, with their scores."""
    if not bundle.samples:
        raise InputError(f"{bundle.path} holds no stored requests to measure with; compress the model again.")
    calls = []
    for sample in bundle.samples:
        listener = _Listener(np.zeros(len(sample.scores), np.float32))
        scored(Ranker(bundle, listener, "none"), sample)
        calls.append(listener.heard)
    return Reference(calls, [sample.scores for sample in bundle.samples], [one.noise for one in bundle.samples])


def _time(ready: Ready, reference: Reference, candidates: int, seconds: float) -> list[Timed]:
    if not ready.running:
        return []
    batches, rows = timed_batches(reference.samples, [len(scores) for scores in reference.scores], candidates)
    return [Timed(*pair, latency) for pair, latency in ready.time(batches, rows, seconds).items()]


def _fastest(bundle: Bundle, timed: Sequence[Timed], candidates: int, skipped: Sequence[Skipped]) -> Timed:
    """Return the fastest at a size; where samples cannot be resized, all were timed at the size that they have."""
    certified = [one for one in timed if one.engine not in ROUNDING or one.engine == bundle.timing.engine]
    if not certified:
        rounded = dict.fromkeys(f"{one.engine}: bf16 was not certified" for one in timed)
        reasons = "; ".join([*(f"{one.engine}: {one.why}" for one in skipped), *rounded])
        raise EngineError(f"No engine here gives the scores of {bundle.path} ({reasons}).")
    sized = [one for one in certified if one.latency.candidates == candidates] or certified
    return min(sized, key=lambda one: one.latency.p50)


def _timing(old: TimingFile, timed: Sequence[Timed], skipped: Sequence[Skipped], chosen: Timed) -> Timing:
    """Return the timing of this machine; times of the original are kept only if they were taken on one like it."""
    facts = describe_hardware()
    hardware = Hardware(cpu=facts["cpu"], cores=facts["cores"], ram_bytes=facts["memory_bytes"])
    same = (hardware.cpu, hardware.cores) == (old.hardware.cpu, old.hardware.cores)
    sized = [one for one in timed if one.latency.candidates == chosen.latency.candidates]
    best = fastest_threads({(one.engine, one.threads): one.latency for one in sized})
    tried = [EngineTried(name=name, latency=LatencyEntry.model_validate(one)) for name, one in best.items()]
    kept = Latencies(before=old.latency.before, before_exported=old.latency.before_exported) if same else Latencies()
    return Timing(
        engine=chosen.engine,
        threads=chosen.threads,
        engines=[*tried, *(EngineTried(name=one.engine, why=one.why) for one in skipped)],
        latency=kept.model_copy(update={"after": LatencyEntry.model_validate(chosen.latency)}),
        hardware=hardware,
        versions={"python": facts["python"], **facts["packages"]},
        resident_bytes=dict(old.resident_bytes) if same and chosen.engine == old.engine else {},
        wall_seconds=old.wall_seconds,
    )
