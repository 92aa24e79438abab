"""uvicorn with an end that loses nothing it accepted.

uvicorn closes idle connections the moment it stops, also those whose next request is on its way, and leaves those in
the kernel's backlog to be reset.
"""

import asyncio
import contextlib
import os
import socket
from collections.abc import Iterator
from typing import Any

import uvicorn

from flyweight.serving.closing_port import turn_newcomers_away, waiting_connections
from flyweight.serving.http_protocol import protocol_with

#: Seconds in which a request that was under way when listening ended is still read.
LINGER_SECONDS = 0.25
#: Seconds that running requests may take at the end before they are cut off.
LAST_SECONDS = 30
BACKLOG = 2048


class HttpServer(uvicorn.Server):
    """Serves an ASGI application on a socket until `should_exit`.

    Args:
        app: the application.
        listening: a bound socket; the server closes it.
        read_seconds: within which the head of a request must have come.
    """

    def __init__(self, app: Any, listening: socket.socket, read_seconds: float) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=protocol_with(read_seconds),
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=75,
                timeout_graceful_shutdown=LAST_SECONDS,
                backlog=BACKLOG,
            )
        )
        # uvloop closes the socket itself with its server; the backlog is emptied over this one.
        self._backlog = socket.socket(fileno=os.dup(listening.fileno()))
        self._backlog.setblocking(False)
        self._listening = listening
        #: Whether the port is to be closed for all, not only by this process.
        self.closes_port = False

    async def run_until_told(self) -> None:
        """Serve; returns when all that was accepted is answered."""
        await self._serve([self._listening])

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the worker."""
        yield

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop listening, read what is under way, answer it, close."""
        if self.closes_port:
            turn_newcomers_away(self._listening)
            await asyncio.sleep(LINGER_SECONDS)
        for server in self.servers:
            server.close()
        await asyncio.sleep(0.01)  # uvloop closes its socket in its next turn
        loop = asyncio.get_running_loop()
        for connection in waiting_connections(self._backlog) if self.closes_port else ():
            connection.setblocking(False)
            await loop.connect_accepted_socket(self._protocol, connection)
        self._backlog.close()
        await asyncio.sleep(LINGER_SECONDS)
        await super().shutdown(sockets)

    def _protocol(self) -> asyncio.Protocol:
        make: Any = self.config.http_protocol_class
        protocol: asyncio.Protocol = make(
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        return protocol
