"""DLRM (Naumov et al. 2019, arXiv 1906.00091): dot products between all fields, and a perceptron over them."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from flyweight.zoo.models.tables import embeddings, perceptron


class DLRM(nn.Module):
    """Embeddings, and a perceptron's view of the numbers where there are any; each pair's dot product; a perceptron.

    Args:
        rows: the vocabulary size of each id input, by name; `forward` takes inputs of these names.
        dim: width of an embedding, and of what the bottom perceptron makes of the numbers.
        numbers: how many dense features the input `dense` (rows, numbers) has; 0 for none, then it is not taken.
        bottom, top: widths of the hidden layers.

    Example:
        >>> DLRM({"user": 10, "item": 20})(user=torch.tensor([1, 2]), item=torch.tensor([3, 4])).shape
        torch.Size([2])
    """

    left: Tensor
    right: Tensor

    def __init__(
        self,
        rows: Mapping[str, int],
        dim: int = 16,
        numbers: int = 0,
        bottom: tuple[int, ...] = (64,),
        top: tuple[int, ...] = (256, 128),
    ) -> None:
        super().__init__()
        self.tables = embeddings(rows, dim, init_std=1e-2)  # dots of numbers near zero would not begin to learn
        self.bottom = nn.Sequential(*perceptron(numbers, bottom), nn.Linear(bottom[-1], dim)) if numbers else None
        vectors = len(rows) + bool(numbers)
        left, right = torch.tril_indices(vectors, vectors, offset=-1)
        self.register_buffer("left", left, persistent=False)
        self.register_buffer("right", right, persistent=False)
        self.top = perceptron(vectors * dim + len(left), top)
        self.head = nn.Linear(top[-1], 1)

    def forward(self, dense: Tensor | None = None, **ids: Tensor) -> Tensor:
        """Return logits (rows,) for int64 ids (rows,) of each field and `dense` (rows, numbers)."""
        vectors = [table(ids[name]) for name, table in self.tables.items()]
        if self.bottom is not None and dense is not None:
            vectors = [self.bottom(dense), *vectors]
        v = torch.stack(vectors, dim=1)  # (rows, vectors, dim)
        dots = torch.bmm(v, v.transpose(1, 2))[:, self.left, self.right]  # (rows, pairs)
        return self.head(self.top(torch.cat([v.flatten(1), dots], dim=-1))).squeeze(-1)  # type: ignore[no-any-return]
