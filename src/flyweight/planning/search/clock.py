"""The time of a search: what has passed in all its sittings, what is left, and what a trial will take."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from flyweight.planning.search.candidate import Candidate


@dataclass
class Clock:
    """Counts the seconds of a search.

    Args:
        limit: seconds for the whole search; infinite where only trials are counted.
        reserve: of those, what measuring and certifying the best will take.
        spent: in earlier sittings.
    """

    limit: float
    reserve: float = 0.0
    spent: float = 0.0
    _begun: float = field(default_factory=time.monotonic)
    _plain: float = 0.0
    _epoch: float = 0.0

    @property
    def elapsed(self) -> float:
        """Seconds since the search began, without the time between sittings."""
        return self.spent + time.monotonic() - self._begun

    @property
    def left(self) -> float:
        """Seconds that trials may still take."""
        return self.limit - self.reserve - self.elapsed

    def noted(self) -> dict[str, Any]:
        """Return what another sitting goes on from, as plain values."""
        return {"seconds": self.elapsed, "pace": [self._plain, self._epoch]}

    def saw(self, *, plain: float | None = None, epoch: float | None = None) -> None:
        """Learn what a trial takes without learning, and what an epoch of it takes; new times count half."""
        if plain is not None:
            self._plain = plain if not self._plain else 0.5 * (self._plain + plain)
        if epoch is not None:
            self._epoch = epoch if not self._epoch else 0.5 * (self._epoch + epoch)

    def expected(self, candidate: Candidate) -> float:
        """Return about how many seconds a trial will take; 0 where none was seen yet."""
        return self._plain + candidate.epochs * self._epoch

    def epochs(self, share: float) -> float:
        """Return how many epochs fit into a share of what is left; 0 where the time of one is not known."""
        return share * max(self.left, 0.0) / self._epoch if self._epoch else 0.0


def clock_from(facts: Mapping[str, Any], limit: float, reserve: float, begun: float | None = None) -> Clock:
    """Return the clock that goes on from what an earlier sitting noted, if there was one.

    Args:
        begun: when this sitting began, of `time.monotonic`; None for now.
    """
    plain, epoch = facts.get("pace", (0.0, 0.0))
    begun = time.monotonic() if begun is None else begun
    return Clock(limit, reserve, float(facts.get("seconds", 0.0)), begun, float(plain), float(epoch))
