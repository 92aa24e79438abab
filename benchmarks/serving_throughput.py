"""Requests a second at a p99 of 20 ms: the compressed model, the same one uncompressed, and eager PyTorch in LitServe.

    python benchmarks/serving_limits.py throughput       # needs wrk (a package of Debian)

Real requests of 500 candidates, on all cores, which the load shares: `wrk`, a client in C. For each contender the
callers are added up, each asking again when it was answered, and the best rate whose p99 keeps the limit counts.
"""

import base64
import contextlib
import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson

import flyweight as fw
from flyweight.zoo.cache import cache_folder
from flyweight.zoo.tasks import ZOO
from serving_requests import TASK, Arrays, body_of, real_requests
from serving_running import running

LIMIT_MS, CANDIDATES, REQUESTS, SECONDS, ROUNDS = 20.0, 500, 16, 3, 2
CALLERS = (1, 2, 4, 8, 16, 24, 32, 48)
HERE = Path(__file__).parent
COMPRESSED = "complete-journey-10"
Json = dict[str, Any]
LUA = """
local folder, count, path = "%s", %d, "%s"
local made, at = {}, 0
function read(name)
  local file = io.open(folder .. "/" .. name, "rb")
  local all = file:read("*a")
  file:close()
  return all
end
function init(args)
  for i = 0, count - 1 do
    local headers = {["Content-Type"] = "%s"}
    local length = io.open(folder .. "/length" .. i, "rb")
    if length then headers["Inference-Header-Content-Length"] = length:read("*a"); length:close() end
    made[i] = wrk.format("POST", path, headers, read("body" .. i))
  end
end
function request() at = (at + 1) %% count; return made[at] end
function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format('JSON {"n": %%d, "seconds": %%f, "errors": %%d, "p50": %%f, "p95": %%f, "p99": %%f}\\n',
    summary.requests, summary.duration / 1e6, e.connect + e.read + e.write + e.status + e.timeout,
    latency:percentile(50) / 1e3, latency:percentile(95) / 1e3, latency:percentile(99) / 1e3))
end
"""


@dataclass(frozen=True)
class Contender:
    """What serves, and how.

    Args:
        name, group: of a row; the best of a group is compared.
        bundle: what is served; None for LitServe.
        options: of the server.
        most: callers that are tried.
    """

    name: str
    group: str
    bundle: Path | None
    options: tuple[object, ...]
    most: int = CALLERS[-1]


def contenders() -> list[Contender]:
    made = cache_folder() / "auto" / COMPRESSED / "model.fly"
    assert made.exists(), f"{made} is missing: python benchmarks/auto.py --case {COMPRESSED}"
    plain, rewritten = uncompressed(rewrite=False), uncompressed(rewrite=True)
    found = []
    for workers in (1, 2):
        found.append(Contender(f"uncompressed, {workers} workers", "uncompressed", plain, ("--workers", workers), 8))
    found.append(Contender("rewritten alone, 2 workers", "rewritten", rewritten, ("--workers", 2), 16))
    found.append(Contender("compressed, 2 workers", "compressed", made, ("--workers", 2)))
    lit = [(1, 2, 1), (2, 1, 1), (2, 1, 2)]
    return found + [
        Contender(
            f"LitServe, {workers} workers of {threads} threads, batches of {batch}", "eager", None,
            ("--workers", workers, "--threads", threads, "--batch", batch), 8,
        )
        for workers, threads, batch in lit
    ]  # fmt: skip


def uncompressed(*, rewrite: bool) -> Path:
    """The model exported in float32 as it is, or rewritten (each thing worked out once a request); made once."""
    path = cache_folder() / "serving" / f"{'rewritten' if rewrite else 'plain'}.fly"
    if not path.exists():
        fw.compress(ZOO[TASK](), steps=[], rewrite=rewrite).save(path)
    return path


def write_bodies(folder: Path) -> None:
    """Write each contender's requests where the load finds them."""
    for which in ("v2", "lit"):
        (folder / which).mkdir()
    for number, (asked, offered) in enumerate(real_requests([CANDIDATES] * REQUESTS)):
        body, length = body_of({**asked, **offered})
        (folder / "v2" / f"body{number}").write_bytes(body)
        (folder / "v2" / f"length{number}").write_text(str(length))
        (folder / "lit" / f"body{number}").write_bytes(orjson.dumps(_in_base64({**asked, **offered})))
    for which, path, kind in (
        ("v2", "/v2/models/ranker/infer", "application/octet-stream"),
        ("lit", "/predict", "application/json"),
    ):
        (folder / f"{which}.lua").write_text(LUA % (folder / which, REQUESTS, path, kind))


def _in_base64(arrays: Arrays) -> dict[str, str]:
    return {name: base64.b64encode(array.tobytes()).decode() for name, array in arrays.items()}


