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
    """

    def __init__(self, app: Any, listening: socket.socket) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http="httptools",
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

    async def run_until_told(self) -> None:
        """Serve; returns when all that was accepted is answered."""
        await self._serve([self._listening])

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the worker."""
        yield

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop listening, read what is under way, answer it, close."""
        for server in self.servers:
            server.close()
        await self._empty_backlog()
        self._backlog.close()
        await asyncio.sleep(LINGER_SECONDS)
        await super().shutdown(sockets)

    async def _empty_backlog(self) -> None:
        """Take the connections that the kernel accepted and nobody has taken yet."""
        loop = asyncio.get_running_loop()
        taken = []
        while True:
            try:
                taken.append(self._backlog.accept()[0])
            except (BlockingIOError, ConnectionError):
                break
        for connection in taken:
            connection.setblocking(False)
            await loop.connect_accepted_socket(self._protocol, connection)

    def _protocol(self) -> asyncio.Protocol:
        make: Any = self.config.http_protocol_class
        protocol: asyncio.Protocol = make(
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        return protocol
