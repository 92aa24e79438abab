"""LeNet-300-100 on MNIST, single weights pruned and the rest made to share a few values: weights and bytes on disk.

python benchmarks/dense_lenet.py 0 1 2     # writes results/dense_lenet.json
"""

import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import torch
from torch import nn

import flyweight as fw
from dense_harness import Case, Contender, Json, export, run_case
from dense_models import lenet_task
from flyweight.graph.trace import trace
from flyweight.pruning.prune import Prune
from flyweight.pruning.share_weights import ShareWeights
from flyweight.pruning.sparse_packing import with_dense_weights
from flyweight.task.change import Change
from flyweight.zoo.image_classifiers import LENET
from flyweight.zoo.image_data import mnist
from flyweight.zoo.image_training import fit_images
from flyweight.zoo.models.lenet import LeNet300100
from flyweight.zoo.recipe import trained_once

#: The share of weights that goes: 33 times fewer are left. Chosen on validation data, as rounds and epochs were.
RATIO = 0.97
ROUNDS, EPOCHS = 8, 1.5
BITS = 4
#: Hidden widths of the small net: 8,040 weights, as many as the pruned one keeps.
SMALL = (10, 10)


def contenders(task: fw.Task, seed: int) -> Iterator[Contender]:
    """Yield ours and the controls."""

    @cache
    def pruned(saliency: str) -> Change:
        step = Prune(
            ratio=RATIO, structured=False, saliency=saliency, rounds=ROUNDS, recover=EPOCHS, seed=seed, force=True
        )
        return step.apply(task)

    def sparse(saliency: str) -> Contender:
        kind = "control" if saliency == "random" else "ours"
        key = f"{RATIO} {ROUNDS} {EPOCHS}"
        return Contender(
            f"Prune by {saliency}", kind, lambda task, into: _export(task, pruned(saliency).model, into), key=key
        )

    def coded(saliency: str) -> Contender:
        step = ShareWeights(bits=BITS, recover=1.0, seed=seed)
        kind = "control" if saliency == "random" else "ours"

        def make(task: fw.Task, into: Path) -> Json:
            return _export(task, step.apply(task.with_model(pruned(saliency).model)).model, into)

        return Contender(f"Prune by {saliency}, ShareWeights", kind, make, key=f"{RATIO} {ROUNDS} {EPOCHS} {step!r}")

    for saliency in ("activation", "taylor", "random"):
        yield sparse(saliency)
        yield coded(saliency)
    small = f"net of hidden widths {SMALL[0]} and {SMALL[1]} from scratch"
    yield Contender(small, "control", lambda task, into: _export(task, from_scratch(seed), into))


def from_scratch(seed: int) -> nn.Module:
    """Return a net of as many weights as the pruned one has, trained from scratch as the base was."""
    data = mnist()
    recipe = replace(LENET.recipe, seed=seed)
    key = f"{data.fingerprint} {data.train.distortion}"
    return trained_once(
        lambda: LeNet300100(hidden=SMALL), lambda model, recipe: fit_images(model, data.train, recipe), recipe, key
    )[0]


def _export(task: fw.Task, model: nn.Module, into: Path) -> Json:
    """Write a model and say how many of its weights, biases left out as in Han et al., are not 0."""
    return export(task, model, into, weights=_weights(model), weights_before=_weights(task.model))


def _weights(model: nn.Module) -> int:
    """Count the weights of matrices that are not 0, as layers read them."""
    dense = with_dense_weights(trace(model, {"image": torch.rand(2, 1, 28, 28)}))
    return sum(int((weight != 0).sum()) for weight in dense.parameters() if weight.ndim > 1)


CASE = Case(
    name="lenet",
    title="LeNet-300-100 on MNIST: single weights",
    goal="at least 20x fewer weights at <= 1.6% error, and at least 40x fewer bytes on disk with shared values",
    task=lenet_task,
    contenders=contenders,
    rows=(1, 256),
    margin=0.008,
    unit="points",
)


def run(seeds: list[int]) -> None:
    """Run the case."""
    run_case(CASE, seeds)


if __name__ == "__main__":
    run([int(word) for word in sys.argv[1:]] or [0, 1, 2])
