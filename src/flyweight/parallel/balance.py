"""Cutting a row of operators into stages so that the slowest is as quick as it can be: exact, by dynamic programming.

`best[k][j]`, the least time of the slowest of k stages that end at cut j, is `min over i of max(best[k-1][i], stage(i,
j))`: the linear partition problem (Skiena 2008, section 8.5). A stage takes what its operators take, and what it gives
up of its own time to receive and to send: on one machine, whoever copies a tensor computes nothing meanwhile. What a
link does beside the units makes it one more that may be the slowest. Of two ways that are as quick, the one that sends
less.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Link:
    """What stages are joined by.

    Args:
        bytes_a_second: bandwidth; latency: seconds until the first byte arrives.
        sender, receiver: seconds that the unit before it, and the one behind, compute nothing, in shares of those that
            it is occupied; 0 where something else copies, as a network card or a GPU's copy engine does.
    """

    bytes_a_second: float
    latency: float
    sender: float = 0.0
    receiver: float = 0.0

    def occupied(self, bytes_: float) -> float:
        """Return the seconds for which so many bytes keep it from sending others."""
        return bytes_ / self.bytes_a_second

    def crossing(self, bytes_: float) -> "Crossing":
        """Return what so many bytes take."""
        occupied = self.occupied(bytes_)
        beside = max(0.0, 1.0 - self.sender) * occupied  # until they have arrived, after the sender has done its part
        return Crossing(occupied, self.sender * occupied, self.receiver * occupied, self.latency + beside)


@dataclass(frozen=True)
class Crossing:
    """What it takes to send a micro-batch from a stage to the next, in seconds.

    Args:
        link: that the link is occupied.
        sender, receiver: that the stage before, and the one behind, compute nothing.
        arrives: from when the sender is done until all has arrived.
    """

    link: float = 0.0
    sender: float = 0.0
    receiver: float = 0.0
    arrives: float = 0.0


def balanced(seconds: Sequence[float], ends: Sequence[int], sent: Sequence[Crossing], stages: int) -> tuple[int, ...]:
    """Return which cuts make stages of which the slowest is the quickest.

    Args:
        seconds: of each operator.
        ends: number of the last operator before each cut, rising.
        sent: what sending takes at each cut.
        stages: at most one more than cuts.

    Returns:
        The numbers of `stages - 1` cuts.

    Example:
        >>> balanced([1, 1, 1, 1, 4], [0, 1, 2, 3], [Crossing()] * 4, 2)
        (3,)
    """
    count = len(ends)
    upto = np.concatenate([[0.0], np.cumsum(seconds)])
    begins = upto[np.array([0, *(end + 1 for end in ends)], dtype=np.int64)]  # (cuts + 1,): the start, then each cut
    stops = np.append(begins[1:], upto[-1])  # (cuts + 1,): each cut, then the end
    begins[1:] -= [one.receiver for one in sent]  # a stage begins earlier, and stops later, by what it gives up
    stops[:-1] += [one.sender for one in sent]
    sends = np.array([*(one.link for one in sent), 0.0])
    best: NDArray[np.float64] = np.maximum(stops, sends)  # of one stage from the start to each cut, and to the end
    total = sends.copy()
    chosen: list[NDArray[np.int64]] = []
    for _ in range(1, stages):
        worst, cost = np.full(count + 1, np.inf), np.full(count + 1, np.inf)
        before = np.zeros(count + 1, dtype=np.int64)
        for end in range(1, count + 1):
            reached = np.maximum(best[:end], np.maximum(stops[end] - begins[1 : end + 1], sends[end]))
            least = float(reached.min())
            ties = np.flatnonzero(reached <= least * (1 + 1e-9))
            at = int(ties[total[ties].argmin()])
            worst[end], cost[end], before[end] = reached[at], total[at] + sends[end], at
        best, total = worst, cost
        chosen.append(before)
    cuts, end = [], count
    for before in reversed(chosen):
        end = int(before[end])
        cuts.append(end)
    return tuple(reversed(cuts))
