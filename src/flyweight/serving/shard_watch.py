"""What one worker tells of the servers of its sharded bundles: which are away, and how many answers they cost."""

from typing import Any

from flyweight.bundle.shards.ranker import ShardedRanker
from flyweight.serving.answering import Answered
from flyweight.serving.degraded import degraded_rows
from flyweight.serving.repository import Repository

#: The key of a version's counts, and of what holds now, in a worker's snapshot.
DEGRADED, SHARDS = "degraded", "shards_away"


class ShardWatch:
    """Counts answers with stand-ins, and looks which servers are away when someone asks.

    Args:
        repository: the worker's models.
    """

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._degraded: dict[tuple[str, str], int] = {}

    def note(self, told: Answered) -> None:
        """Count a request."""
        if degraded_rows(told.scores):
            key = told.model, told.version
            self._degraded[key] = self._degraded.get(key, 0) + 1

    def added_to(self, snapshot: dict[str, Any]) -> dict[str, Any]:
        """Return a worker's snapshot with what this has seen, as numbers that can be added to those of others."""
        for (model, version), count in self._degraded.items():
            snapshot["lasting"][model][version][DEGRADED] = count  # each was counted as a request before
        snapshot["now"][SHARDS] = {
            model: away for model, entry in self._repository.models.items() if (away := _away(entry.versions))
        }
        return snapshot


def _away(versions: Any) -> dict[str, dict[str, int]]:
    """Return of each sharded version which shards this worker cannot reach (1), and which it can (0)."""
    rankers = {version: served.opened.ranker for version, served in versions.items()}
    return {
        version: {str(shard): int(shard in ranker.away) for shard in range(ranker.shards)}
        for version, ranker in rankers.items()
        if isinstance(ranker, ShardedRanker)
    }
