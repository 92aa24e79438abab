"""Everything that looks on while a worker answers: counts, log lines, spans."""

from collections.abc import Callable

from flyweight.serving.answering import Desk
from flyweight.serving.metering import Metering
from flyweight.serving.request_log import RequestLog
from flyweight.serving.watching_settings import Watching


def start_watching(desk: Desk, watching: Watching) -> tuple[Metering, Callable[[], None]]:
    """Return the counts of the requests to come, and what is to be called at the end."""
    metering = Metering(desk.repository)
    desk.watchers.append(metering.note)
    if watching.access_log > 0:
        desk.watchers.append(RequestLog(watching.access_log).note)
    elif not watching.telemetry:
        desk.tally = metering.tally  # where nobody else looks on, refusing is to cost next to nothing
    if not watching.telemetry:
        return metering, lambda: None
    from flyweight.serving.tracing import Tracing

    tracing = Tracing()
    desk.watchers.append(tracing.note)
    return metering, tracing.close
