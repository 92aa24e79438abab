"""The data sets of the retrieval benchmark: what each ranker finds for each test request, and what was relevant."""

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from flyweight.zoo import beauty, movielens, retail
from flyweight.zoo.batches import Batches
from flyweight.zoo.beauty_sasrec import trained_sasrec
from flyweight.zoo.cache import fingerprint
from flyweight.zoo.exact_search import best_columns
from flyweight.zoo.in_batch_training import fit_in_batch
from flyweight.zoo.item_references import (
    item_cosines,
    item_counts,
    neighbour_scores,
    next_shares,
    own_scores,
    popularity_scores,
)
from flyweight.zoo.models.two_tower import TwoTower
from flyweight.zoo.recipe import Recipe, trained_once
from flyweight.zoo.retrieval import Retriever, build_retriever
from flyweight.zoo.tasks import ZOO

Ints = NDArray[np.int64]
Fields = dict[str, Tensor]
#: Requests whose scores of all items are held at once.
PART = 256
#: Chosen on MovieLens' validation likes, and on Online Retail's validation baskets.
FILMS = Recipe(epochs=10, rate=0.005, decay=0.01, batch=1024, negatives=1)
RETAIL = Recipe(epochs=10, rate=0.005, decay=0.01, batch=256, negatives=8)
#: Products of a basket history that the two-tower model reads: the newest.
BASKET_HISTORY = 100
#: Sales that "popular of late" counts.
LATE_DAYS = 28


@dataclass(frozen=True, eq=False)
class Ranker:
    """Something that ranks all items.

    Args:
        name: in words.
        kind: "reference" or "model".
        find: `find(k) -> (requests, k)` ids.
        retriever: of a model, with the fields of its requests; None for a reference.
    """

    name: str
    kind: str
    find: Callable[[int], Ints]
    retriever: Retriever | None = None
    fields: Fields | None = None


@dataclass(frozen=True, eq=False)
class Case:
    """Requests of a test split.

    Args:
        name: of the data set, and `what` is asked of it.
        k: items that are found and judged.
        items: of the catalogue.
        relevant: (requests, width) ids, -1 where there are fewer.
        groups: (requests,) which requests belong together (a customer), for the intervals.
        rankers: references first.
    """

    name: str
    what: str
    k: int
    items: int
    relevant: Ints
    groups: Ints
    rankers: list[Ranker]


def cases() -> Iterator[Case]:
    """Yield every case, models trained where they are not kept."""
    yield movielens_case()
    yield from retail_cases()
    yield beauty_case()


def movielens_case() -> Case:
    """Return MovieLens-1M: a user's last tenth of likes among all films the user has not liked before."""
    data = movielens.load()
    items = data.vocabulary["item_id"]
    liked = [_positives(split) for split in (data.train, data.validation, data.test)]
    users, first = np.unique(liked[2]["user_id"], return_index=True)
    users, first = users[users > 0], first[users > 0]
    relevant = _by_user(liked[2]["user_id"], liked[2]["item_id"], users)
    kept = (relevant >= 0).any(axis=1)
    users, first, relevant = users[kept], first[kept], relevant[kept]
    before = [np.concatenate([part[name] for part in liked[:2]]) for name in ("user_id", "item_id")]
    known = _by_user(before[0], before[1], users)
    train = liked[0]
    counts = item_counts(train["item_id"], items)
    cosines = item_cosines(train["user_id"], train["item_id"], items)
    fields = {name: torch.from_numpy(liked[2][name][first]) for name in ("user_id", "history")}
    reference = partial(_reference, history=known, exclude=known)
    towers = partial(_tower_ranker, fields=fields, items=items, exclude=known)
    in_batch = _trained_towers(data.vocabulary["user_id"], items, 64, train, train["item_id"][:, None], FILMS)
    return Case(
        "MovieLens-1M",
        "each user's last tenth of likes, among films not liked before",
        20,
        items - 1,
        relevant,
        users,
        [
            reference("popularity", partial(popularity_scores, counts)),
            reference("item-to-item, cosine", partial(neighbour_scores, cosines, counts)),
            towers("two-tower, four drawn negatives (the zoo's task)", ZOO["movielens-1m"]().model),
            towers("two-tower, in-batch softmax", in_batch),
        ],
    )


