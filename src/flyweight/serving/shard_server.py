"""The server of one shard: it maps the shard's rows and answers lookups by place. NumPy and the standard library."""

import socket
import socketserver
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flyweight.bundle.shards.messages import (
    HELLO,
    MAX_ASK,
    MAX_ROWS,
    MAX_WORDS,
    WANTED,
    WELCOME,
    Kind,
    MessageError,
    place_dtype,
    read_exactly,
    read_header,
    send,
)
from flyweight.bundle.shards.shard_folder import OpenShard, open_shard
from flyweight.errors import InputError

#: Connections at a time, each with a thread of its own; a front keeps one for each of its threads that score.
MAX_LINKS = 512
#: Seconds that a message may take, once it has begun.
PATIENCE = 10.0


class ShardServer(socketserver.ThreadingTCPServer):
    """Serves a shard from several threads until `shutdown`.

    Use as a context manager; `serve_forever` answers. There is no encryption and no password: for private networks.

    Args:
        path: the shard's folder.
        host, port: where to listen; port 0 takes a free one, see `address`.

    Raises:
        BundleError: the folder is no shard, or was cut or altered.
        InputError: the port is taken, or the host is not this one's.
    """

    daemon_threads = True
    allow_reuse_address = True  # a port whose last server has just ended is free; one that is in use is not
    request_queue_size = 128

    def __init__(self, path: str | Path, host: str = "127.0.0.1", port: int = 0) -> None:
        if not 0 <= port < 2**16:
            raise InputError(f"--port must lie between 0 and 65535; seen {port}.")
        self.shard: OpenShard = open_shard(path)
        self._free = threading.BoundedSemaphore(MAX_LINKS)
        self._links: set[socket.socket] = set()
        self._lock = threading.Lock()
        try:
            super().__init__((host, port), _Conversation)
        except OSError as error:
            raise InputError(
                f"{host}:{port} cannot be listened on ({error.strerror or error}); choose another --port, or end what "
                "holds it."
            ) from error

    @property
    def address(self) -> str:
        """Where it listens, "host:port"."""
        host, port = self.server_address[:2]
        return f"{host!s}:{port}"

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer a new connection in a thread of its own, if one is free."""
        if self._free.acquire(blocking=False):
            with self._lock:
                self._links.add(request)
            super().process_request(request, client_address)
        else:
            _refuse(request, f"all {MAX_LINKS} connections of this server are in use")
            super().shutdown_request(request)

    def shutdown_request(self, request: Any) -> None:
        """End a connection and let another one take its place."""
        with self._lock:
            known = request in self._links
            self._links.discard(request)
        super().shutdown_request(request)
        if known:
            self._free.release()

    def end_links(self) -> None:
        """End all connections, so that fronts notice at once."""
        with self._lock:
            links = list(self._links)
        for link in links:
            try:
                link.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue  # it has ended by itself

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a connection that broke: the front says so, with the reason."""


class _Conversation(socketserver.BaseRequestHandler):
    """One connection: a greeting, then calls until the front ends it."""

    server: ShardServer

    def handle(self) -> None:
        link: socket.socket = self.request
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        link.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        try:
            link.settimeout(PATIENCE)
            self._greet(link)
            while self._answer(link):
                pass
        except MessageError as error:
            _refuse(link, str(error))
        except OSError:
            return  # the front is gone, or began a message and never ended it

    def _greet(self, link: socket.socket) -> None:
        header = read_header(link, HELLO.size)
        if header is None:
            raise ConnectionResetError
        if header.kind != Kind.HELLO or header.bytes != HELLO.size:
            seen = f"{header.kind.name} of {header.bytes:,}"
            raise MessageError(f"a greeting of {HELLO.size} bytes is due first; seen {seen}")
        plan, shard, shards = HELLO.unpack(read_exactly(link, header.bytes))
        record = self.server.shard.record
        # The answer goes out in any case: the front has both sides' hashes then, and says what does not fit.
        answer = WELCOME.pack(
            bytes.fromhex(record.plan), record.shard, record.shards, bytes.fromhex(record.file.sha256)
        )
        send(link, Kind.WELCOME, [answer])
        if (plan.hex(), shard, shards) != (record.plan, record.shard, record.shards):
            raise MessageError("this is not the shard that was asked for")

    def _answer(self, link: socket.socket) -> bool:
        """Answer one call; return False once the front has ended the connection."""
        link.settimeout(None)
        if not link.recv(1, socket.MSG_PEEK):  # between calls a front may be silent for as long as it likes
            return False
        until = time.monotonic() + PATIENCE
        header = read_header(link, MAX_ASK, until)
        if header is None:
            return False
        if header.kind != Kind.ASK:
            raise MessageError(f"a call is due; seen {header.kind.name}")
        rows = _rows(self.server.shard, read_exactly(link, header.bytes, until), header.tables)
        link.settimeout(PATIENCE)
        send(link, Kind.ROWS, rows, tables=header.tables, call=header.call)
        return True


def _rows(shard: OpenShard, data: bytearray, asked: int) -> list[NDArray[Any]]:
    """Return the rows that a call asks for, each place checked."""
    if len(data) < asked * WANTED.size:
        raise MessageError(f"a call for {asked} tables needs {asked * WANTED.size:,} bytes or more; seen {len(data):,}")
    offset, total, found = asked * WANTED.size, 0, []
    for number in range(asked):
        table, count = WANTED.unpack_from(data, number * WANTED.size)
        if table >= len(shard.tables):
            raise MessageError(f"table {table} is asked for; this shard has {len(shard.tables)}")
        rows = shard.tables[table]
        dtype = place_dtype(len(rows))
        total += count * rows.itemsize
        if offset + count * dtype.itemsize > len(data) or total > MAX_ROWS:
            raise MessageError(f"a call of {len(data):,} bytes says that it asks for {count:,} rows of table {table}")
        places = np.frombuffer(data, dtype, count, offset)
        offset += count * dtype.itemsize
        if count and int(places.max()) >= len(rows):
            raise MessageError(f"row {int(places.max()):,} of table {table} is asked for; this shard has {len(rows):,}")
        found.append(rows.take(places, mode="clip").view(np.uint8))  # none is clipped: it skips a second check
    if offset != len(data):
        raise MessageError(f"a call has {len(data):,} bytes, and {offset:,} by its own numbers")
    return found


def _refuse(link: socket.socket, why: str) -> None:
    try:
        send(link, Kind.REFUSED, [why.encode()[:MAX_WORDS]])
    except OSError:
        return  # nobody is left to be told
