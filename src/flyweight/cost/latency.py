"""Wall time of calls, always side by side: A and B take turns, so that a slow minute of the machine hits both."""

import gc
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle

import numpy as np
from numpy.typing import NDArray

from flyweight.errors import InputError
from flyweight.task.estimate import Estimate
from flyweight.task.measurement import Latency

Call = Callable[[], object]
#: Milliseconds of calls of one kind before a timed one: until its caches are warm, and the threads of the kind before
#: it, which look for more work in a loop for some milliseconds, have gone to sleep.
LEAD = 5.0


@dataclass(frozen=True, eq=False)
class Rounds:
    """Timed rounds: in each, every call ran once, in a shuffled order.

    Args:
        samples: by name, milliseconds of each round, shape (rounds,); the same round stands at the same place.
        candidates: rows in one call.
        threads: threads the calls were allowed.
    """

    samples: Mapping[str, NDArray[np.float64]]
    candidates: int
    threads: int

    def latency(self, name: str) -> Latency:
        """Return percentiles of one call, in milliseconds."""
        return summarise(self.samples[name], candidates=self.candidates, threads=self.threads)


def in_turn(calls: Sequence[Call]) -> Call:
    """Return a call that makes the next of several each time, as a server meets one request after the other.

    Example:
        >>> call = in_turn([lambda: "a", lambda: "b"])
        >>> [call(), call(), call()]
        ['a', 'b', 'a']
    """
    turns = cycle(calls)
    return lambda: next(turns)()


def time_rounds(
    calls: Mapping[str, Call],
    *,
    candidates: int,
    threads: int,
    repeats: int = 200,
    warmup: int = 20,
    seconds: float | None = None,
    lead: float = LEAD,
    clock: Callable[[], float] = time.perf_counter,
) -> Rounds:
    """Time calls in turns and keep the sample of every round.

    The order within a round is shuffled by a fixed seed, so that no call always runs in the warm cache of another. A
    server scores one request after the other with the same model: `lead` milliseconds of calls, one at least, go before
    each timed one, or else a small model is timed fetching back what its rivals drove out of the caches (a ranker of
    0.09 ms a call took 0.6 ms without, 0.24 ms after one call). Callers whose requests differ in turn have them differ
    here too.
    With `seconds`, warm-up takes at most a quarter of it and rounds stop once it is spent; one full round always runs.

    Raises:
        InputError: there is nothing to time, or `repeats` is below 1.
    """
    if not calls:
        raise InputError("There is nothing to time: calls is empty.")
    if repeats < 1 or warmup < 0 or lead < 0:
        seen = f"repeats={repeats}, warmup={warmup}, lead={lead}"
        raise InputError(f"Timing needs repeats >= 1, warmup >= 0 and lead >= 0; seen {seen}.")
    names = list(calls)
    lead = lead if len(names) > 1 else 0.0
    order = np.random.default_rng(0)
    taken: dict[str, list[float]] = {name: [] for name in names}
    start = clock()
    for _ in range(warmup):
        for name in names:
            calls[name]()
        if seconds is not None and clock() - start > seconds / 4:
            break
    with _no_collection():
        for _ in range(repeats):
            for place in order.permutation(len(names)):
                name = names[place]
                _lead(calls[name], lead, clock)
                begin = clock()
                calls[name]()
                taken[name].append(1000.0 * (clock() - begin))
            if seconds is not None and clock() - start > seconds:
                break
    return Rounds({name: np.asarray(values) for name, values in taken.items()}, candidates, threads)


def _lead(call: Call, lead: float, clock: Callable[[], float]) -> None:
    """Call for so many milliseconds, once at least; not at all for 0."""
    end = clock() + lead / 1000.0
    while lead:
        call()
        if clock() >= end:
            return