def retail_cases() -> Iterator[Case]:
    """Yield Online Retail II twice: all that the next basket holds, and only what the customer never bought."""
    data = retail.load()
    of_line = np.repeat(np.arange(len(data.user)), np.diff(data.first))
    train = data.split[of_line] == 0
    late = train & (data.days[of_line] > data.days[data.split == 0].max() - LATE_DAYS)
    counts, recent = (item_counts(data.item[rows], data.items) for rows in (train, late))
    cosines = item_cosines(of_line[train], data.item[train], data.items)
    model = retail_towers(data)
    for what, new_only in (("the next basket", False), ("what is new to the customer in the next basket", True)):
        baskets = np.flatnonzero(data.split == 2)
        relevant, bought = data.contents(baskets), _all_before(data, baskets)
        if new_only:
            relevant = np.stack([_without(row, own) for row, own in zip(relevant, bought, strict=True)])
            kept = (relevant >= 0).any(axis=1)
            baskets, relevant, bought = baskets[kept], relevant[kept], bought[kept]
        exclude = bought if new_only else None
        fields = {"user_id": torch.from_numpy(data.user[baskets])}
        fields["history"] = torch.from_numpy(data.history(baskets, BASKET_HISTORY))
        reference = partial(_reference, history=np.maximum(bought, 0), exclude=exclude)
        near = fields["history"].numpy()
        rankers = [
            reference("popularity", partial(popularity_scores, counts)),
            reference(f"popularity of the last {LATE_DAYS} days of training", partial(popularity_scores, recent)),
            _reference("item-to-item, cosine", partial(neighbour_scores, cosines, recent), near, exclude),
            _tower_ranker("two-tower, in-batch softmax", model, fields, data.items, exclude),
        ]
        if not new_only:
            rankers.insert(3, reference("what the customer bought most often", partial(own_scores, recent)))
        yield Case("Online Retail II", what, 20, data.items - 1, relevant, data.begin[baskets], rankers)


def beauty_case() -> Case:
    """Return Amazon Beauty, leave-one-out, among all items but those of the history, as the papers have it."""
    data, sequences = beauty.load(), beauty.train_sequences(beauty.read_sequences())
    items = beauty.ITEMS + 1
    users = np.repeat(np.arange(len(sequences)), [len(own) for own in sequences])
    seen = np.concatenate(sequences).astype(np.int64)
    counts, cosines = item_counts(seen, items), item_cosines(users, seen, items)
    follows = np.flatnonzero(users[1:] == users[:-1])
    shares = next_shares(seen[follows], seen[follows + 1], items)
    history, relevant = data.test.ids.long(), data.test.target.long().numpy()[:, None]
    exclude = np.where(history.numpy() > 0, history.numpy(), -1)
    last = history[:, -1:].numpy()
    return Case(
        "Amazon Beauty",
        "each user's last item, among items not in the history",
        10,
        beauty.ITEMS,
        relevant,
        np.arange(len(relevant)),
        [
            _reference("popularity", partial(popularity_scores, counts), last, exclude),
            _reference("what came next (Markov)", partial(neighbour_scores, shares, counts), last, exclude),
            _reference("item-to-item, cosine", partial(neighbour_scores, cosines, counts), history.numpy(), exclude),
            _tower_ranker("SASRec", trained_sasrec()[0], {"history": history}, items, exclude),
        ],
    )


