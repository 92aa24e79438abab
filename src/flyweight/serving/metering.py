"""Counting what one worker does, and telling it as numbers that can be added to those of the other workers."""

import time
from typing import Any

from flyweight.serving.answering import Answered
from flyweight.serving.memory import own_memory
from flyweight.serving.recent import current_moment
from flyweight.serving.repository import Repository
from flyweight.serving.series import Series
from flyweight.serving.served import Served

#: Seconds that a reading of the memory holds: the kernel walks all pages for it.
MEMORY_SECONDS = 10.0


class Metering:
    """The counts of one worker.

    Args:
        repository: its models.
    """

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._series: dict[tuple[str, str], Series] = {}
        self._memory: dict[str, int] = {}
        self._memory_read = float("-inf")

    def note(self, told: Answered) -> None:
        """Count a request."""
        served = told.served
        if served is None:
            self._unserved(told.model).note(told, current_moment())
            return
        self._of(told.model, told.version, served).note(told, current_moment())

    def tally(self, protocol: str, model: str, kind: str) -> None:
        """Count a request that was refused by its head alone."""
        self._unserved(model).refuse(protocol, kind, current_moment())

    def _of(self, model: str, version: str, served: Served) -> Series:
        series = self._series.get((model, version))
        if series is None:
            series = self._series[model, version] = Series(served)
        elif series.served is not served:
            series.begin(served)
        return series

    def _unserved(self, model: str) -> Series:
        """Return the counts of requests that reached no version; names that callers make up are not kept."""
        key = (model if model in self._repository.models else "", "")
        if key not in self._series:
            self._series[key] = Series(None)
        return self._series[key]

    def snapshot(self) -> dict[str, Any]:
        """Return all counts: "lasting" ones only grow, "now" is what holds at this time."""
        number = current_moment()
        lasting: dict[str, Any] = {}
        recent: dict[str, Any] = {}
        for (model, version), series in self._series.items():
            lasting.setdefault(model, {})[version] = series.lasting()
            recent.setdefault(model, {})[version] = series.recent(number)
        now = {"workers": 1, "memory": self._memory, "waiting": self._waiting(), "recent": recent}
        return {"lasting": lasting, "now": now}

    def references(self) -> dict[str, dict[str, tuple[list[int], float]]]:
        """Return each version's stored scores: counts by bin, and the mean. They are alike in all workers."""
        found: dict[str, dict[str, tuple[list[int], float]]] = {}
        for model, entry in self._repository.models.items():
            for version, served in entry.versions.items():
                series = self._of(model, version, served)
                if series.reference is not None:
                    one = (series.reference.counts.tolist(), series.reference.mean)
                    found.setdefault(model, {})[version] = one
        return found

    def _waiting(self) -> dict[str, dict[str, int]]:
        models = self._repository.models.items()
        return {
            model: {version: served.lane.waiting for version, served in entry.versions.items()}
            for model, entry in models
        }

    def read_memory(self) -> None:
        """Look at the memory again if it is time to; takes tens of ms, so never on the event loop's thread."""
        if time.monotonic() - self._memory_read > MEMORY_SECONDS:
            self._memory_read = time.monotonic()
            self._memory = own_memory()

