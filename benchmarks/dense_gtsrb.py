"""A small ResNet on traffic signs, pruned: fewer multiply-accumulates that are also less time."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import flyweight as fw
from dense_against import torch_pruning
from dense_harness import Case, Contender, Json, compressed, export, run_case, stepped
from dense_images import Bfloat16, trained_anew, work_of
from dense_models import gtsrb_task
from flyweight.distillation.distill import Distill
from flyweight.pruning.prune import Prune
from flyweight.quantization.quantize import Quantize
from flyweight.zoo.image_classifiers import SIGNS

MARGIN = 0.003
#: Multiply-accumulates that may be left, as a share; images of a pass, distorted copies included; passes.
SHARE, COPIES, EPOCHS = 1 / 3.0, 4, 3.0
#: In one go the saliency of the first layers, which take most of the work, is extrapolated until 8 channels are left.
ROUNDS = 6
BATCH = 64


def contenders(task: fw.Task, seed: int) -> Iterator[Contender]:
    """Yield ours, pruned and pruned in int8, and the controls with the same recovery."""
    learn = Bfloat16(Distill(epochs=EPOCHS, lr=4e-3, alpha=0.0, temperature=4.0, batch_rows=128, seed=seed))

    def pruned(saliency: str) -> Prune:
        return Prune(
            max_macs=round(SHARE * work_of(task)), saliency=saliency, rounds=ROUNDS, seed=seed, force=True
        )

    ours = (pruned("taylor"), learn)
    yield compressed("Prune, Distill", ours, MARGIN, BATCH)
    yield stepped("random Prune, Distill", "control", (pruned("random"), learn))
    for saliency in ("L1", "Taylor"):
        yield torch_pruning(task, saliency, SHARE, (learn,), seed)
    yield stepped("Prune alone", "control", ours[:1])
    yield Contender("small net of the pruned widths, from scratch", "control", partial(scratch, seed, ours[0]))
    yield stepped("Prune, Distill, Quantize", "ours", (*ours, Quantize(seed=seed)))


def scratch(seed: int, prune: Prune, task: fw.Task, into: Path) -> Json:
    """Train a net of the widths that the pruned one has, with all the epochs of the base."""
    widths = prune.apply(task).model
    return export(task, trained_anew(widths, task.train.with_copies(1), replace(SIGNS.recipe, seed=seed)), into)


CASE = Case(
    name="gtsrb",
    title="A small ResNet on traffic signs",
    goal="at least 2.5x fewer multiply-accumulates and 2x less time, at most 0.3 points of accuracy after recovery",
    task=partial(gtsrb_task, copies=COPIES),
    contenders=contenders,
    rows=(1, BATCH),
    margin=MARGIN,
    unit="points",
)


def run(seeds: list[int]) -> None:
    """Run the case."""
    run_case(CASE, seeds)
