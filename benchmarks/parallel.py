"""Two stages on two cores against one on one core, and how near the simulation comes.

    python benchmarks/parallel.py                     # writes results/parallel.json and the table in docs/parallel.md
    python benchmarks/parallel.py complete-journey    # this task alone; the others stay as they were measured

Inference over validation rows in two processes, each of one thread and on a core of its own, in turns: the whole model
in one, two stages joined by shared memory, two stages joined by gloo, the whole model in both at once (what two cores
can give at all), and the operators timed one by one, for the prediction. Each process holds its batch before the clock
starts.

Two clocks. Seconds of the wall, the median batch; and seconds that the busiest process was on its core, a batch: what
the wall shows on a machine where nothing else runs, for the other one sleeps while it waits. Turns go on until in
enough of each kind no process waited for a core for more than `DISTURBED` of the time, or until `LIMIT`; those with the
least waiting count, and how much it was stands beside the result. Predicted is what the simulation makes of operators
and the link, each measured alone, for one more batch of many; then with what two models at once slow each other down.
"""

import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice, repeat
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from flyweight.cost.hardware import describe_hardware
from flyweight.parallel.launch import run_ranks
from flyweight.parallel.link import measure_link
from flyweight.parallel.neighbours import Ends, ends_of, infer_beside, rings_between
from flyweight.parallel.node_times import operator_seconds
from flyweight.parallel.partition import Partition, partition
from flyweight.parallel.pipeline import Batch, infer
from flyweight.parallel.plan import Plan, cut_as_planned, plan_of
from flyweight.parallel.ring import Ring
from flyweight.task.task import Task
from flyweight.zoo.tasks import ZOO
from page_section import put

HERE = Path(__file__).parent
#: Task, rows of a micro-batch, micro-batches of a batch.
CASES = (("complete-journey", 256, 32), ("traffic-signs", 64, 8), ("beauty-sasrec", 64, 8))
#: Turns that count, of so many batches each after some that do not.
ROUNDS, BATCHES, WARM_UP = 9, 6, 2
#: Share of waiting for a core that is too much; seconds after which what there is counts.
DISTURBED, LIMIT = 0.02, 30.0
#: Contenders: which ranks work.
TURNS = {"one": (0,), "rings": (0, 1), "sockets": (0, 1), "both": (0, 1), "operators": (0,)}
Json = dict[str, Any]


@dataclass
class Turn:
    """What one rank did in its turn."""

    seconds: list[float]  # of each batch, or of each operator
    worked: float  # seconds on a core, a batch
    waited: float  # share of the time that it could have worked and had no core


def work(rank: int, ranks: int, folder: Path, *, name: str, plan: Plan, micro: int, rings: tuple[Ring, ...]) -> None:
    """Be a rank, and take turns."""
    os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[rank]})
    task = ZOO[name]()
    cut = cut_as_planned(task, plan)
    whole = replace(cut, cuts=(), stages=cut.stages[:1])
    batch = batch_of(task, plan.rows * micro)
    ends, cpu = ends_of(rings, rank), torch.device("cpu")
    begin: dict[str, Callable[[Iterator[Batch]], Iterator[Tensor]]] = {
        "one": lambda batches: infer_beside(whole, 0, batches, micro, Ends(None, None)),
        "rings": lambda batches: infer_beside(cut, rank, batches, micro, ends),
        "sockets": lambda batches: infer(cut, rank, batches, micro, cpu),
    }
    begin["both"] = begin["one"]
    done: dict[str, list[list[Turn | None]]] = {kind: [] for kind in TURNS}  # of both ranks
    began, goes_on = time.monotonic(), [True]
    while goes_on[0]:
        for kind, who in TURNS.items():
            told: list[Turn | None] = [None, None]
            dist.barrier()
            mine = None
            if rank in who:
                mine = timed(begin[kind], batch) if kind in begin else operators(cut, batch, plan.rows)
            dist.all_gather_object(told, mine)
            done[kind].append(told)
        calm = min(sum(waiting(turn) <= DISTURBED for turn in turns) for turns in done.values())
        goes_on = [calm < ROUNDS and time.monotonic() - began < LIMIT]
        dist.broadcast_object_list(goes_on, 0)
    if rank == 0:
        calmest = {kind: sorted(turns, key=waiting)[:ROUNDS] for kind, turns in done.items()}
        plain = {kind: [[one and vars(one) for one in turn] for turn in turns] for kind, turns in calmest.items()}
        torch.save(plain, folder / "turns.pt")


def waiting(turn: list["Turn | None"]) -> float:
    """Return the share of the time that the rank which waited longest for a core did."""
    return max(one.waited for one in turn if one is not None)


def batch_of(task: Task, rows: int) -> Batch:
    """Return a batch of so many rows of the validation split, repeated where it has fewer."""
    held = [inputs for inputs, _, _ in islice(task.batches("validation"), 64)]
    columns = {key: torch.cat([inputs[key] for inputs in held]) for key in held[0]}
    return {key: _so_many(value, rows) for key, value in columns.items()}, torch.zeros(rows)


