"""A service under load while things go wrong: every score is checked, every request that was sent is accounted for.

    python benchmarks/serving_limits.py faults

Two workers, 100 to 700 candidates at random, requests that come whatever the answers. Swaps change between two bundles
with other scores, and an answer must have those of the version that it names. A killed worker takes with it what it was
answering: the client sees its connection break, sends the request again, as any client must, and counts how often.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flyweight.zoo.cache import cache_folder
from serving_requests import random_sizes, real_requests, write_requests
from serving_running import Service, running

HERE = Path(__file__).parent
BUNDLES = [cache_folder() / "auto" / name / "model.fly" for name in ("complete-journey-10", "complete-journey-30")]
REQUESTS, RATE, SWAPS, KILLS, CONNECTIONS, SLOW_SECONDS = 100, 300.0, 100, 20, 1000, 12
#: Makes `time.time` jump by up to a day, either way, at each call, in every process of the service.
SKEW = """
import os, random, time
open(__file__ + str(os.getpid()), "w").close()
true = time.time
time.time = lambda: true() + random.uniform(-86400, 86400)
"""
Json = dict[str, Any]


@contextmanager
def under_load(service: Service, folder: Path, seconds: float) -> Iterator[Json]:
    """Send requests while the block runs, for at least its length; what became of them is in the yielded dict after."""
    command = [sys.executable, str(HERE / "serving_client.py"), service.http, str(folder), "--seconds", str(seconds)]
    client = subprocess.Popen([*command, "--rate", str(RATE)], stdout=subprocess.PIPE)
    found: Json = {}
    try:
        time.sleep(1.5)
        begin = time.monotonic()
        yield found
        found["block_seconds"] = time.monotonic() - begin
    finally:
        told = client.communicate()[0]
    assert client.returncode == 0
    found.update(json.loads(told))


def post(service: Service, path: str, value: Json) -> Json:
    """Ask the service to change something."""
    asked = urllib.request.Request(f"http://{service.http}{path}", json.dumps(value).encode())
    with urllib.request.urlopen(asked, timeout=60) as answer:
        found: Json = json.loads(answer.read())
    return found


def swaps(folder: Path) -> Json:
    """Load the other bundle as the next version, again and again."""
    write_requests(folder, _requests(), BUNDLES)
    with running(BUNDLES[0], "--workers", 2, "--keep", 0) as service:
        times: list[float] = []
        seconds = 0.45 * SWAPS
        with under_load(service, folder, seconds) as found:
            end = time.monotonic() + seconds - 4
            while len(times) < SWAPS and time.monotonic() < end:
                begin, path = time.monotonic(), BUNDLES[(len(times) + 1) % 2]
                post(service, "/v1/admin/models/ranker/versions", {"path": str(path)})
                times.append(time.monotonic() - begin)
    return {"done": len(times), "swap_seconds": sorted(times)[len(times) // 2], **found}


def kills(folder: Path) -> Json:
    """Kill one of the workers again and again."""
    write_requests(folder, _requests(), BUNDLES[:1])
    with running(BUNDLES[0], "--workers", 2) as service:
        count = 0
        with under_load(service, folder, 2.6 * KILLS + 6) as found:
            end = time.monotonic() + 2.6 * KILLS
            while count < KILLS and time.monotonic() < end:
                workers = service.workers()
                if len(workers) == 2 and _ready(service):
                    os.kill(workers[count % 2], signal.SIGKILL)
                    count += 1
                time.sleep(1.2)
    return {"done": count, **found}


def _ready(service: Service) -> bool:
    url = f"http://{service.http}/v2/health/ready"
    with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5) as answer:
        return bool(answer.status == 200)
    return False


def full_disk(folder: Path) -> Json:
    """Keep versions on a disk that is full, and log to one: changes are refused in words, requests are answered."""
    write_requests(folder, _requests(), BUNDLES)
    state = folder / "state"
    state.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(state)], check=True)
    try:
        words, log = "", "/dev/full"
        with running(BUNDLES[0], "--workers", 2, "--state", state, log=log) as service:
            with contextlib.suppress(OSError), open(state / "filler", "wb") as filler:
                while True:
                    filler.write(bytes(1024))
                    filler.flush()
            with under_load(service, folder, 15) as found:
                try:
                    post(service, "/v1/admin/models/ranker/versions", {"path": str(BUNDLES[1])})
                except urllib.error.HTTPError as error:
                    words = json.loads(error.read())["error"]
                os.kill(service.workers()[0], signal.SIGKILL)  # its end is logged, to where nothing can be written
                time.sleep(5)
                (state / "filler").unlink()
                post(service, "/v1/admin/models/ranker/versions", {"path": str(BUNDLES[1])})
    finally:
        subprocess.run(["umount", str(state)], check=True)
    return {"done": int("space" in words), **found, "refused_change": words.replace(str(folder), "FOLDER")}


def clock(folder: Path) -> Json:
    """Let the wall clock jump by up to a day at each look."""
    write_requests(folder, _requests(), BUNDLES[:1])
    (folder / "skew").mkdir()
    (folder / "skew" / "sitecustomize.py").write_text(SKEW)
    paths = os.pathsep.join(filter(None, (str(folder / "skew"), os.environ.get("PYTHONPATH"))))
    with (
        running(BUNDLES[0], "--workers", 2, environment={"PYTHONPATH": paths}) as service,
        under_load(service, folder, 12) as found,
    ):
        seen = len([*(folder / "skew").glob("sitecustomize.py?*")])
        assert seen >= 3, "the service and its two workers must have such a clock"
    return {"done": 1, **found}


def slow_loris(folder: Path) -> Json:
    """Hold connections that say a byte now and then."""
    write_requests(folder, _requests(), BUNDLES[:1])
    with running(BUNDLES[0], "--workers", 2, "--read-timeout", 5) as service:
        before, ended, held = service.pss(), threading.Event(), [0, 0]
        thread = threading.Thread(target=_drip, args=(service.http, ended, held))
        thread.start()
        time.sleep(2)
        with under_load(service, folder, SLOW_SECONDS) as found:
            during = service.pss()
        ended.set()
        thread.join()
        time.sleep(2)
        after = service.pss()
    return {"done": held[0], "timed_out": held[1], "pss": [before, during, after], **found}


def _drip(address: str, ended: threading.Event, held: list[int]) -> None:
    """Hold a number of connections, each a byte a second; those that the service closes are opened again."""
    host, port = address.split(":")
    open_: list[socket.socket] = []
    message = b"POST /v2/models/ranker/infer HTTP/1.1\r\nHost: x\r\nX-Slow: " + b"a" * 1000
    places: dict[socket.socket, int] = {}
    while not ended.is_set():
        while len(open_) < CONNECTIONS:
            one = socket.create_connection((host, int(port)))
            open_.append(one)
            places[one] = 0
        held[0] = max(held[0], len(open_))
        for one in list(open_):
            try:
                one.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    if not one.recv(4096):
                        raise ConnectionError
                    held[1] += 1
                one.send(message[places[one] : places[one] + 1])
                places[one] += 1
            except OSError:
                open_.remove(one)
                del places[one]
                one.close()
        ended.wait(1)
    for one in open_:
        one.close()


def _requests() -> list[Any]:
    return real_requests(random_sizes(REQUESTS))


FAULTS: dict[str, Callable[[Path], Json]] = {
    "hot swaps": swaps,
    "workers killed": kills,
    "full disk": full_disk,
    "wall clock that jumps": clock,
    "slow-loris connections": slow_loris,
}


def faults(only: list[str]) -> Json:
    """Every fault by itself."""
    found = {}
    for name in only or FAULTS:
        with tempfile.TemporaryDirectory() as folder:
            found[name] = FAULTS[name](Path(folder))
        print(name, json.dumps(found[name]), flush=True)
    return found


def faults_table(found: Json) -> str:
    heads = "| | times | requests | wrong scores | without an answer | connection broke, sent again | p50 ms | p99 ms |"
    lines = [heads, "|---|---|---|---|---|---|---|---|"]
    for name, row in found.items():
        bad = row["sent"] - row["statuses"].get("200", 0)
        ms = row["good_ms"]
        cells = f"{row['done']:,} | {row['sent']:,} | {row['wrong']} | {bad} | {row['sent_again']}"
        lines.append(f"| {name} | {cells} | {ms['p50']:.2f} | {ms['p99']:.2f} |")
    return "\n".join(lines)
