"""A service in a process of its own, for benchmarks; the processors, memory and processes of it."""

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Service:
    """A service that runs.

    Args:
        process: the one above its workers.
        http: host:port.
        log: what it has written.
    """

    process: subprocess.Popen[str]
    http: str
    log: list[str] = field(default_factory=list)

    def workers(self) -> list[int]:
        """The workers' process numbers."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [int(child) for child in children.split()]

    def pss(self) -> int:
        """Bytes of all its processes, shared pages in parts."""
        return sum(pss_of(process) for process in (self.process.pid, *self.workers()))


def pss_of(process: int) -> int:
    """Bytes of a process, shared pages in parts."""
    text = Path(f"/proc/{process}/smaps_rollup").read_text()
    return 1024 * sum(int(size) for size in re.findall(r"^Pss:\s+(\d+)", text, re.M))


@contextmanager
def running(
    bundle: Path, *options: object, cores: str = "", environment: dict[str, str] | None = None, log: str = ""
) -> Iterator[Service]:
    """Serve a bundle as `ranker` until the block ends.

    Args:
        cores: that it may use, as taskset has them; all where empty.
        log: a file for what it logs; kept in memory where empty.
    """
    command = ["taskset", "-c", cores] if cores else []
    command += [sys.executable, "-c", "from flyweight.cli.main import main; main()", "serve", f"ranker={bundle}"]
    command += ["--port", "0", "--drain", "0", *map(str, options)]
    with open(log or os.devnull, "w") as errors:
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=errors if log else subprocess.STDOUT,
            text=True,
            env={**os.environ, "COLUMNS": "200", **(environment or {})},
        )
    assert process.stdout is not None
    service = Service(process, "")
    try:
        for line in process.stdout:
            service.log.append(line)
            found = re.search(r"http://(\S+?)(?:,.*)? with", line)
            if found:
                service.http = found[1]
                break
        assert service.http, "".join(service.log)
        threading.Thread(target=lambda: service.log.extend(process.stdout or ()), daemon=True).start()
        yield service
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
