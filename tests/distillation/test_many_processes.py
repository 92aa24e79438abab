"""Two processes that train together do what one does with batches twice as large."""

from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn

import flyweight as fw
from flyweight.distillation.recover import recover

DRAWN = torch.Generator().manual_seed(0)
X = torch.randn(640, 6, generator=DRAWN)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.first(x).tanh())


def task_of(size: int) -> tuple[fw.Task, nn.Module]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        teacher, student = Net(), Net()
    with torch.no_grad():
        target = teacher(X).argmax(1)
    split = [({"x": X[at : at + size]}, target[at : at + size]) for at in range(0, len(X), size)]
    return fw.Task(teacher, {"x": fw.Field()}, split, split, split, metric="accuracy"), student


def work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    task, student = task_of(32)
    recovered = recover(task, student, epochs=2, checkpoint=Path(folder, "training"))
    torch.save(recovered.model.state_dict(), Path(folder, f"weights-{rank}"))
    dist.destroy_process_group()


def test_two_processes_train_as_one_with_batches_of_both(tmp_path: Path) -> None:
    mp.spawn(work, args=(str(tmp_path),), nprocs=2)
    one, other = (torch.load(tmp_path / f"weights-{rank}", weights_only=True) for rank in (0, 1))
    task, student = task_of(64)
    alone = recover(task, student, epochs=2).model.state_dict()
    for name, value in alone.items():
        assert torch.equal(one[name], other[name])
        torch.testing.assert_close(one[name], value, rtol=1e-3, atol=1e-5)
    assert not torch.equal(alone["first.weight"], student.state_dict()["first.weight"])
    assert (tmp_path / "training").exists()
