"""A Ray cluster of one or more nodes on this machine that nobody else finds, and the replicas in it."""

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
    """One node of a cluster: its process, where others join the cluster, and what lets them in."""

    process: "subprocess.Popen[bytes]"
    address: str
    secret: dict[str, str]

    def replicas(self) -> set[int]:
        """Return the numbers of the processes that serve here."""
        return {pid for pid in descendants(self.process.pid) if "ServeReplica" in title(pid)}

    def kill(self) -> None:
        """End all of the node at once, as when its machine fails."""
        for pid in {self.process.pid, *descendants(self.process.pid)}:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()


@contextmanager
def one_node(cores: int) -> Iterator[Node]:
    """Run a cluster until the block ends; nothing of it is left then."""
    with nodes(cores) as (node,):
        yield node


@contextmanager
def nodes(*cores: int) -> Iterator[list[Node]]:
    """Run a cluster of nodes with so many cores each, the head first; nothing of it is left when the block ends."""
    folder = Path(tempfile.mkdtemp(prefix="fw-ray-", dir="/tmp"))  # short: sockets lie in it
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    (folder / "token").write_text(secrets.token_hex(32))
    secret = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(folder / "token")}
    begun: list[Node] = []
    try:
        for number, count in enumerate(cores):
            address = f"127.0.0.1:{port}"
            head = ["--head", f"--port={port}", f"--temp-dir={folder}", "--include-dashboard=false"]
            place = head if not number else [f"--address={address}"]
            words = [*place, f"--node-ip-address=127.0.0.{1 + number}", f"--num-cpus={count}"]
            begun.append(Node(_process(words, folder / f"{number}.log", secret), address, secret))
            _wait_for_start(begun[-1], folder / f"{number}.log")
        yield begun
    finally:
        for node in reversed(begun):
            _end(node)
        shutil.rmtree(folder, ignore_errors=True)


def _process(words: list[str], log: Path, secret: dict[str, str]) -> "subprocess.Popen[bytes]":
    quiet = ["--object-store-memory=100000000", "--disable-usage-stats", "--include-log-monitor=false", "--block"]
    quiet_too = {"OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"}
    environment = {**os.environ, **secret, **quiet_too, "PYTHONPATH": str(SOURCE)}
    ray = [sys.executable, "-m", "ray.scripts.scripts", "start", *words, *quiet]
    with log.open("wb") as out:
        return subprocess.Popen(ray, env=environment, stdout=out, stderr=subprocess.STDOUT, start_new_session=True)


def _wait_for_start(node: Node, log: Path) -> None:
    wait_for(lambda: node.process.poll() is not None or "Ray runtime started" in log.read_text(), 60)
    assert node.process.poll() is None, log.read_text()


def _end(node: Node) -> None:
    left = descendants(node.process.pid)
    node.process.terminate()
    with suppress(subprocess.TimeoutExpired):
        node.process.wait(30)
    for pid in {node.process.pid, *left}:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    node.process.wait()


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
