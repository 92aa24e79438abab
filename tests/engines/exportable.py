"""Small models of every kind that must export, each with a function that makes a batch of any number of rows."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

Batch = dict[str, Tensor]


def drawn(*shape: int, below: int = 50) -> Tensor:
    return torch.randint(0, below, shape, generator=torch.Generator().manual_seed(sum(shape)))


def floats(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


class Ranker(nn.Module):
    """Ids, a bag and a dense value through an MLP with batch norm and dropout; inputs as **inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.user, self.item = nn.Embedding(50, 8), nn.Embedding(50, 8)
        self.tags = nn.EmbeddingBag(50, 8, mode="mean", padding_idx=0)
        self.mlp = nn.Sequential(nn.Linear(25, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(), nn.Linear(16, 1))

    def forward(self, **inputs: Tensor) -> Tensor:
        price = inputs["price"].unsqueeze(1)
        vectors = [self.user(inputs["user_id"]), self.item(inputs["item_id"]), self.tags(inputs["tags"]), price]
        return self.mlp(torch.cat(vectors, 1)).squeeze(-1)


class Bag(nn.Module):
    """Flat ids with offsets."""

    def __init__(self, mode: str) -> None:
        super().__init__()
        self.bag = nn.EmbeddingBag(50, 8, mode=mode, padding_idx=3)
        self.last = nn.Linear(8, 1)

    def forward(self, ids: Tensor, offsets: Tensor, weights: Tensor | None = None) -> Tensor:
        return self.last(self.bag(ids, offsets, per_sample_weights=weights)).squeeze(-1)


class History(nn.Module):
    """A history (rows, length) attended to by the candidate."""

    def __init__(self) -> None:
        super().__init__()
        self.item = nn.Embedding(50, 8, padding_idx=0)
        self.encode = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 1)

    def forward(self, history: Tensor, item_id: Tensor) -> Tensor:
        keys = self.encode(self.item(history))  # (rows, length, 8)
        candidate = self.item(item_id)  # (rows, 8)
        weight = torch.softmax((keys * candidate.unsqueeze(1)).sum(-1).masked_fill(history == 0, -1e9), 1)
        return ((keys * weight.unsqueeze(-1)).sum(1) * candidate).sum(-1)


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.item, self.gru, self.last = nn.Embedding(50, 8), nn.GRU(8, 8, batch_first=True), nn.Linear(8, 5)

    def forward(self, history: Tensor) -> Tensor:
        return self.last(self.gru(self.item(history))[1][-1])


class Images(nn.Module):
    """A CNN over 4-D images that returns probabilities of classes."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2),
            nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 3), nn.Softmax(1),
        )  # fmt: skip

    def forward(self, image: Tensor) -> Tensor:
        return self.net(image)


class Probability(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.LayerNorm(8), nn.Linear(8, 1), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        return self.mlp(x)


class Unused(nn.Module):
    """An input that is taken and never read, and one of booleans."""

    def forward(self, x: Tensor, spare: Tensor, shown: Tensor) -> Tensor:
        return x.sum(1) * shown


def ranker_batch(rows: int) -> Batch:
    ids = {"user_id": drawn(rows), "item_id": drawn(rows, below=49)}
    return {**ids, "tags": drawn(rows, 3, below=4), "price": floats(rows)}


def bag_batch(rows: int) -> Batch:
    starts = torch.arange(rows) * 2
    return {"ids": drawn(2 * rows + 1), "offsets": torch.where(starts % 6 == 4, starts - 2, starts)}  # some are empty


#: name -> (model, batch of so many rows)
MODELS: dict[str, tuple[Callable[[], nn.Module], Callable[[int], Batch]]] = {
    "ranker": (Ranker, ranker_batch),
    "bag sum": (lambda: Bag("sum"), bag_batch),
    "bag mean": (lambda: Bag("mean"), bag_batch),
    "bag max": (lambda: Bag("max"), bag_batch),
    "bag weighted": (lambda: Bag("sum"), lambda rows: bag_batch(rows) | {"weights": floats(2 * rows + 1)}),
    "history": (History, lambda rows: {"history": drawn(rows, 7), "item_id": drawn(rows)}),
    "recurrent": (Recurrent, lambda rows: {"history": drawn(rows, 5)}),
    "images": (Images, lambda rows: {"image": floats(rows, 3, 8, 8)}),
    "unused": (Unused, lambda rows: {"x": floats(rows, 4), "spare": drawn(rows), "shown": drawn(rows) > 20}),
    "probability": (Probability, lambda rows: {"x": floats(rows, 4)}),
}
