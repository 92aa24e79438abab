"""A Ray cluster of one node on this machine that nobody else finds, and the replicas in it."""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path(__file__).parents[2] / "src"


@dataclass
class Node:
    """A cluster's one node: its process, where others join it, and what lets them in."""

    process: "subprocess.Popen[bytes]"
    address: str
    secret: dict[str, str]

    def replicas(self) -> set[int]:
        """Return the numbers of the processes that serve."""
        return {pid for pid in descendants(self.process.pid) if "ServeReplica" in title(pid)}


@contextmanager
def one_node(cores: int) -> Iterator[Node]:
    """Run a cluster until the block ends; nothing of it is left then."""
    folder = Path(tempfile.mkdtemp(prefix="fw-ray-", dir="/tmp"))  # short: sockets lie in it
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    words = [f"--port={port}", f"--num-cpus={cores}", f"--temp-dir={folder}", "--object-store-memory=100000000"]
    quiet = ["--include-dashboard=false", "--disable-usage-stats", "--include-log-monitor=false"]
    (folder / "token").write_text(secrets.token_hex(32))
    secret = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(folder / "token")}
    quiet_too = {"OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"}
    environment = {**os.environ, **secret, **quiet_too, "PYTHONPATH": str(SOURCE)}
    with (folder / "head.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", *words, *quiet,
             "--node-ip-address=127.0.0.1"],
            env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    try:
        wait_for(lambda: process.poll() is not None or "Ray runtime started" in (folder / "head.log").read_text(), 60)
        yield Node(process, f"127.0.0.1:{port}", secret)
    finally:
        left = descendants(process.pid)
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(30)
        for pid in {process.pid, *left}:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def wait_for(there: Callable[[], bool], seconds: float) -> None:
    """Return as soon as something is so."""
    end = time.monotonic() + seconds
    while not there():
        assert time.monotonic() < end, f"not so after {seconds} s"
        time.sleep(0.05)


def descendants(pid: int) -> set[int]:
    """Return the processes that a process started, and those that they started."""
    found: set[int] = set()
    for thread in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            for child in map(int, thread.read_text().split()):
                found |= {child} | descendants(child)
    return found


def title(pid: int) -> str:
    """Return a process's words, "" where it has ended."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text()
    return ""
