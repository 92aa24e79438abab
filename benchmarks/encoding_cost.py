"""Time and memory of one `EncodeTables.apply`, in a process of its own: prints JSON.

python benchmarks/encoding_cost.py complete-journey
"""

import json
import sys
import time
from pathlib import Path

from flyweight.tables.encode_tables import EncodeTables
from flyweight.task.progress import shown_on
from flyweight.zoo.tasks import ZOO


class Stages:
    """Seconds of each stage, and the memory at its end."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.words, self.started = "", 0.0

    def begin(self, words: str, total: int | None, seconds: float | None) -> None:
        """Note the start."""
        self.words, self.started = words, time.perf_counter()

    def advance(self, units: int) -> None:
        """Nothing to note."""

    def end(self) -> None:
        """Note the end."""
        self.seconds[self.words] = round(time.perf_counter() - self.started, 2)


def memory(key: str) -> int:
    """Return a figure of /proc/self/status in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))


def main(name: str) -> None:
    """Encode the tables of a zoo task under a drop of 0.001."""
    task = ZOO[name]()
    task.scores("validation")  # what evaluating takes anyway is not counted against encoding
    Path("/proc/self/clear_refs").write_text("5")  # sets the high-water mark back to what is in use now
    before, stages, started = memory("VmRSS"), Stages(), time.perf_counter()
    with shown_on(stages):
        change = EncodeTables(max_drop=0.001).apply(task)
    tables = sum(done["bytes_before"] for done in change.done if done["what"] == "table")
    found = {
        "seconds": round(time.perf_counter() - started, 1),
        "stages": stages.seconds,
        "peak_bytes": memory("VmHWM") - before,
        "table_bytes": tables,
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1])
