"""What predictions of gains are worked out from: the model, its times, its tables and the machine."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from flyweight.cost.limits import Limits
from flyweight.graph.traced import TracedModel
from flyweight.planning.parts import Part
from flyweight.planning.timed_forms import Timed
from flyweight.tables.sites import Table
from flyweight.task.task import Task


@dataclass(frozen=True, eq=False)
class Known:
    """What gains are worked out from.

    Args:
        parts, bytes, macs: of the model as it is.
        timed: the model as it is and rewritten.
        limits: of the machine; None where they cannot be measured.
        tables, counts: that can be coded, and how often training looks up each row.
        traced: the model as a graph; None where it cannot be traced.
    """

    task: Task
    parts: tuple[Part, ...]
    bytes: int
    macs: int
    timed: Timed
    limits: Limits | None
    tables: tuple[Table, ...]
    counts: Mapping[str, Tensor]
    traced: TracedModel | None = None

    @property
    def best(self) -> str | None:
        """The quickest export, from which all times are worked out; None where no engine runs one."""
        return self.timed.quickest()

    @property
    def ms(self) -> float | None:
        """Of a request now."""
        return None if self.best is None else self.timed.latencies[self.best].p50

    @property
    def overhead_ms(self) -> float:
        """What a call takes at least to start its operators."""
        times = None if self.best is None else self.timed.operators.get(self.best)
        if self.limits is None or times is None:
            return 0.0
        return 1e3 * self.limits.overhead.seconds(len(times.operators))

    def spent(self, purpose: str) -> float | None:
        """Return the milliseconds of a request that go into products or lookups, None where that was not seen."""
        if self.best is None or self.best not in self.timed.operators:
            return None
        times = self.timed.operators[self.best]
        seen = times.ms + times.between_ms
        return times.by_purpose()[purpose] / seen * self.timed.latencies[self.best].p50 if seen else None
