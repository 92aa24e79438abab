"""Load from a process of its own that checks every score: open loop (Poisson arrivals) or closed.

    python benchmarks/serving_client.py HOST:PORT FOLDER --seconds 60 --rate 500         # open: so many come a second
    python benchmarks/serving_client.py HOST:PORT FOLDER --seconds 10 --connections 8    # closed

FOLDER holds `requests.npz` as `serving_requests.py` writes it. The time of an answer runs from the moment the request
was due, so that a service that stalls is not excused the requests that it kept from being sent; that of a refusal from
when it was sent. A request whose connection breaks before an answer is sent again on another, up to five times, and
counted: a worker that is killed takes with it what it was answering. Writes FOLDER/answers.npz and prints a summary as
JSON. In open loop it spins while nothing is due, so give it a core of its own.
"""

import argparse
import contextlib
import gc
import json
import re
import resource
import select
import socket
import time
from array import array
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

TOLERANCE, ATTEMPTS, LAST_SECONDS, WIDTH = 1e-3, 5, 15.0, 6


@dataclass
class Sending:
    """A request under way."""

    which: int
    due: float
    sent: float = 0.0
    attempts: int = 0


@dataclass
class Connection:
    """A socket, what has come on it, and what has still to go."""

    channel: socket.socket
    buffer: bytes = b""
    unsent: memoryview = field(default_factory=lambda: memoryview(b""))
    sending: Sending | None = None


class Load:
    """Sends requests and keeps what became of each.

    Args:
        address: host:port.
        held: the requests and the scores that are due.
        most: connections.
    """

    def __init__(self, address: str, held: Any, most: int) -> None:
        host, port = address.rsplit(":", 1)
        self.address, self.most = (host, int(port)), most
        self.sizes = held["sizes"]
        self.wires = [held[f"wire{number}"].tobytes() for number in range(len(self.sizes))]
        self.due = [
            [held[f"scores{which}_{number}"] for number in range(len(self.sizes))] for which in range(held["bundles"])
        ]
        self.poll = select.epoll()
        self.open: dict[int, Connection] = {}
        self.free: list[Connection] = []
        self.waiting: deque[Sending] = deque()
        self.rows = array("d")  # six a request: due, sent, done, status, attempts, wrong
        self.lost = 0
        self.refused_connections = 0
        self.words: dict[str, int] = {}

    def table(self) -> Any:
        """What became of each request, (requests, 6)."""
        return np.array(self.rows).reshape(-1, WIDTH)

    def send(self, sending: Sending) -> None:
        """Send a request on a free connection, or a new one, or let it wait for one."""
        connection = self.free.pop() if self.free else self._connect()
        if connection is None:
            self.waiting.append(sending)
            return
        connection.sending = sending
        sending.attempts += 1
        sending.sent = time.perf_counter()
        connection.unsent = memoryview(self.wires[sending.which])
        self._write(connection)

    def _connect(self) -> Connection | None:
        if len(self.open) >= self.most:
            return None
        channel = socket.socket()
        channel.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        channel.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        try:
            channel.connect(self.address)
        except OSError:
            self.refused_connections += 1
            channel.close()
            time.sleep(0.001)
            return None
        channel.setblocking(False)
        connection = self.open[channel.fileno()] = Connection(channel)
        self.poll.register(channel.fileno(), select.EPOLLIN)
        return connection

    def _write(self, connection: Connection) -> None:
        number = connection.channel.fileno()
        try:
            gone = connection.channel.send(connection.unsent)
        except BlockingIOError:
            gone = 0
        except OSError:
            self._broken(number)
            return
        connection.unsent = connection.unsent[gone:]
        self.poll.modify(number, select.EPOLLIN | select.EPOLLOUT if connection.unsent else select.EPOLLIN)

    def look(self, seconds: float) -> list[Connection]:
        """Take what has come; return the connections that are free again."""
        freed = []
        for number, event in self.poll.poll(seconds):
            connection = self.open.get(number)
            if connection is None:
                continue
            if event & select.EPOLLOUT and connection.unsent:
                self._write(connection)
            if event & (select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR) and self._read(number, connection):
                freed.append(connection)
        return freed

    def _read(self, number: int, connection: Connection) -> bool:
        try:
            part = connection.channel.recv(1 << 18)
        except BlockingIOError:
            return False
        except OSError:
            part = b""
        if not part:
            self._broken(number)
            return False
        connection.buffer += part
        head, gap, rest = connection.buffer.partition(b"\r\n\r\n")
        if not gap:
            return False
        lower = head.lower()
        length = int(lower.split(b"\r\ncontent-length: ")[1].split(b"\r")[0])
        if len(rest) < length:
            return False
        connection.buffer = b""
        self._answered(connection, int(head[9:12]), lower, rest)
        if b"connection: close" in lower:
            self._drop(number)
            return False
        if connection.unsent:  # refused by its head alone: what is left must still go
            connection.channel.setblocking(True)
            connection.channel.sendall(connection.unsent)
            connection.channel.setblocking(False)
            connection.unsent = memoryview(b"")
        return True

    def _answered(self, connection: Connection, status: int, head: bytes, body: bytes) -> None:
        done, sending = time.perf_counter(), connection.sending
        assert sending is not None
        connection.sending = None
        wrong = 0
        if status == 200:
            place = int(head.split(b"inference-header-content-length: ")[1].split(b"\r")[0])
            version = int(body.split(b'"model_version":"', 1)[1].split(b'"', 1)[0])
            due = self.due[(version - 1) % len(self.due)][sending.which]
            seen = np.frombuffer(body, np.float32, offset=place) if len(body) - place == due.nbytes else None
            wrong = int(seen is None or not float(np.abs(seen - due).max()) < TOLERANCE)
        else:
            words = re.sub(r"[\d,.]+", "#", body[:80].decode(errors="replace"))
            self.words[words] = self.words.get(words, 0) + 1
        self.rows.extend((sending.due, sending.sent, done, status, sending.attempts, wrong))

    def _broken(self, number: int) -> None:
        """Send again what was under way on a connection that broke."""
        sending = self.open[number].sending
        self._drop(number)
        if sending is None:
            return
        self.lost += 1
        if sending.attempts < ATTEMPTS:
            self.waiting.append(sending)
        else:
            self.rows.extend((sending.due, sending.sent, time.perf_counter(), 0, sending.attempts, 0))

    def _drop(self, number: int) -> None:
        connection = self.open.pop(number)
        with contextlib.suppress(ValueError):
            self.free.remove(connection)
        self.poll.unregister(number)
        connection.channel.close()