def retail_towers(data: retail.Baskets) -> nn.Module:
    """Return the two-tower model of Online Retail II, trained on baskets with a history."""
    baskets = np.flatnonzero(data.split == 0)
    baskets = baskets[data.history(baskets, 1)[:, 0] > 0]
    fields = {"user_id": data.user[baskets], "history": data.history(baskets, BASKET_HISTORY)}
    return _trained_towers(data.users, data.items, 128, fields, data.contents(baskets), RETAIL)


def _trained_towers(
    users: int, items: int, dim: int, fields: dict[str, Ints], relevant: Ints, recipe: Recipe
) -> nn.Module:
    request = {name: fields[name] for name in ("user_id", "history")}

    def fit(model: nn.Module, recipe: Recipe) -> None:
        started = time.perf_counter()

        def tell(epoch: int, _: nn.Module) -> None:
            seconds = time.perf_counter() - started
            print(f"two-tower: epoch {epoch + 1} of {recipe.epochs}, {seconds:.0f} s", file=sys.stderr, flush=True)

        fit_in_batch(model, {name: torch.from_numpy(ids) for name, ids in request.items()}, relevant, recipe, tell)

    key = f"in-batch {fingerprint(request | {'relevant': relevant})}"
    return trained_once(lambda: TwoTower(users, items, dim, init_std=0.2, tied=True), fit, recipe, key)[0]


def _reference(name: str, scores: Callable[[Tensor], Tensor], history: Ints, exclude: Ints | None) -> Ranker:
    """Return a ranker by scores of a history (requests, width), 0 or below where there is no item."""

    def find(k: int) -> Ints:
        found = []
        for start in range(0, len(history), PART):
            part = torch.from_numpy(np.maximum(history[start : start + PART], 0))
            values = scores(part).clone()
            values[:, 0] = -torch.inf
            if exclude is not None:  # padding of -1 falls on column 0, which is out already
                values.scatter_(1, torch.from_numpy(np.maximum(exclude[start : start + PART], 0)), -torch.inf)
            found.append(best_columns(values.numpy(), k))
        return np.concatenate(found)

    return Ranker(name, "reference", find)


def _tower_ranker(name: str, model: nn.Module, fields: Fields, items: int, exclude: Ints | None) -> Ranker:
    """Return a ranker by both towers and the exact search; row r of the candidates is item r + 1."""
    retriever = build_retriever(model, [{"item_id": torch.arange(1, items)}])

    def find(k: int) -> Ints:
        count = len(next(iter(fields.values())))
        found = []
        for start in range(0, count, PART):
            part = {key: values[start : start + PART] for key, values in fields.items()}
            out = None if exclude is None else np.maximum(exclude[start : start + PART] - 1, -1)
            found.append(retriever.retrieve(part, k, out).rows + 1)
        return np.concatenate(found)

    return Ranker(name, "model", find, retriever, fields)


def _positives(split: Batches) -> dict[str, Ints]:
    rows = split.target > 0
    return {name: split.column(name)[rows].long().numpy() for name in split.names}


def _by_user(user: Ints, item: Ints, users: Ints) -> Ints:
    """Return (users, widest) the known items of each user, -1 where there are fewer."""
    kept = (item > 0) & np.isin(user, users)
    order = np.argsort(user[kept], kind="stable")
    user, item = user[kept][order], item[kept][order]
    place = np.arange(len(user)) - np.searchsorted(user, user)
    table = np.full((len(users), int(place.max(initial=0)) + 1), -1, dtype=np.int64)
    table[np.searchsorted(users, user), place] = item
    return table


def _all_before(data: retail.Baskets, baskets: Ints) -> Ints:
    """Return (baskets, widest) everything a customer bought before each basket, -1 where there is no more."""
    width = int((data.first[baskets] - data.begin[baskets]).max())
    history = data.history(baskets, width)
    return np.where(history > 0, history, -1)


def _without(row: Ints, own: Ints) -> Ints:
    """Return a row with what is also in `own` made -1."""
    return np.where(np.isin(row, own), -1, row)