def time_interleaved(
    calls: Mapping[str, Call],
    *,
    candidates: int,
    threads: int,
    repeats: int = 200,
    warmup: int = 20,
    seconds: float | None = None,
    lead: float = LEAD,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Latency]:
    """Time calls in turns and return the `Latency` of each, in milliseconds; `time_rounds` keeps the samples too.

    Raises:
        InputError: there is nothing to time, or `repeats` is below 1.
    """
    rounds = time_rounds(
        calls,
        candidates=candidates,
        threads=threads,
        repeats=repeats,
        warmup=warmup,
        seconds=seconds,
        lead=lead,
        clock=clock,
    )
    return {name: rounds.latency(name) for name in rounds.samples}


def summarise(samples: NDArray[np.float64], *, candidates: int, threads: int) -> Latency:
    """Return percentiles of samples in milliseconds, shape (rounds,), with a 95% interval on the median.

    Example:
        >>> summarise(np.arange(1.0, 101.0), candidates=500, threads=2).p50
        50.5
    """
    low, high = median_interval(samples)
    p50, p95, p99 = (float(value) for value in np.percentile(samples, (50, 95, 99)))
    return Latency(p50, p95, p99, low, high, repeats=len(samples), candidates=candidates, threads=threads)


def median_interval(samples: NDArray[np.float64], confidence: float = 0.95) -> tuple[float, float]:
    """Return a distribution-free interval on the median: two order statistics.

    The number of samples below the median is Binomial(n, 1/2), so `[x(r), x(n - r + 1)]` misses it with probability
    `2 P(Binomial(n, 1/2) < r)`; r is the largest for which that is at most 1 - confidence. (David and Nagaraja, Order
    Statistics, 3rd ed., section 7.1.) Fewer than 6 samples hold no 95% interval; the answer is then their range.

    Example:
        >>> median_interval(np.arange(1.0, 101.0))
        (40.0, 61.0)
    """
    ordered = np.sort(samples)
    n = len(ordered)
    room = (1.0 - confidence) / 2.0 * 2**n if n < 1000 else int((1.0 - confidence) / 2.0 * 2**53) << (n - 53)
    below, ways, rank = 0, 1, 0  # below = sum of the first `rank` binomial coefficients, exact whole numbers
    while below + ways <= room and rank < n // 2:
        below += ways
        rank += 1
        ways = ways * (n - rank + 1) // rank
    rank = max(rank, 1)
    return float(ordered[rank - 1]), float(ordered[n - rank])


def speedup(rounds: Rounds, before: str, after: str, confidence: float = 0.95) -> Estimate:
    """Return how many times faster `after` is than `before`: the ratio of medians, with an interval.

    Rounds are drawn with replacement, both calls of a round together, in blocks of about n^(1/3) neighbours because
    neighbouring rounds share the machine's mood (circular block bootstrap, Politis and Romano 1992).

    Example: medians of 10 ms before and 2 ms after give 5.0.
    """
    old, new = rounds.samples[before], rounds.samples[after]
    n = len(old)
    block = max(1, round(n ** (1 / 3)))
    starts = np.random.default_rng(0).integers(n, size=(2000, -(-n // block)))
    places = (starts[:, :, None] + np.arange(block)).reshape(len(starts), -1)[:, :n] % n  # (draws, rounds)
    ratios = np.median(old[places], axis=1) / np.median(new[places], axis=1)
    low, high = np.quantile(ratios, ((1 - confidence) / 2, (1 + confidence) / 2))
    value = float(np.median(old) / np.median(new))
    return Estimate(value, float(low), float(high), n=n, confidence=confidence, method="block bootstrap of rounds")


def throughput(rounds: Rounds, name: str) -> float:
    """Return rows per second of one caller that sends its calls one after another: all rows by all time.

    Example: 500 candidates in 2 ms each time give 250,000 rows/s.
    """
    samples = rounds.samples[name]
    return float(1000.0 * rounds.candidates * len(samples) / samples.sum())


@contextmanager
def _no_collection() -> Iterator[None]:
    """Pause the garbage collector, as timeit does: a collection would be charged to whichever call it hits."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
