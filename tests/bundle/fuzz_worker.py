"""One process of the fuzz: reads spoilt bundles under a memory limit and says what came of each kind.

    python fuzz_worker.py FOLDER SEED COUNT [--engine SHARE]

FOLDER holds sound bundles. The last line of output is a JSON record; a mutation that ends in anything but a BundleError
or a sound read ends the process with its number, so that it can be run again.
"""

import argparse
import json
import os
import random
import resource
import shutil
import sys
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import mutations
import numpy as np

from flyweight.bundle.load import load
from flyweight.bundle.read import read_bundle
from flyweight.errors import BundleError, EngineError, InputError

LIMIT = 6 * 2**30
RAW = {how.__name__ for how in mutations.RAW}


def spoil(base: mutations.Files, rng: random.Random) -> tuple[str, mutations.Files]:
    """Return the kind of mutation and the spoilt files; a third keeps the old hashes."""
    table = mutations.RAW if rng.random() < 0.3 else mutations.DEEP
    how = rng.choice(table)
    return how.__name__, how(base, rng)


def put(folder: Path, files: mutations.Files, before: mutations.Files) -> None:
    """Make the folder hold exactly `files`, touching only what differs from `before`."""
    for name in before.keys() - files.keys():
        (folder / name).unlink()
    for name, data in files.items():
        if before.get(name) is not data:
            (folder / name).write_bytes(data)


def start(path: Path) -> str:
    """Load a bundle that reads as sound, score three rows, and say what came of it."""
    try:
        with load(path, engine="onnxruntime", threads=1) as ranker:
            inputs = {
                name: np.zeros([3, *[size or 2 for size in spec.shape]], dtype=spec.dtype)
                for name, spec in ranker.manifest.inputs.items()
            }
            ranker.predict(inputs)
    except (EngineError, InputError) as error:
        return f"engine refused ({type(error).__name__})"
    return "scored"


def peak_bytes() -> int:
    """Return the most memory this process held; the usage of Linux's `getrusage` begins with that of its parent."""
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return next(int(line.split()[1]) * 1024 for line in status.read_text().splitlines() if line.startswith("VmHWM"))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("seed", type=int)
    parser.add_argument("count", type=int)
    parser.add_argument("--engine", type=float, default=0.0)
    given = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (LIMIT, LIMIT))
    warnings.simplefilter("ignore")
    bases = [{f.name: f.read_bytes() for f in path.iterdir()} for path in sorted(given.folder.glob("*.fly"))]
    work = given.folder / f"work_{given.seed}" / "spoilt.fly"
    seen: Counter[str] = Counter()
    slowest = 0.0
    before: mutations.Files = {}
    work.mkdir(parents=True)
    at = given.folder / f"at_{given.seed}"
    for number in range(given.count):
        rng = random.Random(f"{given.seed}-{number}")
        at.write_text(str(number))
        kind, files = spoil(rng.choice(bases), rng)
        put(work, files, before)
        before = files
        linked = rng.random() < 0.01
        if linked:
            mutations.link(work, rng)
        began = time.process_time()
        try:
            read_bundle(work)
        except BundleError as error:
            if "\n" in str(error) or len(str(error)) > 2000:
                raise AssertionError(f"mutation {number} ({kind}) gave no line but {error!r}") from error
            seen["refused"] += 1
            seen[f"refused {kind}"] += 1
        else:
            if linked or (kind in RAW and files not in bases):
                raise AssertionError(f"mutation {number} ({kind}, linked: {linked}) was read as sound")
            seen["read"] += 1
            seen[f"read {kind}"] += 1
            if rng.random() < given.engine:
                seen[start(work)] += 1
        slowest = max(slowest, time.process_time() - began)
        if linked:
            shutil.rmtree(work)
            work.mkdir()
            before = {}
    record: dict[str, Any] = {"seen": dict(seen), "slowest_s": slowest, "peak_bytes": peak_bytes()}
    sys.stdout.write(json.dumps(record) + "\n")
    os._exit(0)


if __name__ == "__main__":
    main()
