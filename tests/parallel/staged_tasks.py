"""Tasks that other processes can make anew, and what goes wrong in them."""

import os
import signal
from pathlib import Path

import torch
from torch import nn

import flyweight as fw
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
    model = seeded(lambda: SASRec(9, 4, 6, 1, 3, 7)).eval()
    return _of_samples(model, "history", history, 9, 9)


TASKS = {"mlp": mlp, "resnet": resnet, "transformer": transformer}


def throws(rank: int, ranks: int, folder: Path) -> None:
    """Fail on one rank while the other waits for it."""
    if rank == 0:
        raise ValueError("the disk of this rank is gone")
    torch.distributed.recv(torch.zeros(1), src=0)


def is_killed(rank: int, ranks: int, folder: Path) -> None:
    """Die on one rank while the other waits for it."""
    (folder / "here").touch()
    if rank == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    torch.distributed.recv(torch.zeros(1), src=0)
