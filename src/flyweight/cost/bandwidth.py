"""Bytes a second that a processor moves, from memory and from each of its caches."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flyweight.cost.caches import Cache, find_caches
from flyweight.errors import InputError

Array = NDArray[np.float32]
#: A timed pass moves at least so many bytes a thread, so that starting it costs next to nothing.
PASS_BYTES = 64 << 20
SMALLEST_FAR, LARGEST_FAR = 96 << 20, 768 << 20
MEMORY = "memory"


@dataclass(frozen=True)
class Level:
    """A place where bytes lie, and how fast they come from there.

    Args:
        name: "L2", "L3" or "memory".
        holds: bytes that fit, for all threads together; 0 for memory, which holds whatever there is.
        read, copy, add: bytes a second of three loops: the largest of an array; `a = b`; `a = b + c`.
    """

    name: str
    holds: int
    read: float
    copy: float
    add: float

    @property
    def rate(self) -> float:
        """The fastest of the three, in bytes a second."""
        return max(self.read, self.copy, self.add)


def measure_bandwidth(threads: int = 1, seconds: float = 1.5) -> tuple[Level, ...]:
    """Measure bytes a second of each cache level and of memory, the nearest first; the best of several passes.

    As STREAM does (McCalpin 1995): arrays of together at least four times the last cache for memory, a write counts
    once. NumPy has no fused `a = b + s c`; `add` moves the same bytes. For a cache, arrays fill half of it. A cache
    that each core has to itself is measured by one thread, times the threads: Python hands over too slowly between
    short loops.

    Args:
        threads: that move bytes at once, each on arrays of its own.
        seconds: about how long it takes, arrays made included.

    Raises:
        InputError: `threads` is below 1, or `seconds` is not positive.

    Example:
        >>> [level.name for level in measure_bandwidth()]  # doctest: +SKIP
        ['L2', 'L3', 'memory']
    """
    if threads < 1 or not seconds > 0:
        raise InputError(f"Bandwidth needs threads >= 1 and seconds > 0; seen threads={threads}, seconds={seconds}.")
    caches = find_caches()
    far = min(max(4 * caches[-1].holds(threads), SMALLEST_FAR), LARGEST_FAR)
    each = seconds / (len(caches) + 1)
    with ThreadPoolExecutor(threads) as pool:
        near = [_measure_cache(pool, threads, cache, each) for cache in caches]
        return (*near, Level(MEMORY, 0, **_rates(pool, threads, far, each)))


def _measure_cache(pool: ThreadPoolExecutor, threads: int, cache: Cache, seconds: float) -> Level:
    if cache.shared > 1:
        return Level(cache.name, cache.holds(threads), **_rates(pool, threads, cache.holds(threads) // 2, seconds))
    alone = _rates(pool, 1, cache.bytes // 2, seconds)
    return Level(cache.name, cache.holds(threads), **{loop: threads * rate for loop, rate in alone.items()})


def _rates(pool: ThreadPoolExecutor, threads: int, used: int, seconds: float) -> dict[str, float]:
    """Bytes a second by loop, of threads that together use so many bytes."""
    length = used // (3 * 4 * threads)  # three float32 arrays a thread
    start = time.perf_counter()
    arrays = list(pool.map(lambda _: _arrays(length), range(threads)))
    left = max(seconds - (time.perf_counter() - start), 0.0) / len(_LOOPS)
    rates = {}
    for loop, (run, moved) in _LOOPS.items():
        repeats = max(1, PASS_BYTES // (moved * 4 * length))

        def one(own: tuple[Array, Array, Array], run: Loop = run, repeats: int = repeats) -> None:
            for _ in range(repeats):
                run(*own)

        wall = _best(lambda one=one: list(pool.map(one, arrays)), left)  # type: ignore[misc]
        rates[loop] = repeats * moved * 4 * length * threads / wall
    return rates


def _arrays(length: int) -> tuple[Array, Array, Array]:
    """Three arrays, written once, so that their pages are there."""
    return np.ones(length, np.float32), np.ones(length, np.float32), np.ones(length, np.float32)


def _best(call: Callable[[], object], seconds: float) -> float:
    """Seconds of the fastest call: at least three, and as many as fit."""
    begin = time.perf_counter()
    best, calls = float("inf"), 0
    while calls < 3 or time.perf_counter() - begin < seconds:
        start = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - start)
        calls += 1
    return best


Loop = Callable[[Array, Array, Array], object]
#: Name -> the loop, and how many of the three arrays it moves.
_LOOPS: dict[str, tuple[Loop, int]] = {
    "read": (lambda a, b, c: np.maximum.reduce(b), 1),
    "copy": (lambda a, b, c: np.copyto(a, b), 2),
    "add": (lambda a, b, c: np.add(b, c, out=a), 3),
}
