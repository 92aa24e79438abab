"""Online Retail II as baskets: what does a customer of a gift shop put into the next basket?

Two years of invoices of a UK wholesaler of gifts (Chen 2012, UCI Online Retail II, CC BY 4.0), looked for by
`find_data`. A basket is an invoice of a known customer: what was bought, each product once, without returns, postage,
fees and samples. Time splits it: the last two weeks of October 2011 are validation, all after them is the test.
"""

from dataclasses import dataclass
from datetime import date, datetime

import numpy as np
import polars as pl
from numpy.typing import NDArray

from flyweight.errors import InputError
from flyweight.zoo.cache import fingerprint
from flyweight.zoo.data_files import find_data
from flyweight.zoo.vocabulary import Ints, frequency_ids

FILE = "online_retail_II.parquet"
VALIDATION_FROM, TEST_FROM = datetime(2011, 10, 18), datetime(2011, 11, 1)
#: A product's code: five digits and perhaps letters. Everything else is postage, a fee, a sample or a correction.
_PRODUCT = r"^\d{5}[A-Z]*$"
_COLUMNS = ("InvoiceNo", "StockCode", "Quantity", "InvoiceDate", "UnitPrice", "CustomerID")


@dataclass(frozen=True, eq=False)
class Baskets:
    """Baskets by customer and time, and what is in each; ids of products and customers by falling count in training.

    Args:
        item: (lines,), products of all baskets, one basket after another; ids from 1.
        first: (baskets + 1,), where each basket begins in `item`, and the end of the last.
        begin: (baskets,), where the first basket of its customer begins.
        user: (baskets,), 0 for customers that training did not see.
        split: (baskets,), 0 for training, 1 for validation, 2 for the test.
        days: (baskets,), whole days since the first one.
        users, items: vocabulary sizes, id 0 included.
        unseen: lines of validation and test left out because training never saw the product.
        codes: (items,), the stock code of each product; "" for 0.
        began: the first day.
    """

    item: Ints
    first: Ints
    begin: Ints
    user: Ints
    split: Ints
    days: Ints
    users: int
    items: int
    unseen: int
    codes: tuple[str, ...]
    began: date

    def history(self, baskets: Ints, width: int) -> Ints:
        """Return (baskets, width) what the customer bought before each basket, the newest first, 0 where no more.

        A product bought twice stands there twice.
        """
        place = self.first[baskets][:, None] - 1 - np.arange(width)
        return np.where(place >= self.begin[baskets][:, None], self.item[np.maximum(place, 0)], 0)

    def contents(self, baskets: Ints) -> Ints:
        """Return (baskets, widest) what is in each, -1 where there is no more."""
        size = self.first[baskets + 1] - self.first[baskets]
        place = np.arange(int(size.max(initial=0)))
        at = np.minimum(self.first[baskets][:, None] + place, len(self.item) - 1)
        return np.where(place < size[:, None], self.item[at], -1)

    def fingerprint(self) -> str:
        """Return the SHA-256 of what a model is trained on."""
        arrays = ("item", "first", "begin", "user", "split")
        return fingerprint({name: np.asarray(getattr(self, name)) for name in arrays})


def load() -> Baskets:
    """Return Online Retail II as baskets.

    Raises:
        InputError: the file is not there, or lacks a column; says where it was looked for.
    """
    return as_baskets(read_lines())


def read_lines() -> pl.DataFrame:
    """Return the file's invoice lines.

    Raises:
        InputError: as `load`.
    """
    path = find_data(FILE)
    lines = pl.read_parquet(path)
    missing = [name for name in (*_COLUMNS, "Description") if name not in lines.columns]
    if missing:
        raise InputError(f"{path.name} lacks the columns {missing}; it has {lines.columns}. Take the file of UCI.")
    return lines


