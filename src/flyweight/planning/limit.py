"""How near to the machine's limits an exported model runs a request."""

from typing import Any

from numpy.typing import NDArray

from flyweight.cost.limits import machine_limits
from flyweight.cost.roofline import Roofline, roofline
from flyweight.engines.registry import ROUNDING
from flyweight.errors import EngineError, InputError
from flyweight.planning.artefact import Artefact


def limit_of(
    artefact: Artefact, arrays: dict[str, NDArray[Any]], threads: int, latency_ms: float, engine: str
) -> Roofline | None:
    """Return a timed request held against this machine; None where its work or the machine cannot be measured.

    Args:
        arrays: the request as a flat batch; inputs that the file does not take are left out.
        threads, latency_ms, engine: of the timed call.
    """
    given = artefact.one_call({name: arrays[name] for name in artefact.exported.inputs})
    floats = "bfloat16" if engine in ROUNDING else "float32"
    try:
        return roofline(artefact.exported.path, given, machine_limits(threads), latency_ms, floats=floats)
    except (InputError, EngineError):
        return None
