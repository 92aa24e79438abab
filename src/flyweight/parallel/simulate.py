"""How long a pipeline takes by schedule, worked out from what each stage takes: where more units stop paying.

Three schedules. Fill-drain (GPipe; Huang et al. 2019, arXiv 1811.06965): all micro-batches forwards, then all back.
1F1B (PipeDream-flush; Narayanan et al. 2021, arXiv 2104.04473): one forwards, one back as soon as that can be, so that
fewer are held. Interleaved 1F1B (the same, section 2.2): each unit has several smaller stages in turn, which shortens
filling and draining and sends more often. The times follow from the order of each unit alone: a task begins when its
unit is free and what it reads has arrived.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from flyweight.errors import InputError

Schedule = Literal["fill-drain", "1f1b", "interleaved"]
Task = tuple[str, int, int]  # "forward" or "backward", stage, micro-batch


@dataclass(frozen=True)
class StageCost:
    """What a stage takes for one micro-batch.

    Args:
        forward, backward: seconds that its unit is at work, sending and receiving included where the unit does these;
            no backward is inference.
        sends: seconds from then until what it sends to the next stage has arrived; gradients take as long back.
        occupies: seconds in which the link can send nothing else.
    """

    forward: float
    backward: float = 0.0
    sends: float = 0.0
    occupies: float = 0.0


@dataclass(frozen=True)
class Simulated:
    """What came of a simulation.

    Args:
        seconds: from the first task to the end of the last.
        busy: share of all units' time that they computed.
        held: the most micro-batches that a unit keeps for their backward pass, over the units; 0 without one.
    """

    seconds: float
    busy: float
    held: int


def simulate(costs: Sequence[StageCost], micro_batches: int, schedule: Schedule = "1f1b", turns: int = 1) -> Simulated:
    """Return how long a batch takes.

    Args:
        costs: of each stage, in order. With `turns` rounds, stage s is on unit `s mod (stages / turns)`.
        turns: stages of each unit; more than one is interleaved.

    Raises:
        InputError: no stage, no micro-batch, or stages or micro-batches that do not come out even.

    Example:
        >>> simulate([StageCost(1.0)] * 4, 4, "fill-drain").seconds
        7.0
    """
    if not costs or micro_batches < 1:
        raise InputError(f"A pipeline has stages and micro-batches; seen {len(costs)} and {micro_batches}.")
    if turns < 1 or len(costs) % turns:
        raise InputError(f"{len(costs)} stages cannot be dealt out to units in {turns} turns.")
    units = len(costs) // turns
    if turns > 1 and micro_batches % units:
        raise InputError(
            f"Interleaved stages take micro-batches in rounds of {units}, one for each unit; {micro_batches} do not "
            "come out even."
        )
    trains = any(cost.backward for cost in costs)
    orders = [_order(unit, units, turns, micro_batches, schedule, trains=trains) for unit in range(units)]
    found = _run(costs, orders, units)
    return found if trains else replace(found, held=0)


def _run(costs: Sequence[StageCost], orders: list[list[Task]], units: int) -> Simulated:
    """Let every unit do its tasks in its order, each as soon as it can."""
    arrived: dict[Task, float] = {}
    links: dict[tuple[str, int], float] = {}
    free = [0.0] * units
    at = [0] * units
    held = [0] * units
    most, computed = 0, 0.0
    left = sum(map(len, orders))
    while left:
        before = left
        for unit, order in enumerate(orders):
            while at[unit] < len(order):
                task = order[at[unit]]
                ready = _ready(task, len(costs), arrived)
                if ready is None:
                    break
                kind, stage, _ = task
                taken = costs[stage].forward if kind == "forward" else costs[stage].backward
                free[unit] = max(free[unit], ready) + taken
                arrived[task] = _arrives(task, free[unit], costs, links)
                computed += taken
                held[unit] += 1 if kind == "forward" else -1
                most = max(most, held[unit])
                at[unit] += 1
                left -= 1
        assert left < before, "a schedule whose units wait for each other"
    whole = max(free)
    return Simulated(whole, computed / max(units * whole, 1e-300), most)


def _arrives(task: Task, made: float, costs: Sequence[StageCost], links: dict[tuple[str, int], float]) -> float:
    """Return when what a task made is where it is read, and let the link be busy until then."""
    kind, stage, _ = task
    link = stage if kind == "forward" else stage - 1  # each link has two ways
    if not 0 <= link < len(costs) - 1:
        return made
    begins = max(made, links.get((kind, link), 0.0))
    links[kind, link] = begins + costs[link].occupies
    return begins + costs[link].sends


def _ready(task: Task, stages: int, arrived: dict[Task, float]) -> float | None:
    """Return when what a task reads has arrived; None where that has not been made yet."""
    kind, stage, batch = task
    if kind == "forward":
        return 0.0 if stage == 0 else arrived.get(("forward", stage - 1, batch))
    if stage == stages - 1:
        return arrived.get(("forward", stage, batch))
    return arrived.get(("backward", stage + 1, batch))


def _order(unit: int, units: int, turns: int, batches: int, schedule: Schedule, *, trains: bool) -> list[Task]:
    """Return the tasks of a unit in the order in which it does them."""
    forwards = _dealt("forward", unit, units, turns, batches)
    if not trains:
        return forwards
    backwards = _dealt("backward", unit, units, turns, batches)
    if schedule == "fill-drain":
        return forwards + backwards
    # Forwards before the first backward: as many as are under way at once; with turns, a round of each stage more.
    ahead = units - unit - 1 if turns == 1 else 2 * (units - unit - 1) + (turns - 1) * units
    ahead = min(ahead, len(forwards))
    order = forwards[:ahead]
    for forward, backward in zip(forwards[ahead:], backwards, strict=False):
        order += [forward, backward]
    return order + backwards[len(forwards) - ahead :]


def _dealt(kind: str, unit: int, units: int, turns: int, batches: int) -> list[Task]:
    """Return one kind of a unit's tasks: micro-batches in groups of as many as units, each group through all turns."""
    found: list[Task] = []
    for begin in range(0, batches, units if turns > 1 else batches):
        group = range(begin, min(begin + (units if turns > 1 else batches), batches))
        rounds = range(turns) if kind == "forward" else reversed(range(turns))
        found += [(kind, unit + turn * units, batch) for turn in rounds for batch in group]
    return found