def open_loop(load: Load, rate: float, seconds: float) -> None:
    """Send requests at moments of a Poisson process, whatever the answers."""
    rng = np.random.default_rng(11)
    count = int(rate * seconds)
    moments = np.cumsum(rng.exponential(1 / rate, count)) + time.perf_counter()
    which, place = rng.integers(0, len(load.wires), count), 0
    end = moments[-1] + LAST_SECONDS
    while (place < count or len(load.rows) < WIDTH * count) and time.perf_counter() < end:
        load.free += load.look(0 if place < count else 0.01)
        while load.waiting and (load.free or len(load.open) < load.most):
            before = len(load.waiting)
            load.send(load.waiting.popleft())
            if len(load.waiting) >= before:
                break
        while place < count and moments[place] <= time.perf_counter():
            load.send(Sending(int(which[place]), float(moments[place])))
            place += 1


def closed_loop(load: Load, seconds: float) -> None:
    """Each caller asks again when it was answered, another request."""
    begin, number = time.perf_counter(), 0

    def ask() -> None:
        nonlocal number
        load.send(Sending(number % len(load.wires), time.perf_counter()))
        number += 1

    for _ in range(load.most):
        ask()
    while time.perf_counter() - begin < seconds:
        for connection in load.look(0.1):
            load.free.append(connection)
            ask()


def summary(load: Load, took: float) -> dict[str, Any]:
    """What became of the requests."""
    rows = load.table()
    good = rows[rows[:, 3] == 200]
    refused = rows[(rows[:, 3] == 429) | (rows[:, 3] == 503)]
    statuses, counts = np.unique(rows[:, 3].astype(int), return_counts=True)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "seconds": took,
        "sent": len(rows),
        "statuses": dict(zip(map(str, statuses.tolist()), counts.tolist(), strict=True)),
        "a_second": len(good) / took,
        "wrong": int(rows[:, 5].sum()),
        "broken_connections": load.lost,
        "sent_again": int((rows[:, 4] > 1).sum()),
        "unanswered": int((rows[:, 3] == 0).sum()),
        "good_ms": milliseconds(good[:, 2] - good[:, 0]),
        "good_from_sending_ms": milliseconds(good[:, 2] - good[:, 1]),
        "refused_ms": milliseconds(refused[:, 2] - refused[:, 1]),
        "client_cpu_us": 1e6 * (usage.ru_utime + usage.ru_stime) / max(len(rows), 1),
        "words": load.words,
    }


def milliseconds(seconds: Any) -> dict[str, float] | None:
    """Quantiles of times."""
    if not len(seconds):
        return None
    found = np.percentile(seconds * 1e3, (50, 95, 99, 100)).tolist()
    return dict(zip(("p50", "p95", "p99", "max"), found, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("address")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--connections", type=int, default=256)
    parser.add_argument("--rate", type=float, help="requests a second in open loop; closed without it")
    given = parser.parse_args()
    with np.load(given.folder / "requests.npz") as file:
        load = Load(given.address, dict(file), given.connections)
    gc.disable()  # after a million requests its looking for circles would take tens of ms of the load's own time
    begin = time.perf_counter()
    if given.rate:
        open_loop(load, given.rate, given.seconds)
    else:
        closed_loop(load, given.seconds)
    took = given.seconds if given.rate else time.perf_counter() - begin
    np.savez(given.folder / "answers.npz", rows=load.table() - [begin, begin, begin, 0, 0, 0])
    print(json.dumps(summary(load, took)))


if __name__ == "__main__":
    main()
