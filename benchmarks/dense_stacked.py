"""Tables coded, layers split, students taught, weights rounded: the whole default ranker, on disk."""

from collections.abc import Iterator
from functools import partial

import flyweight as fw
from dense_dcnv2 import MARGIN, NEW_PAIRS, PRUNED, RECOVERY, SPLIT
from dense_harness import Case, Contender, compressed, run_case, stepped
from dense_journey import journey_task
from flyweight.distillation.distill import Distill
from flyweight.pruning.factorize import Factorize
from flyweight.pruning.prune import Prune
from flyweight.quantization.quantize import Quantize
from flyweight.tables.encode_tables import EncodeTables

RATIO = 600


def contenders(task: fw.Task, seed: int) -> Iterator[Contender]:
    """Yield ours in three orders, what each step alone gives, and the control."""
    tables = EncodeTables(ratio=RATIO, seed=seed)
    learn = partial(Distill, **RECOVERY, seed=seed, resampled=NEW_PAIRS)
    split, rounded = Factorize(max_macs=SPLIT, seed=seed), Quantize(mixed=False, seed=seed)

    def pruned(saliency: str) -> Prune:
        return Prune(max_macs=PRUNED, saliency=saliency, multiple=1, seed=seed, force=True)

    yield compressed("EncodeTables, Factorize, Quantize", (tables, split, rounded), MARGIN)
    yield compressed("EncodeTables, Prune, Distill, Quantize", (tables, pruned("fisher"), learn(), rounded), MARGIN)
    yield stepped("EncodeTables alone", "ours", (tables,))
    yield stepped(
        "EncodeTables, random Prune, Distill, Quantize", "control", (tables, pruned("random"), learn(), rounded)
    )


CASE = Case(
    name="stacked",
    title="Everything stacked on the default ranker",
    goal="the bundle's model at least 300x smaller than the float32 ONNX file, the drop in AUC certified <= 0.001",
    task=journey_task,
    contenders=contenders,
    rows=(500,),
    margin=MARGIN,
)


def run(seeds: list[int]) -> None:
    """Run the case."""
    run_case(CASE, seeds)
