"""How throughput grows with the number of units, simulated: where more of them stop paying, and what they cost."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

from flyweight.parallel.balance import balanced
from flyweight.parallel.cuts import Cut, find_cuts
from flyweight.parallel.partition import BACKWARD, Partition, costs_of
from flyweight.parallel.simulate import Schedule, StageCost, simulate

#: Stages of each unit, where they are interleaved.
TURNS = 2


@dataclass(frozen=True)
class Throughput:
    """What so many units are simulated to do with one batch.

    Args:
        units: one stage each; interleaved, `TURNS`.
        times: the throughput of one unit that has the whole model.
        busy: share of their time that the units are at work.
        held: the most micro-batches that a unit keeps for their backward pass; 0 without training.
        seconds: from the batch's first task to the end of its last.
        first: seconds until a lone micro-batch is through.
    """

    units: int
    times: float
    busy: float
    held: int
    seconds: float
    first: float

    def __str__(self) -> str:
        return (
            f"{self.units:2} units: {self.times:5.2f} times the throughput, {1e3 * self.seconds:.3g} ms a batch, "
            f"units {self.busy:.0%} busy"
        )


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
        micro_batches: of each batch. Interleaved, numbers of units that do not divide them are left out.
    """
    cuts = find_cuts(found.traced).legal
    back = BACKWARD if training else 0.0
    turns = TURNS if schedule == "interleaved" else 1
    alone = micro_batches * (1 + back) * sum(found.seconds)
    told = []
    for count in units:
        if count * turns - 1 > len(cuts):
            break
        if turns > 1 and micro_batches % count:
            continue
        costs = _costs(found, cuts, count * turns, back)
        done = simulate(costs, micro_batches, schedule, turns)
        first = simulate(costs, 1).seconds
        told.append(Throughput(count, alone / done.seconds, done.busy, done.held, done.seconds, first))
    return told


def _costs(found: Partition, cuts: tuple[Cut, ...], stages: int, back: float) -> list[StageCost]:
    """Return what the best stages cost, of so many."""
    sent = [found.link.crossing(cut.bytes * found.rows) for cut in cuts]
    at = balanced(found.seconds, [cut.after for cut in cuts], sent, stages)
    bounds = [0, *(cuts[number].after + 1 for number in at), len(found.seconds)]
    own = [sum(found.seconds[first:end]) for first, end in pairwise(bounds)]
    return costs_of(own, [sent[number] for number in at], back)
