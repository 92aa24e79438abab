"""Everything that looks on while a worker answers: counts, log lines, spans."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from flyweight.serving.answering import Desk
from flyweight.serving.metering import Metering
from flyweight.serving.request_log import RequestLog
from flyweight.serving.shard_watch import ShardWatch
from flyweight.serving.watching_settings import Watching


@dataclass(frozen=True)
class Watchers:
    """What looks on.

    Args:
        metering: counts requests.
        shards: looks after the servers of sharded bundles.
        close: is to be called at the end.
    """

    metering: Metering
    shards: ShardWatch
    close: Callable[[], None] = lambda: None

    async def snapshot(self) -> dict[str, Any]:
        """Return what this process counted so far."""
        await asyncio.to_thread(self.metering.read_memory)
        return self.shards.added_to(self.metering.snapshot())


def start_watching(desk: Desk, watching: Watching) -> Watchers:
    """Return what watches the requests to come."""
    metering, shards = Metering(desk.repository), ShardWatch(desk.repository)
    desk.watchers += [metering.note, shards.note]
    if watching.access_log > 0:
        desk.watchers.append(RequestLog(watching.access_log).note)
    elif not watching.telemetry:
        desk.tally = metering.tally  # where nobody else looks on, refusing is to cost next to nothing
    if not watching.telemetry:
        return Watchers(metering, shards)
    from flyweight.serving.tracing import Tracing

    tracing = Tracing()
    desk.watchers.append(tracing.note)
    return Watchers(metering, shards, tracing.close)
