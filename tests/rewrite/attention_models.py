"""Models that look at a history for each candidate, written as people write them: nothing is made for hoisting."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

HISTORY, ITEMS = 6, 30


class Dice(nn.Module):
    """DIN's activation: `p x + (1 - p) a x` with `p` the sigmoid of `x` normalised (section 5.3 of the paper)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(width, affine=False)
        self.norm.running_mean.uniform_(-0.5, 0.5)
        self.alpha = nn.Parameter(torch.rand(width))

    def forward(self, x: Tensor) -> Tensor:
        p = torch.sigmoid(self.norm(x.flatten(0, -2)).view(x.shape))
        return p * x + (1 - p) * self.alpha * x


class Din(nn.Module):
    """Zhou et al. 2018: weights of the history's items by a layer over `[q, k, q-k, q*k]`, a weighted sum, a tower."""

    def __init__(
        self,
        width: int = 4,
        units: int = 8,
        *,
        parts: str = "q k q-k q*k",
        activation: Callable[[int], nn.Module] = lambda width: nn.PReLU(),
        softmax: bool = False,
        flat: bool = False,
        items: int = ITEMS,
    ) -> None:
        super().__init__()
        self.items = nn.Embedding(items, width, padding_idx=0)
        self.parts, self.softmax, self.flat = parts.split(), softmax, flat
        self.first = nn.Linear(len(self.parts) * width, units)
        self.second = nn.Linear(units, units // 2)
        self.last = nn.Linear(units // 2, 1)
        self.act1, self.act2 = activation(units), activation(units // 2)
        self.tower = nn.Sequential(nn.Linear(3 * width, units), nn.ReLU(), nn.Linear(units, 1))

    def forward(self, history: Tensor, item: Tensor, price: Tensor) -> Tensor:
        k, q0 = self.items(history), self.items(item)
        q = q0.unsqueeze(1).expand(-1, k.shape[1], -1)
        made = {"q": q, "k": k, "q-k": q - k, "k-q": k - q, "q*k": q * k, "q+k": q + k}
        x = torch.cat([made[part] for part in self.parts], -1)
        if self.flat:
            x = x.view(-1, x.shape[-1])
        w = self.last(self.act2(self.second(self.act1(self.first(x))))).view(-1, k.shape[1])
        there = history != 0
        w = w.masked_fill(~there, -1e9).softmax(-1) if self.softmax else w * there
        interest = (w.unsqueeze(-1) * k).sum(1)
        return self.tower(torch.cat([interest, q0 * price.unsqueeze(1), interest * q0], 1)).squeeze(1)


class Matched(nn.Module):
    """Attention by products of the candidate and the history, written as `form` says."""

    def __init__(self, form: str = "sum", width: int = 4, heads: int = 2) -> None:
        super().__init__()
        self.form, self.heads = form, heads
        self.items = nn.Embedding(ITEMS, width, padding_idx=0)
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.out = nn.Linear(2 * width, 1)

    def forward(self, history: Tensor, item: Tensor, price: Tensor) -> Tensor:
        there = history != 0
        k, q = self.items(history), self.items(item)
        seen = getattr(self, f"_{self.form}")(k, q * price.unsqueeze(1), there)
        return self.out(torch.cat([seen, q], 1)).squeeze(1)

    def _sum(self, k: Tensor, q: Tensor, there: Tensor) -> Tensor:
        scores = (self.key(k) * self.query(q).unsqueeze(1)).sum(-1)
        w = scores.masked_fill(~there, -1e9).softmax(1)
        return (self.value(k) * w.unsqueeze(2)).sum(dim=1)

    def _bmm(self, k: Tensor, q: Tensor, there: Tensor) -> Tensor:
        scores = torch.bmm(self.key(k), self.query(q).unsqueeze(2)).squeeze(2)
        w = scores.masked_fill(~there, -1e9).softmax(1)
        return torch.bmm(w.unsqueeze(1), self.value(k)).squeeze(1)

    def _einsum(self, k: Tensor, q: Tensor, there: Tensor) -> Tensor:
        w = torch.einsum("nd,ntd->nt", self.query(q), self.key(k)).masked_fill(~there, -1e9).softmax(1)
        return torch.einsum("nt,ntd->nd", w, self.value(k))

    def _einsums(self, k: Tensor, q: Tensor, there: Tensor) -> Tensor:
        queries, keys = (one.unflatten(-1, (self.heads, -1)) for one in (self.query(q), self.key(k)))
        w = torch.einsum("nthd, nhd -> nth", keys, queries).masked_fill(~there.unsqueeze(2), -1e9).softmax(1)
        return torch.einsum("ntv,nth->nvh", self.value(k), w).mean(2)

    def _additive(self, k: Tensor, q: Tensor, there: Tensor) -> Tensor:
        mixed = torch.tanh(self.query(q.unsqueeze(1).expand_as(k)) + self.key(k))
        w = self.value(mixed).sum(-1).masked_fill(~there, -1e9).softmax(1)
        return torch.matmul(w.unsqueeze(1), k).squeeze(1)

    def _fused(self, k: Tensor, q: Tensor, there: Tensor) -> Tensor:
        split = [self._split(one) for one in (self.query(q.unsqueeze(1)), self.key(k), self.value(k))]
        mask = there[:, None, None, :]
        seen = nn.functional.scaled_dot_product_attention(*split, attn_mask=mask)
        return seen.transpose(1, 2).flatten(1)

    def _module(self, k: Tensor, q: Tensor, there: Tensor) -> Tensor:
        return self.attention(q.unsqueeze(1), k, k, need_weights=False)[0].squeeze(1)

    def _weights(self, k: Tensor, q: Tensor, there: Tensor) -> Tensor:
        empty = ~there.any(1, keepdim=True)  # who has bought nothing looks at everything
        return self.attention(q.unsqueeze(1), k, k, key_padding_mask=~(there | empty))[0].squeeze(1)

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(2, (self.heads, -1)).transpose(1, 2)


class Encoded(nn.Module):
    """A transformer or a GRU over the history (the first half of DIEN), then DIN's attention over what it gives."""

    def __init__(self, encoder: str) -> None:
        super().__init__()
        self.items = nn.Embedding(ITEMS, 4, padding_idx=0)
        layer = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.1, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2) if encoder == "transformer" else nn.GRU(4, 4, batch_first=True)
        self.first, self.last = nn.Linear(16, 8), nn.Linear(8, 1)
        self.out = nn.Linear(8, 1)

    def forward(self, history: Tensor, item: Tensor, price: Tensor) -> Tensor:
        k, q0 = self.encoder(self.items(history)), self.items(item)
        k = k[0] if isinstance(k, tuple) else k
        q = q0[:, None].repeat(1, k.shape[1], 1)
        w = self.last(torch.sigmoid(self.first(torch.cat([q, k, q - k, q * k], -1)))).softmax(1)
        return self.out(torch.cat([(w * k).sum(1), q0 * price[:, None]], 1)).squeeze(1)


class Bst(nn.Module):
    """Behaviour sequence transformer (Chen et al. 2019): the candidate stands at the end of the history."""

    def __init__(self) -> None:
        super().__init__()
        self.items = nn.Embedding(ITEMS, 4, padding_idx=0)
        self.place = nn.Parameter(torch.randn(HISTORY + 1, 4))
        self.layer = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)
        self.out = nn.Linear(4 * (HISTORY + 1), 1)

    def forward(self, history: Tensor, item: Tensor, price: Tensor) -> Tensor:
        x = torch.cat([self.items(history), self.items(item).unsqueeze(1)], 1) + self.place
        return self.out(self.layer(x).flatten(1)).squeeze(1) * price
