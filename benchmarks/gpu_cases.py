"""What the GPU benchmark scores: the default ranker and a deep interest network, and requests of random ids."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from flyweight.task.field import REQUEST_INDEX, Field

Arrays = dict[str, NDArray[Any]]
HISTORY, ITEMS, CATEGORIES = 100, 100_000, 2_000


@dataclass(frozen=True, eq=False)
class Case:
    """A model with what it takes.

    Args:
        fields: its inputs, all of them ids.
        lengths: of the inputs with several ids a row.
    """

    name: str
    model: nn.Module
    fields: Mapping[str, Field]
    lengths: Mapping[str, int]


@dataclass(frozen=True, eq=False)
class Request:
    """Several requests in one call.

    Args:
        arrays: request fields have a row for each request, all others one for each candidate.
        index: the request of each candidate, shape (rows,).
        fields: with their roles.
    """

    arrays: Arrays
    index: NDArray[np.int64]
    fields: Mapping[str, Field]

    @property
    def flat(self) -> Arrays:
        """Every field with a row for each candidate, as a model takes it that knows of no requests."""
        return {
            name: value[self.index] if self.fields[name].role == "request" else value
            for name, value in self.arrays.items()
        }

    @property
    def hoisted(self) -> Arrays:
        """Request fields once; the index only where there are several requests."""
        return {**self.arrays, REQUEST_INDEX: self.index} if self.index.any() else dict(self.arrays)


def make_request(case: Case, requests: int, candidates: int, seed: int = 0) -> Request:
    """Draw ids from the whole of every vocabulary, so that tables lie in memory and not in a cache."""
    draw = np.random.default_rng(seed)
    arrays: Arrays = {}
    for name, field in case.fields.items():
        assert field.rows is not None, "every field of the cases holds ids"
        rows = requests if field.role == "request" else requests * candidates
        shape = (rows, case.lengths[name]) if name in case.lengths else (rows,)
        arrays[name] = draw.integers(0, field.rows, shape)
    return Request(arrays, np.repeat(np.arange(requests, dtype=np.int64), candidates), case.fields)


class DeepInterest(nn.Module):
    """Target attention over a history (Zhou et al. 2018, arXiv 1706.06978): each candidate weighs the past anew.

    A unit reads `[q, k, q - k, q * k]` of the candidate q and each past item k and gives the past item's weight, which
    is not normalised (section 4.3 of the paper); 80 and 40 units there, 200 and 80 after it, as in the paper's code.
    """

    def __init__(self, items: int = ITEMS, categories: int = CATEGORIES, dim: int = 32) -> None:
        super().__init__()
        self.item, self.category = nn.Embedding(items, dim), nn.Embedding(categories, dim)
        width = 2 * dim
        self.unit = nn.Sequential(
            nn.Linear(4 * width, 80), nn.Sigmoid(), nn.Linear(80, 40), nn.Sigmoid(), nn.Linear(40, 1)
        )
        self.head = nn.Sequential(
            nn.Linear(3 * width, 200), nn.Sigmoid(), nn.Linear(200, 80), nn.Sigmoid(), nn.Linear(80, 1)
        )

    def forward(self, past_item: Tensor, past_category: Tensor, item: Tensor, category: Tensor) -> Tensor:
        """Return logits (rows,) of candidates (rows,) with their histories (rows, length)."""
        keys = torch.cat([self.item(past_item), self.category(past_category)], dim=-1)  # (rows, length, width)
        query = torch.cat([self.item(item), self.category(category)], dim=-1)  # (rows, width)
        asked = query.unsqueeze(1).expand_as(keys)
        weights = self.unit(torch.cat([asked, keys, asked - keys, asked * keys], dim=-1))  # (rows, length, 1)
        interest = (weights * keys).sum(dim=1)
        logits: Tensor = self.head(torch.cat([interest, query, interest * query], dim=-1))
        return logits.squeeze(-1)


def interest_case(items: int = ITEMS, categories: int = CATEGORIES, dim: int = 32, history: int = HISTORY) -> Case:
    """DIN of random weights: only its time is measured."""
    torch.manual_seed(0)
    rows = {"past_item": items, "past_category": categories, "item": items, "category": categories}
    fields = {
        name: Field(role="request" if name.startswith("past") else "candidate", rows=count)
        for name, count in rows.items()
    }
    lengths = {"past_item": history, "past_category": history}
    name = f"DIN, history {history}"
    return Case(name, DeepInterest(items, categories, dim).eval(), fields, lengths)


def ranker_case() -> Case:
    """The default task's trained ranker."""
    from flyweight.zoo.tasks import complete_journey

    task = complete_journey()
    return Case(task.name, task.model.eval(), task.inputs, {})
