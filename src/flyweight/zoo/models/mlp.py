"""The plainest deep ranker: one embedding a field, side by side into a multi-layer perceptron."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from flyweight.zoo.models.tables import embeddings, perceptron


class MLPRanker(nn.Module):
    """Embeddings of all fields, concatenated, through ReLU layers to one logit.

    Args:
        rows: the vocabulary size of each input, by name; `forward` takes inputs of these names.
        dim: width of an embedding.
        hidden: widths of the layers.

    Example:
        >>> MLPRanker({"user": 10, "item": 20})(user=torch.tensor([1, 2]), item=torch.tensor([3, 4])).shape
        torch.Size([2])
    """

    def __init__(self, rows: Mapping[str, int], dim: int = 16, hidden: tuple[int, ...] = (512, 256)) -> None:
        super().__init__()
        self.tables = embeddings(rows, dim)
        self.mlp = perceptron(len(rows) * dim, hidden)
        self.head = nn.Linear(hidden[-1], 1)

    def forward(self, **ids: Tensor) -> Tensor:
        """Return logits (rows,) for int64 ids (rows,) of each field."""
        x = torch.cat([table(ids[name]) for name, table in self.tables.items()], dim=-1)  # (rows, fields * dim)
        return self.head(self.mlp(x)).squeeze(-1)  # type: ignore[no-any-return]
