"""What Ray's proxy adds to a request: the same bundle behind `flyweight serve` and behind `flyweight serve --ray`.

    python benchmarks/serving_ray.py demo/ranker.fly    # two minutes; writes JSON and the table in docs/serving_ray.md

Both services and the load are processes of their own on one machine, over loopback. The two are measured in turns, so
that a slow spell of the machine meets both.
"""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flyweight.cost.hardware import describe_hardware, package_versions
from page_section import put
from serving import load, opened, quantiles, running, write_request

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "serving_ray.json"
DOCS = HERE.parent / "docs" / "serving_ray.md"
CANDIDATES, ROUNDS, CALLERS = 500, 5, (1, 4)
NAMES = {"plain": "`flyweight serve`, one worker", "ray": "`flyweight serve --ray`, one replica"}
Json = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path, nargs="?", default=HERE.parent / "demo" / "ranker.fly")
    bundle = parser.parse_args().bundle
    with tempfile.TemporaryDirectory() as folder:
        write_request(opened(bundle)[1], Path(folder))
        found = {
            "hardware": describe_hardware() | {"ray": package_versions(("ray",))},
            "load_average": os.getloadavg()[0],
            "candidates": CANDIDATES,
            "rows": measure(bundle, Path(folder)),
        }
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    put(DOCS, "overhead", table(found))
    print(table(found))


def measure(bundle: Path, folder: Path) -> list[Json]:
    """Milliseconds of a request, and requests a second, of both services by number of callers."""
    times: dict[tuple[str, int], list[float]] = {}
    seconds: dict[tuple[str, int], float] = {}
    with running(bundle) as (_, plain, _), replicated(bundle) as ray:
        for _ in range(ROUNDS):
            for callers in CALLERS:
                for name, address in (("plain", plain), ("ray", ray)):
                    told = load("http-binary", address, folder, callers)
                    times.setdefault((name, callers), []).extend(told["ms"])
                    seconds[name, callers] = seconds.get((name, callers), 0.0) + told["seconds"]
    return [
        {"service": name, "callers": callers, "a_second": len(ms) / seconds[name, callers], **quantiles(ms)}
        for (name, callers), ms in times.items()
    ]


@contextmanager
def replicated(bundle: Path) -> Iterator[str]:
    """The address of a service of one replica, on a cluster of its own."""
    command = [sys.executable, "-c", "from flyweight.cli.main import main; main()", "serve", f"ranker={bundle}"]
    command += ["--ray", "--port", "0", "--drain", "0"]
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    try:
        lines = iter(process.stdout.readline, "")
        yield next(found[1] for line in lines if (found := re.search(r"Serving .* at http://(\S+) with", line)))
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(120)


def table(found: Json) -> str:
    head = f"1 x {found['candidates']} candidates, HTTP, binary tensors"
    lines = [f"| {head} | callers | p50 ms | p95 | p99 | requests a second | requests |", "|---" * 7 + "|"]
    for row in sorted(found["rows"], key=lambda row: (row["callers"], row["service"])):
        cells = f"{row['p50']:.2f} | {row['p95']:.2f} | {row['p99']:.2f} | {row['a_second']:,.0f} | {row['n']:,}"
        lines.append(f"| {NAMES[row['service']]} | {row['callers']} | {cells} |")
    p50 = {row["service"]: row["p50"] for row in found["rows"] if row["callers"] == 1}
    hardware = found["hardware"]
    return "\n".join(lines) + (
        f"\n\nRay's proxy and its way to a replica add {p50['ray'] - p50['plain']:.1f} ms to one caller's request "
        f"(p50). {hardware['cpu']}, {hardware['cores']} cores, Ray {hardware['ray']['ray']}, loopback; the load runs "
        f"on the same cores, where {found['load_average']:.1f} other processes were running when it began."
    )


if __name__ == "__main__":
    main()
