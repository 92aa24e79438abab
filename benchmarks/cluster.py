"""Coding and evaluating with 1 and 2 workers, local processes and Ray; from unit costs, what 10 to 1,000 would do.

    python benchmarks/cluster.py             # measure: results/cluster.json, then the page
    python benchmarks/cluster.py --page      # docs/scaling.md and its figure from the JSON alone

The Ray cluster has two nodes with a core each, both on this machine. Every run must give the same bytes, or the same
scores. Runs of all kinds take turns; the median of three is told. Unit costs of coding are a core's own seconds.
"""

import argparse
import json
import os
import resource
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import flyweight as fw
from cluster_page import write_page
from flyweight.cost.hardware import describe_hardware
from flyweight.parallel.cluster.find import find_cluster
from flyweight.parallel.cluster.ray_tasks import RayTasks
from flyweight.planning.artefact import Artefact, artefact_scores, make_artefact
from flyweight.planning.requests import sample_requests
from flyweight.planning.sharded_scores import sharded_scores
from flyweight.tables import encode_file as coding_module
from flyweight.tables.coding import Coding
from flyweight.tables.encode_file import PART_ROWS, encode_file, fingerprint
from flyweight.tables.table_file import open_table
from flyweight.task.processes import Processes
from flyweight.task.runner import Here, Runner, in_order

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "cluster.json"
#: The table that runs are timed on, and those whose unit cost is taken, columns and type: 1 TB each at 10^10 rows.
PARTS, DIM, KINDS, TURNS = 40, 25, ((25, "float32"), (50, "float16")), 3
CODING = Coding(bits=4)
#: Rows of the split that is evaluated.
ROWS, BATCH = 4_000_000, 4_096
Json = dict[str, Any]


class Ranker(nn.Module):
    """Two embeddings and a perceptron wide enough that scoring takes longer than sending."""

    def __init__(self) -> None:
        super().__init__()
        self.user, self.item = nn.Embedding(10_000, 32), nn.Embedding(100_000, 32)
        self.mlp = nn.Sequential(nn.Linear(64, 512), nn.ReLU(), nn.Linear(512, 256), nn.ReLU(), nn.Linear(256, 1))

    def forward(self, user: Tensor, item: Tensor) -> Tensor:
        return self.mlp(torch.cat([self.user(user), self.item(item)], 1)).squeeze(1)


def generate(path: Path, rows: int, dim: int, kind: str) -> None:
    """Write a table whose rows get smaller with their number as a power law does."""
    drawn = np.random.default_rng(0)
    table = np.lib.format.open_memmap(path, "w+", np.dtype(kind), (rows, dim))
    for start in range(0, rows, 1 << 16):
        stop = min(start + (1 << 16), rows)
        size = (1 + np.arange(start, stop, dtype=np.float32))[:, None] ** -0.2
        table[start:stop] = size * drawn.standard_normal((stop - start, dim), dtype=np.float32)
    table.flush()


def taken(work: Callable[[], Any], clock: Callable[[], float] = time.perf_counter) -> tuple[float, Any]:
    """Return the seconds that work takes, and what it gave."""
    begun = clock()
    found = work()
    return clock() - begun, found


def spent(work: Callable[[], Any]) -> tuple[float, Any]:
    """Return the seconds that a core works for it, whatever else the machine does, and what it gave."""
    return taken(work, time.process_time)


@contextmanager
def runners() -> Iterator[dict[str, Runner]]:
    """Yield every way of running, begun once where it can be."""
    sys.path.append(str(HERE.parent / "tests" / "parallel"))
    from cluster_work import two_nodes

    with two_nodes() as (port, _), find_cluster(f"127.0.0.1:{port}") as found:
        assert isinstance(found, RayTasks)
        import ray

        while sum(node["Alive"] for node in ray.nodes()) < 2:
            time.sleep(0.1)
        yield {
            "1 process": Here(),
            "2 processes": Processes(2),
            "Ray, 1 worker": RayTasks(1, found.address),
            "Ray, 2 workers": RayTasks(2, found.address),
        }


def in_turns(works: dict[str, Callable[[], Any]], same: Callable[[Any], Any]) -> dict[str, list[float]]:
    """Return the seconds of each, taken in turns; all must give the same."""
    found: dict[str, list[float]] = {name: [] for name in works}
    seen = set()
    for _ in range(TURNS):
        for name, work in works.items():
            seconds, made = taken(work)
            found[name].append(seconds)
            seen.add(same(made))
            print(name, f"{seconds:.2f} s", flush=True)
    assert len(seen) == 1
    return found


def coding(folder: Path, ways: dict[str, Runner]) -> Json:
    """Time a table's coding, the start of processes included."""
    path = folder / "table.npy"
    generate(path, PARTS * PART_ROWS, DIM, "float32")
    table = open_table(path)

    def run(runner: Runner) -> str:
        shutil.rmtree(folder / "coded", ignore_errors=True)
        return fingerprint(encode_file(table, folder / "coded", CODING, runner=runner).folder)

    run(ways["Ray, 2 workers"])  # its workers have loaded what they need, as in a long run
    seconds = in_turns({name: partial(run, runner) for name, runner in ways.items()}, str)
    return {"rows": table.rows, "dim": DIM, "bytes": table.rows * table.row_bytes, "seconds": seconds}


