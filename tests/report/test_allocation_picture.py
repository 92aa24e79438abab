"""The picture of the allocation: which bars, how wide, how strong."""

import doctest
import re

import pytest
from example_allocation import make_allocation

from flyweight.report.allocation_data import AllocationPart, AllocationRow
from flyweight.report.pictures import allocation
from flyweight.report.pictures.allocation import MOST_PARTS, depth_of, draw_allocation, largest, merged, widths_of


def test_of_500_tables_the_largest_30_are_shown_and_the_rest_added_up() -> None:
    rows = make_allocation(500, 40)
    shown = largest(rows)
    tables = [row for row in shown if row.kind == "table"]
    assert [row.name for row in tables[-1:]] == ["and 470 more"]
    assert len(tables) == 31
    assert sum(row.bytes_before for row in shown) == sum(row.bytes_before for row in rows)
    before, after = (sum(row.bytes_before * row.bits_per_value for row in some) for some in (rows, shown))
    assert after == pytest.approx(before)
    assert [row.name for row in shown if row.kind == "layer"][-1] == "and 10 more"
    assert all(sum(part.share for part in row.parts) == pytest.approx(1.0) for row in shown)


def test_31_tables_are_all_shown_as_a_bar_for_the_rest_would_take_the_room_of_one() -> None:
    assert len(largest(make_allocation(31, 0))) == 31
    assert not any(row.name.startswith("and ") for row in largest(make_allocation(31, 0)))


def test_narrow_bands_are_seen_and_bars_are_as_wide_as_others() -> None:
    parts = [AllocationPart(0.0001, "float16 rows", 16.0), AllocationPart(0.9999, "one 1-bit code", 0.0625)]
    widths = widths_of(parts, 600.0)
    assert widths[0] > 2.9
    assert sum(widths) == pytest.approx(600.0)


def test_neighbours_alike_are_one_part_and_many_parts_are_no_more_than_can_be_shown() -> None:
    alike = [AllocationPart(0.5, "one 4-bit code", 0.25)] * 2
    assert merged(alike) == [AllocationPart(1.0, "one 4-bit code", 0.25)]
    many = [AllocationPart(0.005, f"coding {place % 7}", float(place % 7)) for place in range(200)]
    kept = merged(many)
    assert len(kept) == MOST_PARTS
    assert sum(part.share for part in kept) == pytest.approx(1.0)
    before, after = (sum(part.share * part.bits_per_value for part in parts) for parts in (many, kept))
    assert after == pytest.approx(before)


def test_more_bits_are_stronger() -> None:
    depths = [depth_of(bits) for bits in (0, 1 / 16, 1 / 4, 1, 4, 8, 16, 32)]
    assert depths == sorted(depths)
    assert len(set(depths)) == 8
    assert depth_of(64.0) == 1.0


def test_bars_tell_what_they_hold() -> None:
    row = AllocationRow("item", "table", 64_000, (AllocationPart(0.2, "float16 rows", 16.0),
                                                   AllocationPart(0.8, "one 4-bit code", 0.25)))  # fmt: skip
    svg = draw_allocation([row], 1000)
    assert "item\n20.0% of the rows: float16 rows\n16 bits a value" in svg
    assert "64.0 kB, now 3.4 bits" in svg
    texts = re.findall(r"<text[^>]*>([^<]+)</text>", svg)
    assert {"item", "float16 rows", "one 4-bit code"} <= set(texts)


def test_words_that_do_not_fit_are_left_out() -> None:
    parts = (AllocationPart(0.004, "several long words", 16.0), AllocationPart(0.996, "x" * 400, 1.0))
    texts = re.findall(r"<text[^>]*>([^<]+)</text>", draw_allocation([AllocationRow("t", "table", 9, parts)], 326))
    assert "several long words" not in texts
    assert "1 bit" in texts


def test_examples_in_the_docstrings_hold() -> None:
    assert doctest.testmod(allocation).failed == 0
