"""A two-tower retrieval model: who asks on one side, what is offered on the other, their dot product the score."""

import torch
from torch import Tensor, nn


class TwoTower(nn.Module):
    """A user tower over the user's id and a bag of recent items, an item tower over the item's id.

    Args:
        users, items: vocabulary sizes; id 0 is the unknown, and the padding of a history.
        dim: width of the embeddings and of both towers' outputs.
        init_std: standard deviation the embeddings start with.

    Example:
        >>> model = TwoTower(users=10, items=20, dim=8)
        >>> history = torch.tensor([[3, 4, 0], [5, 0, 0]])
        >>> model(user_id=torch.tensor([1, 2]), history=history, item_id=torch.tensor([6, 7])).shape
        torch.Size([2])
    """

    def __init__(self, users: int, items: int, dim: int = 64, init_std: float = 0.01) -> None:
        super().__init__()
        # Gradients are dense: the tables are so small, and a batch touches so many rows, that sorting costs more.
        self.users = nn.Embedding(users, dim)
        self.history = nn.EmbeddingBag(items, dim, mode="mean", padding_idx=0)
        self.items = nn.Embedding(items, dim)
        self.user_tower = nn.Sequential(nn.Linear(2 * dim, dim), nn.ReLU(), nn.Linear(dim, dim))
        self.item_tower = nn.Linear(dim, dim)
        for table in (self.users, self.history, self.items):
            nn.init.normal_(table.weight, std=init_std)
            with torch.no_grad():
                table.weight[0] = 0.0

    def request(self, user_id: Tensor, history: Tensor) -> Tensor:
        """Return the users' vectors (rows, dim) for ids (rows,) and histories (rows, length)."""
        return self.user_tower(torch.cat([self.users(user_id), self.history(history)], dim=-1))  # type: ignore[no-any-return]

    def candidates(self, item_id: Tensor) -> Tensor:
        """Return the items' vectors (rows, dim) for ids (rows,)."""
        return self.item_tower(self.items(item_id))  # type: ignore[no-any-return]

    def forward(self, user_id: Tensor, history: Tensor, item_id: Tensor) -> Tensor:
        """Return logits (rows,) for ids (rows,), histories (rows, length) and ids (rows,)."""
        return (self.request(user_id, history) * self.candidates(item_id)).sum(-1)
