"""What a report shows of an automatic search, as plain values."""

from dataclasses import dataclass
from typing import Literal

from flyweight.task.estimate import Estimate

State = Literal["done", "cut", "failed"]


@dataclass(frozen=True, eq=False)
class TriedRecipe:
    """One trial of a search.

    Args:
        number: in the order they were begun.
        words: the recipe, short ("tables 700x, half of the neurons, 1 epoch, int8").
        state: "done" was measured; "cut" was given up early; "failed" threw.
        reason: why it was cut or failed; empty where it was done.
        bytes, table_bytes: of the exported model on disk, and of its embedding tables; None where not measured.
        macs: multiply-accumulates of one row.
        latency_ms: median of one request in the quickest engine.
        speedup: eager PyTorch's median on the original divided by it, both timed in turns.
        engine: that engine.
        drop: paired drop of the metric on validation rows; positive is worse.
        inside: whether it will probably be certified inside every limit of the budget.
        front: whether no other trial that was measured is smaller, quicker and better at once.
        chosen: whether it is the one that was handed on.
        started, seconds: since the search began, and how long it took.
    """

    number: int
    words: str
    state: State
    reason: str = ""
    bytes: int | None = None
    table_bytes: int | None = None
    macs: int | None = None
    latency_ms: float | None = None
    speedup: float | None = None
    engine: str = ""
    drop: Estimate | None = None
    inside: bool = False
    front: bool = False
    chosen: bool = False
    started: float = 0.0
    seconds: float = 0.0


@dataclass(frozen=True, eq=False)
class PeerPoint:
    """What another way of serving the original gives, measured in the same run, on the same validation rows.

    Args:
        name: in words ("original, ONNX Runtime", "ONNX Runtime dynamic int8").
        bytes: of its file on disk.
        latency_ms: median of the same request.
        drop: paired drop of the metric on validation rows.
    """

    name: str
    bytes: int
    latency_ms: float
    drop: Estimate


@dataclass(frozen=True, eq=False)
class SearchTold:
    """A whole search.

    Args:
        trials: in the order they were begun.
        peers: for comparison.
        recipe: the chosen recipe, one sentence a step.
        stopped: why the search ended ("its 10 minutes were over").
        seconds: how long it took, earlier sittings included.
        best_so_far: (seconds since the begin, trial number) each time the best changed.
        run: the folder that the search is kept in, so that another of its trials can be taken; "" where it is not kept.
        max_bytes, max_latency_ms: the budget's limits on size and time, ratios put in bytes and milliseconds; None
            where there is no such limit.
    """

    trials: tuple[TriedRecipe, ...]
    peers: tuple[PeerPoint, ...] = ()
    recipe: tuple[str, ...] = ()
    stopped: str = ""
    seconds: float = 0.0
    best_so_far: tuple[tuple[float, int], ...] = ()
    run: str = ""
    max_bytes: float | None = None
    max_latency_ms: float | None = None
