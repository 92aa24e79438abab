"""10 parts on 10 units, 10 times faster? Throughput, latency and memory of 1 to 64 units, from measured operators.

    python benchmarks/parallel_units.py          # writes results/parallel_units.json, the figure and the table
    python benchmarks/parallel_units.py --drawn  # the figure and the table again, from the JSON

Each operator is timed on this machine, one thread, and so is the link; the rest is simulated: every number of units has
the best stages for it. Three models of the zoo, and one that is made to be cut: 20 equal blocks of the third.
"""

import json
import sys
from bisect import bisect_left
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from flyweight.cost.hardware import describe_hardware
from flyweight.parallel.cuts import find_cuts, operators_of
from flyweight.parallel.link import measure_link
from flyweight.parallel.partition import Partition, partition
from flyweight.parallel.saturation import Throughput, saturation
from flyweight.task.task import Task
from flyweight.zoo.models.sasrec import SASRec
from flyweight.zoo.tasks import ZOO
from page_section import put
from parallel_units_picture import draw

HERE = Path(__file__).parent
RESULT = HERE / "results" / "parallel_units.json"
#: Model, rows of a micro-batch.
CASES = (("complete-journey", 256), ("traffic-signs", 64), ("beauty-sasrec", 64), ("20 equal blocks", 64))
MICRO_BATCHES = (1, 4, 16, 64, 256)
#: Numbers of units; those for which turns come out even; of a batch in training.
UNITS, TURNED, TRAINED = (*range(1, 13), 16, 20, 24, 32, 48, 64), (1, 2, 4, 8, 16, 32, 64), 64
#: What is claimed, and how many micro-batches are tried for nine tenths of it.
TEN, WANTED, MANY = 10, 9.0, 4096
Json = dict[str, Any]


def task_of(name: str) -> Task:
    """Return a task of the zoo, or one with a deep model that learned nothing, which takes as long."""
    if name in ZOO:
        return ZOO[name]()
    task = ZOO["beauty-sasrec"]()
    small = task.model
    rows, dim = small.items.weight.shape
    torch.manual_seed(0)
    history = next(task.batches("validation"))[0]["history"].shape[1]
    return task.with_model(SASRec(rows, history, dim, blocks=20, heads=4, hidden=256, dropout=0.0).eval())


def simulated(found: Partition) -> Json:
    """Return the curves: inference by micro-batches, training by schedule."""
    curves = {f"inference, {count}": saturation(found, count, UNITS) for count in MICRO_BATCHES}
    for schedule in ("fill-drain", "1f1b"):
        curves[f"training, {schedule}"] = saturation(found, TRAINED, UNITS, schedule, training=True)
    curves["training, interleaved"] = saturation(found, TRAINED, TURNED, "interleaved", training=True)
    return {name: [asdict(one) for one in curve] for name, curve in curves.items()}


def pays_up_to(curve: list[Json]) -> int:
    """Return the fewest units that give 95% of the most that any number gives."""
    most = max(one["times"] for one in curve)
    return next(int(one["units"]) for one in curve if one["times"] >= 0.95 * most)


def for_ten(found: Partition) -> Json:
    """Return what ten units give at best, and what nine times takes."""
    units = min(TEN, len(find_cuts(found.traced).legal) + 1)

    def with_batches(count: int) -> Throughput:
        return saturation(found, count, [units], training=False)[0]

    told: Json = {"units": units, "most": with_batches(MANY).times, "first": with_batches(1).first}
    if told["most"] >= WANTED:
        enough = bisect_left(range(1, MANY), WANTED, key=lambda count: with_batches(count).times) + 1
        fill, one_one = (saturation(found, enough, [units], one, training=True)[0] for one in ("fill-drain", "1f1b"))
        told |= {"micro_batches": enough, "rows": enough * found.rows, "seconds": with_batches(enough).seconds,
                 "held": {"fill-drain": fill.held, "1f1b": one_one.held}}  # fmt: skip
    return told


def result_bytes(found: Partition) -> int:
    """Return the bytes of all operators' results, of one micro-batch: about what training keeps of it."""
    values = [node.meta.get("val") for node in operators_of(found.traced.body)]
    tensors = [one for one in values if isinstance(one, torch.Tensor) and one.ndim]
    held = [one for one in tensors if isinstance(one.shape[0], torch.SymInt)]
    return sum(found.rows * one[0].numel() * one.element_size() for one in held)


def measure(name: str, rows: int) -> Json:
    """Return everything about one model."""
    torch.set_num_threads(1)
    link = measure_link()
    found = partition(task_of(name), 1, rows=rows, link=link)
    curves = simulated(found)
    slow = replace(found, link=replace(link, bytes_a_second=10e9 / 8, latency=50e-6, sender=0.0, receiver=0.0))
    return {
        "task": name,
        "rows": rows,
        "seconds": sum(found.seconds),
        "single": found.single,
        "results_bytes": result_bytes(found),
        "weights_bytes": found.stages[0].weights,
        "link": vars(link),
        "pays_up_to": {key: pays_up_to(curve) for key, curve in curves.items()},
        "ten": for_ten(found),
        "ten_over_ethernet": for_ten(slow),
        "curves": curves,
    }


def table(found: list[Json]) -> str:
    """Return the table for the page."""
    lines = [
        "| model | rows of a micro-batch, ms on one unit | the longest operator | most that 10 units give "
        "| over 10 Gbit/s | for 9x on 10 | latency of a micro-batch, 1 unit, 10 units | more units stop paying at |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for one in found:
        ten, (name, share) = one["ten"], one["single"]
        nine = "no number of micro-batches"
        if "micro_batches" in ten:
            nine = f"{ten['micro_batches']} micro-batches, {ten['rows']:,} rows, {1e3 * ten['seconds']:.0f} ms"
        lines.append(
            f"| {one['task']} | {one['rows']}, {1e3 * one['seconds']:.1f} | {name}, {share:.0%} | {ten['most']:.1f}x | "
            f"{one['ten_over_ethernet']['most']:.1f}x | {nine} | {1e3 * one['seconds']:.1f}, "
            f"{1e3 * ten['first']:.1f} ms | {one['pays_up_to']['inference, 64']} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure every model, or read what was measured; draw."""
    if "--drawn" not in sys.argv:
        told = {"cases": [measure(*case) for case in CASES], "hardware": describe_hardware()}
        RESULT.write_text(json.dumps(told, indent=1) + "\n")
    found = json.loads(RESULT.read_text())["cases"]
    draw(found, HERE.parent / "docs" / "figures" / "parallel_units.svg")
    put(HERE.parent / "docs" / "parallel.md", "units", table(found))


if __name__ == "__main__":
    main()
