"""What a call's time goes into, in plain words: bytes, products or the starting of operators."""

from flyweight.cost.roofline import Roofline
from flyweight.engines.operator_times import OperatorTimes
from flyweight.report.words import milliseconds_in_words, operators_in_words

#: Below so much of the limit, the floor says little of the time.
FAR = 0.25


def explain_bound(limit: Roofline, times: OperatorTimes | None) -> tuple[str, ...]:
    """Return which of the machine's limits binds a call, with the numbers, and where its time was seen to go.

    Args:
        limit: the call held against the machine, its latency included.
        times: of its operators, where the engine tells.
    """
    sentences = [_floors(limit)]
    if limit.fraction is not None and limit.fraction < FAR:
        sentences.append(
            f"The machine could do it {1 / limit.fraction:.0f} times as quickly: small operators do not fill it."
        )
    if times is not None and times.ms:
        shares = ", ".join(f"{words} {times.share(ms):.0%}" for words, ms in times.by_purpose().items())
        sentences.append(f"Seen in the engine: {shares} of the time in operators.")
    return tuple(sentences)


def _floors(limit: Roofline) -> str:
    started = operators_in_words(limit.started)
    needs = {
        "compute": f"products need {milliseconds_in_words(limit.compute_ms)} at least",
        "memory": f"moving {limit.bytes / 1e6:.1f} MB {milliseconds_in_words(limit.memory_ms)}",
        "overhead": f"starting {started} {milliseconds_in_words(limit.overhead_ms)}",
    }
    binding = needs.pop(limit.binds)
    call = "a call" if limit.latency_ms is None else f"a call of {milliseconds_in_words(limit.latency_ms)}"
    return f"{_NAMES[limit.binds]}: in {call}, {binding}; {'; '.join(needs.values())}."


_NAMES = {"compute": "Compute-bound", "memory": "Memory-bound", "overhead": "Overhead-bound"}
