"""How throughput grows with the number of stages, simulated: where more units stop paying."""

from collections.abc import Iterable
from dataclasses import dataclass

from flyweight.parallel.balance import balanced
from flyweight.parallel.cuts import find_cuts
from flyweight.parallel.partition import BACKWARD, Partition, cost_of
from flyweight.parallel.simulate import Schedule, StageCost, simulate


@dataclass(frozen=True)
class Throughput:
    """What so many units are simulated to do.

    Args:
        units: one stage each.
        times: the throughput of one unit that has the whole model.
        busy: share of their time that the units compute.
        held: the most micro-batches that a unit keeps for their backward pass; 0 without training.
    """

    units: int
    times: float
    busy: float
    held: int

    def __str__(self) -> str:
        return f"{self.units:2} stages: {self.times:5.2f} times the throughput, units {self.busy:.0%} busy"


def saturation(
    found: Partition,
    micro_batches: int,
    units: Iterable[int],
    schedule: Schedule = "1f1b",
    *,
    training: bool = False,
) -> list[Throughput]:
    """Return the simulated throughput of each number of units that the model can be cut for, cut anew for each.

    Args:
        found: a partition that was measured.
        micro_batches: of each batch.
    """
    cuts = find_cuts(found.traced).legal
    sent = [cut.bytes * found.rows for cut in cuts]
    occupied = [found.link.occupied(one) for one in sent]
    back = BACKWARD if training else 0.0
    alone = micro_batches * (1 + back) * sum(found.seconds)
    told = []
    for count in units:
        if count - 1 > len(cuts):
            break
        at = balanced(found.seconds, [cut.after for cut in cuts], occupied, count)
        costs, first = [], 0
        for number in at:
            own = sum(found.seconds[first : cuts[number].after + 1])
            costs.append(cost_of(own, back, found.link, sent[number]))
            first = cuts[number].after + 1
        own = sum(found.seconds[first:])
        costs.append(StageCost(own, back * own))
        done = simulate(costs, micro_batches, schedule)
        told.append(Throughput(count, alone / done.seconds, done.busy, done.held))
    return told
