"""Online Retail II as a ranking task: which products does a customer put into a basket?

A row is a basket (a customer at a time) and a product; the target says whether the basket held it. Of each basket ten
products are taken at most, and for each of them three others that the shop had sold before that day, drawn evenly.
What a row says of customer, product and both is what was known the day before. Splits are by time (`retail`).
"""

from dataclasses import dataclass
from datetime import date
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray

from flyweight.errors import InputError
from flyweight.task.field import Field, Role
from flyweight.zoo import retail
from flyweight.zoo.batches import Batches
from flyweight.zoo.cache import Arrays, cached_arrays, fingerprint
from flyweight.zoo.dataset import Dataset
from flyweight.zoo.progress import Progress, silent
from flyweight.zoo.retail import Baskets
from flyweight.zoo.vocabulary import Ints, crossed, frequency_ids

#: Every input of the model in order, and its role in a request.
ROLES: dict[str, Role] = {
    **dict.fromkeys(("customer", "weekday", "orders", "gap"), "request"),
    **dict.fromkeys(("product", "kind", "price", "sales", "owned", "since", "customer_x_kind"), "candidate"),
}
#: Baskets before this day are history only.
TRAIN_FROM = date(2010, 12, 1)
MOST_BOUGHT, NEGATIVES = 10, 3
#: Draws of a product for a row until the row is given up.
MOST_DRAWS = 500
#: Days over which sales are counted.
LATE_DAYS = 28
#: Rows of train, validation and test, and the SHA-256 of everything built: a change of the data is an error, not a
#: quiet change of every number in the docs.
ROWS = (454_648, 29_352, 109_620)
FINGERPRINT = "947f6435868870298a78cb1afaa2db7d4f7628151eadcca212332682ca4820ca"
#: Where a count or a number of days falls into the next bucket; the first bucket is "none" or "never".
_COUNTS = np.array([1, 2, 3, 4, 6, 9, 13, 20, 40])
_DAYS = np.array([0, 4, 8, 15, 29, 57, 113, 225, 450])
_PRICES = np.array([0.3, 0.5, 0.7, 0.9, 1.3, 1.7, 2.2, 3.0, 4.0, 6.0, 10.0, 20.0])


@dataclass(frozen=True, eq=False)
class RetailRows:
    """One entry a row, (rows,): the basket's number, the product's id, and whether the basket held it."""

    basket: Ints
    product: Ints
    bought: NDArray[np.bool_]


def load(progress: Progress = silent, batch_rows: int = 8192) -> Dataset:
    """Return the rows of Online Retail II, built from the file on first use (10 s) and cached after that.

    Train rows lie in shuffled order; validation and test are later in time. Each batch carries the further key
    `customer_number`, which tells all customers apart and no model reads.

    Raises:
        InputError: the file is not there, or holds other data than expected; says where it was looked for.
    """
    arrays = cached_arrays(f"online-retail-{FINGERPRINT[:12]}", lambda: _checked(build(progress)))
    counts = arrays["vocabulary"].tolist()
    fields = {name: Field(role, rows) for (name, role), rows in zip(ROLES.items(), counts, strict=True)}
    bounds = np.cumsum([0, *arrays["split_rows"].tolist()]).tolist()
    train, validation, test = (
        Batches(
            widths=dict.fromkeys(ROLES, 1),
            ids=torch.from_numpy(arrays["ids"][start:end]),
            target=torch.from_numpy(arrays["bought"][start:end]),
            extra={"customer_number": torch.from_numpy(arrays["customer_number"][start:end])},
            size=batch_rows,
        )
        for start, end in pairwise(bounds)
    )
    return Dataset("online-retail", fields, train, validation, test, FINGERPRINT)


def build(progress: Progress = silent) -> Arrays:
    """Return ids (rows, fields), bought and customer_number (rows,), vocabulary (fields,), split_rows (3,)."""
    label = "Reading Online Retail II"
    progress(label, 0, 2)
    lines = retail.read_lines()
    data = retail.as_baskets(lines)
    progress(label, 1, 2)
    rows = sample_rows(data)
    split = data.split[rows.basket]
    order, learned = np.argsort(split, kind="stable"), int(np.count_nonzero(split == 0))
    order[:learned] = order[np.argsort(np.random.PCG64(1).random_raw(learned), kind="stable")]
    ids = np.empty((len(order), len(ROLES)), dtype=np.int32)
    vocabulary = np.empty(len(ROLES), dtype=np.int64)
    described = describe_rows(data, rows, retail.describe_products(lines, data))
    for column, name in enumerate(ROLES):
        coded, vocabulary[column] = frequency_ids(described[name], split == 0)
        ids[:, column] = coded[order]
    progress(label, 2, 2)
    return {
        "ids": ids,
        "bought": rows.bought[order].astype(np.uint8),
        "customer_number": data.begin[rows.basket[order]].astype(np.int32),
        "vocabulary": vocabulary,
        "split_rows": np.bincount(split, minlength=3),
    }


def _checked(arrays: Arrays) -> Arrays:
    """Return the arrays if they are the ones every published number was measured on."""
    seen = fingerprint(arrays)
    if seen != FINGERPRINT:
        raise InputError(
            f"{retail.FILE} gives {tuple(arrays['split_rows'].tolist())} rows in train, validation and test "
            f"(fingerprint {seen[:12]}); expected {ROWS} ({FINGERPRINT[:12]}). "
            "Take both sheets of UCI's Online Retail II as they are."
        )
    return arrays