def _so_many(value: Tensor, rows: int) -> Tensor:
    return value.repeat(-(-rows // len(value)), *[1] * (value.ndim - 1))[:rows]


def timed(begin: Callable[[Iterator[Batch]], Iterator[Tensor]], batch: Batch) -> Turn:
    """Run some batches, and return what those after the first took."""
    seconds, clock = [], Clock()
    begun = time.perf_counter()
    for _ in begin(repeat(batch, WARM_UP + BATCHES)):
        now = time.perf_counter()
        seconds.append(now - begun)
        begun = now
    worked, waited = clock.read()
    return Turn(seconds[WARM_UP:], worked / (WARM_UP + BATCHES), waited)


def operators(cut: Partition, batch: Batch, rows: int) -> Turn:
    """Time the operators one by one."""
    clock = Clock()
    seconds = operator_seconds(cut.traced, {name: value[:rows] for name, value in batch[0].items()})
    worked, waited = clock.read()
    return Turn(seconds, worked, waited)


class Clock:
    """Seconds that this process was on a core, and those for which it waited for one (the system's own count)."""

    def __init__(self) -> None:
        self._begun = (time.perf_counter(), time.process_time(), self._delayed())

    def read(self) -> tuple[float, float]:
        """Return the seconds since then on a core, all threads, and the share of waiting for one."""
        wall, worked, delayed = self._begun
        taken = time.perf_counter() - wall
        return time.process_time() - worked, (self._delayed() - delayed) / taken

    def _delayed(self) -> float:
        return int(Path("/proc/thread-self/schedstat").read_text().split()[1]) / 1e9


def measure(name: str, rows: int, micro: int) -> Json:
    """Return what the contenders take, in turns, and what was predicted."""
    torch.set_num_threads(1)
    link = measure_link()
    cut = partition(ZOO[name](), 2, rows=rows, link=link)
    left = run_ranks(partial(work, name=name, plan=plan_of(cut), micro=micro, rings=rings_between(2)), 2)["turns"]
    turns = {kind: [[turn[rank] for turn in left[kind]] for rank in (0, 1)] for kind in TURNS}
    batches = {kind: [one for turn in turns[kind][who[-1]] for one in turn["seconds"]] for kind, who in TURNS.items()}
    each = zip(*(turn["seconds"] for turn in turns["operators"][0]), strict=True)
    operator = [statistics.median(one) for one in each]
    stages = tuple(replace(one, seconds=sum(operator[one.first : one.last + 1])) for one in cut.stages)
    # Batch follows batch without a pause: what one more takes, not what one alone takes to fill and drain.
    timed_anew = replace(cut, stages=stages)
    predicted = timed_anew.simulate(2 * micro).seconds - timed_anew.simulate(micro).seconds
    worked = {
        kind: [statistics.median(turn["worked"] for turn in turns[kind][rank]) for rank in who]
        for kind, who in TURNS.items()
    }
    slower = statistics.mean(worked["both"]) / worked["one"][0]
    return {
        "task": name,
        "rows": rows,
        "micro_batches": micro,
        "stages": str(timed_anew),
        "link": vars(link),
        "wall": {kind: statistics.median(each) for kind, each in batches.items() if kind != "operators"},
        "quartiles": {kind: statistics.quantiles(each, n=4) for kind, each in batches.items() if kind != "operators"},
        "worked": {kind: each for kind, each in worked.items() if kind != "operators"},
        "turns": {kind: len(each) for kind, each in left.items()},
        "waited": {
            kind: max(turn["waited"] for rank in who for turn in turns[kind][rank]) for kind, who in TURNS.items()
        },
        "predicted": predicted,
        "predicted_side_by_side": predicted * slower,
        "slower_side_by_side": slower,
    }


def table(found: list[Json]) -> str:
    """Return the table for the page."""
    lines = [
        "| task | micro-batches | one stage | two stages, the busier | throughput | of what two cores can "
        "| predicted, off | with both cores at work | through sockets | by the wall; waited for a core |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for one in found:
        alone, rings, sockets = one["worked"]["one"][0], max(one["worked"]["rings"]), max(one["worked"]["sockets"])
        ceiling = 2 / one["slower_side_by_side"]
        off = [one[key] / rings - 1 for key in ("predicted", "predicted_side_by_side")]
        lines.append(
            f"| {one['task']} | {one['micro_batches']} of {one['rows']:,} rows | {1e3 * alone:.1f} ms | "
            f"{1e3 * rings:.1f} ms | **{alone / rings:.2f}x** | {alone / rings / ceiling:.0%} of {ceiling:.2f}x | "
            f"{1e3 * one['predicted']:.1f} ms, {off[0]:+.0%} | "
            f"{1e3 * one['predicted_side_by_side']:.1f} ms, {off[1]:+.0%} | "
            f"{alone / sockets:.2f}x | {one['wall']['one'] / one['wall']['rings']:.2f}x; {one['waited']['rings']:.0%} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure every case that is asked for, and write JSON and table."""
    path = HERE / "results" / "parallel.json"
    found = {one["task"]: one for one in json.loads(path.read_text())["cases"]} if path.exists() else {}
    for case in CASES:
        if len(sys.argv) == 1 or case[0] in sys.argv[1:]:
            found[case[0]] = measure(*case)
            print(json.dumps(found[case[0]], indent=1), flush=True)
            told = {"cases": [found[name] for name, *_ in CASES if name in found], "hardware": describe_hardware()}
            path.write_text(json.dumps(told, indent=1) + "\n")
    put(HERE.parent / "docs" / "parallel.md", "parallel", table(list(found.values())))


if __name__ == "__main__":
    main()
