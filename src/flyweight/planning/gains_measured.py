"""What another engine, each request worked out once, and bfloat16 gain: measured, so that nothing is guessed."""

from flyweight.engines.registry import ROUNDING
from flyweight.planning.gain import MEASURED, Gain
from flyweight.planning.known import Known
from flyweight.planning.timed_forms import EAGER, REWRITTEN, engine_of
from flyweight.task.measurement import Latency
from flyweight.task.span import Span


def quickest_engine(known: Known) -> Gain | None:
    """Return what the quickest engine takes beside all others; None where none runs the model."""
    best = known.timed.quickest(rewritten=False)
    if best is None:
        return None
    latencies = known.timed.latencies
    others = [one for one in latencies if not one.endswith(REWRITTEN) and engine_of(one) not in ROUNDING]
    slower = sorted((one for one in others if one != best), key=lambda name: latencies[name].p50)
    words = ", ".join(f"{'eager PyTorch' if one == EAGER else one} {latencies[one].p50:.3g} ms" for one in slower)
    return Gain(f"engine: {best}", None, _measured(latencies[best]), MEASURED, f"timed beside {words}")


def request_once(known: Known) -> Gain | None:
    """Return what working each request out once gains, None where nothing is scored by request."""
    best, plain = known.timed.quickest(rewritten=True), known.timed.quickest(rewritten=False)
    if best is None or plain is None:
        return None
    before = known.timed.latencies[plain].p50
    how = f"rewritten and timed in {engine_of(best)}; as it is, {before:.3g} ms in {plain}"
    return Gain("each request once", None, _measured(known.timed.latencies[best]), MEASURED, how)


def in_bfloat16(known: Known) -> Gain | None:
    """Return what an engine that rounds to bfloat16 gains, None where none is here."""
    latencies = known.timed.latencies
    best = min((one for one in latencies if engine_of(one) in ROUNDING), key=lambda one: latencies[one].p50, default="")
    if not best:
        return None
    how = f"timed in {best}; compress() takes it only where validation data bear the rounding"
    return Gain("engine in bfloat16", None, _measured(latencies[best]), MEASURED, how)


def _measured(latency: Latency) -> Span:
    return Span(latency.p50_low, latency.p50, latency.p50_high)
