"""DeepFM (Guo et al. 2017, arXiv 1703.04247): a factorisation machine and a perceptron over the same embeddings."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from flyweight.zoo.models.tables import embeddings, perceptron


class DeepFM(nn.Module):
    """First-order weights, pairwise products and a perceptron, added up to one logit.

    The pairs cost what the fields cost: `sum_{i<j} <v_i, v_j> = (|sum v|^2 - sum |v|^2) / 2` (Rendle 2010, lemma 3.1).

    Args:
        rows: the vocabulary size of each input, by name; `forward` takes inputs of these names.
        dim: width of an embedding.
        hidden: widths of the perceptron's layers.

    Example:
        >>> DeepFM({"user": 10, "item": 20})(user=torch.tensor([1, 2]), item=torch.tensor([3, 4])).shape
        torch.Size([2])
    """

    def __init__(self, rows: Mapping[str, int], dim: int = 16, hidden: tuple[int, ...] = (256, 128)) -> None:
        super().__init__()
        self.tables = embeddings(rows, dim, init_std=1e-2)  # products of numbers near zero would not begin to learn
        self.weights = embeddings(rows, 1)
        self.mlp = perceptron(len(rows) * dim, hidden)
        self.head = nn.Linear(hidden[-1], 1)

    def forward(self, **ids: Tensor) -> Tensor:
        """Return logits (rows,) for int64 ids (rows,) of each field."""
        v = torch.stack([table(ids[name]) for name, table in self.tables.items()], dim=1)  # (rows, fields, dim)
        first = torch.cat([weight(ids[name]) for name, weight in self.weights.items()], dim=-1).sum(-1)
        pairs = 0.5 * (v.sum(1).square() - v.square().sum(1)).sum(-1)
        return first + pairs + self.head(self.mlp(v.flatten(1))).squeeze(-1)  # type: ignore[no-any-return]
