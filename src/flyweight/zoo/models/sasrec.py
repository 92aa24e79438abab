"""SASRec, the self-attentive sequential recommender (Kang and McAuley 2018, arXiv 1808.09781), with norms before."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SelfAttention(nn.Module):
    """Scaled dot-product attention in several heads, each of `dim / heads` (Vaswani et al. 2017, section 3.2.2)."""

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.query, self.key, self.value = nn.Linear(dim, dim), nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, x: Tensor, seen: Tensor) -> Tensor:
        """Return (rows, length, dim) for x of that shape; `seen` (rows, 1, length, length) says who looks at whom."""
        query, key, value = (self._split(layer(x)) for layer in (self.query, self.key, self.value))
        dropout = self.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=seen, dropout_p=dropout)
        return self.out(mixed.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]

    def _split(self, x: Tensor) -> Tensor:
        rows, length, dim = x.shape
        return x.view(rows, length, self.heads, dim // self.heads).transpose(1, 2)  # (rows, heads, length, width)


class Block(nn.Module):
    """Attention and a two-layer MLP at each position, each normalised before and added to what came in."""

    def __init__(self, dim: int, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attention = SelfAttention(dim, heads, dropout)
        self.mlp = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim))
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor, seen: Tensor) -> Tensor:
        """Return (rows, length, dim) for x of that shape and the mask of `SelfAttention`."""
        x = x + self.drop(self.attention(self.norm1(x), seen))
        return x + self.drop(self.mlp(self.norm2(x)))  # type: ignore[no-any-return]


class SASRec(nn.Module):
    """The next item from the last ones: causal self-attention over a history, scored against every item's embedding.

    The table of items is read twice, for the history and, as one matrix, for the scores (section III.D of the paper).
    Id 0 is "no item": the padding before a short history, which no position looks at. It has a score like every other
    id; training with it as a wrong answer makes that a low one.

    Args:
        items: rows of the item table, id 0 included.
        length: of a history.
        dim: width of the embeddings and the blocks.
        blocks, heads: how many blocks, and heads in each.
        hidden: width of the MLP within a block.
        dropout: share dropped in training, of embeddings, attention weights and what each half of a block adds.

    Example:
        >>> model = SASRec(items=20, length=4, dim=8)
        >>> model(history=torch.tensor([[0, 0, 3, 7], [1, 2, 3, 4]])).shape
        torch.Size([2, 20])
    """

    causal: Tensor
    itself: Tensor

    def __init__(
        self,
        items: int,
        length: int = 50,
        dim: int = 64,
        blocks: int = 2,
        heads: int = 2,
        hidden: int = 256,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        self.items, self.positions = nn.Embedding(items, dim), nn.Embedding(length, dim)
        self.drop = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(Block(dim, heads, hidden, dropout) for _ in range(blocks))
        self.norm = nn.LayerNorm(dim)
        self.register_buffer("causal", torch.ones(length, length, dtype=torch.bool).tril())
        self.register_buffer("itself", torch.eye(length, dtype=torch.bool))
        for module in self.modules():
            if isinstance(module, (nn.Embedding, nn.Linear)):
                nn.init.normal_(module.weight, std=0.02)

    def encode(self, history: Tensor) -> Tensor:
        """Return what each position knows, (rows, length, dim), for ids (rows, length); shorter histories will do."""
        length = history.shape[1]
        at = self.positions.weight[self.positions.num_embeddings - length :]  # counted from the newest item
        # Scaled as by the authors: entries small enough for scores are too small beside what the blocks add.
        x = self.drop(self.items(history) * math.sqrt(self.items.embedding_dim) + at)  # (rows, length, dim)
        known = (history != 0).unsqueeze(1).unsqueeze(1)  # (rows, 1, 1, length)
        # Padding sees itself, for a softmax over nothing is not a number.
        seen = self.causal[:length, :length] & (known | self.itself[:length, :length])
        for block in self.blocks:
            x = block(x, seen)
        return self.norm(x)  # type: ignore[no-any-return]

    def request(self, history: Tensor) -> Tensor:
        """Return what comes next as vectors (rows, dim), for ids (rows, length), padded before with 0."""
        return self.encode(history)[:, -1]

    def candidates(self, item_id: Tensor) -> Tensor:
        """Return the items' vectors (rows, dim) for ids (rows,): rows of the table."""
        return self.items(item_id)  # type: ignore[no-any-return]

    def forward(self, history: Tensor) -> Tensor:
        """Return scores (rows, items) for the item that comes next, from ids (rows, length), padded before with 0."""
        return F.linear(self.request(history), self.items.weight)


class CandidateSASRec(nn.Module):
    """A trained SASRec that scores one candidate a row: the dot product of what comes next and the item's embedding.

    Args:
        encoder: reads histories and holds the items; shared, not copied.
    """

    def __init__(self, encoder: SASRec) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, history: Tensor, item_id: Tensor) -> Tensor:
        """Return scores (rows,) for ids (rows, length), padded before with 0, and ids (rows,)."""
        return (self.encoder.request(history) * self.encoder.candidates(item_id)).sum(-1)
