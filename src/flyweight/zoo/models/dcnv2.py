"""DCN-V2, the deep and cross network (Wang et al. 2020, arXiv 2008.13535), in its parallel form, over id fields."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from flyweight.zoo.models.tables import embeddings, perceptron


class DCNv2(nn.Module):
    """A click ranker: one embedding a field, full-rank cross layers beside an MLP, one logit a row.

    With x0 the embeddings of a row side by side, cross layer l gives `x[l+1] = x0 * (W[l] x[l] + b[l]) + x[l]`
    (eq. 1 of the paper); the MLP reads x0 too, and a linear layer reads both ends (figure 1, right: "parallel").

    Args:
        rows: the vocabulary size of each input, by name; `forward` takes inputs of these names.
        dim: width of an embedding.
        cross_layers: how many cross layers.
        hidden: widths of the MLP's layers.
        init_std: standard deviation the embeddings start with.

    Example:
        >>> model = DCNv2({"user": 10, "item": 20})
        >>> model(user=torch.tensor([1, 2]), item=torch.tensor([3, 4])).shape
        torch.Size([2])
    """

    def __init__(
        self,
        rows: Mapping[str, int],
        dim: int = 16,
        cross_layers: int = 2,
        hidden: tuple[int, ...] = (256, 128),
        init_std: float = 1e-4,
    ) -> None:
        super().__init__()
        self.tables = embeddings(rows, dim, init_std)
        width = len(rows) * dim
        self.cross = nn.ModuleList(nn.Linear(width, width) for _ in range(cross_layers))
        self.mlp = perceptron(width, hidden)
        self.head = nn.Linear(width + hidden[-1], 1)

    def forward(self, **ids: Tensor) -> Tensor:
        """Return logits (rows,) for int64 ids (rows,) of each field."""
        x0 = torch.cat([table(ids[name]) for name, table in self.tables.items()], dim=-1)  # (rows, fields * dim)
        crossed = x0
        for layer in self.cross:
            crossed = x0 * layer(crossed) + crossed
        both = torch.cat([crossed, self.mlp(x0)], dim=-1)
        return self.head(both).squeeze(-1)  # type: ignore[no-any-return]
