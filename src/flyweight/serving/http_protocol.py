"""uvicorn's HTTP protocol with a limit on how long a request's head may take, and errors in the service's own form.

Without the limit, callers that send a byte now and then hold a connection, and its memory, for as long as they like.
"""

import asyncio
from collections.abc import Callable
from typing import Any

import orjson
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

SLOW = "The request's head did not come whole in time (--read-timeout)."


class PatientProtocol(HttpToolsProtocol):
    """One connection; `read_seconds` is how long the head of each request may take from the first byte on."""

    read_seconds = 10.0
    count_connections: Callable[[], None] = staticmethod(lambda: None)
    refuse_early: Callable[[str, str], bytes | None] = staticmethod(lambda method, path: None)
    _clock: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the clock for a caller that connects and says nothing."""
        super().connection_made(transport)
        self.count_connections()
        self._start_clock()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock."""
        self._stop_clock()
        super().connection_lost(exc)
        self.count_connections()

    def on_message_begin(self) -> None:
        """Start the clock at the first byte of a request."""
        self._start_clock()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Stop the clock: the body has one of its own, see `body.read_body`."""
        self._stop_clock()
        super().on_headers_complete()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        """Begin with a request, or refuse it here and now, where the rest of it need not be read."""
        answer = self.refuse_early(cycle.scope["method"], cycle.scope["path"]) if cycle.keep_alive else None
        if answer is None:
            super()._start_asgi_task(cycle, app)
            return
        self.transport.write(answer)
        cycle.response_started = cycle.response_complete = True
        self.on_response_complete()

    def send_400_response(self, msg: str) -> None:
        """Say that the bytes were no HTTP."""
        self._refuse(b"400 Bad Request", "The bytes are no HTTP request; see /docs for what is taken.")

    def _start_clock(self) -> None:
        self._stop_clock()
        self._clock = self.loop.call_later(self.read_seconds, self._time_out)

    def _stop_clock(self) -> None:
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None

    def _time_out(self) -> None:
        if not self.transport.is_closing():
            self._refuse(b"408 Request Timeout", SLOW)

    def _refuse(self, status: bytes, words: str) -> None:
        body = orjson.dumps({"error": words})
        head = b"HTTP/1.1 %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
        self.transport.write(head % (status, len(body)) + body)
        self.transport.close()


def protocol_with(
    read_seconds: float,
    count_connections: Callable[[], None],
    refuse_early: Callable[[str, str], bytes | None],
) -> Any:
    """Return the protocol's class with its limit.

    Args:
        count_connections: called when a connection opens and closes.
        refuse_early: a whole answer to a request of this method and path, None where it is to be read.
    """
    own = {"count_connections": staticmethod(count_connections), "refuse_early": staticmethod(refuse_early)}
    return type("PatientProtocol", (PatientProtocol,), {"read_seconds": read_seconds, **own})
