"""How near to the machine's limits a file runs: the least time its bytes, its products and its operators take."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from flyweight.cost.limits import Limits
from flyweight.cost.onnx_work import count_work
from flyweight.cost.work import Work
from flyweight.errors import InputError
from flyweight.task.change import Skipped

#: What a precision without a measured peak is held against: its own products are never slower than these.
_WIDER = {"float16": "bfloat16"}


@dataclass(frozen=True)
class Roofline:
    """A file's floor on one machine, and how far above it a call is.

    Args:
        latency_ms: of a call, as measured; None where it was not.
        memory_ms: bytes touched by the bandwidth of where they fit.
        compute_ms: operations by the peak of their precision.
        overhead_ms: a call's and each operator's start.
        level: where weights and table rows come from: "L2", "L3" or "memory".
        bytes: touched, without what need not leave the operator that made it.
        operations: multiply-accumulates times two, by precision.
        started: operators that have to be started.
        threads: that the limits are of.
        skipped: what could not be counted, and precisions without a peak.
    """

    latency_ms: float | None
    memory_ms: float
    compute_ms: float
    overhead_ms: float
    level: str
    bytes: int
    operations: dict[str, int]
    started: int
    threads: int
    skipped: tuple[Skipped, ...]

    @property
    def floor_ms(self) -> float:
        """The largest of the three: what a call takes at least."""
        return max(self.memory_ms, self.compute_ms, self.overhead_ms)

    @property
    def binds(self) -> str:
        """Which of the three it is: "memory", "compute" or "overhead"."""
        times = {"memory": self.memory_ms, "compute": self.compute_ms, "overhead": self.overhead_ms}
        return max(times, key=lambda name: times[name])

    @property
    def fraction(self) -> float | None:
        """Of the limit, how much is reached: floor by latency.

        Above 1, the engine does less than is counted: it fuses more, or leaves a padding's zeros out.
        """
        return None if self.latency_ms is None else self.floor_ms / self.latency_ms

    @property
    def intensity(self) -> float:
        """Operations a byte: the place on the roofline's horizontal axis."""
        return sum(self.operations.values()) / max(self.bytes, 1)

    @property
    def words(self) -> str:
        """One sentence for a report.

        Example: "0.90 ms; the floor is 0.31 ms, bound by compute (0.03 G operations in float32): 34% of the limit."
        """
        floor = f"the floor is {_ms(self.floor_ms)}, bound by {self.binds} ({self._reason()})"
        if self.latency_ms is None or self.fraction is None:
            return f"{floor[0].upper()}{floor[1:]}."
        if self.fraction > 1.0:
            return f"{_ms(self.latency_ms)}; {floor}: past it, for the engine does less than the file asks for."
        return f"{_ms(self.latency_ms)}; {floor}: {100 * self.fraction:.0f}% of the limit."

    def _reason(self) -> str:
        if self.binds == "memory":
            return f"{_round(self.bytes / 1e6)} MB, weights from {self.level}"
        if self.binds == "overhead":
            return f"{self.started} operator{'' if self.started == 1 else 's'} to start"
        parts = [f"{_round(count / 1e9)} G in {precision}" for precision, count in self.operations.items()]
        return f"operations: {', '.join(parts)}"


def roofline(
    path: Path,
    inputs: Mapping[str, NDArray[Any]],
    limits: Limits,
    latency_ms: float | None = None,
    *,
    floats: str = "float32",
    operators: int | None = None,
) -> Roofline:
    """Hold a call of an ONNX file against a machine's limits (Williams, Waterman and Patterson 2009).

    Args:
        inputs: the request, by input name.
        limits: of this machine, for the threads that the call had.
        latency_ms: of the call.
        floats: what the engine computes float32 in; "bfloat16" for one that rounds.
        operators: how many the engine starts, where that is known (`executed_operators`); else counted in the file.

    Raises:
        InputError: the file or the inputs cannot be used, or the latency is not positive.

    Example:
        >>> roofline(path, request, machine_limits(2), latency_ms=0.9).binds  # doctest: +SKIP
        'compute'
    """
    if latency_ms is not None and not latency_ms > 0:
        raise InputError(f"A latency must be above 0 ms; seen {latency_ms}.")
    return hold_against(count_work(path, inputs, floats), limits, latency_ms, operators)


def hold_against(
    work: Work, limits: Limits, latency_ms: float | None = None, operators: int | None = None
) -> Roofline:
    """Return the roofline of work that has been counted."""
    operations = {precision: 2 * count for precision, count in work.macs.items()}
    seconds, without = _compute(operations, limits)
    started = work.started if operators is None else operators
    return Roofline(
        latency_ms=latency_ms,
        memory_ms=1e3 * _memory(work, limits),
        compute_ms=1e3 * seconds,
        overhead_ms=1e3 * limits.overhead.seconds(started),
        level=limits.level_of(work.weights + work.rows).name,
        bytes=work.bytes - work.kept,
        operations=operations,
        started=started,
        threads=limits.threads,
        skipped=(*work.skipped, *without),
    )


def _memory(work: Work, limits: Limits) -> float:
    """Seconds. Weights and rows must stay near from call to call; activations only until the next operator."""
    lasting, passing = work.weights + work.rows, max(work.activations - work.kept, 0)
    return lasting / limits.rate_of(lasting) + passing / limits.rate_of(work.largest)


def _compute(operations: Mapping[str, int], limits: Limits) -> tuple[float, list[Skipped]]:
    seconds, without = 0.0, []
    for precision, count in operations.items():
        peak = limits.peak(precision) or limits.peak(_WIDER.get(precision, ""))
        if peak is None:
            why = limits.unknown.get(precision, "its peak is not measured")
            without.append(Skipped(f"{count:,} operations in {precision}", why, "roofline"))
        else:
            seconds += count / peak.rate
    return seconds, without


def _ms(value: float) -> str:
    return f"{_round(value)} ms"


def _round(value: float) -> str:
    """Three digits, and no powers of ten for what is large."""
    return f"{value:.3g}" if value < 100 else f"{value:,.0f}"
