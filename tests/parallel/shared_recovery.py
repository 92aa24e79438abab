"""A recovery that ranks share: dropout and batch statistics in it, and a rank that is killed once."""

import os
import signal
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn

import flyweight as fw


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(6, 16), nn.BatchNorm1d(16), nn.Linear(16, 3)
        self.drop = nn.Dropout(0.1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.drop(self.norm(self.first(x)).relu()))


def task_and_student() -> tuple[fw.Task, nn.Module]:
    """Twelve batches of 50 rows: no multiple of the shards."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        x = torch.randn(600, 6)
        teacher, student = Net().eval(), Net().eval()
    with torch.no_grad():
        target = teacher(x).argmax(1)
    split = [({"x": x[at : at + 50]}, target[at : at + 50]) for at in range(0, len(x), 50)]
    return fw.Task(teacher, {"x": fw.Field()}, split, split, split, metric="accuracy"), student


@dataclass
class KilledOnce:
    """Kills the second rank after so many steps, once."""

    mark: Path
    steps: int

    def __call__(self, model: nn.Module) -> None:
        self.steps -= 1
        if self.steps == 0 and dist.get_rank() == 1 and not self.mark.exists():
            self.mark.write_text(str(os.getpid()))
            os.kill(os.getpid(), signal.SIGKILL)
