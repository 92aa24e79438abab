"""Timing of a trial beside the original, taken again where other work on the machine disturbed it.

Both are timed in turns, but not all work slows both alike: PyTorch with a thread on every core waits for the one that
was taken away, a small model on one core does not, and looks fifty times as fast as it is. One such trial would be the
best of its search for good. How long the original takes is known from the trials before, so a disturbed timing shows.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from flyweight.cost.latency import Call, Rounds, time_rounds

#: Times the least that the original took, above which a timing is taken again; and how often.
SLOWER, TRIES = 1.4, 3


@dataclass
class Steady:
    """Times trials of one search.

    Args:
        least: the least median that the original took until now, in milliseconds.
    """

    least: float = math.inf

    def time(self, original: str, calls: Mapping[str, Call], *, rows: int, threads: int, seconds: float) -> Rounds:
        """Time calls in turns; of up to `TRIES` timings, keep the one in which the original took least.

        The first timing of a search has nothing to be held against, so all its tries are made.

        Args:
            original: the name among the calls of the one that is the same in all trials.
            rows: in one call.
        """
        first = math.isinf(self.least)
        kept: Rounds | None = None
        took = math.inf
        for _ in range(TRIES):
            rounds = time_rounds(calls, candidates=rows, threads=threads, seconds=seconds)
            seen = rounds.latency(original).p50
            if kept is None or seen < took:
                kept, took = rounds, seen
            self.least = min(self.least, seen)
            if not first and seen <= SLOWER * self.least:
                break
        assert kept is not None
        return kept