def throughput(folder: Path) -> Json:
    """Rates of every contender for every number of callers."""
    assert shutil.which("wrk"), "wrk is missing: apt-get install wrk"
    write_bodies(folder)
    ran = []
    for contender in contenders():
        with serving(contender) as address:
            which = "v2" if contender.bundle else "lit"
            check_scores(address, folder, contender)
            for callers in (one for one in CALLERS if one <= contender.most):
                ran += [_wrk(contender, address, folder / f"{which}.lua", callers) for _ in range(ROUNDS)]
                print(ran[-1], flush=True)
    return {"limit_ms": LIMIT_MS, "candidates": CANDIDATES, "rows": ran, "best": best_of(ran)}


@contextlib.contextmanager
def serving(contender: Contender) -> Iterator[str]:
    """The address of a contender that runs."""
    if contender.bundle is not None:
        with running(contender.bundle, *contender.options) as service:
            yield service.http
        return
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, str(HERE / "serving_litserve.py"), "--port", str(port), *map(str, contender.options)]
    process = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL)
    try:
        end = time.monotonic() + 120
        while time.monotonic() < end:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health") as answer:
                if answer.status == 200:
                    break
            time.sleep(0.2)
        yield f"127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def check_scores(address: str, folder: Path, contender: Contender) -> None:
    """Ask once: what is timed must give scores."""
    which = "v2" if contender.bundle else "lit"
    headers = {"Content-Type": "application/json"}
    if contender.bundle:
        headers["Inference-Header-Content-Length"] = (folder / which / "length0").read_text()
    path = "/v2/models/ranker/infer" if contender.bundle else "/predict"
    asked = urllib.request.Request(f"http://{address}{path}", (folder / which / "body0").read_bytes(), headers)
    with urllib.request.urlopen(asked, timeout=60) as answer:
        body = answer.read()
    raw = base64.b64decode(orjson.loads(body)["scores"]) if not contender.bundle else body[-4 * CANDIDATES :]
    scores = np.frombuffer(raw, np.float32)
    assert len(scores) == CANDIDATES, body[:200]
    assert np.isfinite(scores).all()


def _wrk(contender: Contender, address: str, script: Path, callers: int) -> Json:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = ["wrk", "-t1", f"-c{callers}", f"-d{SECONDS}s", "--timeout", "10s", "-s", str(script), f"http://{address}"]
    told = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    found = re.search(r"JSON (.*)", told)
    assert found, told
    row: Json = json.loads(found[1])
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {
        "name": contender.name,
        "group": contender.group,
        "callers": callers,
        "a_second": row["n"] / row["seconds"],
        "client_cpu_us": 1e6 * spent / max(row["n"], 1),
        **row,
    }


def best_of(ran: list[Json]) -> dict[str, Json]:
    """The best rate of each group that kept the limit, by the median of rounds."""
    found: dict[str, Json] = {}
    for name, callers in sorted({(row["name"], row["callers"]) for row in ran}):
        rounds = [row for row in ran if (row["name"], row["callers"]) == (name, callers)]
        keys = ("a_second", "p50", "p99", "client_cpu_us")
        middle = {key: float(np.median([row[key] for row in rounds])) for key in keys}
        group = rounds[0]["group"]
        good = middle["p99"] <= LIMIT_MS and not sum(row["errors"] for row in rounds)
        if good and middle["a_second"] > found.get(group, {"a_second": 0})["a_second"]:
            found[group] = {"name": name, "callers": callers, **middle}
    return found


NAMES = {
    "compressed": "the default ranker, compressed (drop of AUC <= 0.001)",
    "rewritten": "float32, rewritten and not compressed, same server",
    "uncompressed": "float32 as exported, same server",
    "eager": "eager PyTorch behind LitServe",
}


def throughput_table(found: Json) -> str:
    head = f"1 x {found['candidates']}, p99 <= {found['limit_ms']:.0f} ms"
    lines = [f"| {head} | callers | requests a second | p50 ms | p99 ms | ours is quicker by |"]
    lines.append("|---|---|---|---|---|---|")
    ours = found["best"]["compressed"]["a_second"]
    for group, name in NAMES.items():
        row = found["best"].get(group)
        if row is None:
            lines.append(f"| {name} | | none keeps the limit | | | |")
            continue
        times = "" if group == "compressed" else f"{ours / row['a_second']:.1f}x"
        cells = f"{row['callers']} | {row['a_second']:,.0f} | {row['p50']:.2f} | {row['p99']:.2f} | {times}"
        lines.append(f"| {name} ({row['name'].split(', ', 1)[1]}) | {cells} |")
    client = found["best"]["compressed"]["client_cpu_us"]
    note = f"The client (`wrk`) took {client:.0f} us of the same cores for each request of ours."
    return "\n".join([*lines, "", note, ""])
