"""What the steps did as rows of the allocation's picture."""

import doctest

import pytest
from torch import nn

from flyweight.planning import allocation_rows as module
from flyweight.planning.allocation_rows import allocation_rows, bits_per_value
from flyweight.report.allocation_data import AllocationPart
from flyweight.report.data import LayerRow
from flyweight.tables.menu import menu
from flyweight.task.change import Change

BANDS = [
    {"start": 0, "stop": 2_000, "coding": "float16 rows"},
    {"start": 2_000, "stop": 5_000, "coding": "one 4-bit code"},
    {"start": 5_000, "stop": 8_000, "coding": "one 4-bit code"},
    {"start": 8_000, "stop": 10_000, "coding": "one shared vector"},
]
TABLE = {"what": "table", "name": "item", "rows": 10_000, "dim": 16, "bytes_before": 640_000, "bytes_after": 68_000}


def change(**done: object) -> Change:
    return Change("encode_tables", nn.Identity(), done=({"what": "recalibration"}, {**TABLE, **done}))


def test_bands_are_parts_by_their_share_of_rows_and_alike_neighbours_are_one() -> None:
    (row,) = allocation_rows([change(bands=BANDS)], [])
    assert (row.name, row.kind, row.bytes_before) == ("item", "table", 640_000)
    assert row.parts == (
        AllocationPart(0.2, "float16 rows", 16.0),
        AllocationPart(0.6, "one 4-bit code", 0.25),
        AllocationPart(0.2, "one shared vector", 0.0),
    )
    assert row.bits_per_value == pytest.approx(0.2 * 16 + 0.6 * 0.25)


def test_of_a_table_coded_twice_the_last_counts() -> None:
    (row,) = allocation_rows([change(bands=BANDS), change(bands=BANDS[:1])], [])
    assert len(row.parts) == 1


def test_unknown_coding_takes_what_the_table_takes_on_average() -> None:
    (row,) = allocation_rows([change(bands=[{"start": 0, "stop": 10_000, "coding": "tied to the layer"}])], [])
    assert row.parts == (AllocationPart(1.0, "tied to the layer", 8 * 68_000 / 160_000),)


@pytest.mark.parametrize("dim", [8, 16, 48])
def test_every_coding_of_the_menu_gives_its_bits(dim: int) -> None:
    for coding in menu(5_000, dim, fine=True):
        assert bits_per_value(str(coding), dim) == coding.bits_per_row(dim) / dim


@pytest.mark.parametrize(
    ("before", "after", "sizes", "bits"),
    [
        ("256 x 1,024 float32", "64 x 1,024 int8", (1_048_576, 65_536), 2.0),
        ("8 x 4 float64", "8 x 4 float32", (256, 128), 32.0),
        ("16 x 16 float32", "taken out", (1_024, 0), 0.0),
        ("odd", "odd too", (1_024, 512), 16.0),
    ],
)
def test_bits_of_a_layer_are_held_against_the_weights_of_the_original(
    before: str, after: str, sizes: tuple[int, int], bits: float
) -> None:
    (row,) = allocation_rows([], [LayerRow("deep.0.weight", before, after, *sizes)])
    assert (row.kind, row.bytes_before, row.parts) == ("layer", sizes[0], (AllocationPart(1.0, after, bits),))


def test_examples_in_the_docstrings_hold() -> None:
    assert doctest.testmod(module).failed == 0
