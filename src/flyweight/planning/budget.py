"""What the result must stay inside."""

import math
from dataclasses import dataclass, fields

from flyweight.errors import InputError
from flyweight.quality.intervals import non_inferior
from flyweight.task.estimate import Estimate
from flyweight.task.measurement import Latency, Measurement


@dataclass(frozen=True)
class Budget:
    """Limits on the result; any subset.

    Args:
        max_drop: the metric may fall by so much on test data, the interval's bad end included; for outputs that are
            probabilities the logloss too.
        max_bytes: bytes of the exported model on disk.
        min_size_ratio: bytes on disk before (float32 ONNX export) divided by after.
        max_latency_ms: median time of one request of 500 candidates, in milliseconds.
        min_speedup: median time of the original in eager PyTorch divided by that of the bundle.
        max_minutes: for the automatic search, the certificate included; None takes 10, less where nothing gets better.
        confidence: of the two-sided intervals, 0.95 unless told otherwise.

    Raises:
        InputError: a limit is not a positive number, or two of them contradict each other.

    Example:
        >>> Budget(max_drop=0.001, min_size_ratio=100).max_drop
        0.001
    """

    max_drop: float | None = None
    max_bytes: int | None = None
    min_size_ratio: float | None = None
    max_latency_ms: float | None = None
    min_speedup: float | None = None
    max_minutes: float | None = None
    confidence: float = 0.95

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or value <= 0:
                raise InputError(f"Budget {field.name} must be a positive number; seen {value!r}.")
        if self.confidence >= 1:
            raise InputError(f"Budget confidence must be below 1, as in 0.95; seen {self.confidence}.")

    def limits(self) -> dict[str, float]:
        """Return what the result must stay inside, without the minutes of the search."""
        given = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "max_minutes"}
        return {name: value for name, value in given.items() if value is not None}

    def bytes_within(self, before: int) -> float | None:
        """Return the most bytes that the model may have; None where no limit is on its size.

        Args:
            before: bytes of the original's float32 export.
        """
        by_ratio = [] if self.min_size_ratio is None else [before / self.min_size_ratio]
        return min([*by_ratio, *([] if self.max_bytes is None else [self.max_bytes])], default=None)

    def missed(
        self, before: Measurement, after: Measurement, losses: dict[str, Estimate], slow: Latency, fast: Latency
    ) -> tuple[str, ...]:
        """Return a sentence for each limit that was not met, saying by how much.

        Args:
            losses: paired drops that `max_drop` holds for, by metric.
            slow, fast: the original in eager PyTorch, and the bundle.
        """
        found = []
        if self.max_drop is not None:
            found += [
                f"the drop in {name} is at most {drop.high:+.4f}, {drop.high - self.max_drop:.4f} over {self.max_drop}"
                for name, drop in losses.items()
                if not non_inferior(drop, self.max_drop)
            ]
        if self.max_bytes is not None and after.bytes > self.max_bytes:
            over = after.bytes - self.max_bytes
            found.append(f"the model takes {after.bytes:,} bytes, {over:,} over {self.max_bytes:,}")
        ratio = before.bytes / max(after.bytes, 1)
        if self.min_size_ratio is not None and ratio < self.min_size_ratio:
            found.append(f"the model is {ratio:.1f} times smaller, not {self.min_size_ratio:g} times")
        if self.max_latency_ms is not None and fast.p50 > self.max_latency_ms:
            found.append(
                f"a request of {fast.candidates} candidates takes {fast.p50:.2f} ms, not {self.max_latency_ms:g} ms"
            )
        if self.min_speedup is not None and slow.p50 / fast.p50 < self.min_speedup:
            found.append(f"it is {slow.p50 / fast.p50:.1f} times faster, not {self.min_speedup:g} times")
        return tuple(found)
