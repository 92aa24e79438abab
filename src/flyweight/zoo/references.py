"""Simple rankers that a trained model must beat before its AUC means anything."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from flyweight.task.scores import evaluating
from flyweight.zoo.batches import Batches
from flyweight.zoo.complete_journey import CROSSES
from flyweight.zoo.dataset import Dataset
from flyweight.zoo.progress import Progress, silent
from flyweight.zoo.training import Training, trained

_TRAINING = Training(table_rate=0.02, dense_rate=0.02, final_rate=0.1)


class LogisticRegression(nn.Module):
    """Logistic regression on one-hot ids: a weight a row of each field, and a bias.

    Args:
        rows: the vocabulary size of each input, by name; `forward` takes inputs of these names and ignores others.
    """

    def __init__(self, rows: Mapping[str, int]) -> None:
        super().__init__()
        self.tables = nn.ModuleDict({name: nn.Embedding(count, 1, sparse=True) for name, count in rows.items()})
        self.bias = nn.Parameter(torch.zeros(()))
        for parameter in self.parameters():
            nn.init.zeros_(parameter)

    def forward(self, **ids: Tensor) -> Tensor:
        """Return logits (rows,)."""
        weights = [table(ids[name]) for name, table in self.tables.items()]  # each (rows, 1)
        return torch.cat(weights, dim=-1).sum(-1) + self.bias


def count_scores(train: Batches, split: Batches, item: str) -> Tensor:
    """Return (rows,) how often an item was positive in training."""
    bought = train.column(item).long()[train.target > 0]
    counts = torch.bincount(bought, minlength=1 + int(split.column(item).max()))
    return counts[split.column(item).long()]


def rate_scores(train: Batches, split: Batches, item: str, strength: float = 2.0) -> Tensor:
    """Return (rows,) the share of an item's training rows that were positive, shrunk towards the mean of all.

    `(positives + strength * mean) / (rows + strength)`: an item seen seldom gets nearly the mean, an unknown the mean.

    Example: of 10 rows 9 positive where half of all rows are, strength 2: (9 + 2 * 0.5) / (10 + 2) = 0.833.
    """
    items, target = train.column(item).long(), train.target.double()
    size = int(max(items.max(), split.column(item).max())) + 1
    seen = torch.bincount(items, minlength=size)
    positive = torch.bincount(items, weights=target, minlength=size)
    rate = (positive + strength * target.mean()) / (seen + strength)
    return rate[split.column(item).long()]


def regression_scores(data: Dataset, split: Batches, fields: tuple[str, ...], progress: Progress = silent) -> Tensor:
    """Return (rows,) logits of a logistic regression on some fields, trained for one epoch (20 s, cached)."""
    rows = {name: data.vocabulary[name] for name in fields}
    model = trained(lambda: LogisticRegression(rows), data.train, _TRAINING, data.fingerprint, progress)
    with evaluating(model), torch.no_grad():
        return torch.cat([model(**inputs) for inputs, _ in split])


@dataclass(frozen=True)
class Reference:
    """A simple ranker of Complete Journey: its name and `scores(data, split) -> (rows,)`."""

    name: str
    scores: Callable[[Dataset, Batches], Tensor]


def _plain(data: Dataset) -> tuple[str, ...]:
    crosses = {name for name, _, _ in CROSSES}
    return tuple(name for name in data.fields if name not in crosses)


#: From the simplest on; the first two take milliseconds, the others train.
REFERENCES: tuple[Reference, ...] = (
    Reference("product popularity (times bought)", lambda data, split: count_scores(data.train, split, "product_id")),
    Reference("product rate (bought of shown)", lambda data, split: rate_scores(data.train, split, "product_id")),
    Reference("logistic regression", lambda data, split: regression_scores(data, split, _plain(data))),
    Reference(
        "logistic regression with household x type",
        lambda data, split: regression_scores(data, split, (*_plain(data), "household_x_type")),
    ),
)
