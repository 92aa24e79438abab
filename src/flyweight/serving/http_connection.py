"""One connection of a caller: plain requests for inference are answered here, all else by the HTTP library.

Bytes are read into one place that all connections share: a request that is refused by its head leaves no bytes behind
that somebody made room for.
"""

import asyncio
from collections.abc import Callable
from typing import Any

import numpy as np

from flyweight.serving.body import too_slow
from flyweight.serving.direct_infer import DirectInfer
from flyweight.serving.http_protocol import PatientProtocol
from flyweight.serving.lane import Ticket
from flyweight.serving.plain_request import Plain, read_start

#: What is read at once. A read is looked at before the next begins, so one place does for all connections.
_PLACE = memoryview(bytearray(1 << 18))
#: What the numbers in a body lie at a multiple of, so that they are read where they are.
_ALIGNED = 64


class Connection(asyncio.BufferedProtocol):
    """A connection.

    Args:
        library: parses what is not plain.
        direct: answers what is.
        connections: where all are kept that are open.
        read_seconds: within which a body must have come.
        count: called when one opens and closes.
    """

    def __init__(
        self,
        library: PatientProtocol,
        direct: DirectInfer,
        connections: set[Any],
        read_seconds: float,
        count: Callable[[], None],
    ) -> None:
        self._library, self._direct = library, direct
        self._connections, self._read_seconds, self._count = connections, read_seconds, count
        self._loop = library.loop
        self._transport: Any = None
        #: Bytes of a refused request that have still to come.
        self._unread = 0
        #: A body that comes in parts, how much of it is here, and the head before it.
        self._body: memoryview | None = None
        self._come = 0
        self._plain: Plain | None = None
        #: A request that has no answer yet, and what came after it.
        self._ticket: Ticket | None = None
        self._busy = False
        self._held = b""
        self._last_use = 0.0
        self._due = 0.0
        self._late: asyncio.TimerHandle | None = None
        self._idle: asyncio.TimerHandle | None = None
        self._paused = self._full = False
        self._ending = False
        library.is_quiet = self._is_quiet

    def connection_made(self, transport: Any) -> None:
        """Begin."""
        self._transport = transport
        self._connections.add(self)
        self._library.connection_made(transport)
        self._connections.discard(self._library)
        self._count()

    def connection_lost(self, exc: Exception | None) -> None:
        """Give up what nobody waits for any more."""
        self._connections.discard(self)
        for handle in (self._late, self._idle):
            if handle is not None:
                handle.cancel()
        self._body = None
        if self._ticket is not None:
            self._ticket.answer.cancel()
        self._library.connection_lost(exc)
        self._count()

    def eof_received(self) -> None:
        """Close: a caller that sends no more is not answered either, as in the library."""

    def pause_writing(self) -> None:
        """Read no more from a caller who does not read."""
        self._full = True
        self._library.pause_writing()
        self._read_or_wait()

    def resume_writing(self) -> None:
        """Go on."""
        self._full = False
        self._library.resume_writing()
        self._read_or_wait()

    def shutdown(self) -> None:
        """Close once what is under way is answered."""
        if self._busy or self._body is not None:
            self._ending = True
        else:
            self._library.shutdown()

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return where the next bytes are to go."""
        return _PLACE if self._body is None else self._body[self._come :]

    def buffer_updated(self, nbytes: int) -> None:
        """Take what has come."""
        if self._body is None:
            self._take(_PLACE[:nbytes])
            return
        self._come += nbytes
        if self._come == len(self._body):
            body, plain, self._body, self._plain = self._body, self._plain, None, None
            assert plain is not None
            self._begin(plain, body)

    def _take(self, data: memoryview) -> None:
        while data and not self._transport.is_closing():
            if self._unread:
                passed = min(self._unread, len(data))
                self._unread -= passed
                data = data[passed:]
            elif self._busy:  # one at a time, in their order
                self._held += bytes(data)
                self._read_or_wait()
                return
            else:
                plain = read_start(data) if self._library.is_between() else None
                if plain is None or not self._direct.takes(plain):
                    self._library.data_received(bytes(data))
                    return
                data = self._start(plain, data)

    def _start(self, plain: Plain, data: memoryview) -> memoryview:
        """Begin with a plain request; return what has come after it."""
        self._library.stop_clock()
        refused = self._direct.refuse(plain)
        if refused is not None:
            self._unread = plain.size
            self._write(refused)
            return data
        body = _room(plain)
        here = min(len(data), plain.size) - plain.head
        body[:here] = data[plain.head : plain.head + here]
        if here == len(body):
            self._begin(plain, body)
        else:
            self._gather(plain, body, here)
        return data[plain.head + here :]

    def _gather(self, plain: Plain, body: memoryview, here: int) -> None:
        """Wait for the rest of a body."""
        self._plain, self._body, self._come = plain, body, here
        self._due = self._loop.time() + self._read_seconds
        if self._late is None:
            self._late = self._loop.call_later(self._read_seconds, self._look_late)

    def _begin(self, plain: Plain, body: memoryview) -> None:
        self._busy = True
        ticket = self._direct.begin(plain, body, self._done)
        self._ticket = ticket if self._busy else None

    def _done(self, answer: bytes, closing: bool) -> None:
        """Send an answer, then look at what came while it was made."""
        self._busy, self._ticket = False, None
        if self._transport.is_closing():
            return
        self._write(answer)
        if closing or self._ending:
            self._transport.close()
        elif self._held:
            held, self._held = self._held, b""
            self._take(memoryview(held))
            self._read_or_wait()

    def _write(self, answer: bytes) -> None:
        self._transport.write(answer)
        self._last_use = self._loop.time()
        if self._idle is None:
            self._idle = self._loop.call_later(self._library.timeout_keep_alive, self._look_idle)

    def _read_or_wait(self) -> None:
        waits = self._full or bool(self._held)
        if waits == self._paused or self._transport.is_closing():
            return
        self._paused = waits
        if waits:
            self._transport.pause_reading()
        elif not self._library.flow.read_paused:
            self._transport.resume_reading()

    def _look_late(self) -> None:
        """Refuse a body that did not come in time; one timer does for all of a connection."""
        self._late = None
        if self._body is None or self._plain is None:
            return
        left = self._due - self._loop.time()
        if left > 0:
            self._late = self._loop.call_later(left, self._look_late)
            return
        plain, refusal = self._plain, too_slow(self._come, len(self._body), self._read_seconds)
        self._body = self._plain = None
        self._ending = True
        self._direct.too_slow(plain, refusal, self._done)

    def _is_quiet(self) -> bool:
        """Return whether nothing was answered here for as long as a connection is kept."""
        left = self._last_use + self._library.timeout_keep_alive - self._loop.time()
        return not self._busy and self._body is None and left <= 0

    def _look_idle(self) -> None:
        """Close a connection on which nothing happens; one timer does for all requests."""
        self._idle = None
        if self._transport.is_closing():
            return
        if self._is_quiet() and self._library.is_between():
            if self._library.timeout_keep_alive_task is None:  # a caller that does not read never gets what is left
                (self._transport.abort if self._full else self._transport.close)()
            return
        left = max(self._last_use + self._library.timeout_keep_alive - self._loop.time(), 1.0)
        self._idle = self._loop.call_later(left, self._look_idle)


def _room(plain: Plain) -> memoryview:
    """Return room for a body; what a caller says and does not send takes no memory."""
    size = plain.size - plain.head
    room = np.empty(size + _ALIGNED, np.uint8)
    skip = -(room.__array_interface__["data"][0] + plain.header_length) % _ALIGNED
    return room.data[skip : skip + size]
