"""Tasks that other processes can make anew, and what goes wrong in them."""

import os
import signal
import time
from pathlib import Path

import torch
from torch import nn

import flyweight as fw
from flyweight.parallel.ring import Ring
from flyweight.zoo.models.resnet import ResNet
from flyweight.zoo.models.sasrec import SASRec
from small_tasks import Ranker, batches, seeded, splits


def mlp() -> fw.Task:
    """A small ranker that learned nothing yet, and the data of the small world."""
    return fw.Task(
        model=seeded(Ranker),
        inputs={
            "user_id": fw.Field(role="request", rows=60),
            "item_id": fw.Field(role="candidate", rows=400),
            "price": fw.Field(role="candidate"),
        },
        **splits(),
    )


def drawn_anew() -> fw.Task:
    """A ranker whose weights are others in each process, as those of a script without a seed are."""
    torch.seed()
    return mlp().with_model(Ranker().eval())


def _of_samples(model: nn.Module, name: str, values: torch.Tensor, rows: int | None, classes: int) -> fw.Task:
    data = batches({name: values}, torch.arange(len(values)) % classes, size=len(values) // 4)
    inputs = {name: fw.Field(role="sample", rows=rows)}
    return fw.Task(model=model, inputs=inputs, train=data, validation=data, test=data, metric="accuracy")


def resnet() -> fw.Task:
    """A small residual network on noise."""
    images = torch.randn(64, 2, 8, 8, generator=torch.Generator().manual_seed(1))
    model = seeded(lambda: ResNet(2, 3, (4, 6), blocks=1)).eval()
    return _of_samples(model, "image", images, None, 3)


def transformer() -> fw.Task:
    """A small transformer over histories, whose item table also scores."""
    history = torch.randint(0, 9, (64, 4), generator=torch.Generator().manual_seed(1))
    model = seeded(lambda: SASRec(9, 4, 6, 1, 3, 7, dropout=0.0)).eval()
    return _of_samples(model, "history", history, 9, 9)


TASKS = {"mlp": mlp, "resnet": resnet, "transformer": transformer}
PRUNE = fw.Prune(ratio=0.5)
CODES = fw.EncodeTables(bits_per_row=8)
INT8 = fw.Quantize(weights="int8", activations="int8", mixed=False, force=True)
#: All but its item table, which scores too: a table that is rounded is trained, and so of one stage alone.
LAYERS = fw.Quantize(
    activations="int8", precisions={"blocks.0.mlp.0": "int8", "blocks.0.mlp.2": "int8"}, force=True
)
#: Each compression on its own, and all that a network can have.
STEPS: dict[str, tuple[str, tuple[fw.Step, ...]]] = {
    "mlp pruned": ("mlp", (PRUNE,)),
    "mlp coded": ("mlp", (CODES,)),
    "mlp int8": ("mlp", (INT8,)),
    "mlp pruned, coded, int8": ("mlp", (PRUNE, CODES, INT8)),
    "resnet pruned": ("resnet", (PRUNE,)),
    "resnet int8": ("resnet", (INT8,)),
    "transformer pruned": ("transformer", (PRUNE,)),
    "transformer int8": ("transformer", (LAYERS,)),
}


def compressed(name: str) -> fw.Task:
    """A task whose model was compressed; its teacher is the model before."""
    of, steps = STEPS[name]
    task = TASKS[of]()
    for step in steps:
        change = step.apply(task)
        assert change.done, f"{name}: {change.skipped}"
        task = task.with_model(change.model)
    return task


def throws(rank: int, ranks: int, folder: Path, *, died: Path) -> None:
    """Fail on one rank while the other waits for it; write down when."""
    if rank == 0:
        died.write_text(str(time.monotonic()))
        raise ValueError("the disk of this rank is gone")
    torch.distributed.recv(torch.zeros(1), src=0)


def waits_for_a_dead_one(rank: int, ranks: int, folder: Path, *, rings: tuple[Ring, ...], died: Path) -> None:
    """Die before anything was sent while the other waits at its end of the shared memory; write down when."""
    if rank == 0:
        died.write_text(str(time.monotonic()))
        os.kill(os.getpid(), signal.SIGKILL)
    rings[0].take(1)


def sends_to_a_dead_one(rank: int, ranks: int, folder: Path, *, rings: tuple[Ring, ...], died: Path) -> None:
    """Die after the first micro-batch while the other has no slot left to send in; write down when."""
    if rank == 0:
        for _ in range(9):
            rings[0].put([torch.zeros(4, 1000)])
    rings[0].take(4)
    died.write_text(str(time.monotonic()))
    raise ValueError("the second stage is broken")


def counts(rank: int, ranks: int, folder: Path, *, rings: tuple[Ring, ...]) -> None:
    """Send nine micro-batches of two tensors, the last of fewer rows, and keep what arrives."""
    sent = [[torch.full((rows, 3), float(number)), torch.arange(rows) + number] for number, rows in COUNTED]
    if rank == 0:
        for tensors in sent:
            rings[0].put(tensors)
        return
    found = []
    for _, rows in COUNTED:
        found.append([one.clone() for one in rings[0].take(rows)])
        rings[0].give_back()
    torch.save([found, sent], folder / "found.pt")


#: Number and rows of micro-batches.
COUNTED = [(number, 4) for number in range(8)] + [(8, 1)]


def is_killed(rank: int, ranks: int, folder: Path, *, died: Path) -> None:
    """Die on one rank while the other waits for it; write down when."""
    (folder / "here").touch()
    if rank == 0:
        died.write_text(str(time.monotonic()))
        os.kill(os.getpid(), signal.SIGKILL)
    torch.distributed.recv(torch.zeros(1), src=0)
