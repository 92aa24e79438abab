"""Connections as callers really use and misuse them: in pieces, all at once, half, gone, and never reading."""

import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import orjson
import pytest
from hostile_bodies import binary
from running_service import Service, request, scores_of, started

ROWS = 1_500  # a body of 18 kB
ARRAYS = request(ROWS)
DUE = scores_of(ARRAYS)


def message(rows: int = ROWS, path: str = "/v2/models/hoisted/infer", more: str = "") -> bytes:
    """A whole request; with `more` in its head that the HTTP library must read it."""
    header, data = binary(ARRAYS if rows == ROWS else request(rows))
    words = orjson.dumps({**header, "parameters": {"binary_data_output": True}})
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(words) + len(data)}\r\n{more}"
    return f"{head}Inference-Header-Content-Length: {len(words)}\r\n\r\n".encode() + words + data


LIBRARY = "Expect: 100-continue\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Caller:
    """A connection, and answers read off it one by one."""

    def __init__(self, address: str) -> None:
        host, port = address.split(":")
        self.channel = socket.create_connection((host, int(port)), timeout=20)
        self.rest = b""

    def answer(self) -> tuple[int, bytes, bytes]:
        """Status, head in small letters, body."""
        self.rest = self.rest.removeprefix(CONTINUE)
        while (at := self.rest.find(b"\r\n\r\n")) < 0 or len(self.rest) < at + 4 + self._length(at):
            part = self.channel.recv(1 << 16)
            assert part, f"closed after {self.rest[:200]!r}"
            self.rest += part
            self.rest = self.rest.removeprefix(CONTINUE)
        head, end = self.rest[:at].lower(), at + 4 + self._length(at)
        body, self.rest = self.rest[at + 4 : end], self.rest[end:]
        return int(head[9:12]), head, body

    def _length(self, at: int) -> int:
        found = re.search(rb"\r\ncontent-length: (\d+)", self.rest[:at].lower())
        return int(found[1]) if found else 0

    def is_right(self) -> bool:
        status, _, body = self.answer()
        return status == 200 and np.allclose(np.frombuffer(body[-4 * ROWS :], np.float32), DUE, rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def service(hoisted: Path) -> Iterator[Service]:
    with started(f"hoisted={hoisted}", "--read-timeout", "1.5") as running:
        yield running


@pytest.fixture
def caller(service: Service) -> Iterator[Caller]:
    made = Caller(service.http)
    yield made
    made.channel.close()


def test_pieces_of_any_size_make_one_request(caller: Caller) -> None:
    sent = message()
    for cut in (1, 30, 90, 400, 2_000, len(sent) - 1):
        caller.channel.sendall(sent[:cut])
        time.sleep(0.02)
        caller.channel.sendall(sent[cut:])
        assert caller.is_right()


def test_requests_at_once_are_answered_in_their_order(caller: Caller) -> None:
    sizes = [ROWS, 1, 40, ROWS, 3]
    caller.channel.sendall(b"".join(message(size, more="" if size != 40 else LIBRARY) for size in sizes))
    seen = [caller.answer() for _ in sizes]
    assert [status for status, *_ in seen] == [200] * 5
    shapes = [re.search(rb'"shape":\[(\d+)\]', body) for *_, body in seen]
    assert [int(shape[1]) for shape in shapes if shape] == sizes


def test_library_and_plain_requests_take_turns_on_one_connection(caller: Caller) -> None:
    for more in ("", LIBRARY, "", LIBRARY, ""):
        caller.channel.sendall(message(more=more))
        assert caller.is_right()
    caller.channel.sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n")
    assert caller.answer()[0] == 200
    caller.channel.sendall(message(path="/v2/models/none/infer"))
    status, _, body = caller.answer()
    assert status == 404
    assert b"'none' is not served here" in body
    caller.channel.sendall(message())
    assert caller.is_right()


def test_answer_has_what_http_asks_for(caller: Caller) -> None:
    caller.channel.sendall(message(more="X-Request-Id: Order 7\r\n"))
    status, head, _ = caller.answer()
    assert status == 200
    assert re.search(rb"\r\ndate: \w+, \d+ \w+ \d+ [\d:]+ gmt\r\n", head)
    assert b"\r\nx-request-id: order 7\r\n" in head
    assert b"\r\nserver-timing: queue;dur=" in head


def test_body_that_does_not_come_is_refused_in_time_and_the_connection_closed(service: Service, caller: Caller) -> None:
    caller.channel.sendall(message())
    assert caller.is_right()
    begun = time.monotonic()
    caller.channel.sendall(message()[:-1])
    status, head, body = caller.answer()
    assert (status, b"connection: close" in head) == (408, True)
    size = len(message()) - message().index(b"\r\n\r\n") - 4
    words = f"within 1.5 s (--read-timeout): {size - 1:,} bytes of the {size:,} that Content-Length says came"
    assert words.encode() in body
    assert 1.4 < time.monotonic() - begun < 5
    assert caller.channel.recv(1) == b""


def test_caller_that_goes_takes_nothing_with_it(service: Service) -> None:
    for cut in (10, 100, 5_000, None):
        gone = Caller(service.http)
        gone.channel.sendall(message()[:cut])
        gone.channel.close()
    stays = Caller(service.http)
    stays.channel.sendall(message())
    assert stays.is_right()
    stays.channel.close()


def test_caller_that_never_reads_is_not_read_for_ever(service: Service) -> None:
    """Its answers, 6 kB each, fill the buffers; then nothing more is taken from it, and others are served."""
    deaf = Caller(service.http)
    deaf.channel.setblocking(False)
    sent, data, end = 0, message() * 50, time.monotonic() + 10
    place = 0
    while time.monotonic() < end:
        try:
            count = deaf.channel.send(data[place : place + 65_536])
            sent, place = sent + count, (place + count) % len(data)
            stuck = time.monotonic()
        except BlockingIOError:
            if time.monotonic() - stuck > 1:
                break
            time.sleep(0.01)
    assert time.monotonic() < end, f"{sent:,} bytes were taken"
    other = Caller(service.http)
    other.channel.sendall(message())
    assert other.is_right()
    other.channel.close()
    deaf.channel.close()


def test_what_a_head_promises_and_does_not_send_takes_no_memory(service: Service) -> None:
    def resident() -> int:
        found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{service.workers()[0]}/status").read_text())
        assert found
        return int(found[1]) * 1024

    before = resident()
    head = b"POST /v2/models/hoisted/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 16000000\r\n\r\n{"
    liars = [Caller(service.http) for _ in range(100)]
    for one in liars:
        one.channel.sendall(head)
    time.sleep(0.3)
    assert resident() - before < 100e6
    assert [one.answer()[0] for one in liars] == [408] * 100
    for one in liars:
        one.channel.close()


def test_head_without_an_end_is_refused(caller: Caller) -> None:
    caller.channel.sendall(b"POST /v1/rank HTTP/1.1\r\nHost: x\r\n" + b"A: %s\r\n" % (b"a" * 1_000) * 80)
    status, head, body = caller.answer()
    assert (status, b"connection: close" in head) == (431, True)
    assert b"more than 65,536 bytes" in body


def test_long_bodies_are_no_heads(caller: Caller) -> None:
    for more in ("", LIBRARY):
        caller.channel.sendall(message(9_000, more=more))
        assert caller.answer()[0] == 200


def test_offer_of_another_protocol_loses_no_body(caller: Caller) -> None:
    """As Java's client sends it."""
    more = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAA\r\n"
    for _ in range(2):
        caller.channel.sendall(message(more=more))
        assert caller.is_right()


def test_thousands_refused_at_once_are_answered_one_by_one(hoisted: Path) -> None:
    with started(f"hoisted={hoisted}", "--queue", "1", "--max-wait-us", "300000") as running:
        first, many = Caller(running.http), Caller(running.http)
        first.channel.sendall(message())
        time.sleep(0.1)
        many.channel.sendall(b"".join([message(1, more="X-A:\x09b\r\nTE: x\r\n")] * 3_000))
        seen = {many.answer()[0] for _ in range(3_000)}
        assert 429 in seen
        assert seen <= {200, 429}
        assert first.is_right()


def test_stranger_is_refused_before_there_is_room_for_a_body(hoisted: Path, tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text("let-me-in-1234567890\n")
    with started(f"hoisted={hoisted}", "--token-file", tmp_path / "tokens") as running:
        caller = Caller(running.http)
        caller.channel.sendall(message()[:200])
        status, _, body = caller.answer()
        assert (status, b"A token is needed" in body) == (401, True)
        caller.channel.sendall(message()[200:] + message(more="Authorization: Bearer let-me-in-1234567890\r\n"))
        assert caller.is_right()


def test_end_answers_what_was_begun(hoisted: Path) -> None:
    with started(f"hoisted={hoisted}", "--drain", "0.5") as running:
        begun, idle = Caller(running.http), Caller(running.http)
        idle.channel.sendall(message())
        assert idle.is_right()
        sent = message()
        begun.channel.sendall(sent[:5_000])
        time.sleep(0.1)
        running.process.terminate()
        time.sleep(0.2)
        begun.channel.sendall(sent[5_000:])
        status, head, _ = begun.answer()
        assert (status, b"connection: close" in head) == (200, True)
        assert idle.channel.recv(1) == b""
        assert running.process.wait(20) == 0
