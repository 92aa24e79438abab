"""A small world of users, items and clicks, and small trained models of it, for tests of task, tables and planning."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import flyweight as fw

USERS, ITEMS, DIM = 60, 400, 8
Columns = dict[str, Tensor]
Split = list[tuple[Columns, Tensor]]
FIELDS = {
    "user_id": fw.Field(role="request", rows=USERS),
    "item_id": fw.Field(role="candidate", rows=ITEMS),
    "price": fw.Field(role="candidate"),
}


def world(rows: int, seed: int) -> tuple[Columns, Tensor]:
    """Rows of (user, item, price) and whether the user clicked: taste x kind + price, in three dimensions."""
    fixed = torch.Generator().manual_seed(7)
    tastes, kinds = torch.randn(USERS, 3, generator=fixed), torch.randn(ITEMS, 3, generator=fixed)
    drawn = torch.Generator().manual_seed(seed)
    user = (torch.rand(rows, generator=drawn) ** 2 * USERS).long()
    item = (torch.rand(rows, generator=drawn) ** 2 * ITEMS).long()
    price = torch.rand(rows, generator=drawn)
    chance = torch.sigmoid((tastes[user] * kinds[item]).sum(1) + price - 0.5)
    clicked = (torch.rand(rows, generator=drawn) < chance).float()
    return {"user_id": user, "item_id": item, "price": price}, clicked


def batches(columns: Columns, target: Tensor, size: int = 512) -> Split:
    """Cut columns into batches."""
    starts = range(0, len(target), size)
    return [({name: c[at : at + size] for name, c in columns.items()}, target[at : at + size]) for at in starts]


def splits(make: Callable[[int, int], tuple[Columns, Tensor]] = world) -> dict[str, Split]:
    """Train, validation and test, of 4,000, 1,500 and 1,500 rows."""
    sizes = {"train": 4_000, "validation": 1_500, "test": 1_500}
    return {name: batches(*make(rows, seed)) for seed, (name, rows) in enumerate(sizes.items())}


class Ranker(nn.Module):
    """Two embeddings and a price through an MLP; logits (rows,)."""

    def __init__(self, users: int = USERS, items: int = ITEMS) -> None:
        super().__init__()
        self.user, self.item = nn.Embedding(users, DIM), nn.Embedding(items, DIM)
        self.mlp = nn.Sequential(nn.Linear(2 * DIM + 1, 16), nn.ReLU(), nn.Linear(16, 1))

    def forward(self, user_id: Tensor, item_id: Tensor, price: Tensor) -> Tensor:
        return self.mlp(torch.cat([self.user(user_id), self.item(item_id), price.unsqueeze(1)], 1)).squeeze(1)


def train(
    model: nn.Module, data: Split, loss: Callable[..., Tensor] = F.binary_cross_entropy_with_logits, epochs: int = 3
) -> nn.Module:
    """Train a model in place and return it in evaluation mode."""
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    model.train()
    for _ in range(epochs):
        for inputs, target in data:
            optimizer.zero_grad()
            loss(model(**inputs), target).backward()
            optimizer.step()
    optimizer.zero_grad()
    return model.eval()


def trained_task(model: nn.Module, data: dict[str, Split] | None = None, loss: Any = None, **settings: Any) -> fw.Task:
    """A task around a model that is trained first; `loss` is what it is trained with."""
    data = splits() if data is None else data
    train(model, data["train"], *([loss] if loss else []))
    return fw.Task(model=model, **{"inputs": FIELDS, **settings}, **data)


def seeded(kind: Callable[..., nn.Module], *args: Any, **kwargs: Any) -> nn.Module:
    """Build a model whose first weights are always the same."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return kind(*args, **kwargs)
