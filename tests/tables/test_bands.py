"""Frequency bands cover a table, are cut at pages, and exist only where ids run from frequent to rare."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flyweight.tables.bands import FEWEST_ROWS, MOST_ROWS, cut_bands
from flyweight.tables.coded_table import page_bits_of


@given(
    hot=st.integers(0, 9_000),
    warm=st.integers(0, 9_000),
    cold=st.integers(1, 9_000),
    page=st.sampled_from([1, 64, 128]),
)
@settings(max_examples=60, deadline=None)
def test_bands_cover_the_table_at_page_edges(hot: int, warm: int, cold: int, page: int) -> None:
    counts = torch.cat([torch.full((hot,), 100.0), torch.full((warm,), 5.0), torch.ones(cold)])
    bands = cut_bands(counts, page)
    assert bands[0][0] == 0
    assert bands[-1][1] == len(counts)
    assert all(one[1] == other[0] for one, other in pairwise(bands))
    assert all(start % page == 0 and start < stop for start, stop in bands)
    assert len(bands) == 1 or all(stop - start >= FEWEST_ROWS - page for start, stop in bands)


def test_ids_by_falling_frequency_are_cut_where_frequency_falls() -> None:
    counts = torch.cat([torch.full((4_000,), 100.0), torch.full((4_000,), 9.0), torch.ones(4_000)])
    assert cut_bands(counts) == ((0, 4_000), (4_000, 8_000), (8_000, 12_000))


def test_a_few_rows_out_of_place_move_no_cut_far() -> None:
    counts = torch.cat([torch.zeros(1), torch.full((4_000,), 100.0), torch.ones(4_000)])  # row 0 is padding
    assert cut_bands(counts) == ((0, 4_001), (4_001, 8_001))


def test_unsorted_ids_give_one_band() -> None:
    counts = torch.cat([torch.full((6_000,), 100.0), torch.ones(6_000)])
    shuffled = counts[torch.randperm(12_000, generator=torch.Generator().manual_seed(0))]
    assert cut_bands(shuffled, 64) == ((0, 12_000),)


@pytest.mark.parametrize("rows", [2, 3, 64, 65])
def test_small_tables_are_one_band(rows: int) -> None:
    assert cut_bands(torch.arange(rows).flip(0).float(), 64) == ((0, rows),)


def test_long_runs_are_cut_into_about_equal_pieces() -> None:
    bands = cut_bands(torch.ones(3 * MOST_ROWS + 5), 512)
    assert len(bands) == 3
    assert all(abs(stop - start - MOST_ROWS) < 1_024 for start, stop in bands)


def test_a_byte_tells_the_bands_apart_however_many_rows_there_are() -> None:
    rows, page = 70_000_000, 1 << page_bits_of(70_000_000)
    bands = cut_bands(torch.ones(1, dtype=torch.uint8).expand(rows), page)  # 267 bands of MOST_ROWS
    assert len(bands) <= 256
    assert [start for start, _ in bands] == [0, *(stop for _, stop in bands[:-1])]
    assert bands[-1][1] == rows
    assert all(start % page == 0 for start, _ in bands)
