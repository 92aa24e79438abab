"""Servers of shards for tests: in threads of this process, or in processes that can be killed."""

import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from flyweight.serving.shard_server import ShardServer


@contextmanager
def served(*folders: Path) -> Iterator[list[str]]:
    """Serve shards in threads and yield their addresses."""
    with ExitStack() as stack:
        addresses = []
        for folder in folders:
            server = stack.enter_context(ShardServer(folder))
            thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
            thread.start()
            stack.callback(thread.join)
            stack.callback(server.end_links)
            stack.callback(server.shutdown)
            addresses.append(server.address)
        yield addresses


def shards_of(path: Path, count: int) -> list[Path]:
    return [path / f"shard-{number}" for number in range(count)]


class ServerProcess:
    """`flyweight serve-shard` in a process of its own, as a user starts it."""

    def __init__(self, folder: Path, port: int = 0) -> None:
        code = "from flyweight.cli.main import main; main()"
        words = [sys.executable, "-c", code, "serve-shard", str(folder), "--port", str(port)]
        self.process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.said = self._first_line()
        self.address = self.said.rsplit(" ", 1)[-1].strip()
        self.port = int(self.address.rsplit(":", 1)[-1])

    def _first_line(self) -> str:
        assert self.process.stdout is not None
        seen = ""
        for line in self.process.stdout:
            seen += line
            if re.search(r"on [\d.]+:\d+$", line.strip()):
                return line
        raise AssertionError(f"the server ended: {seen}")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()
