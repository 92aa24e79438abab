"""DCN-V2 on Complete Journey: how thin does its dense half get, in int8, at a drop of 0.001 that is certified?"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import flyweight as fw
from dense_against import quantizers
from dense_harness import Case, Contender, Json, compressed, export, run_case, stepped
from dense_journey import from_scratch, journey_task, widths_of
from flyweight.distillation.distill import Distill
from flyweight.pruning.factorize import Factorize
from flyweight.pruning.prune import Prune
from flyweight.quantization.quantize import Quantize

MARGIN = 0.001
#: Multiply-accumulates of one row that may be left: 1/16 and 1/8 of 455,696.
SPLIT, PRUNED = 28_000, 56_900
#: The teacher's soft targets alone: labels of rows that the tables have learned by heart would be learned again.
RECOVERY = {"epochs": 0.1, "lr": 0.01, "alpha": 0.0, "temperature": 1.0, "batch_rows": 256}
NEW_PAIRS = 0.5


def contenders(task: fw.Task, seed: int) -> Iterator[Contender]:
    """Yield ours, the controls and the peers."""

    def pruned(saliency: str) -> Prune:
        return Prune(max_macs=PRUNED, saliency=saliency, multiple=1, seed=seed, force=True)

    learn = partial(Distill, **RECOVERY, seed=seed)
    yield compressed("Factorize, Quantize", (Factorize(max_macs=SPLIT, seed=seed), Quantize(seed=seed)), MARGIN)
    ours = (pruned("fisher"), learn(resampled=NEW_PAIRS), Quantize(seed=seed))
    yield stepped("Prune, Distill on new pairs too, Quantize", "ours", ours)
    yield stepped("Prune, Distill on training rows alone, Quantize", "ours", (ours[0], learn(), ours[2]))
    yield stepped("random Prune, Distill on new pairs too, Quantize", "control", (pruned("random"), *ours[1:]))
    yield stepped("Prune alone", "control", ours[:1])
    yield Contender("small net of the pruned widths, from scratch", "control", partial(scratch, seed))
    yield from quantizers(task)


def scratch(seed: int, task: fw.Task, into: Path) -> Json:
    """Train a net of the widths that the pruned one has, as the base was trained."""
    change = Prune(max_macs=PRUNED, saliency="fisher", multiple=1, seed=seed, force=True).apply(task)
    return export(task, from_scratch(*widths_of(change.model), seed), into)


CASE = Case(
    name="dcnv2",
    title="DCN-V2 on Complete Journey: the dense half",
    goal="at least 8x fewer multiply-accumulates and int8, the drop in AUC certified <= 0.001",
    task=journey_task,
    contenders=contenders,
    rows=(500,),
    margin=MARGIN,
)


def run(seeds: list[int]) -> None:
    """Run the case."""
    run_case(CASE, seeds)
