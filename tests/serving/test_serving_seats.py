"""Workers share callers that keep their connections: each holds as many as the others."""

import os
import socket
import time
from pathlib import Path

from running_service import Service, started

from flyweight.serving.seats import ABSENT, Seats, make_seats


def test_worker_with_the_fewest_is_not_over() -> None:
    ours = make_seats(3)
    try:
        theirs = Seats(ours.file, 3)
        ours.set(0, 4)
        theirs.set(1, 3)
        assert [theirs.over(place) for place in range(3)] == [True, False, True]
        ours.set(1, ABSENT)
        assert not theirs.over(0)
    finally:
        os.close(ours.file)


def held(service: Service) -> list[int]:
    """Sockets that each worker has open."""
    return [
        sum("socket" in os.readlink(one) for one in Path(f"/proc/{worker}/fd").iterdir() if one.is_symlink())
        for worker in service.workers()
    ]


def test_kept_connections_are_shared_evenly(hoisted: Path) -> None:
    with started(hoisted, "--workers", "2") as service:
        host, port = service.http.split(":")
        before = held(service)
        connections = [socket.create_connection((host, int(port)), timeout=10) for _ in range(40)]
        end = time.monotonic() + 10
        while sum(now := held(service)) < sum(before) + 40:
            assert time.monotonic() < end
            time.sleep(0.05)
        taken = [one - two for one, two in zip(now, before, strict=True)]
        # On a busy machine a worker may not run at all for a while; one that shares nothing would hold all or none.
        assert min(taken) >= 8, taken
        for connection in connections:
            connection.close()
