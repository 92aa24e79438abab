"""What a shadow costs the version that answers: p50 and p99 at 30% of capacity, without one and with one, in turns.

    python benchmarks/serving_shadow.py       # under two minutes on two cores; writes JSON and the docs

Requests of 100 to 700 candidates come whatever the answers (`serving_client.py`), every score is compared. The service,
one worker, has one core and the load the other: the shadow takes its time from the answers' own core, which is the
worst that may be. The shadow is the same ranker in another compressed form, as a version would be that is to follow.
"""

import json
import tempfile
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np

from flyweight.cost.hardware import describe_hardware
from page_section import put
from serving_faults import BUNDLES
from serving_requests import random_sizes, real_requests, write_requests
from serving_running import Service, running
from serving_steady import REQUESTS, SERVICE_CORE, ask

HERE = Path(__file__).parent
RESULTS, DOCS = HERE / "results" / "serving_shadow.json", HERE.parent / "docs" / "serving_versions.md"
LOAD, CAPACITY_SECONDS, SECONDS, ROUNDS = 0.3, 5, 4, 5
WAYS: dict[str, float] = {"no shadow": 0.0, "of 10% of the requests": 10.0, "of all": 100.0}
MODEL = "/v1/admin/models/ranker"
Json = dict[str, Any]


def tell(service: Service, method: str, path: str, value: Json | None = None) -> Json:
    """Ask an admin route."""
    data = None if value is None else json.dumps(value).encode()
    request = urllib.request.Request(f"http://{service.http}{MODEL}{path}", data, method=method)
    with urllib.request.urlopen(request, timeout=60) as answer:
        found: Json = json.loads(answer.read())
    return found


def measure(folder: Path) -> Json:
    """Every way in turns, on one running service."""
    rows: dict[str, list[Any]] = {way: [] for way in WAYS}
    told: dict[str, Json] = {way: {"compared": 0, "shed": 0, "failed": 0, "wrong": 0, "errors": 0} for way in WAYS}
    with running(BUNDLES[0], cores=SERVICE_CORE) as service:
        tell(service, "POST", "/versions", {"path": str(BUNDLES[1]), "activate": False})
        ask(service.http, folder, 2)
        capacity = ask(service.http, folder, CAPACITY_SECONDS)["a_second"]
        for _ in range(ROUNDS):
            for way, percent in WAYS.items():
                if percent:
                    tell(service, "PUT", "/shadow", {"version": "2", "percent": percent})
                found = ask(service.http, folder, SECONDS, rate=LOAD * capacity, connections=256)
                told[way]["wrong"] += found["wrong"]
                told[way]["errors"] += found["sent"] - found["statuses"].get("200", 0)
                rows[way].append(np.load(folder / "answers.npz")["rows"])
                if percent:
                    drift = tell(service, "GET", "/drift")
                    for name in ("compared", "shed", "failed"):
                        told[way][name] += drift[name]
                    tell(service, "DELETE", "/shadow")
    ways = {way: {**told[way], **quantiles(rows[way])} for way in WAYS}
    return {"capacity": capacity, "load": LOAD, "ways": ways}


def quantiles(rounds: list[Any]) -> Json:
    """Of all rounds together, and the p99 of each: from the moment a request was due, in ms."""
    times = [1e3 * (rows[:, 2] - rows[:, 0])[rows[:, 3] == 200] for rows in rounds]
    p50, p99 = np.percentile(np.concatenate(times), (50, 99)).tolist()
    each = [float(np.percentile(one, 99)) for one in times]
    return {"requests": sum(map(len, times)), "p50": p50, "p99": p99, "p99_of_rounds": each}


def render(result: Json) -> str:
    """Return the table of the page."""
    lines = ["| shadow | p50 ms | p99 ms | p99 of the rounds | requests | compared | shed |", "|---|" + 6 * "---|"]
    for way, row in result["ways"].items():
        each = row["p99_of_rounds"]
        lines.append(
            f"| {way} | {row['p50']:.2f} | {row['p99']:.2f} | {min(each):.2f} to {max(each):.2f} | {row['requests']:,} "
            f"| {row['compared']:,} | {row['shed']:,} |"
        )
    wrong, errors = (sum(row[name] for row in result["ways"].values()) for name in ("wrong", "errors"))
    machine, load = result["hardware"], f"{100 * result['load']:.0f}% of {result['capacity']:,.0f} requests a second"
    return "\n".join(lines) + (
        f"\n\n{load}, {ROUNDS} rounds of {SECONDS} s in turns; {wrong:,} wrong scores, {errors:,} errors. "
        f"{machine['cpu']}, a core for the service and one for the load; load average of other work when it began: "
        f"{result['load_average']:.1f}.\n"
    )


def main() -> None:
    """Measure, and write the numbers and the page's table."""
    load_average = float(Path("/proc/loadavg").read_text().split()[0])
    with tempfile.TemporaryDirectory() as folder:
        write_requests(Path(folder), real_requests(random_sizes(REQUESTS)), BUNDLES[:1])
        found = measure(Path(folder))
    result = {**found, "load_average": load_average, "hardware": describe_hardware()}
    RESULTS.write_text(json.dumps(result, indent=1) + "\n")
    put(DOCS, "shadow", render(result))
    print(render(result))


if __name__ == "__main__":
    main()
