"""The time of a search: what has passed in all its sittings, what is left, and what a trial will take."""

import time
from dataclasses import dataclass, field

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
