"""Adding up what all workers counted, those that ended included: a sum that never falls."""

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from typing import Any

from flyweight.serving.refusal import Refusal
from flyweight.serving.wire import Wire

#: Seconds that a worker may take to tell its counts; after that its last ones stand for it.
ANSWER_SECONDS = 2.0
Snapshot = dict[str, Any]
EMPTY: Snapshot = {"lasting": {}, "now": {"workers": 0, "memory": {}, "waiting": {}, "recent": {}}}


def added(one: Any, other: Any) -> Any:
    """Return the sum of two trees of numbers: what only one of them has is kept.

    Example:
        >>> added({"a": 1, "b": [1, 2]}, {"b": [3, 4], "c": 5})
        {'a': 1, 'b': [4, 6], 'c': 5}
    """
    if isinstance(one, Mapping):
        both = {key: added(one[key], other[key]) for key in one if key in other}
        return {**one, **other, **both}
    if isinstance(one, list):
        if len(one) != len(other):  # the bins of two bundles under one version's name, for a moment while they change
            return one if len(one) > len(other) else other
        return [added(a, b) for a, b in zip(one, other, strict=True)]
    return one + other


class Gathering:
    """Asks all workers.

    Args:
        wires: gives each running worker's wire by its process number.
    """

    def __init__(self, wires: Callable[[], Mapping[int, Wire]]) -> None:
        self._wires = wires
        self._last: dict[int, Snapshot] = {}
        self._gone: Snapshot = EMPTY

    async def collect(self) -> Snapshot:
        """Return the sum over workers. Of one that died, what it last told stays in what only grows."""
        wires = self._wires()
        await asyncio.gather(*(self._ask(number, wire) for number, wire in wires.items()))
        running = self._wires()
        for number in [number for number in self._last if number not in running and number not in wires]:
            self._gone = {**EMPTY, "lasting": added(self._gone["lasting"], self._last.pop(number)["lasting"])}
        total = self._gone
        for one in self._last.values():
            total = added(total, one)
        return total

    async def _ask(self, number: int, wire: Wire) -> None:
        """Note what a worker tells, as it comes: of two collections at once the later has the later counts."""
        with contextlib.suppress(TimeoutError, Refusal):
            async with asyncio.timeout(ANSWER_SECONDS):
                self._last[number] = await wire.ask("snapshot")
