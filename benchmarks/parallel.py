"""Two stages on two cores against one on one core, and how near the simulation comes.

    python benchmarks/parallel.py            # writes results/parallel.json and the table in docs/parallel.md

Inference over validation rows, one thread a process, in turns: one stage, two stages, again. Each process holds its
batch before the clock starts. Predicted is what the simulation makes of stage times and the link, both measured alone
beforehand, for one more batch of many; measured, the median batch.
"""

import json
import statistics
import time
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from flyweight.cost.hardware import describe_hardware
from flyweight.parallel.launch import run_ranks
from flyweight.parallel.link import measure_link
from flyweight.parallel.partition import partition
from flyweight.parallel.pipeline import infer
from flyweight.parallel.plan import Plan, cut_as_planned, plan_of
from flyweight.zoo.tasks import ZOO
from page_section import put

HERE = Path(__file__).parent
#: Task, rows of a micro-batch, micro-batches of a batch.
CASES = (("complete-journey", 1_024, 8), ("traffic-signs", 64, 8), ("beauty-sasrec", 64, 8))
ROUNDS, BATCHES, WARM_UP = 3, 12, 3
Json = dict[str, Any]


def work(rank: int, ranks: int, folder: Path, *, name: str, plan: Plan, micro: int) -> None:
    """Be a rank, and time batches on the last."""
    task = ZOO[name]()
    cut = cut_as_planned(task, plan)
    rows = plan.rows * micro
    held = [(inputs, target) for inputs, target, _ in islice(task.batches("validation"), 64)]
    columns = {key: torch.cat([inputs[key] for inputs, _ in held]) for key in held[0][0]}
    batch = {key: _so_many(value, rows) for key, value in columns.items()}, torch.zeros(rows)
    taken = []
    begun = time.perf_counter()
    dist.barrier()
    for number, _ in enumerate(infer(cut, rank, [batch] * (WARM_UP + BATCHES), micro, torch.device("cpu"))):
        now = time.perf_counter()
        if number >= WARM_UP:
            taken.append(now - begun)
        begun = now
    if taken:
        torch.save(taken, folder / "seconds.pt")


def _so_many(value: torch.Tensor, rows: int) -> torch.Tensor:
    return value.repeat(-(-rows // len(value)), *[1] * (value.ndim - 1))[:rows]


def measure(name: str, rows: int, micro: int) -> Json:
    """Return what one and two stages take, in turns, and what was predicted."""
    torch.set_num_threads(1)
    task, link = ZOO[name](), measure_link()
    cuts = {stages: partition(task, stages, rows=rows, link=link) for stages in (1, 2)}
    seconds: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(ROUNDS):
        for stages, cut in cuts.items():
            seconds[stages] += run_ranks(partial(work, name=name, plan=plan_of(cut), micro=micro), stages)["seconds"]
    measured = {stages: statistics.median(each) for stages, each in seconds.items()}
    alone = measured[1] / micro
    scale = alone / sum(one.seconds for one in cuts[1].stages)  # stages are timed in another process than they run in
    # Batch follows batch without a pause: what one more takes, not what one alone takes to fill and drain.
    predicted = cuts[2].simulate(2 * micro).seconds - cuts[2].simulate(micro).seconds
    return {
        "task": name,
        "rows": rows,
        "micro_batches": micro,
        "stages": str(cuts[2]),
        "link": {"bytes_a_second": link.bytes_a_second, "latency": link.latency},
        "seconds": measured,
        "quartiles": {stages: statistics.quantiles(each, n=4) for stages, each in seconds.items()},
        "predicted": predicted,
        "predicted_at_measured_speed": predicted * scale,
        "times": measured[1] / measured[2],
    }


def table(found: list[Json]) -> str:
    """Return the table for the page."""
    lines = [
        "| task | micro-batches | one stage | two stages | throughput | predicted | off |",
        "|---|---|---|---|---|---|---|",
    ]
    for one in found:
        seconds = one["seconds"]
        off = one["predicted"] / seconds[2] - 1
        lines.append(
            f"| {one['task']} | {one['micro_batches']} of {one['rows']:,} rows | {1e3 * seconds[1]:.1f} ms | "
            f"{1e3 * seconds[2]:.1f} ms | {one['times']:.2f}x | {1e3 * one['predicted']:.1f} ms | {off:+.0%} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure every case, and write JSON and table."""
    found = []
    for case in CASES:
        found.append(measure(*case))
        print(json.dumps(found[-1], indent=1), flush=True)
    told = {"cases": found, "hardware": describe_hardware()}
    (HERE / "results" / "parallel.json").write_text(json.dumps(told, indent=1) + "\n")
    put(HERE.parent / "docs" / "parallel.md", "parallel", table(found))


if __name__ == "__main__":
    main()
