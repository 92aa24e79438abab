"""What a request costs a worker beside the kernel: plain, with a header never seen, by the application, refused.

    python benchmarks/serving_way.py [BUNDLE]      # a minute on one core; writes JSON and the table in docs/serving.md

A worker's own connections in this process, with a transport that keeps what is written: what is timed is all that
happens between the bytes of a request and those of its answer, on the real event loop. 16 callers at once, real
requests of 100 to 700 candidates; the ways take turns, and every answer of the first turn is compared with the bundle's
scores.
"""

import asyncio
import gc
import json
import re
import sys
import time
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import uvicorn
import uvloop
from uvicorn.server import ServerState

import flyweight as fw
from flyweight.cost.hardware import describe_hardware
from flyweight.serving import layout
from flyweight.serving.access import Access
from flyweight.serving.answering import SHUT_SECONDS, Desk
from flyweight.serving.direct_infer import DirectInfer
from flyweight.serving.following import Follower
from flyweight.serving.http_connection import Connection
from flyweight.serving.http_guard import guarded
from flyweight.serving.http_protocol import PatientProtocol
from flyweight.serving.infer_route import first_infer
from flyweight.serving.repository import Repository
from flyweight.serving.rollout import begun_with
from flyweight.serving.security import Security
from flyweight.serving.settings import Settings, Source
from flyweight.serving.watching import start_watching
from flyweight.serving.watching_settings import Watching
from flyweight.zoo.cache import cache_folder
from page_section import put
from serving_requests import random_sizes, real_requests, wire_of

HERE = Path(__file__).parent
RESULTS, DOCS = HERE / "results" / "serving_way.json", HERE.parent / "docs" / "serving.md"
BUNDLE = cache_folder() / "auto" / "complete-journey-10" / "model.fly"
CALLERS, REQUESTS, TURNS, ROUNDS, TOLERANCE = 16, 160, 3, 15, 1e-3
#: Makes a head one that is not plain, and changes nothing else.
NOT_PLAIN = b"TE: trailers\r\n"
WAYS = {
    "seen": "plain, its header seen before",
    "new": "plain, its header never seen",
    "application": "not plain: by the HTTP library and the application",
    "refused": "plain, refused by its head",
    "refused late": "not plain, refused by its head",
}
Json = dict[str, Any]


class Written(asyncio.Transport):
    """Keeps the last answer, and counts them."""

    def __init__(self) -> None:
        super().__init__({"sockname": ("127.0.0.1", 1), "peername": ("127.0.0.1", 2)})
        self.answers, self.last = 0, b""

    def write(self, data: Any) -> None:
        if data.startswith(b"HTTP/1.1 "):
            self.answers, self.last = self.answers + 1, b""
        self.last += bytes(data)

    def is_closing(self) -> bool:
        return False

    def pause_reading(self) -> None:
        pass

    resume_reading = pause_reading


class Bench:
    """A worker's connections."""

    def __init__(self, desk: Desk) -> None:
        self.lane = next(iter(desk.repository.models["ranker"].versions.values())).lane
        self.limits, self.score, self.engine = self.lane.limits, self.lane._score, 0.0
        self.lane._score = self._timed
        access = Access(Security())
        app = guarded(first_infer(desk, _nothing_else), access, desk)
        direct = DirectInfer(desk, access)
        config = uvicorn.Config(app, http=PatientProtocol, lifespan="off", log_config=None, access_log=False)
        config.load()
        state = ServerState()
        self.callers = []
        for _ in range(CALLERS):
            library = PatientProtocol(config=config, server_state=state, app_state={})
            library.refuse_early = direct.refuse_by_path
            connection, written = Connection(library, direct, state.connections, 10.0, int), Written()
            connection.connection_made(written)
            self.callers.append((connection, written))

    def _timed(self, calls: Any) -> Any:
        begun = time.perf_counter()
        outcomes = self.score(calls)
        self.engine += time.perf_counter() - begun
        return outcomes

    async def ask(self, wires: list[bytes], way: str) -> list[bytes]:
        """Send requests, `CALLERS` at a time, and return their answers."""
        answers = []
        for place in range(0, len(wires), CALLERS):
            due = [written.answers + 1 for _, written in self.callers]
            for (connection, _), wire in zip(self.callers, wires[place : place + CALLERS], strict=True):
                if way == "new":
                    layout._kept.clear()
                self._receive(connection, wire)
            while [written.answers for _, written in self.callers] != due:
                await asyncio.sleep(0)
            await asyncio.sleep(0)  # the application sends a head and a body
            answers += [written.last for _, written in self.callers]
        return answers

    def _receive(self, connection: Connection, wire: bytes) -> None:
        place = 0
        while place < len(wire):
            room = connection.get_buffer(-1)
            part = wire[place : place + len(room)]
            room[: len(part)] = part
            connection.buffer_updated(len(part))
            place += len(part)


