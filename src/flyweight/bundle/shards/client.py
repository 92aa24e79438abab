"""One shard's server as a front sees it: connections that are kept, and what happens when it goes and comes back."""

import logging
import socket
import threading
import time
from collections import deque
from dataclasses import dataclass

from flyweight.bundle.shards.messages import (
    HELLO,
    WELCOME,
    Kind,
    MessageError,
    read_exactly,
    read_header,
    read_words,
    send,
)
from flyweight.errors import InputError, ShardError

logger = logging.getLogger("flyweight.shards")
#: Seconds until a server that went away is first tried again, doubled each time up to the second.
FIRST_WAIT, LAST_WAIT = 0.05, 1.0


@dataclass(frozen=True)
class Due:
    """What must be served at an address.

    Args:
        plan: hash of the plan.
        shard, shards: which shard, of how many.
        rows: hash of its rows.
    """

    plan: str
    shard: int
    shards: int
    rows: str


class WrongShardError(ShardError):
    """Another shard, or one of another bundle, is served where this one is due; waiting does not help."""


class Client:
    """Connections to the server of one shard; any thread may take one.

    A server that fails is away until a thread in the background has reached it again, so that no request but the
    first waits for it.

    Args:
        due: what it must serve.
        address: "host:port".
        timeout: seconds that a connection may take to be made.

    Raises:
        InputError: the address is none.
    """

    def __init__(self, due: Due, address: str, timeout: float) -> None:
        self.due = due
        self.address = address
        self._host, self._port = _parsed(address)
        self._timeout = timeout
        self._idle: deque[socket.socket] = deque()
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._why: str | None = None
        self._since = 0.0
        self._tries = 0

    @property
    def name(self) -> str:
        """Which shard, and where."""
        return f"Shard {self.due.shard} of {self.due.shards} at {self.address}"

    @property
    def away(self) -> str | None:
        """Why it is away and for how long, or None where it answers."""
        with self._lock:
            if self._why is None:
                return None
            gone = time.monotonic() - self._since
            return f"{self._why}; away for {gone:.1f} s, tried {self._tries} times since"

    def take(self, until: float) -> socket.socket:
        """Return a connection that was greeted; give it back, or call `lost`.

        Raises:
            ShardError: the server is away, or another shard is served there.
        """
        away = self.away
        if away is not None:
            raise self.error(away)
        while (link := self._pop()) is not None:
            if _quiet(link):
                return link
            link.close()  # its server has ended since
        try:
            return self._connected(until)
        except WrongShardError as error:
            self.lost(None, error)
            raise
        except (OSError, MessageError) as error:
            self.lost(None, error)
            raise self.error(self.said(error)) from error

    def give(self, link: socket.socket) -> None:
        """Keep a connection for the next call."""
        with self._lock:
            if not self._closed.is_set():
                self._idle.append(link)
                return
        link.close()

    def lost(self, link: socket.socket | None, error: Exception) -> None:
        """Count the server as away until it is reached again in the background."""
        with self._lock:
            links = [*self._idle, *([] if link is None else [link])]
            self._idle.clear()
            first = self._why is None and not self._closed.is_set()
            if first:
                self._why, self._since, self._tries = self.said(error), time.monotonic(), 0
        for one in links:
            one.close()
        if first:
            logger.warning("%s is away: %s.", self.name, self.said(error))
            threading.Thread(target=self._come_back, name=f"shard-{self.due.shard}", daemon=True).start()

    def error(self, why: str) -> ShardError:
        """Return what to raise where rows of this shard cannot be done without."""
        return ShardError(
            f"{self.name}: {why}. Start its server again (flyweight serve-shard shard-{self.due.shard} --port "
            f"{self._port}); until then fw.load(..., missing='degrade') scores with stand-ins."
        )

    def close(self) -> None:
        """End all connections and stop trying."""
        self._closed.set()
        while (link := self._pop()) is not None:
            link.close()

    def _pop(self) -> socket.socket | None:
        with self._lock:
            return self._idle.pop() if self._idle else None

    def _connected(self, until: float) -> socket.socket:
        left = max(min(until - time.monotonic(), self._timeout), 1e-3)
        link = socket.create_connection((self._host, self._port), timeout=left)
        try:
            link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            link.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            self._greet(link, time.monotonic() + left)
        except BaseException:
            link.close()
            raise
        return link

    def _greet(self, link: socket.socket, until: float) -> None:
        due = self.due
        send(link, Kind.HELLO, [HELLO.pack(bytes.fromhex(due.plan), due.shard, due.shards)])
        header = read_header(link, WELCOME.size, until)
        if header is None:
            raise ConnectionResetError("the server ended the connection instead of greeting")
        if header.kind == Kind.REFUSED:
            raise MessageError(f"the server refused: {read_words(link, header, until)}")
        if header.kind != Kind.WELCOME or header.bytes != WELCOME.size:
            seen = f"{header.kind.name} of {header.bytes:,}"
            raise MessageError(f"a greeting of {WELCOME.size} bytes is due; seen {seen}")
        plan, shard, shards, rows = WELCOME.unpack(read_exactly(link, header.bytes, until))
        if plan.hex() != due.plan:
            raise WrongShardError(
                f"{self.name} is of another bundle or version: its plan hashes to {plan.hex()[:16]}..., "
                f"{due.plan[:16]}... is due. Serve the shards that were written with this front."
            )
        if shard != due.shard:
            raise WrongShardError(
                f"{self.address} serves shard {shard} of {shards}, and shard {due.shard} is due there; give the "
                "addresses in the shards' order: shards=[address of shard-0, address of shard-1, ...]."
            )
        if rows.hex() != due.rows:
            raise WrongShardError(
                f"{self.name} holds other rows: they hash to {rows.hex()[:16]}..., {due.rows[:16]}... is due. Copy the "
                "shard's folder again."
            )

    def _come_back(self) -> None:
        """Try the server again, ever more seldom, until it answers."""
        wait = FIRST_WAIT
        while not self._closed.wait(wait):
            try:
                link = self._connected(time.monotonic() + self._timeout)
            except (OSError, ShardError) as error:
                with self._lock:
                    self._why, self._tries = self.said(error), self._tries + 1
                wait = min(2 * wait, LAST_WAIT)
                continue
            with self._lock:
                self._why, gone = None, time.monotonic() - self._since
            self.give(link)
            logger.info("%s answers again, after %.1f s.", self.name, gone)
            return

    def said(self, error: Exception) -> str:
        """Return what failed, in words, with how long was waited."""
        if isinstance(error, TimeoutError):
            return f"no answer within {self._timeout:g} s (timeout={self._timeout:g})"
        if isinstance(error, ConnectionRefusedError):
            return "nothing listens there (connection refused)"
        if isinstance(error, OSError):
            return f"the connection broke ({error.strerror or error})"
        return str(error)


def _quiet(link: socket.socket) -> bool:
    """Return whether a kept connection is open and nothing came on it."""
    link.setblocking(False)
    try:
        link.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _parsed(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":") if isinstance(address, str) else ("", "", "")
    if not host or not (port.isascii() and port.isdigit()) or not 0 < int(port) < 2**16:
        raise InputError(f"A shard's address is 'host:port', such as '10.0.0.7:7400'; seen {address!r}.")
    return host.strip("[]"), int(port)