def sample_rows(data: Baskets, seed: int = 0) -> RetailRows:
    """Return the rows of the baskets from `TRAIN_FROM` on, by basket."""
    begun = (TRAIN_FROM - data.began).days
    bits = np.random.PCG64(seed)
    basket = np.repeat(np.arange(len(data.user)), np.diff(data.first))  # of each line
    line = np.flatnonzero(data.days[basket] >= begun)
    drawn = line[np.argsort(bits.random_raw(len(line)), kind="stable")]
    drawn = drawn[np.argsort(basket[drawn], kind="stable")]  # by basket, in random order within
    place = np.arange(len(drawn)) - np.searchsorted(basket[drawn], basket[drawn])
    positive = drawn[place < MOST_BOUGHT]
    of_negative = np.repeat(basket[positive], NEGATIVES)
    baskets = np.concatenate([basket[positive], of_negative])
    products = np.concatenate([data.item[positive], _draw_others(data, of_negative, bits)])
    bought = np.arange(len(baskets)) < len(positive)
    order = np.argsort(baskets, kind="stable")
    return RetailRows(baskets[order], products[order], bought[order])


def _draw_others(data: Baskets, baskets: Ints, bits: np.random.PCG64) -> Ints:
    """Return a product (rows,) for each basket number, evenly from those sold before its day and not in it.

    Raises:
        InputError: for some basket there is hardly one.
    """
    line_basket = np.repeat(np.arange(len(data.user)), np.diff(data.first))
    held = np.sort(line_basket * data.items + data.item)
    sold_from = np.full(data.items, np.iinfo(np.int64).max)
    np.minimum.at(sold_from, data.item, data.days[line_basket])
    products = np.zeros(len(baskets), dtype=np.int64)
    missing = np.arange(len(baskets))
    for _ in range(MOST_DRAWS):
        if not len(missing):
            return products
        drawn = 1 + (bits.random_raw(len(missing)) % np.uint64(data.items - 1)).astype(np.int64)
        products[missing] = drawn
        taken = _is_in(held, baskets[missing] * data.items + drawn)
        missing = missing[taken | (sold_from[drawn] >= data.days[baskets[missing]])]
    raise InputError(
        f"{len(missing):,} rows of {len(np.unique(baskets[missing])):,} baskets find no product that was sold before "
        f"and is not in the basket, in {MOST_DRAWS} draws; is the file cut to a few products or days?"
    )


def describe_rows(data: Baskets, rows: RetailRows, products: retail.Products) -> dict[str, Ints]:
    """Return the codes (rows,) of each field, as known the day before the basket, in the order of `ROLES`."""
    basket, product = rows.basket, rows.product
    day = data.days[basket]
    number = np.arange(len(data.user)) - np.searchsorted(data.begin, data.begin)  # of the customer's baskets before
    last = np.where(number > 0, np.diff(data.days, prepend=0), -1)[basket]
    owned, since = _bought_before(data, rows)
    kind = products.kind[product]
    return {
        "customer": data.user[basket],
        "weekday": (np.datetime64(data.began) + day).astype(np.int64) % 7,
        "orders": np.searchsorted(_COUNTS, number[basket], side="right"),
        "gap": np.searchsorted(_DAYS, last, side="right"),
        "product": product,
        "kind": kind,
        "price": np.searchsorted(_PRICES, products.price[product], side="right"),
        "sales": np.ceil(np.log2(1 + _sales_before(data, product, day))).astype(np.int64),
        "owned": np.searchsorted(_COUNTS, owned, side="right"),
        "since": np.searchsorted(_DAYS, since, side="right"),
        "customer_x_kind": crossed(data.user[basket], kind),
    }


def _bought_before(data: Baskets, rows: RetailRows) -> tuple[Ints, Ints]:
    """Return in how many earlier baskets of the customer the product was, and the days since the last; -1 for never."""
    count, customer = len(data.user), np.searchsorted(np.unique(data.begin), data.begin)
    line_basket = np.repeat(np.arange(count), np.diff(data.first))
    # Baskets lie in order of time within a customer, so that a basket's number orders a product's purchases.
    bought = np.sort((customer[line_basket] * data.items + data.item) * count + line_basket)
    pair = (customer[rows.basket] * data.items + rows.product) * count
    upto, start = np.searchsorted(bought, pair + rows.basket), np.searchsorted(bought, pair)
    last = bought[np.maximum(upto - 1, 0)] % count
    return upto - start, np.where(upto > start, data.days[rows.basket] - data.days[last], -1)


def _sales_before(data: Baskets, product: Ints, day: Ints) -> Ints:
    """Return in how many baskets of the `LATE_DAYS` before a day a product was, (rows,)."""
    span = int(data.days.max()) + 1
    line_day = data.days[np.repeat(np.arange(len(data.user)), np.diff(data.first))]
    sold = np.sort(data.item * span + line_day)
    first = product * span + np.maximum(day - LATE_DAYS, 0)
    return np.searchsorted(sold, product * span + day) - np.searchsorted(sold, first)


def _is_in(ordered: Ints, values: Ints) -> NDArray[np.bool_]:
    """Return which values are among ordered ones."""
    place = np.minimum(np.searchsorted(ordered, values), len(ordered) - 1)
    return np.asarray(ordered[place] == values)
