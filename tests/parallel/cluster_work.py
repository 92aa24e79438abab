"""What tests have the workers of a cluster do, and a cluster of two nodes on this machine."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def square(number: int) -> int:
    return number * number


def late(number: int) -> int:
    """Take the longer, the earlier."""
    time.sleep(0.2 if number == 0 else 0.0)
    return number


def throws(number: int) -> int:
    raise ValueError(f"no work for {number}")


def dies_once(folder: Path, number: int) -> int:
    """Be killed at the first try of number 3, in the middle of the work."""
    mark = folder / "killed"
    if number == 3 and not mark.exists():
        mark.write_text(str(os.getpid()))
        os.kill(os.getpid(), signal.SIGKILL)
    return number * number


def dies(number: int) -> int:
    """Be killed at every try of number 1."""
    if number == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


@contextmanager
def two_nodes() -> Iterator[tuple[int, int]]:
    """Run a Ray cluster of two nodes with a core each, found by nobody else; yield its port and that of its clients."""
    folder = Path(tempfile.mkdtemp(prefix="fw-ray-", dir="/tmp"))  # short: sockets lie in it
    begun: list[subprocess.Popen[bytes]] = []
    try:
        port, clients = free_port(), free_port()
        head = ["--head", f"--port={port}", f"--ray-client-server-port={clients}", "--include-dashboard=false"]
        begun.append(_node([*head, f"--temp-dir={folder}"], folder / "head.log"))
        _wait(lambda: _answers(port), begun)
        begun.append(_node([f"--address=127.0.0.1:{port}"], folder / "node.log"))
        yield port, clients
    finally:
        for process in begun:
            process.terminate()
        for process in begun:
            process.wait(30)
        for left in _of(folder):
            os.kill(left, signal.SIGKILL)
        shutil.rmtree(folder, ignore_errors=True)


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _node(words: list[str], log: Path) -> "subprocess.Popen[bytes]":
    same = ["--num-cpus=1", "--object-store-memory=100000000", "--disable-usage-stats", "--include-log-monitor=false"]
    own = ["--node-ip-address=127.0.0.1", "--block"]
    path = os.pathsep.join(one for one in sys.path if one)
    env = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    with log.open("wb") as out:
        ray = [sys.executable, "-m", "ray.scripts.scripts", "start", *words, *same, *own]
        return subprocess.Popen(ray, env=env, stdout=out, stderr=subprocess.STDOUT, start_new_session=True)


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def _wait(until: "object", begun: "list[subprocess.Popen[bytes]]") -> None:
    end = time.monotonic() + 60
    while not until():  # type: ignore[operator]
        assert time.monotonic() < end
        assert begun[0].poll() is None
        time.sleep(0.05)


def _of(folder: Path) -> list[int]:
    """Return the processes of the cluster in a folder: each has it among its words."""
    found = []
    for one in Path("/proc").iterdir():
        if one.name.isdigit():
            try:
                words = (one / "cmdline").read_bytes()
            except OSError:  # it has just ended
                continue
            if str(folder).encode() in words:
                found.append(int(one.name))
    return found
