"""DIN, the deep interest network (Zhou et al. 2018, arXiv 1706.06978): a history, weighed anew for each candidate."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from flyweight.zoo.models.tables import embedding, embeddings, perceptron


class DIN(nn.Module):
    """A user's history summed with weights that depend on the candidate, beside the embeddings of all other fields.

    For a candidate q and an item k of the history, a small perceptron reads `[q, k, q - k, q * k]` and gives the weight
    (figure 2 and equation 3 of the paper); weights are not normalised, so that a strong interest stays strong.

    Args:
        rows: the vocabulary size of each plain id input, by name, the candidate's item among them.
        item: which of them is the item; `history` holds ids of the same vocabulary, 0 where there is none.
        dim: width of the embeddings of other fields; item_dim of the item's.
        attention: neurons of the perceptron that weighs.
        hidden: widths of the last layers.

    Example:
        >>> model = DIN({"user": 10, "item": 20}, item="item")
        >>> model(user=torch.tensor([1, 2]), item=torch.tensor([3, 4]), history=torch.tensor([[5, 0], [6, 7]])).shape
        torch.Size([2])
    """

    def __init__(
        self,
        rows: Mapping[str, int],
        item: str,
        dim: int = 16,
        item_dim: int = 32,
        attention: int = 36,
        hidden: tuple[int, ...] = (200, 80),
    ) -> None:
        super().__init__()
        self.item = item
        self.items = embedding(rows[item], item_dim, init_std=1e-2, sparse=False)
        self.tables = embeddings({name: count for name, count in rows.items() if name != item}, dim)
        self.weigh = nn.Sequential(nn.Linear(4 * item_dim, attention), nn.PReLU(), nn.Linear(attention, 1))
        self.mlp = perceptron(2 * item_dim + len(self.tables) * dim, hidden)
        self.head = nn.Linear(hidden[-1], 1)

    def forward(self, history: Tensor, **ids: Tensor) -> Tensor:
        """Return logits (rows,) for a history (rows, length), padded with 0, and int64 ids (rows,) of each field."""
        q, k = self.items(ids[self.item]), self.items(history)  # (rows, item_dim), (rows, length, item_dim)
        query = q.unsqueeze(1).expand_as(k)
        weights = self.weigh(torch.cat([query, k, query - k, query * k], dim=-1))  # (rows, length, 1)
        interest = (weights * (history != 0).unsqueeze(-1) * k).sum(1)  # (rows, item_dim)
        fields = [table(ids[name]) for name, table in self.tables.items()]
        return self.head(self.mlp(torch.cat([q, interest, *fields], dim=-1))).squeeze(-1)  # type: ignore[no-any-return]
