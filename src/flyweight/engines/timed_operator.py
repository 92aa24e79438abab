"""One operator that an engine runs, with the time it takes in a call."""

from dataclasses import dataclass


@dataclass(frozen=True)
class TimedOperator:
    """An operator as an engine runs it.

    Args:
        name: by the engine's own name.
        operator: its kind, by the engine's own name: "FusedGemm", "FullyConnected".
        nodes: of the file, that it stands for; several where the engine made one of them.
        ms: of a call.
        module: of the model, that it works for; "" is the model itself, None several or none that is known.
    """

    name: str
    operator: str
    nodes: tuple[str, ...]
    ms: float
    module: str | None = None
