"""What counting, logging, tracing and checking tokens add to a request, in microseconds of the worker's own thread.

    python benchmarks/serving_watching.py BUNDLE       # a minute on one core; writes JSON and the docs

Each part is called as the service calls it, with a request of 500 candidates scored by the bundle, many times in
turns with the others; the time of an empty call is taken off. Spans go to an address where nobody listens.
"""

import json
import logging
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np

from flyweight.bundle.load import load
from flyweight.cost.hardware import describe_hardware
from flyweight.serving.access import Access, Origin
from flyweight.serving.answering import Answered
from flyweight.serving.call import takes_of
from flyweight.serving.caller import caller_of
from flyweight.serving.metering import Metering
from flyweight.serving.repository import Repository
from flyweight.serving.request_log import JsonFormatter, RequestLog
from flyweight.serving.scoring import score_call
from flyweight.serving.security import Security
from flyweight.serving.served import Opened, serve_opened
from flyweight.serving.settings import Settings, Source
from flyweight.serving.tracing import Tracing
from flyweight.serving.vocabulary import Vocabularies
from flyweight.serving.warming import Warmth, sample_call
from page_section import put

HERE = Path(__file__).parent
RESULTS, DOCS = HERE / "results" / "serving_watching.json", HERE.parent / "docs" / "serving_operations.md"
CANDIDATES, CALLS, ROUNDS, GOAL_US = 500, 500, 60, 30.0
TOKEN = "benchmark-" + "t" * 30


def answered(path: str) -> Answered:
    """Return a request as it stands when it was answered."""
    ranker = load(path, threads=1)
    takes = takes_of("ranker", ranker, 10_000, Vocabularies())
    opened = Opened(Source("ranker", path), ranker, takes, Warmth(CANDIDATES, 0.001, 1))
    scores = score_call(ranker, sample_call(ranker, takes, CANDIDATES))
    served = serve_opened(opened, Settings((opened.source,)))
    times = (1e-4, 2e-4, 5e-4, 1e-3)
    return Answered("http", "ranker", "1", "order-7", "", CANDIDATES, "", *times, 1, served, scores=scores)


def parts(told: Answered, folder: Path) -> dict[str, Callable[[], object]]:
    """Return each part as a call of nothing."""
    (folder / "tokens").write_text("".join(f"{TOKEN}{n}\n" for n in range(3)))
    logger = logging.getLogger("flyweight.serving.requests")
    handler = logging.StreamHandler((folder / "log").open("w"))
    handler.setFormatter(JsonFormatter("worker"))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    assert told.served is not None
    metering = Metering(Repository(Settings((told.served.opened.source,))))
    every, sampled, tracing = RequestLog(1.0), RequestLog(0.01), Tracing()
    access = Access(Security(str(folder / "tokens")))
    origin = Origin("127.0.0.1", f"Bearer {TOKEN}2")
    headers = {b"content-length": b"123", b"host": b"localhost"}
    return {
        "nothing": lambda: None,
        "metrics": lambda: metering.note(told),
        "a name for the request": lambda: caller_of(headers).named(),
        "a token of three": lambda: access.check_use(origin),
        "a log line for 1 % (`--access-log 0.01`)": lambda: sampled.note(told),
        "a log line for each (`--access-log 1`)": lambda: every.note(told),
        "three spans (`--telemetry`)": lambda: tracing.note(told),
    }


def measure(calls: dict[str, Callable[[], object]]) -> dict[str, list[float]]:
    """Return microseconds of one call, a mean for each round, the parts in turns."""
    found: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(ROUNDS):
        for name, call in calls.items():
            started = time.perf_counter()
            for _ in range(CALLS):
                call()
            found[name].append((time.perf_counter() - started) / CALLS * 1e6)
    return found


def render(result: dict[str, object]) -> str:
    """Return the table of the page."""
    lines = ["| on a request's way | microseconds, median | slowest tenth of rounds |", "|---|---|---|"]
    rows: dict[str, dict[str, float]] = result["microseconds"]  # type: ignore[assignment]
    lines += [f"| {name} | {one['median']:.1f} | {one['p90']:.1f} |" for name, one in rows.items()]
    machine: dict[str, object] = result["hardware"]  # type: ignore[assignment]
    words = f"{CANDIDATES} candidates, {ROUNDS} rounds of {CALLS} calls in turns, {machine['cpu']}; {result['beside']}."
    return "\n".join([*lines, "", words])


def main() -> None:
    """Measure, and write the numbers and the page's table."""
    with tempfile.TemporaryDirectory() as folder:
        found = measure(parts(answered(sys.argv[1]), Path(folder)))
    nothing = median(found.pop("nothing"))
    rows = {
        name: {"median": median(times) - nothing, "p90": float(np.quantile(times, 0.9)) - nothing}
        for name, times in found.items()
    }
    load_average = Path("/proc/loadavg").read_text().split()[0]
    result = {
        "microseconds": rows,
        "goal_us": GOAL_US,
        "met": rows["metrics"]["median"] < GOAL_US,
        "beside": f"other work ran beside it, load average {load_average}",
        "hardware": describe_hardware(),
    }
    RESULTS.write_text(json.dumps(result, indent=1) + "\n")
    put(DOCS, "watching", render(result))
    print(render(result))


if __name__ == "__main__":
    main()
