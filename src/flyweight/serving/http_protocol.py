"""uvicorn's HTTP protocol with limits on what a request's head may take, and errors in the service's own form.

Without the limits, callers that send a byte now and then hold a connection for as long as they like, and those that
send headers without end take all memory.
"""

import asyncio
import re
import sys
from collections.abc import Callable
from typing import Any

import orjson
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

#: Bytes of a head, of a chunk's own, and of what comes after the last.
LONGEST_HEAD = 1 << 16
#: An offer to go on in another protocol, which nobody needs to take up; the library would lose the request's body.
_UPGRADE = re.compile(rb"\r\n(upgrade[ \t]*:)", re.IGNORECASE)
LONG = f"The request's head, or what else is not its body, has more than {LONGEST_HEAD:,} bytes."
SLOW = "The request's head did not come whole in time (--read-timeout)."


class PatientProtocol(HttpToolsProtocol):
    """What the library does on one connection."""

    #: Seconds that the head of each request may take from the first byte on.
    read_seconds = 10.0
    #: A whole answer to a request of this method and path, None where it is to be read.
    refuse_early: Callable[[str, str], bytes | None] = staticmethod(lambda method, path: None)
    #: Whether nothing else happens on the connection.
    is_quiet: Callable[[], bool] = staticmethod(lambda: True)
    _clock: asyncio.TimerHandle | None = None
    _between = True
    #: Bytes since the last that ended a head or were of a body.
    _unended = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the clock for a caller that connects and says nothing."""
        super().connection_made(transport)
        self._start_clock()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock."""
        self.stop_clock()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what has come."""
        if self._between:
            head, gap, rest = data.partition(b"\r\n\r\n")
            data = _UPGRADE.sub(rb"\r\nx-\1", head) + gap + rest
        self._unended += len(data)
        super().data_received(data)
        if self._unended > LONGEST_HEAD and not self.transport.is_closing():
            self._refuse(b"431 Request Header Fields Too Large", LONG)

    def on_body(self, body: bytes) -> None:
        """Take a part of a body."""
        self._unended = 0
        super().on_body(body)

    def is_between(self) -> bool:
        """Return whether the next byte begins a request, and the one before it is answered."""
        return self._between and (self.cycle is None or self.cycle.response_complete)

    def timeout_keep_alive_handler(self) -> None:
        """Close a connection on which nothing happens; what is done beside the library closes it otherwise."""
        self.timeout_keep_alive_task = None
        if self.is_quiet():
            super().timeout_keep_alive_handler()

    def on_message_begin(self) -> None:
        """Start the clock at the first byte of a request."""
        self._between = False
        self._start_clock()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Stop the clock: the body has one of its own, see `body.read_body`."""
        self.stop_clock()
        self._unended = 0
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Note that the next byte is another request's."""
        self._between, self._unended = True, 0
        super().on_message_complete()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        """Begin with a request, or refuse it here and now, where the rest of it need not be read."""
        answer = self.refuse_early(cycle.scope["method"], cycle.scope["path"]) if cycle.keep_alive else None
        if answer is None:
            super()._start_asgi_task(cycle, app)
            return
        self.transport.write(answer)
        cycle.response_started = cycle.response_complete = True
        # Thousands may wait behind it, each refused as this one: not inside of each other.
        (self.loop.call_soon if self.pipeline else _now)(self.on_response_complete)

    def send_400_response(self, msg: str) -> None:
        """Say that the bytes were no HTTP."""
        reason = sys.exception()  # the library's own
        words = f"The bytes are no HTTP request{'' if reason is None else f' ({reason})'}"
        self._refuse(b"400 Bad Request", f"{words}; check Content-Length, and see /docs for what is taken.")

    def _start_clock(self) -> None:
        self.stop_clock()
        self._clock = self.loop.call_later(self.read_seconds, self._time_out)

    def stop_clock(self) -> None:
        """The head is here."""
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


def _now(work: Callable[[], None]) -> None:
    work()
