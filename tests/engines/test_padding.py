"""Rows added to a batch change no score and no more than they must."""

from pathlib import Path

import numpy as np
import pytest
from exportable import Bag, bag_batch
from hoisted_file import INDEX, ITEM, USER, expected, write_hoisted

from flyweight.engines.export import export_onnx
from flyweight.engines.inputs import read_signature
from flyweight.engines.padding import at_least_two, can_pad, pad, power_of_two


@pytest.mark.parametrize(("count", "size"), [(0, 16), (1, 16), (16, 16), (17, 32), (500, 512), (512, 512), (513, 1024)])
def test_sizes_are_powers_of_two(count: int, size: int) -> None:
    assert power_of_two(count) == size


def test_rows_and_requests_are_padded(tmp_path: Path) -> None:
    signature = read_signature(write_hoisted(tmp_path))
    arrays, rows = pad(signature, {"user": USER, "item": ITEM, "request_index": INDEX}, power_of_two)
    assert (rows, {name: len(array) for name, array in arrays.items()}) == (
        5,
        {"user": 16, "item": 16, "request_index": 16},
    )
    np.testing.assert_allclose(expected(**_named(arrays))[:rows], expected(USER, ITEM, INDEX))


def test_one_request_stays_one(tmp_path: Path) -> None:
    signature = read_signature(write_hoisted(tmp_path))
    arrays, rows = pad(signature, {"user": USER[:1], "item": ITEM[:1]}, at_least_two)
    assert (rows, len(arrays["user"]), len(arrays["item"])) == (1, 1, 2)


def test_index_of_one_entry_is_written_out(tmp_path: Path) -> None:
    signature = read_signature(write_hoisted(tmp_path))
    arrays, _ = pad(signature, {"user": USER, "item": ITEM, "request_index": np.array([2])}, at_least_two)
    assert arrays["request_index"].tolist() == [2] * 5


def test_flat_ids_are_not_padded(tmp_path: Path) -> None:
    """A bag more would begin where the last one does, and take its ids."""
    exported = export_onnx(Bag("sum"), bag_batch(6), tmp_path)
    assert not can_pad(read_signature(exported.path))


def _named(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {"user": arrays["user"], "item": arrays["item"], "index": arrays["request_index"]}
