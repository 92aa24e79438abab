"""`flyweight serve` in a process of its own, and requests of the tiny ranker to send to it."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import tiny_models

SOURCE = Path(__file__).parents[2] / "src"
COMMAND = [sys.executable, "-c", "from flyweight.cli.main import main; main()", "serve"]


@dataclass
class Service:
    """A service that runs.

    Args:
        process: the one above its workers.
        http, grpc: host and port.
        lines: what it has written so far.
    """

    process: subprocess.Popen[str]
    http: str = ""
    grpc: str = ""
    lines: list[str] = field(default_factory=list)

    def ask(self, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, Any, dict[str, str]]:
        """Return status, JSON and headers of an answer."""
        connection = HTTPConnection(self.http, timeout=20)
        try:
            connection.request(method, path, body or None, {key.replace("_", "-"): one for key, one in headers.items()})
            answer = connection.getresponse()
            text = answer.read()
            seen = {key.lower(): value for key, value in answer.getheaders()}
            return answer.status, orjson.loads(text) if "json" in seen.get("content-type", "") else text, seen
        finally:
            connection.close()

    def post(self, path: str, value: Any) -> tuple[int, Any]:
        """Return status and JSON of the answer to a JSON body."""
        return self.ask("POST", path, orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY))[:2]

    def workers(self) -> list[int]:
        """Return the workers' process numbers."""
        return children_of(self.process.pid)

    def wait_for(self, pattern: str, seconds: float = 30) -> re.Match[str]:
        """Return what a pattern finds in the output, as soon as it is there."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            found = re.search(pattern, "".join(self.lines))
            if found:
                return found
            time.sleep(0.02)
        raise AssertionError(f"{pattern!r} did not come within {seconds} s; seen:\n{''.join(self.lines)}")

    def read(self) -> None:
        """Collect the output until it ends."""
        assert self.process.stdout is not None
        self.lines.extend(iter(self.process.stdout.readline, ""))


def children_of(process: int) -> list[int]:
    """The numbers of the processes that one has started."""
    return [int(one) for one in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def _hear_hang_ups() -> None:
    """Undo what nohup may have told the tests' own process."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@contextmanager
def started(*arguments: object, fixed: bool = False, seconds: float = 30, **variables: str) -> Iterator[Service]:
    """Run a service until the block ends, at a free port unless its is fixed; nothing of it is left then."""
    environment = {**os.environ, "PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1", "COLUMNS": "200", **variables}
    process = subprocess.Popen(
        [*COMMAND, *map(str, arguments), *(() if fixed else ("--port", "0"))],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
        start_new_session=True,
        preexec_fn=_hear_hang_ups,
    )
    running = Service(process)
    reader = threading.Thread(target=running.read, daemon=True)
    reader.start()
    try:
        found = running.wait_for(r"Serving .* at https?://(\S+?)(?:, gRPC at (\S+))? with", seconds)
        running.http, running.grpc = found[1], found[2] or ""
        yield running
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        reader.join(5)


def request(n: int, user: int = 7, seed: int = 0) -> dict[str, np.ndarray[Any, Any]]:
    """Arrays of one user and n candidates, as the wire has them."""
    rng = np.random.default_rng(seed)
    return {
        "user_id": np.array([user]),
        "item_id": rng.integers(0, tiny_models.ITEMS, n),
        "price": rng.random(n).astype(np.float32),
    }


def scores_of(arrays: dict[str, np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
    """What plain NumPy scores a request with."""
    user = np.repeat(arrays["user_id"], len(arrays["item_id"]))
    return np.asarray(tiny_models.expected(user, arrays["item_id"], arrays["price"]))


NAMES = {"int64": "INT64", "int32": "INT32", "float32": "FP32", "float64": "FP64", "bool": "BOOL", "object": "BYTES"}


def body_of(arrays: dict[str, np.ndarray[Any, Any]]) -> dict[str, Any]:
    """The JSON body of a request."""
    inputs = [
        {"name": name, "shape": list(array.shape), "datatype": NAMES[str(array.dtype)], "data": array.tolist()}
        for name, array in arrays.items()
    ]
    return {"inputs": inputs}