def evaluating(folder: Path, ways: dict[str, Runner]) -> Json:
    """Time the scoring of a split, shard by shard."""
    drawn = torch.Generator().manual_seed(0)
    columns = {
        "user": torch.randint(10_000, (ROWS,), generator=drawn),
        "item": torch.randint(100_000, (ROWS,), generator=drawn),
    }
    target = torch.randint(2, (ROWS,), generator=drawn).float()
    split = [
        ({name: value[at : at + BATCH] for name, value in columns.items()}, target[at : at + BATCH])
        for at in range(0, ROWS, BATCH)
    ]
    torch.manual_seed(0)
    inputs = {"user": fw.Field(role="request", rows=10_000), "item": fw.Field(role="candidate", rows=100_000)}
    task = fw.Task(Ranker().eval(), inputs, split[:2], split, split, metric="auc")
    artefact = make_artefact(task.model, sample_requests(task), 64, folder)
    works = {name: partial(_scored, task, artefact, runner) for name, runner in ways.items()}
    _scored(task, artefact, ways["Ray, 2 workers"])
    seconds = in_turns(works, lambda scores: hash(scores.tobytes()))
    return {"rows": ROWS, "seconds": seconds}


def _scored(task: fw.Task, artefact: Artefact, runner: Runner) -> Any:
    if isinstance(runner, Here):  # as it is without a cluster
        from flyweight.engines.registry import find_engine

        return artefact_scores(task, find_engine("onnxruntime").prepare(artefact.exported.path, 1), "test").outputs
    return sharded_scores(task, artefact, "onnxruntime", 1, "test", runner).outputs


def unit_costs(folder: Path, ways: dict[str, Runner]) -> Json:
    """Return what one part, one task and one start cost."""
    kinds = []
    for dim, kind in KINDS:
        path = folder / f"{kind}.npy"
        generate(path, 2 * PART_ROWS, dim, kind)
        table = open_table(path)
        learning, _ = spent(lambda table=table, kind=kind: encode_file(table, folder / kind, CODING))
        codebook = torch.from_numpy(np.load(folder / kind / "codebook.npy"))
        both = [range(0, PART_ROWS), range(PART_ROWS, 2 * PART_ROWS)] * TURNS
        reading = [spent(lambda part=part, table=table: _read(table, part))[0] for part in both]
        whole, sent = [], 0
        for part in both:
            seconds, codes = spent(
                lambda part=part, table=table, codebook=codebook: coding_module._part_sent(
                    table, CODING, codebook, part
                )
            )
            whole.append(seconds)
            sent = len(codes)
        part_seconds, read_seconds = statistics.median(whole), statistics.median(reading)
        kinds.append(
            {
                "dim": dim,
                "dtype": kind,
                "row_bytes": table.row_bytes,
                "rows": PART_ROWS,
                "code_seconds": part_seconds - read_seconds,
                "read_seconds_cached": read_seconds,
                "code_bytes": sent,
                "learning_seconds": learning - 2 * part_seconds,
            }
        )
        path.unlink()
    writes = [taken(lambda: coding_module._write_whole(folder / "part", bytes(sent)))[0] for _ in both]
    empty = 2_000
    many, _ = taken(lambda: list(in_order(ways["Ray, 2 workers"], abs, range(empty))))
    peak = in_order(ways["Ray, 1 worker"], _peak, [0])
    return {
        "kinds": kinds,
        "task_seconds": many / empty,
        "write_seconds": statistics.median(writes),
        "worker_peak_bytes": next(peak),
        "sample_rows": coding_module.SAMPLE_ROWS,
    }


def _read(table: Any, part: range) -> None:
    for at in range(part.start, part.stop, coding_module.BLOCK_ROWS):
        table.read(at, min(at + coding_module.BLOCK_ROWS, part.stop))


def _peak(_: int) -> int:
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def start_seconds() -> float:
    """Return the seconds from nothing to a worker's first result."""
    return taken(lambda: list(in_order(Processes(2), abs, [1, 2])))[0]


def measure() -> Json:
    """Return everything that was measured."""
    torch.set_num_threads(1)
    load = os.getloadavg()[1]
    with tempfile.TemporaryDirectory(prefix="flyweight-cluster-") as name, runners() as ways:
        folder = Path(name)
        coded = coding(folder, ways)
        units = unit_costs(folder, ways)
        scored = evaluating(folder, ways)
    return {
        "coding": coded,
        "evaluation": scored,
        "units": {**units, "start_seconds": start_seconds()},
        "load_before": load,
        "hardware": describe_hardware(),
    }


def main() -> None:
    """Measure, and write JSON, page and figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--page", action="store_true", help="write the page from the JSON that is there")
    if not parser.parse_args().page:
        RESULTS.write_text(json.dumps(measure(), indent=1) + "\n")
    write_page(json.loads(RESULTS.read_text()), HERE.parent / "docs")


if __name__ == "__main__":
    main()
