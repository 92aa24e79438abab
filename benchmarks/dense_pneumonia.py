"""A small ResNet on chest x-rays in int8: the same scores in a third of the time?"""

from collections.abc import Iterator
from functools import partial

import flyweight as fw
from dense_against import quantizers
from dense_harness import Case, Contender, compressed, run_case, stepped
from dense_models import pneumonia_task
from flyweight.quantization.quantize import Quantize

MARGIN = 0.002
BATCH = 64


def contenders(task: fw.Task, seed: int) -> Iterator[Contender]:
    """Yield ours, and ours with plainer ranges."""
    yield compressed("Quantize, every layer int8", (Quantize(mixed=False, seed=seed),), MARGIN, BATCH)
    yield from quantizers(task)
    yield stepped("Quantize, ranges by min and max", "control", (Quantize(ranges="minmax", mixed=False, seed=seed),))
    yield stepped("Quantize, each layer's precision by cost and time", "ours", (Quantize(seed=seed),))


CASE = Case(
    name="pneumonia",
    title="A small ResNet on chest x-rays",
    goal="int8: at most 0.2 points of accuracy lost, at least 3x faster than float32 in the same engine at 64 images",
    task=partial(pneumonia_task, copies=1),
    contenders=contenders,
    rows=(1, BATCH),
    margin=MARGIN,
    unit="points",
)


def run(seeds: list[int]) -> None:
    """Run the case."""
    run_case(CASE, seeds)
