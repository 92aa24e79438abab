"""Rows of Online Retail II: what is drawn, and that a row knows nothing of its own day or later."""

from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from flyweight.errors import InputError
from flyweight.zoo import retail, retail_rows
from flyweight.zoo.retail_rows import RetailRows, describe_rows, sample_rows
from flyweight.zoo.tasks import ZOO

DATA = Path(__file__).resolve().parents[2] / "../shared/data"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="the benchmark data are not at ../shared/data")
START = datetime(2010, 12, 1, 9)


def line(invoice, code, day, customer=1.0, price=2.0, words="RED HOLDER"):
    return {
        "InvoiceNo": str(invoice),
        "StockCode": str(code),
        "Description": words,
        "Quantity": 1,
        "InvoiceDate": START + timedelta(days=day),
        "UnitPrice": price,
        "CustomerID": customer,
    }


def shop(lines):
    table = pl.DataFrame(lines)
    data = retail.as_baskets(table)
    return data, retail.describe_products(table, data)


def described(data, products, basket, code):
    rows = RetailRows(np.array([basket]), np.array([data.codes.index(str(code))]), np.array([True]))
    return {name: int(values[0]) for name, values in describe_rows(data, rows, products).items()}


def test_a_row_knows_what_was_bought_before_and_nothing_later():
    data, products = shop(
        [
            line(1, 10001, 0),
            line(2, 10001, 10),
            line(2, 10002, 10),
            line(3, 10001, 20),
            line(4, 10001, 5, customer=2.0),
            line(5, 10001, 49, customer=2.0),
        ]
    )
    first, third = described(data, products, 0, 10001), described(data, products, 2, 10001)
    assert (first["owned"], first["since"], first["orders"], first["gap"], first["sales"]) == (0, 0, 0, 0, 0)
    # The third basket of customer 1, on day 20: bought twice, ten days ago; three baskets of 28 days held it.
    assert (third["owned"], third["since"], third["orders"], third["gap"]) == (2, 3, 2, 3)
    assert third["sales"] == 2
    # Day 49 of customer 2: baskets of days 21 to 48 count, and there were none.
    assert described(data, products, 4, 10001)["sales"] == 0
    assert described(data, products, 4, 10002)["owned"] == 0


def test_a_product_has_the_last_word_and_the_median_price():
    lines = [
        line(1, 10001, 0, words="RED HOLDER", price=1.0),
        line(2, 10001, 1, words="BLUE BOX", price=9.0),
        line(3, 10001, 2, words="RED HOLDER", price=2.0),
        line(4, 10002, 3, words="BIG HOLDER "),
        line(5, 10003, 3, words="BIG BOX"),
    ]
    data, products = shop(lines)
    kind = {code: int(products.kind[data.codes.index(code)]) for code in ("10001", "10002", "10003")}
    assert kind["10001"] == kind["10002"] != kind["10003"]
    assert products.price[data.codes.index("10001")] == 2.0


def test_others_were_sold_before_and_are_not_in_the_basket():
    random = np.random.default_rng(0)
    lines = [
        line(day, 10_000 + item, day, customer=float(day % 7))
        for day in range(60)
        for item in random.choice(day + 2, size=min(day + 1, 20), replace=False)
    ]
    data, _ = shop([line(900, 20_000 + item, -1, customer=8.0) for item in range(9)] + lines)
    rows = sample_rows(data)
    held = [set(row.tolist()) for row in data.contents(np.arange(len(data.user)))]
    of_line = np.repeat(np.arange(len(data.user)), np.diff(data.first))
    sold = {item: int(data.days[of_line[data.item == item]].min()) for item in range(1, data.items)}
    for basket, product, bought in zip(rows.basket.tolist(), rows.product.tolist(), rows.bought, strict=True):
        assert bought == (product in held[basket])
        assert bought or sold[product] < data.days[basket]
    bought = np.bincount(rows.basket, weights=rows.bought)
    assert bought.max() == retail_rows.MOST_BOUGHT
    assert len(rows.basket) == (1 + retail_rows.NEGATIVES) * rows.bought.sum()


def test_a_missing_file_says_which_and_where(tmp_path, monkeypatch):
    monkeypatch.setenv("FLYWEIGHT_DATA", str(tmp_path))
    monkeypatch.setenv("FLYWEIGHT_CACHE", str(tmp_path / "cache"))
    with pytest.raises(InputError, match=r"online_retail_II.parquet is not in .*FLYWEIGHT_DATA"):
        ZOO["online-retail"]()


def test_other_data_are_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("FLYWEIGHT_DATA", str(tmp_path))
    monkeypatch.setenv("FLYWEIGHT_CACHE", str(tmp_path / "cache"))
    lines = [line(day, 10_000 + (3 * day + item) % 40, day) for day in range(-9, 30) for item in range(3)]
    pl.DataFrame(lines).write_parquet(tmp_path / retail.FILE)
    with pytest.raises(InputError, match=r"gives \(\d+, 0, 0\) rows in train, validation and test .*expected"):
        retail_rows.load()


def test_a_shop_of_one_basket_is_refused():
    data, _ = shop([line(1, 10001, 0), line(1, 10002, 0), line(2, 10001, 1), line(2, 10002, 1)])
    with pytest.raises(InputError, match="find no product that was sold before and is not in the basket"):
        sample_rows(data)


@needs_data
def test_splits_are_in_order_of_time_and_held_customers_are_told_apart():
    data = retail_rows.load()
    assert (data.train.rows, data.validation.rows, data.test.rows) == retail_rows.ROWS
    assert list(data.fields) == list(retail_rows.ROLES)
    for split in (data.train, data.validation, data.test):
        assert float(split.target.float().mean()) == 0.25
        assert int((split.ids.max(0).values.numpy() - np.array(list(data.vocabulary.values()))).max()) < 0
    assert len(np.unique(data.test.extra["customer_number"].numpy())) == 1_902
