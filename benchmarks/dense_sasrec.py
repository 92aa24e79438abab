"""SASRec on Amazon Beauty: heads and blocks pruned, layers in int8, the next item still found among 12,101."""

from collections.abc import Iterator

import flyweight as fw
from dense_against import quantizers
from dense_harness import Case, Contender, run_case, stepped
from dense_models import sasrec_task
from flyweight.distillation.distill import Distill
from flyweight.pruning.prune import Prune
from flyweight.quantization.quantize import Quantize

#: Of recall at 10, 1% of the .060 that the base must reach.
MARGIN = 0.0006
BATCH = 64
KINDS = ("heads", "neurons")


def contenders(task: fw.Task, seed: int) -> Iterator[Contender]:
    """Yield int8 alone, int8 after heads and neurons went, and the control."""
    learn = Distill(epochs=0.05, lr=1e-3, alpha=0.0, temperature=1.0, batch_rows=128, seed=seed)
    rounded = Quantize(mixed=False, seed=seed)

    def pruned(saliency: str) -> Prune:
        return Prune(ratio=0.25, saliency=saliency, kinds=KINDS, seed=seed, force=True)

    yield stepped("Prune, Distill, Quantize", "ours", (pruned("taylor"), learn, rounded))
    yield stepped("Quantize, every layer int8", "ours", (rounded,))
    yield stepped("random Prune, Distill, Quantize", "control", (pruned("random"), learn, rounded))
    yield stepped("Prune alone", "control", (pruned("taylor"),))
    yield from quantizers(task)


CASE = Case(
    name="sasrec",
    title="SASRec on Amazon Beauty",
    goal="base recall at 10 at least .060 among all items; int8 and pruned heads at most 1% of it lost",
    task=sasrec_task,
    contenders=contenders,
    rows=(1, BATCH),
    margin=MARGIN,
    unit="relative",
)


def run(seeds: list[int]) -> None:
    """Run the case."""
    run_case(CASE, seeds)
