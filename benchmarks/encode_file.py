"""A table coded from file to file: megabytes a second against the disk's own, memory and time against rows.

    python benchmarks/encode_file.py                    # 10^5, 10^6, 10^7 rows; results/encode_file.json, docs
    python benchmarks/encode_file.py --rows 100000000   # 20 GB, in the folder given by --folder

Rows of 50 float32 numbers whose size falls with their number as a power law does, generated block by block. Each run
is a process of its own, whose peak of resident memory the kernel tells. The disk's own speed: the same file read
through in blocks as large, with nothing done; for both, what the system holds of the file is dropped first.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from flyweight.cost.hardware import describe_hardware
from page_section import put

HERE = Path(__file__).parent
DIM, BLOCK, ROWS = 50, 1 << 16, (100_000, 1_000_000, 10_000_000)
RUN = """
import json, resource, sys, time
from pathlib import Path
import torch
torch.set_num_threads(1)
from flyweight.tables.coding import Coding
from flyweight.tables.encode_file import encode_file, fingerprint
from flyweight.tables.table_file import open_table
begun = time.perf_counter()
found = encode_file(open_table(Path(sys.argv[1])), Path(sys.argv[2]), Coding(), workers=int(sys.argv[3]))
taken = time.perf_counter() - begun
peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
print(json.dumps({"seconds": taken, "peak_mb": peak / 1024, "bytes": found.bytes, "sha256": fingerprint(found.folder)}))
"""
Json = dict[str, Any]


def generate(path: Path, rows: int) -> None:
    """Write a table."""
    drawn = np.random.default_rng(0)
    table = np.lib.format.open_memmap(path, "w+", np.float32, (rows, DIM))
    for start in range(0, rows, BLOCK):
        stop = min(start + BLOCK, rows)
        size = (1 + np.arange(start, stop, dtype=np.float32))[:, None] ** -0.2
        table[start:stop] = size * drawn.standard_normal((stop - start, DIM), dtype=np.float32)
    table.flush()


def forget(path: Path) -> None:
    """Drop what the system holds of a file in memory."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def read_through(path: Path) -> float:
    """Return the seconds that reading a file takes."""
    forget(path)
    buffer = bytearray(BLOCK * DIM * 4)
    begun = time.perf_counter()
    with path.open("rb", buffering=0) as file:
        while file.readinto(buffer):
            pass
    return time.perf_counter() - begun


def measure(folder: Path, rows: int) -> Json:
    """Return what one table takes."""
    path = folder / "table.npy"
    generate(path, rows)
    size = path.stat().st_size
    told: Json = {"rows": rows, "bytes": size, "read_seconds": read_through(path), "runs": {}}
    for workers in (1, 2):
        forget(path)
        words = [sys.executable, "-c", RUN, str(path), str(folder / f"coded-{workers}"), str(workers)]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        told["runs"][workers] = json.loads(done.stdout)
        print(rows, workers, told["runs"][workers], flush=True)
    path.unlink()
    assert len({run["sha256"] for run in told["runs"].values()}) == 1
    return told


def table(found: list[Json]) -> str:
    """Return the table for the page."""
    lines = [
        "| rows of 50 numbers | file | read through | 1 worker | 2 workers | peak memory of a process | codes |",
        "|---|---|---|---|---|---|---|",
    ]
    for one in found:
        megabytes = one["bytes"] / 1e6
        one_run, two = (one["runs"][key] for key in ("1", "2"))
        lines.append(
            f"| {one['rows']:,} | {megabytes:,.0f} MB | {megabytes / one['read_seconds']:,.0f} MB/s | "
            f"{one_run['seconds']:.1f} s, {megabytes / one_run['seconds']:,.0f} MB/s | "
            f"{two['seconds']:.1f} s, {megabytes / two['seconds']:,.0f} MB/s | "
            f"{one_run['peak_mb']:,.0f} MB, {two['peak_mb']:,.0f} MB | {one_run['bytes'] / 1e6:,.2f} MB |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, and write JSON and table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="*", default=list(ROWS))
    parser.add_argument("--folder", type=Path, help="where tables are generated; the system's otherwise")
    args = parser.parse_args()
    results = HERE / "results" / "encode_file.json"
    known = json.loads(results.read_text())["tables"] if results.exists() else []
    for rows in args.rows:
        with tempfile.TemporaryDirectory(prefix="flyweight-encode-", dir=args.folder) as folder:
            told = json.loads(json.dumps(measure(Path(folder), rows)))
        known = sorted([one for one in known if one["rows"] != rows] + [told], key=lambda one: int(one["rows"]))
        results.write_text(json.dumps({"tables": known, "hardware": describe_hardware()}, indent=1) + "\n")
    put(HERE.parent / "docs" / "tables.md", "encode_file", table(known))


if __name__ == "__main__":
    main()
