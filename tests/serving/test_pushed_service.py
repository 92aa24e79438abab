"""A real service that is pushed: more than it can answer, callers that drip, workers killed, versions swapped."""

import os
import re
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from hostile_bodies import Sender, Sent, binary
from running_service import SOURCE, Service, request, scores_of, started
from version_bundles import version_bundle

ROWS = 3_000  # a body of 36 kB, which comes in several pieces
ARRAYS = request(ROWS)
DUE = scores_of(ARRAYS)


def sent() -> Sent:
    header, data = binary(ARRAYS)
    words = orjson.dumps({**header, "parameters": {"binary_data_output": True}})
    return Sent(words + data, "good", {"inference-header-content-length": str(len(words))})


def in_threads(count: int, work: Callable[[], None]) -> list[threading.Thread]:
    threads = [threading.Thread(target=work) for _ in range(count)]
    for one in threads:
        one.start()
    return threads


def scores_in(body: bytes) -> tuple[str, np.ndarray[Any, Any]]:
    """The version that answered, and its scores."""
    found = re.search(rb'"model_version":"(\w+)"', body)
    assert found
    return found[1].decode(), np.frombuffer(body[-4 * ROWS :], np.float32)


def test_what_a_full_queue_refuses_is_passed_over_and_the_rest_answered(hoisted: Path) -> None:
    seen: Counter[int] = Counter()
    with started(hoisted, "--queue", "2", "--max-wait-us", "5000", "--max-batch-requests", "4") as service:

        def ask() -> None:
            sender = Sender(service.http)
            for _ in range(25):
                (status, body), *more = sender.ask(sent())
                assert not more
                seen[status] += 1
                if status == 200:
                    np.testing.assert_allclose(scores_in(body)[1], DUE, rtol=1e-4, atol=1e-5)
                else:
                    assert status == 429
                    assert orjson.loads(body)["error"].startswith("Too busy: 2 requests wait already, of at most 2")
            assert sender.opened == 1
            sender.close()

        for one in in_threads(12, ask):
            one.join()
        assert service.ask("GET", "/v2/health/ready")[0] == 200
    assert sum(seen.values()) == 12 * 25
    assert min(seen[200], seen[429]) > 5


def test_callers_that_drip_hold_nobody_up(hoisted: Path) -> None:
    with started(hoisted, "--read-timeout", "0.5") as service:
        host, port = service.http.split(":")
        slow = [socket.create_connection((host, int(port)), timeout=10) for _ in range(50)]
        over, sender = time.monotonic() + 1.2, Sender(service.http)
        head = iter(b"POST /v2/models/ranker/infer HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 1000)
        while time.monotonic() < over:
            byte = bytes([next(head)])
            for one in slow:
                try:
                    one.send(byte)
                except ConnectionError:
                    continue
            ((status, body),) = sender.ask(sent())
            assert status == 200
            np.testing.assert_allclose(scores_in(body)[1], DUE, rtol=1e-4, atol=1e-5)
            time.sleep(0.02)
        sender.close()
        for one in slow:
            answer = b""
            try:
                while part := one.recv(4096):
                    answer += part
            except ConnectionError:  # it went on after it was told
                pass
            assert not answer or answer.startswith(b"HTTP/1.1 408")
            one.close()


class Callers:
    """Threads that ask until told to stop, and ask again where a connection breaks."""

    def __init__(self, service: Service, due: dict[int, np.ndarray[Any, Any]]) -> None:
        self.service, self.due = service, due
        self.over = threading.Event()
        self.broken = self.answered = 0
        self.wrong: list[str] = []
        self.versions: set[str] = set()
        self.threads = in_threads(4, self.ask)

    def ask(self) -> None:
        sender = Sender(self.service.http)
        while not self.over.is_set():
            try:
                answers = sender.ask(sent())
            except ConnectionError:
                answers = []
                sender.close()
            if not answers:
                self.broken += 1
                continue
            status, body = answers[0]
            if status != 200:
                self.wrong.append(f"{status} {body!r}")
                continue
            version, scores = scores_in(body)
            self.answered += 1
            self.versions.add(version)
            if not np.allclose(scores, self.due[int(version) % len(self.due)], rtol=1e-4, atol=1e-5):
                self.wrong.append(version)
        sender.close()

    def stop(self) -> None:
        self.over.set()
        for one in self.threads:
            one.join()


def test_killed_workers_lose_only_what_they_were_answering(hoisted: Path) -> None:
    with started(hoisted, "--workers", "2") as service:
        callers = Callers(service, {0: DUE})
        for _ in range(2):
            before = service.workers()
            os.kill(before[0], signal.SIGKILL)
            end = time.monotonic() + 20
            while len(service.workers()) < 2 or before[0] in service.workers():
                assert time.monotonic() < end
                time.sleep(0.05)
            time.sleep(0.5)
        callers.stop()
    assert not callers.wrong
    assert callers.answered > 50
    assert callers.broken <= 2 * len(callers.threads)


def test_swapped_versions_answer_with_their_own_scores(tmp_path: Path) -> None:
    bundles = [version_bundle(tmp_path / f"ranker-{factor}.fly", factor) for factor in (1.0, -2.0)]
    with started(f"ranker={bundles[0]}", "--workers", "2") as service:
        callers = Callers(service, {1: DUE, 0: -2 * DUE})
        for swap in range(1, 9):
            status, answer = service.post("/v1/admin/models/ranker/versions", {"path": str(bundles[swap % 2])})
            assert status == 200, answer
        callers.stop()
    assert not callers.wrong
    assert not callers.broken
    assert len(callers.versions) > 1


SKEW = """
import random, time
true = time.time
time.time = lambda: true() + random.uniform(-86400, 86400)
"""


def test_jumping_clock_changes_no_score_and_no_deadline(
    hoisted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text(SKEW)
    monkeypatch.setattr("running_service.SOURCE", os.pathsep.join((str(tmp_path), str(SOURCE))))
    with started(hoisted, "--deadline-ms", "500") as service:
        sender = Sender(service.http)
        for _ in range(50):
            ((status, body),) = sender.ask(sent())
            assert status == 200
            np.testing.assert_allclose(scores_in(body)[1], DUE, rtol=1e-4, atol=1e-5)
        sender.close()
