"""A table coded from file to file: megabytes a second against the disk's own, memory and time against rows.

    python benchmarks/encode_file.py                    # 10^5, 10^6, 10^7 rows; results/encode_file.json, docs
    python benchmarks/encode_file.py --rows 100000000   # 20 GB, in the folder given by --folder

Rows of 50 float32 numbers, used as a power law says: the first most often, and the more a row is used the larger it
is. They are generated block by block, each from a place of its own in a pool of 2^24 normal numbers (drawing all anew
takes minutes), with a file of how often each is used. Each run is a process of its own, whose
peak of resident memory the kernel tells (of two workers: of the process that waits and of both together).

The disk's own speed: the same file read through once in blocks of 4 MB with nothing done, by one thread and by two.
Before each reading and each run the file is written out (fsync) and dropped from the system's cache
(posix_fadvise DONTNEED); what a host of a virtual disk keeps is out of reach. Medians of RUNS runs in turns.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from encode_file_picture import draw
from flyweight.cost.hardware import describe_hardware
from page_section import put

HERE = Path(__file__).parent
DIM, BLOCK, ROWS, RUNS = 50, 1 << 16, (100_000, 1_000_000, 10_000_000), 3
PIECE = 4 << 20
RUN = """
import json, resource, sys, time
from pathlib import Path
import torch
torch.set_num_threads(1)
from flyweight.tables.coding import Coding
from flyweight.tables.encode_file import encode_file, fingerprint
from flyweight.tables.table_file import open_table
table, weights = (open_table(Path(sys.argv[1], name)) for name in ("table.npy", "uses.npy"))
workers = int(sys.argv[3])
before, begun = time.process_time(), time.perf_counter()
found = encode_file(table, Path(sys.argv[2]), Coding(), weights=weights, workers=workers)
taken = time.perf_counter() - begun
whole = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
own, one = (use.ru_maxrss / 1024 for use in whole)
told = {"seconds": taken, "peak_mb": own + workers * one, "bytes": found.bytes}
told["cpu_seconds"] = sum(use.ru_utime + use.ru_stime for use in whole) - before
print(json.dumps({**told, "sha256": fingerprint(found.folder)}))
"""
Json = dict[str, Any]


def generate(folder: Path, rows: int) -> None:
    """Write a table, and how often each of its rows is used."""
    drawn = np.random.default_rng(0)
    pool = drawn.standard_normal(1 << 24, dtype=np.float32)
    with (folder / "table.npy").open("wb") as table, (folder / "uses.npy").open("wb") as uses:
        for file, width in ((table, DIM), (uses, 1)):
            head = {"descr": "<f4", "fortran_order": False, "shape": (rows, width)}
            np.lib.format.write_array_header_1_0(file, head)
        for start in range(0, rows, BLOCK):
            place = 1 + np.arange(start, min(start + BLOCK, rows), dtype=np.float32)[:, None]
            first = drawn.integers(len(pool) - len(place) * DIM)
            (pool[first : first + len(place) * DIM].reshape(-1, DIM) * place**-0.2).tofile(table)
            (rows / place**1.05).astype(np.float32).tofile(uses)


def forget(path: Path) -> None:
    """Drop what the system holds of a file in memory."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def read_through(path: Path, threads: int = 1) -> float:
    """Return the seconds that reading a file takes, in as many pieces at once as there are threads."""
    forget(path)
    share = -(-path.stat().st_size // threads)

    def read(first: int) -> None:
        buffer = memoryview(bytearray(PIECE))
        with path.open("rb", buffering=0) as file:
            file.seek(first)
            while file.tell() < first + share and file.readinto(buffer):
                pass

    begun = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(read, range(0, share * threads, share)))
    return time.perf_counter() - begun


def encode(folder: Path, workers: int, turn: int) -> Json:
    """Return what coding the folder's table takes."""
    forget(folder / "table.npy")
    words = [sys.executable, "-c", RUN, str(folder), str(folder / f"coded-{workers}-{turn}"), str(workers)]
    found: Json = json.loads(subprocess.run(words, capture_output=True, text=True, check=True).stdout)
    return found


