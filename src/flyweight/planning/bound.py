"""What a call's time goes into, in plain words: bytes, products or the starting of operators."""

from dataclasses import dataclass

from flyweight.cost.roofline import Roofline
from flyweight.engines.operator_times import OperatorTimes
from flyweight.report.words import bytes_in_words, milliseconds_in_words, operators_in_words

#: Below so much of the limit, and with operators of so few milliseconds, it is none of the floors that takes the time:
#: operators are too small to fill the machine.
FAR, SMALL_MS = 0.25, 0.01
COMPUTE, MEMORY, OVERHEAD = "compute", "memory", "overhead"


@dataclass(frozen=True)
class Bound:
    """What a call is bound by.

    Args:
        binds: "memory", "compute" or "overhead".
        words: with the numbers, a sentence each.
    """

    binds: str
    words: tuple[str, ...]


def find_bound(limit: Roofline, times: OperatorTimes | None) -> Bound:
    """Return what binds a call: the largest of the machine's three floors, or operators too small to come near them.

    Args:
        limit: the call held against the machine, its latency included.
        times: of its operators, where the engine tells.
    """
    small = times is not None and bool(times.operators) and times.ms / len(times.operators) < SMALL_MS
    far = limit.fraction is not None and limit.fraction < FAR
    binds = OVERHEAD if small and far else limit.binds
    sentences = [f"{binds.capitalize()}-bound. {_floors(limit)}"]
    if far and not small and limit.fraction:
        sentences.append(f"It takes {1 / limit.fraction:.0f} times that: far from what the machine can do.")
    if times is not None and times.operators:
        if small and far:
            each = milliseconds_in_words(times.ms / len(times.operators))
            count = operators_in_words(len(times.operators))
            sentences.append(f"It comes nowhere near: {count} of {each} each are too small to fill the machine.")
        shares = ", ".join(f"{words} {times.share(ms):.0%}" for words, ms in times.by_purpose().items() if ms)
        sentences.append(f"Of the time in operators, {shares}.")
    return Bound(binds, tuple(sentences))


def _floors(limit: Roofline) -> str:
    needs = {
        COMPUTE: f"{milliseconds_in_words(limit.compute_ms)} for its products",
        MEMORY: f"{milliseconds_in_words(limit.memory_ms)} to move {bytes_in_words(limit.bytes)}",
        OVERHEAD: f"{milliseconds_in_words(limit.overhead_ms)} to start {operators_in_words(limit.started)}",
    }
    first = needs.pop(limit.binds)
    call = "A call" if limit.latency_ms is None else f"A call of {milliseconds_in_words(limit.latency_ms)}"
    return f"{call} needs at least {first}, {' and '.join(needs.values())} on this machine."
