"""What a service keeps when it is pushed: throughput at a p99, minutes of load, overload, faults, hostile requests.

    python benchmarks/serving_limits.py throughput steady overload overload_heavy faults hostile
    python benchmarks/serving_limits.py --tables           # the docs' tables again from the results

Each part is described in a file of its own, `serving_PART.py`, writes results/serving_PART.json and its table in
docs/serving_limits.md. All take about 27 minutes.
"""

import argparse
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import serving_faults
import serving_hostile
import serving_steady
import serving_throughput
from flyweight.cost.hardware import describe_hardware
from page_section import put

HERE = Path(__file__).parent
DOCS = HERE.parent / "docs" / "serving_limits.md"
Json = dict[str, Any]
PARTS: dict[str, tuple[Callable[[Path], Json], Callable[[Json], str]]] = {
    "throughput": (serving_throughput.throughput, serving_throughput.throughput_table),
    "steady": (serving_steady.steady, serving_steady.steady_table),
    "overload": (serving_steady.overload, serving_steady.overload_table),
    "overload_heavy": (serving_steady.overload_heavy, serving_steady.overload_table),
    "faults": (lambda folder: serving_faults.faults([]), serving_faults.faults_table),
    "hostile": (lambda folder: serving_hostile.hostile_requests(), serving_hostile.hostile_table),
}


def result(part: str) -> Path:
    return HERE / "results" / f"serving_{part}.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []])
    parser.add_argument("--tables", action="store_true", help="write the tables and measure nothing")
    given = parser.parse_args()
    for part in given.parts:
        before = os.getloadavg()[0]
        with tempfile.TemporaryDirectory() as folder:
            found = PARTS[part][0](Path(folder))
        found = {"hardware": describe_hardware(), "load_average": before, "found": found}
        result(part).write_text(json.dumps(found, indent=1) + "\n")
    for part in PARTS if given.tables else given.parts:
        if result(part).exists():
            write_table(part, json.loads(result(part).read_text()))


def write_table(part: str, told: Json) -> None:
    hardware, table = told["hardware"], PARTS[part][1](told["found"])
    note = f"\n{hardware['cpu']}, {hardware['cores']} cores, loopback; "
    note += f"load average of other work when it began: {told['load_average']:.1f}.\n"
    put(DOCS, part, f"{table.rstrip()}\n{note}")
    print(table)


if __name__ == "__main__":
    main()
