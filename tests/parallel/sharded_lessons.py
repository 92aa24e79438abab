"""Models whose tables are looked up in every way that users do, and what two processes do with them."""

import copy
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flyweight.parallel.sharded.lesson import Lesson, ShardedTraining
from flyweight.parallel.sharded.plan import By
from flyweight.parallel.sharded.torchrec_versions import load_torchrec
from flyweight.parallel.sharded.training import train_part
from small_tasks import seeded

ROWS, ITEMS = 101, 40
#: Optimiser of tables and dense layers, how tables are placed, and whether all ids are inputs.
CASES: dict[str, tuple[str, By, str]] = {
    "sgd by rows": ("sgd", "row", "plain"),
    "adagrad by table": ("adagrad", "table", "plain"),
    "adam by rows": ("adam", "row", "plain"),
    "adam by either": ("adam", "auto", "computed"),
    "sgd with a teacher": ("sgd", "auto", "computed"),
}


class Shop(nn.Module):
    """A table for two inputs, a padded history, bags, a narrower table, one frozen, one tied, one never looked up."""

    def __init__(self, *, computed: bool) -> None:
        super().__init__()
        self.item, self.user = nn.Embedding(ITEMS, 8, padding_idx=0, sparse=True), nn.Embedding(30, 8)
        self.tags = nn.EmbeddingBag(12, 4, mode="mean", padding_idx=3)
        self.frozen, self.unused, self.tied = nn.Embedding(7, 4), nn.Embedding(5, 4), nn.Embedding(9, 4)
        self.frozen.weight.requires_grad_(False)
        self.scores, self.computed = nn.Linear(4, 9, bias=False), computed
        self.scores.weight = self.tied.weight
        self.idle = nn.Linear(3, 3)
        self.head = nn.Sequential(nn.Linear(28, 8), nn.Tanh(), nn.Linear(8, 1))

    def forward(self, item: Tensor, user: Tensor, history: Tensor, tags: Tensor) -> Tensor:
        seen = self.item(history).mean(1)  # (rows, 8)
        kind = self.frozen(item % 7 if self.computed else user.clamp(max=6))
        user_row = self.user(user.flip(0).flip(0) if self.computed else user)
        both = torch.cat([self.item(item), user_row, seen, self.tags(tags)], 1)
        logit = self.head(both).squeeze(1) + kind.sum(1)
        return logit + self.scores(self.tied(user % 9)).logsumexp(1)


def lesson(case: str) -> Lesson:
    """What a case learns: batches of 101 and 7 rows, cut into steps of 25: shares of ranks are not equal."""
    drawn = torch.Generator().manual_seed(5)

    def ids(most: int, *shape: int) -> Tensor:
        return torch.randint(0, most, shape, generator=drawn)

    batches = [
        ({"item": ids(ITEMS, n), "user": ids(30, n), "history": ids(ITEMS, n, 3), "tags": ids(12, n, 2)}, None)
        for n in (ROWS, 7, ROWS)
    ]
    labelled = [(inputs, (inputs["item"] % 2).float(), None) for inputs, _ in batches]
    model = seeded(partial(Shop, computed=CASES[case][2] == "computed"))
    teacher = None
    if "teacher" in case:
        teacher = copy.deepcopy(model)
        with torch.no_grad():
            for weight in teacher.parameters():
                weight.mul_(1.4)
    return Lesson(model, lambda: labelled, len(labelled), loss, teacher)


def loss(outputs: Tensor, target: Tensor, said: Tensor | None) -> Tensor:
    return F.binary_cross_entropy_with_logits(outputs, target if said is None else said.sigmoid())


def settings(case: str) -> ShardedTraining:
    kind = CASES[case][0]
    return ShardedTraining(
        epochs=2, batch_rows=25, table_optimizer=kind, dense_optimizer=kind, table_rate=0.05, dense_rate=0.02,
        final_rate=0.5,
    )  # type: ignore[arg-type]  # fmt: skip


def train_all(rank: int, ranks: int, folder: Path, *, kept: Path) -> None:
    """Train every case, one after the other, and leave losses and rows."""
    load_torchrec()
    for number, case in enumerate(CASES):
        place = kept / str(number)
        place.mkdir(exist_ok=True)
        found = train_part(lesson(case), CASES[case][1], settings(case), place, torch.device("cpu"))
        torch.save(found, folder / f"{number}-{rank}.pt")
