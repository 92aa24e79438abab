"""Baskets of Online Retail II: what counts as bought, what came before, and where time splits."""

from datetime import datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from flyweight.errors import InputError
from flyweight.zoo import retail

DATA = Path(__file__).resolve().parents[2] / "../shared/data"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="the benchmark data are not at ../shared/data")
EARLY, OCTOBER, NOVEMBER = datetime(2011, 1, 5), datetime(2011, 10, 20), datetime(2011, 11, 2)


def line(invoice, code, date=EARLY, customer=7.0, quantity=1, price=2.0):
    return {
        "InvoiceNo": invoice,
        "StockCode": code,
        "Quantity": quantity,
        "InvoiceDate": date,
        "UnitPrice": price,
        "CustomerID": customer,
    }


def baskets(*lines):
    return retail.as_baskets(pl.DataFrame(list(lines), infer_schema_length=None))


SOME = (
    line("2", "10003", datetime(2011, 2, 5)),
    line("1", "10001"),
    line("1", "10002"),
    line("1", "10001"),  # the same line again, as on both sheets
    line("5", "10002", customer=8.0),
    line("3", "10003", OCTOBER),
    line("4", "10001", NOVEMBER),
    line("4", "10002", NOVEMBER),
    line("4", "99999", NOVEMBER),  # a product that training never saw
)


def test_histories_hold_what_was_bought_before_and_nothing_later():
    data = baskets(*SOME)
    code = {name: number for number, name in enumerate(["", "10002", "10001", "10003"])}  # by falling count, then code
    assert data.items == 4
    own = np.flatnonzero(data.user == data.user[0])
    assert data.split[own].tolist() == [0, 0, 1, 2]
    first, second, third = code["10001"], code["10002"], code["10003"]
    assert data.history(own, 4).tolist() == [
        [0, 0, 0, 0],
        [second, first, 0, 0],
        [third, second, first, 0],
        [third, third, second, first],
    ]
    assert data.contents(own).tolist() == [[first, second], [third, -1], [third, -1], [first, second]]
    assert data.unseen == 1


def test_another_customer_starts_without_a_history():
    data = baskets(*SOME)
    other = np.flatnonzero(data.user != data.user[0])
    assert data.history(other, 2).tolist() == [[0, 0]]


def test_what_is_no_purchase_of_a_product_is_left_out():
    data = baskets(
        line("1", "10001"),
        line("C2", "10002"),  # a cancellation
        line("3", "10003", quantity=-1),
        line("4", "10004", price=0.0),
        line("5", "POST"),
        line("6", "10006", customer=None),
        line("7", "10007a", customer=9.0),
        line("8", "10007A ", customer=9.0),  # the same product, typed otherwise
    )
    assert data.items == 1 + 2
    assert len(data.item) == 3


def test_nothing_to_learn_from_is_refused():
    with pytest.raises(InputError, match="No product was bought before 2011-10-18"):
        baskets(line("1", "10001", NOVEMBER))


def test_missing_columns_are_named(tmp_path, monkeypatch):
    monkeypatch.setenv("FLYWEIGHT_DATA", str(tmp_path))
    pl.DataFrame({"InvoiceNo": ["1"]}).write_parquet(tmp_path / retail.FILE)
    with pytest.raises(InputError, match=r"lacks the columns .*'StockCode'"):
        retail.load()


@needs_data
def test_online_retail_splits_by_time():
    data = retail.load()
    assert (len(data.user), data.items - 1) == (36_539, 4_557)
    days = [data.days[data.split == split] for split in range(3)]
    assert days[0].max() <= days[1].min() <= days[1].max() <= days[2].min()
    line_split = np.repeat(data.split, np.diff(data.first))
    assert set(np.unique(data.item[line_split == 0])) == set(range(1, data.items))
