"""A two-tower retrieval model: who asks on one side, what is offered on the other, their dot product the score."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class TwoTower(nn.Module):
    """A user tower over the user's id and a bag of recent items, an item tower over the item's id.

    Args:
        users, items: vocabulary sizes; id 0 is the unknown, and the padding of a history.
        dim: width of the embeddings and of both towers' outputs.
        init_std: standard deviation the embeddings start with.
        tied: whether the history reads the items' table, the user's vector holds its mean, and an item's vector is its
            row: items are then near to those that go with them from the start (FISM, Kabbur et al. 2013).

    Example:
        >>> model = TwoTower(users=10, items=20, dim=8)
        >>> history = torch.tensor([[3, 4, 0], [5, 0, 0]])
        >>> model(user_id=torch.tensor([1, 2]), history=history, item_id=torch.tensor([6, 7])).shape
        torch.Size([2])
    """

    def __init__(self, users: int, items: int, dim: int = 64, init_std: float = 0.01, tied: bool = False) -> None:
        super().__init__()
        # Gradients are dense: the tables are so small, and a batch touches so many rows, that sorting costs more.
        self.users = nn.Embedding(users, dim)
        self.history = None if tied else nn.EmbeddingBag(items, dim, mode="mean", padding_idx=0)
        self.items = nn.Embedding(items, dim)
        self.user_tower = nn.Sequential(nn.Linear(2 * dim, dim), nn.ReLU(), nn.Linear(dim, dim))
        self.item_tower = nn.Identity() if tied else nn.Linear(dim, dim)
        self.share = nn.Parameter(torch.tensor(5.0)) if tied else None  # of the history's mean in the user's vector
        for table in (self.users, self.history, self.items):
            if table is None:
                continue
            nn.init.normal_(table.weight, std=init_std)
            with torch.no_grad():
                table.weight[0] = 0.0

    def request(self, user_id: Tensor, history: Tensor) -> Tensor:
        """Return the users' vectors (rows, dim) for ids (rows,) and histories (rows, length)."""
        if self.history is None:
            bag = F.embedding_bag(history, self.items.weight, mode="mean", padding_idx=0)
        else:
            bag = self.history(history)  # (rows, dim)
        user: Tensor = self.user_tower(torch.cat([self.users(user_id), bag], dim=-1))
        return user if self.share is None else user + self.share * bag

    def candidates(self, item_id: Tensor) -> Tensor:
        """Return the items' vectors (rows, dim) for ids (rows,)."""
        return self.item_tower(self.items(item_id))  # type: ignore[no-any-return]

    def forward(self, user_id: Tensor, history: Tensor, item_id: Tensor) -> Tensor:
        """Return logits (rows,) for ids (rows,), histories (rows, length) and ids (rows,)."""
        return (self.request(user_id, history) * self.candidates(item_id)).sum(-1)
