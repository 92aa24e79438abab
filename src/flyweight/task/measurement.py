"""What was measured of one model: bytes, work and quality, always on the exported artefact."""

from dataclasses import dataclass, field

from flyweight.task.estimate import Estimate


@dataclass(frozen=True)
class Latency:
    """Wall time of one call, in milliseconds, with an interval on the median.

    Args:
        p50, p95, p99: percentiles over `repeats` timed calls after warm-up.
        p50_low, p50_high: 95% interval of the median (order statistics).
        candidates: rows in the call (one request of so many candidates).
        threads: threads the engine was allowed.
    """

    p50: float
    p95: float
    p99: float
    p50_low: float
    p50_high: float
    repeats: int
    candidates: int
    threads: int


@dataclass(frozen=True)
class Measurement:
    """Size, work and quality of one model.

    Args:
        bytes: bytes on disk of the exported model (for the original: its float32 ONNX export).
        table_bytes: bytes of that which are embedding tables: float rows, or codes, codebooks and id maps.
        macs: multiply-accumulates for one row, as far as they could be counted.
        quality: the task's metric with its interval.
        guards: other metrics that must not get worse unnoticed (logloss, calibration error), by name.
        split: which data the quality was measured on.
    """

    bytes: int
    table_bytes: int
    macs: int
    quality: Estimate
    guards: dict[str, Estimate] = field(default_factory=dict)
    split: str = "test"
