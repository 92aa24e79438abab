"""uvicorn with an end that loses nothing it accepted.

uvicorn closes idle connections the moment it stops, also those whose next request is on its way, and leaves those in
the kernel's backlog to be reset.
"""

import asyncio
import contextlib
import logging
import socket
from collections.abc import Iterator
from typing import Any

import uvicorn

from flyweight.serving.closing_port import turn_newcomers_away
from flyweight.serving.direct_infer import DirectInfer
from flyweight.serving.http_connection import Connection
from flyweight.serving.http_protocol import PatientProtocol
from flyweight.serving.seats import ABSENT, Seats

logger = logging.getLogger("flyweight.serving")
#: Seconds in which a request that was under way when listening ended is still read.
LINGER_SECONDS = 0.25
#: Seconds that running requests may take at the end before they are cut off.
LAST_SECONDS = 30
#: Seconds that a connection is left to another worker; then it is taken all the same.
GIVE_WAY_SECONDS = 0.001
BACKLOG = 2048
#: Connections taken in one turn of the loop, as long as no other worker holds fewer.
TAKEN_AT_ONCE = 32


class HttpServer(uvicorn.Server):
    """Serves an ASGI application on a socket until `should_exit`.

    Args:
        app: the application.
        listening: a bound socket; the server closes it.
        read_seconds: within which the head of a request must have come.
        direct: answers plain requests for inference.
        seats: how many connections each worker holds, and which of them this is.
        tls: paths of the certificate and the key; None serves in the clear.
    """

    def __init__(
        self,
        app: Any,
        listening: socket.socket,
        read_seconds: float,
        direct: DirectInfer,
        seats: tuple[Seats, int],
        tls: tuple[str, str] | None = None,
    ) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=PatientProtocol,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=75,
                timeout_graceful_shutdown=LAST_SECONDS,
                ssl_certfile=None if tls is None else tls[0],
                ssl_keyfile=None if tls is None else tls[1],
            )
        )
        self._listening, self._patience = listening, read_seconds
        self._direct = direct
        self._opening: set[asyncio.Task[Any]] = set()
        self._seats, self._place = seats
        self._gave_way = self._ended = False
        #: Whether the port is to be closed for all, not only by this process.
        self.closes_port = False

    async def run_until_told(self) -> None:
        """Serve; returns when all that was accepted is answered."""
        await self._serve(None)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the worker."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen.

        uvloop takes all connections that wait at once; here it is one in a turn of the loop, and a worker that holds
        more than another leaves the next to that one for a moment.
        """
        self.servers = []
        self._listening.setblocking(False)
        self._listening.listen(BACKLOG)
        self._count()
        self._watch()
        self.started = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop listening, read what is under way, answer it, close."""
        if self.closes_port:
            turn_newcomers_away(self._listening)
            await asyncio.sleep(LINGER_SECONDS)
        self._seats.set(self._place, ABSENT)
        self._ended = True
        asyncio.get_running_loop().remove_reader(self._listening)
        with contextlib.suppress(OSError):
            while self.closes_port and self._take():
                pass
        self._listening.close()
        await asyncio.sleep(LINGER_SECONDS)
        await super().shutdown()

    def _watch(self) -> None:
        if not self._ended:
            asyncio.get_running_loop().add_reader(self._listening, self._accept)

    def _accept(self) -> None:
        """Take a connection, or leave it for a moment to a worker that holds fewer."""
        loop = asyncio.get_running_loop()
        over = self._seats.over(self._place) and not self._gave_way
        self._gave_way = over
        try:
            if not over and self._take():
                # A busy loop turns a few hundred times a second; a thousand newcomers must not wait for as many.
                for _ in range(TAKEN_AT_ONCE - 1):
                    if self._seats.over(self._place) or not self._take():
                        break
                return
            pause = GIVE_WAY_SECONDS
        except OSError as error:
            logger.error("No connection can be taken for a second: %s", error.strerror)
            pause = 1.0
        loop.remove_reader(self._listening)
        loop.call_later(pause, self._watch)

    def _take(self) -> bool:
        """Take one connection, if one waits.

        Raises:
            OSError: no more files may be open.
        """
        try:
            connection = self._listening.accept()[0]
        except (BlockingIOError, ConnectionError):  # another worker was quicker, or the caller has gone
            return False
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        loop = asyncio.get_running_loop()
        tls, patience = self.config.ssl, None if self.config.ssl is None else self._patience
        task = loop.create_task(
            loop.connect_accepted_socket(self._protocol, connection, ssl=tls, ssl_handshake_timeout=patience)
        )
        self._opening.add(task)
        self._count()
        task.add_done_callback(self._opened)
        return True

    def _opened(self, task: asyncio.Task[Any]) -> None:
        self._opening.discard(task)
        if not task.cancelled() and task.exception() is not None:  # a caller that speaks no TLS, or gave up
            self._count()

    def _count(self) -> None:
        if not self._ended:
            self._seats.set(self._place, len(self.server_state.connections) + len(self._opening))

    def _protocol(self) -> asyncio.BaseProtocol:
        library = PatientProtocol(config=self.config, server_state=self.server_state, app_state={})
        library.read_seconds, library.refuse_early = self._patience, self._direct.refuse_by_path
        return Connection(library, self._direct, self.server_state.connections, self._patience, self._count)