async def _nothing_else(*given: Any) -> None:
    raise AssertionError("only inference is asked for")


async def measure(bundle: Path) -> Json:
    """Microseconds of each way, by turns."""
    source = Source("ranker", str(bundle))
    repository = Repository(Settings((source,), threads=1))
    await Follower(repository).begin(begun_with(source), first=True)
    desk = Desk(repository)
    start_watching(desk, Watching())
    bench = Bench(desk)
    requests = real_requests(random_sizes(REQUESTS))
    plain = [wire_of({**asked, **offered}) for asked, offered in requests]
    other = [wire.replace(b"\r\n", b"\r\n" + NOT_PLAIN, 1) for wire in plain]
    await check(bench, bundle, requests, plain, other)
    gc.collect()
    gc.freeze()
    rows: dict[str, list[float]] = {way: [] for way in (*WAYS, "engine")}
    for _ in range(ROUNDS):
        for way in WAYS:
            bench.lane.limits = replace(bench.limits, queue=0) if "refused" in way else bench.limits
            sent, status = other if way in ("application", "refused late") else plain, 429 if "refused" in way else 200
            await asyncio.sleep(2 * SHUT_SECONDS)  # that a queue is full is known for a moment
            bench.engine, begun = 0.0, time.perf_counter()
            for _ in range(TURNS):
                answers = await bench.ask(sent, way)
                assert all(answer.startswith(b"HTTP/1.1 %d " % status) for answer in answers)
            each = 1e6 / (TURNS * len(sent))
            rows[way].append(each * (time.perf_counter() - begun))
            if way == "seen":
                rows["engine"].append(each * bench.engine)
    return {name: {"median": median(some), "least": min(some), "most": max(some)} for name, some in rows.items()}


async def check(bench: Bench, bundle: Path, requests: Any, plain: list[bytes], other: list[bytes]) -> None:
    """Compare the answers of all ways with the bundle's scores."""
    with fw.load(bundle, threads=1) as ranker:
        due = [ranker.score(asked, offered) for asked, offered in requests]
    for way, sent in (("seen", plain), ("new", plain), ("application", other)):
        for answer, scores in zip(await bench.ask(sent, way), due, strict=True):
            assert answer.startswith(b"HTTP/1.1 200 "), answer[:200]
            seen = np.frombuffer(answer[-scores.nbytes :], np.float32)
            assert np.abs(seen - scores).max() < TOLERANCE, way
    bench.lane.limits = replace(bench.limits, queue=0)
    for way, sent in (("refused", plain), ("refused late", other)):
        assert all(re.match(rb"HTTP/1.1 429 ", answer) for answer in await bench.ask(sent, way))


def render(found: Json) -> str:
    rows = found["microseconds"]
    lines = ["| a request | us of a worker, beside the kernel |", "|---|---|"]
    for way, name in {**WAYS, "engine": "of the first: in the engine, with checks and joining"}.items():
        row = rows[way]
        lines.append(f"| {name} | {row['median']:.1f} ({row['least']:.1f} to {row['most']:.1f}) |")
    hardware = found["hardware"]
    return "\n".join(lines) + (
        f"\n\n16 callers at once, 100 to 700 candidates, 25 inputs; median of {ROUNDS} rounds. {hardware['cpu']}, one "
        f"core; load average of other work when it began: {found['load_average']}."
    )


def main() -> None:
    load_average = Path("/proc/loadavg").read_text().split()[0]
    bundle = Path(sys.argv[1]) if len(sys.argv) > 1 else BUNDLE
    rows = uvloop.run(measure(bundle))
    found = {"microseconds": rows, "load_average": load_average, "hardware": describe_hardware()}
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    put(DOCS, "way", render(found))
    print(render(found))


if __name__ == "__main__":
    main()