def measure(folder: Path, rows: int) -> Json:
    """Return what one table takes."""
    generate(folder, rows)
    path = folder / "table.npy"
    reads: dict[int, list[float]] = {1: [], 2: []}
    runs: dict[int, list[Json]] = {1: [], 2: []}
    for turn in range(RUNS):
        for many in (1, 2):
            reads[many].append(read_through(path, many))
            runs[many].append(encode(folder, many, turn) | {"load": os.getloadavg()[0]})
            print(f"{rows:,} rows, {many}: read {reads[many][-1]:.2f} s, {runs[many][-1]}", flush=True)
    size = path.stat().st_size
    path.unlink()
    assert len({run["sha256"] for each in runs.values() for run in each}) == 1
    middle: Callable[[int, str], float] = lambda many, key: median(run[key] for run in runs[many])  # noqa: E731
    return {
        "rows": rows,
        "bytes": size,
        "codes": runs[1][0]["bytes"],
        "read_seconds": {many: median(taken) for many, taken in reads.items()},
        "seconds": {many: middle(many, "seconds") for many in runs},
        "cpu_seconds": {many: middle(many, "cpu_seconds") for many in runs},
        "load": {many: middle(many, "load") for many in runs},
        "peak_mb": {many: max(run["peak_mb"] for run in each) for many, each in runs.items()},
        "all_seconds": {many: [run["seconds"] for run in each] for many, each in runs.items()},
        "all_read_seconds": reads,
    }


def table(found: list[Json]) -> str:
    """Return the table for the page."""
    lines = [
        "| rows of 50 numbers | file | disk, 1 reader | 1 worker | of a core | disk, 2 readers | 2 workers | "
        "of a core | peak memory, 1 and 2 | codes |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for one in found:
        megabytes = one["bytes"] / 1e6
        cells = [f"{one['rows']:,}", f"{megabytes:,.0f} MB"]
        for many in ("1", "2"):
            read, taken = one["read_seconds"][many], one["seconds"][many]
            cells.append(f"{megabytes / read:,.0f} MB/s")
            cells.append(f"{taken:.1f} s, {megabytes / taken:,.0f} MB/s, {read / taken:.0%} of the disk")
            cells.append(f"{megabytes / one['cpu_seconds'][many]:,.0f} MB/s")
        cells.append(f"{one['peak_mb']['1']:,.0f} MB, {one['peak_mb']['2']:,.0f} MB")
        cells.append(f"{one['codes'] / 1e6:,.2f} MB")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _runs(found: list[Json]) -> str:
    """Return in words how often each table was coded."""
    counts = sorted({len(one["all_seconds"]["1"]) for one in found})
    return f"{counts[0]} to {counts[-1]} runs" if len(counts) > 1 else f"{counts[0]} runs"


def _load(found: list[Json]) -> str:
    """Return in words how busy the machine was: processes that wanted a core, ours among them."""
    loads = [load for one in found for load in one["load"].values()]
    return f"{min(loads):.0f} to {max(loads):.0f} while this ran"


def body(found: list[Json], hardware: Json) -> str:
    """Return the section for the page."""
    made = f"{hardware['cpu']}, {hardware['cores']} cores, torch {hardware['packages']['torch']}"
    return (
        f"{table(found)}\n![time and memory against rows](figures/encode_file.svg)\n\n"
        f"Made by `benchmarks/encode_file.py` on {made}: medians of {_runs(found)} in turns, the file dropped from the "
        "system's cache before each; disk: the same file read through with nothing done. Of a core: megabytes for each "
        "second of processor time, the learning of codewords and the start of processes included, which other work on "
        f"the machine does not change much (its load was {_load(found)}). Peak memory of 2 workers is that of all "
        "three processes."
    )


def main() -> None:
    """Measure, and write JSON and table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="*", default=list(ROWS), help="none: page and picture alone")
    parser.add_argument("--folder", type=Path, help="where tables are generated; the system's otherwise")
    args = parser.parse_args()
    results = HERE / "results" / "encode_file.json"
    known = json.loads(results.read_text())["tables"] if results.exists() else []
    for rows in args.rows:
        with tempfile.TemporaryDirectory(prefix="flyweight-encode-", dir=args.folder) as folder:
            told = json.loads(json.dumps(measure(Path(folder), rows)))
        known = sorted([one for one in known if one["rows"] != rows] + [told], key=lambda one: int(one["rows"]))
        results.write_text(json.dumps({"tables": known, "hardware": describe_hardware()}, indent=1) + "\n")
    draw(known, HERE.parent / "docs" / "figures" / "encode_file.svg")
    put(HERE.parent / "docs" / "tables.md", "encode_file", body(known, describe_hardware()))


if __name__ == "__main__":
    main()