def as_baskets(lines: pl.DataFrame) -> Baskets:
    """Return the baskets of invoice lines with the columns of Online Retail II.

    Raises:
        InputError: no line of a product bought by a known customer lies before validation.
    """
    lines = _bought(lines).with_columns(
        split=(pl.col("InvoiceDate") >= VALIDATION_FROM).cast(pl.Int64)
        + (pl.col("InvoiceDate") >= TEST_FROM).cast(pl.Int64)
    )
    split = lines["split"].to_numpy()
    if not (split == 0).any():
        raise InputError(f"No product was bought before {VALIDATION_FROM:%Y-%m-%d}, so there is nothing to learn from.")
    item, items = frequency_ids(_codes(lines["StockCode"]), split == 0)
    named = dict(zip(item.tolist(), lines["StockCode"].to_list(), strict=True))
    user, users = frequency_ids(lines["CustomerID"].to_numpy().astype(np.int64), split == 0)
    kept = item > 0
    customer = lines["CustomerID"].to_numpy()[kept]
    invoice = _codes(lines["InvoiceNo"])[kept]
    first = np.flatnonzero(np.diff(invoice, prepend=-1))  # lines are sorted by customer, time and invoice
    began = lines["InvoiceDate"].min()
    assert isinstance(began, datetime)
    days = (lines["InvoiceDate"] - began).dt.total_days().to_numpy()[kept]
    return Baskets(
        item=item[kept].astype(np.int64),
        first=np.append(first, len(invoice)),
        begin=np.searchsorted(customer, customer[first]),
        user=user[kept][first].astype(np.int64),
        split=split[kept][first],
        days=days[first],
        users=users,
        items=items,
        unseen=int(np.count_nonzero(~kept)),
        codes=("", *(named[number] for number in range(1, items))),
        began=began.date(),
    )


@dataclass(frozen=True, eq=False)
class Products:
    """What a catalogue says of each product, by id.

    Args:
        kind: (items,), whole numbers that tell the last words of descriptions apart ("... HOLDER").
        price: (items,), the median unit price before validation.
    """

    kind: Ints
    price: NDArray[np.float64]


def describe_products(lines: pl.DataFrame, data: Baskets) -> Products:
    """Return kind and price of each product of baskets; of several descriptions the most frequent one."""
    told = _products(lines).filter(pl.col("InvoiceDate") < VALIDATION_FROM)
    words = (
        told.group_by("StockCode", "Description")
        .len()
        .sort("StockCode", "len", "Description", descending=[False, True, False], nulls_last=True)
        .group_by("StockCode", maintain_order=True)
        .first()
        .with_columns(kind=pl.col("Description").fill_null("").str.strip_chars().str.split(" ").list.last())
    )
    prices = told.group_by("StockCode").agg(price=pl.col("UnitPrice").median())
    known = words.join(prices, on="StockCode")
    ranks = dict(zip(known["StockCode"], _codes(known["kind"]).tolist(), strict=True))
    price = dict(zip(known["StockCode"], known["price"], strict=True))
    return Products(
        np.array([ranks.get(code, 0) for code in data.codes], dtype=np.int64),
        np.array([price.get(code, 0.0) for code in data.codes], dtype=np.float64),
    )


def _bought(lines: pl.DataFrame) -> pl.DataFrame:
    """Return each product of each invoice once, by customer and time, without what is no purchase of a product.

    The file's two sheets share nine days of December 2010; a product once an invoice drops the copies too.
    """
    return (
        _products(lines.select(_COLUMNS))
        .with_columns(pl.col("InvoiceDate").min().over("InvoiceNo"))
        .unique(["InvoiceNo", "StockCode"], keep="any")
        .sort("CustomerID", "InvoiceDate", "InvoiceNo", "StockCode")
    )


def _products(lines: pl.DataFrame) -> pl.DataFrame:
    """Return the lines in which a known customer bought a product."""
    return lines.with_columns(pl.col("StockCode").str.to_uppercase().str.strip_chars()).filter(
        pl.col("CustomerID").is_not_null()
        & ~pl.col("InvoiceNo").str.starts_with("C")
        & (pl.col("Quantity") > 0)
        & (pl.col("UnitPrice") > 0)
        & pl.col("StockCode").str.contains(_PRODUCT)
    )


def _codes(values: pl.Series) -> NDArray[np.int64]:
    """Return (rows,) whole numbers from 0 that order like the values."""
    return (values.rank("dense").to_numpy() - 1).astype(np.int64)
