"""uvicorn's HTTP protocol with a limit on how long a request's head may take, and errors in the service's own form.

Without the limit, callers that send a byte now and then hold a connection, and its memory, for as long as they like.
"""

import asyncio
from collections.abc import Callable
from typing import Any

import orjson
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from flyweight.serving.unread_request import read_start

#: Seconds after a refusal in which newcomers are looked at before they are parsed.
CROWDED_SECONDS = 0.1
SLOW = "The request's head did not come whole in time (--read-timeout)."


class PatientProtocol(HttpToolsProtocol):
    """One connection; `read_seconds` is how long the head of each request may take from the first byte on."""

    read_seconds = 10.0
    count_connections: Callable[[], None] = staticmethod(lambda: None)
    refuse_early: Callable[[str, str], bytes | None] = staticmethod(lambda method, path: None)
    #: Until when newcomers are looked at before they are parsed, as some were refused lately; of all connections.
    crowded_until = 0.0
    _clock: asyncio.TimerHandle | None = None
    #: Bytes of a refused request that have still to come, and whether the next byte begins another request.
    _unread = 0
    _between = True
    _last_refusal = 0.0

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

    def data_received(self, data: bytes) -> None:
        """Take what has come: parse it, or pass over it where it is a request that is refused."""
        while data:
            if self._unread:
                passed = min(self._unread, len(data))
                self._unread -= passed
                data = data[passed:]
            elif not (self.loop.time() < self.crowded_until and self._refuse_unread(data)):
                super().data_received(data)
                return

    def _refuse_unread(self, data: bytes) -> bool:
        """Refuse a request that begins here without parsing it, if it would be; its bytes are to be passed over."""
        if not self._between or not (self.cycle is None or self.cycle.response_complete):
            return False
        seen = read_start(data)
        answer = None if seen is None else self.refuse_early("POST", seen.path)
        if seen is None or answer is None:
            return False
        self._stop_clock()
        self.transport.write(answer)
        self._unread, self._last_refusal = seen.size, self.loop.time()
        type(self).crowded_until = self._last_refusal + CROWDED_SECONDS
        if self.timeout_keep_alive_task is None:
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )
        return True

    def timeout_keep_alive_handler(self) -> None:
        """Close a connection that says nothing, unless something was refused on it lately."""
        left = self._last_refusal + self.timeout_keep_alive - self.loop.time()
        if left <= 0:
            super().timeout_keep_alive_handler()
            return
        self.timeout_keep_alive_task = self.loop.call_later(left, self.timeout_keep_alive_handler)

    def on_message_begin(self) -> None:
        """Start the clock at the first byte of a request."""
        self._between = False
        self._start_clock()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Stop the clock: the body has one of its own, see `body.read_body`."""
        self._stop_clock()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Note that the next byte is another request's."""
        self._between = True
        super().on_message_complete()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        """Begin with a request, or refuse it here and now, where the rest of it need not be read."""
        answer = self.refuse_early(cycle.scope["method"], cycle.scope["path"]) if cycle.keep_alive else None
        if answer is None:
            super()._start_asgi_task(cycle, app)
            return
        type(self).crowded_until = self.loop.time() + CROWDED_SECONDS
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
