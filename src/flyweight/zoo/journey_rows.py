"""Which rows the Complete Journey task has: what a household bought of a week's promotions, and what it left.

Everything is sorted whole numbers, several packed into one int64, so that the 20.9 M promotions take 0.2 GB and the
result is the same bytes whatever the number of threads.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

Ints = NDArray[np.int64]
WEEK_BITS, STORE_BITS, HOUSEHOLD_BITS, PRODUCT_BITS, PLACE_BITS = 6, 16, 12, 25, 6
NEGATIVES_PER_POSITIVE = 3
#: The codes of display and mailer locations.
PLACES = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True)
class JourneyRows:
    """One entry a row, all of shape (rows,), sorted by request and therefore by week.

    A request is what one household saw in one store in one week; `hour` and `weekday` are of its first purchase.
    """

    request: Ints
    week: Ints
    household: Ints
    store: Ints
    hour: Ints
    weekday: Ints
    product: Ints
    display: Ints
    mailer: Ints
    bought: NDArray[np.bool_]


@dataclass(frozen=True)
class _Visits:
    key: Ints  # (visits,) week, store, household packed; sorted
    hour: Ints
    weekday: Ints
    start: Ints  # (visits,) first of its promotions
    count: Ints  # (visits,) how many there are


def read_promotions(path: Path) -> Ints:
    """Return store, week, product, display and mailer of each promotion packed into an int64, sorted, one a product.

    Where the files list a product twice in a store and week (12,785 times), the lower location codes stay.
    """
    file = pq.ParquetFile(path, read_dictionary=["display_location", "mailer_location"])
    packed = np.empty(file.metadata.num_rows, dtype=np.int64)
    filled = 0
    for batch in file.iter_batches(1 << 20):  # the one row group whole would take 1.4 GB
        column = {name: batch.column(name) for name in batch.schema.names}
        place = column["store_id"].to_numpy() << WEEK_BITS | column["week"].to_numpy()
        item = place << PRODUCT_BITS | column["product_id"].to_numpy()
        spot = _place_codes(column["display_location"]) << PLACE_BITS | _place_codes(column["mailer_location"])
        packed[filled : filled + len(item)] = item << (2 * PLACE_BITS) | spot
        filled += len(item)
    packed.sort()
    first = np.ones(len(packed), dtype=np.bool_)
    np.not_equal(packed[1:] >> (2 * PLACE_BITS), packed[:-1] >> (2 * PLACE_BITS), out=first[1:])
    return packed[first]


def sample_rows(transactions: Path, promotions: Path, seed: int = 0) -> JourneyRows:
    """Return every promoted product that was bought, and three times as many that were not, drawn evenly.

    Negatives are drawn with equal chance from all pairs of a visit and a product on promotion there that week, so a
    popular product is not favoured, and the task stays what it is when serving: order the week's promotions.
    """
    promoted = read_promotions(promotions)
    baskets = pl.read_parquet(
        transactions, columns=["household_id", "store_id", "product_id", "week", "transaction_timestamp"]
    )
    visit_key, product = _visit_keys(baskets), baskets["product_id"].to_numpy()
    visits = _visits(visit_key, baskets["transaction_timestamp"], promoted)
    pairs = np.unique(visit_key << PRODUCT_BITS | product)
    positive = _promoted_pairs(pairs, visits, promoted)
    negative = _draw_negatives(positive, visits, seed)
    codes = np.concatenate([positive, negative])
    order = np.argsort(codes, kind="stable")
    return _unpack(codes[order], order < len(positive), visits, promoted)


def _place_codes(column: pa.DictionaryArray) -> Ints:
    codes = np.array([PLACES.index(value) for value in column.dictionary.to_pylist()], dtype=np.int64)
    return np.asarray(codes[column.indices.to_numpy()])


def _visit_keys(baskets: pl.DataFrame) -> Ints:
    week, store, household = (baskets[name].to_numpy() for name in ("week", "store_id", "household_id"))
    return np.asarray((week << STORE_BITS | store) << HOUSEHOLD_BITS | household)


def _visits(keys: Ints, times: pl.Series, promoted: Ints) -> _Visits:
    first = pl.DataFrame({"key": keys, "time": times}).group_by("key").agg(pl.col("time").min()).sort("key")
    key = first["key"].to_numpy()
    place = _place_of(key) << (PRODUCT_BITS + 2 * PLACE_BITS)
    start = np.searchsorted(promoted, place)
    end = np.searchsorted(promoted, place + (1 << (PRODUCT_BITS + 2 * PLACE_BITS)))
    time = first["time"].dt
    return _Visits(key, time.hour().to_numpy(), time.weekday().to_numpy(), start, end - start)


def _place_of(visit_key: Ints) -> Ints:
    """Return store and week packed as in the promotions."""
    store = visit_key >> HOUSEHOLD_BITS & (1 << STORE_BITS) - 1
    return store << WEEK_BITS | visit_key >> (HOUSEHOLD_BITS + STORE_BITS)


def _promoted_pairs(pairs: Ints, visits: _Visits, promoted: Ints) -> Ints:
    """Return visit and promotion packed, for those (visit key, product) pairs whose product was on promotion."""
    visit_key, product = pairs >> PRODUCT_BITS, pairs & (1 << PRODUCT_BITS) - 1
    wanted = _place_of(visit_key) << PRODUCT_BITS | product
    at = np.searchsorted(promoted, wanted << (2 * PLACE_BITS))
    found = promoted[np.minimum(at, len(promoted) - 1)] >> (2 * PLACE_BITS) == wanted
    visit = np.searchsorted(visits.key, visit_key[found])
    return np.asarray(visit << PRODUCT_BITS | at[found])


def _draw_negatives(positive: Ints, visits: _Visits, seed: int) -> Ints:
    wanted = NEGATIVES_PER_POSITIVE * len(positive)
    ends = np.cumsum(visits.count)
    # Raw bits of PCG64 are the same for every NumPy version; the distributions of Generator may change.
    bits = np.random.PCG64(seed)
    drawn = ((bits.random_raw(wanted + wanted // 20) >> np.uint64(11)) * (2.0**-53 * ends[-1])).astype(np.int64)
    visit = np.searchsorted(ends, drawn, side="right")
    promotion = visits.start[visit] + drawn - (ends[visit] - visits.count[visit])
    codes = np.unique(visit << PRODUCT_BITS | promotion)
    codes = codes[~np.isin(codes, positive, assume_unique=True)]
    kept = np.argsort(bits.random_raw(len(codes)), kind="stable")[:wanted]
    return np.asarray(codes[kept])


def _unpack(codes: Ints, bought: NDArray[np.bool_], visits: _Visits, promoted: Ints) -> JourneyRows:
    visit, promotion = codes >> PRODUCT_BITS, promoted[codes & (1 << PRODUCT_BITS) - 1]
    key, mask = visits.key[visit], (1 << PLACE_BITS) - 1
    return JourneyRows(
        request=visit,
        week=key >> (HOUSEHOLD_BITS + STORE_BITS),
        household=key & (1 << HOUSEHOLD_BITS) - 1,
        store=key >> HOUSEHOLD_BITS & (1 << STORE_BITS) - 1,
        hour=visits.hour[visit].astype(np.int64),
        weekday=visits.weekday[visit].astype(np.int64),
        product=promotion >> (2 * PLACE_BITS) & (1 << PRODUCT_BITS) - 1,
        display=promotion >> PLACE_BITS & mask,
        mailer=promotion & mask,
        bought=bought,
    )
