"""Time and memory of one `EncodeTables.apply`, in a process of its own: prints JSON.

python benchmarks/encoding_cost.py complete-journey

Memory is the process's own (RssAnon), read every few milliseconds: pages of the data set's files, which the system maps
while they are read and takes back when it likes, are not counted.
"""

import gc
import json
import sys
import threading
import time
from pathlib import Path

from flyweight.tables.encode_tables import EncodeTables
from flyweight.task.progress import shown_on
from flyweight.zoo.tasks import ZOO


def anonymous_bytes() -> int:
    """Return the memory in use that is no file's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


class Meter(threading.Thread):
    """Watches the highest memory since it was last asked."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.high = 0

    def run(self) -> None:
        """Read every 3 ms."""
        while True:
            self.high = max(self.high, anonymous_bytes())
            time.sleep(0.003)

    def take(self) -> int:
        """Return the highest since the last call."""
        high, self.high = max(self.high, anonymous_bytes()), 0
        return high


class Stages:
    """Seconds of each stage, and the highest memory in it."""

    def __init__(self, meter: Meter) -> None:
        self.seconds: dict[str, float] = {}
        self.high: dict[str, int] = {}
        self.meter, self.words, self.started = meter, "", 0.0

    def begin(self, words: str, total: int | None, seconds: float | None) -> None:
        """Note the start, and the memory until then."""
        self.high[f"before {words}"] = self.meter.take()
        self.words, self.started = words, time.perf_counter()

    def advance(self, units: int) -> None:
        """Nothing to note."""

    def end(self) -> None:
        """Note the end."""
        self.high[self.words] = self.meter.take()
        self.seconds[self.words] = round(time.perf_counter() - self.started, 2)


def main(name: str) -> None:
    """Encode the tables of a zoo task under a drop of 0.001."""
    task = ZOO[name]()
    task.scores("validation")  # loads what is loaded on first use
    gc.collect()
    meter = Meter()
    meter.start()
    idle = anonymous_bytes()
    task.scores("validation")
    evaluation = meter.take() - idle
    stages, started = Stages(meter), time.perf_counter()
    with shown_on(stages):
        change = EncodeTables(max_drop=0.001).apply(task)
    found = {
        "seconds": round(time.perf_counter() - started, 1),
        "stages": stages.seconds,
        "peak_bytes": max(*stages.high.values(), meter.take()) - idle,
        "peak_by_stage": {words: high - idle for words, high in stages.high.items()},
        "evaluation_peak_bytes": evaluation,
        "table_bytes": sum(done["bytes_before"] for done in change.done if done["what"] == "table"),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1])
