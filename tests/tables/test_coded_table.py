"""A coded table gives what its bands decode to, for any mix of codings, and stores no more than codes and codebooks."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flyweight.tables.coded_table import CodedTable, page_bits_of
from flyweight.tables.coding import CodedBand, Coding
from flyweight.tables.packing import pack
from flyweight.tables.rounded_table import RoundedTable

DIM = 8


def random_band(start: int, stop: int, coding: Coding, seed: int = 0) -> CodedBand:
    """A band of random codes and codewords."""
    generator = torch.Generator().manual_seed(seed + start)
    rows, width = stop - start, DIM // coding.groups
    if coding.rounded:
        return CodedBand(start, stop, coding, torch.empty(0, dtype=torch.uint8), torch.randn(1, 1, rows, DIM))
    slots = coding.stages * coding.groups
    codebook = torch.randn(coding.stages, coding.groups, 2**coding.bits, width, generator=generator).half()
    codes = torch.randint(0, 2**coding.bits, (rows * slots,), generator=generator).to(torch.uint8)
    packed = pack(codes, coding.bits) if coding.bits else torch.empty(0, dtype=torch.uint8)
    return CodedBand(start, stop, coding, packed, codebook)


def decoded(bands: tuple[CodedBand, ...]) -> torch.Tensor:
    return torch.cat([band.decode(torch.arange(band.stop - band.start)) for band in bands])


def codings() -> st.SearchStrategy[Coding]:
    coded = st.builds(Coding, groups=st.sampled_from([1, 2, 4, 8]), stages=st.integers(1, 3), bits=st.integers(1, 8))
    return st.one_of(coded, st.just(Coding(bits=0)), st.just(Coding(rounded=True)))


@given(
    chosen=st.lists(codings(), min_size=1, max_size=5),
    pages=st.lists(st.integers(1, 3), min_size=5, max_size=5),
    last=st.integers(1, 64),
    seed=st.integers(0, 1000),
)
@settings(max_examples=120, deadline=None)
def test_table_gives_what_its_bands_decode_to(chosen: list[Coding], pages: list[int], last: int, seed: int) -> None:
    cuts = [0]
    for size in pages[: len(chosen)]:
        cuts.append(cuts[-1] + 64 * size)
    cuts[-1] += last - 64  # the last band ends inside a page
    bands = tuple(random_band(a, b, c, seed) for (a, b), c in zip(pairwise(cuts), chosen, strict=True))
    expected = decoded(bands)
    table = CodedTable(bands)
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, cuts[-1], (3, 7), generator=generator)
    edges = torch.tensor(sorted({edge for cut in cuts for edge in (cut - 1, cut) if 0 <= edge < cuts[-1]}))
    for asked in (ids, edges, torch.arange(cuts[-1]), ids.int(), ids[0, 0], ids[:, :0]):
        got = table(asked)
        assert got.shape == (*asked.shape, DIM)
        torch.testing.assert_close(got, expected[asked.long()], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("bits", range(1, 9))
def test_codes_are_really_packed(bits: int) -> None:
    rows = 1_001
    table = CodedTable((random_band(0, rows, Coding(bits=bits)),))
    codes, codebook = math.ceil(rows * bits / 8), 2 * 2**bits * DIM
    stored = sum(tensor.numel() * tensor.element_size() for tensor in [*table.buffers(), *table.parameters()])
    assert codes + codebook <= table.bytes() == stored <= codes + codebook + 64
    assert table.codes.dtype == torch.uint8


def test_rows_beyond_2_to_the_24_are_read_right() -> None:
    """Float32 holds whole numbers exactly up to 2**24 only, and bit positions come first."""
    rows = (1 << 24) + 12_345
    start = 1 << 23
    bands = (random_band(0, start, Coding(bits=3)), random_band(start, rows, Coding(bits=4)))
    assert start % (1 << page_bits_of(rows)) == 0
    table = CodedTable(bands)
    ids = torch.tensor([0, 1, start - 1, start, start + 1, (1 << 24) - 1, 1 << 24, (1 << 24) + 1, rows - 1])
    expected = torch.stack(
        [bands[int(row >= start)].decode(torch.tensor([int(row) - start * int(row >= start)]))[0] for row in ids]
    )
    assert torch.equal(table(ids), expected)


def test_lookup_gives_the_dtype_of_the_original() -> None:
    bands = (random_band(0, 100, Coding()),)
    for dtype in (torch.float64, torch.bfloat16, torch.float16):
        got = CodedTable(bands, dtype)(torch.tensor([99]))
        assert got.dtype == dtype
        assert torch.allclose(got.float(), bands[0].decode(torch.tensor([99])), rtol=1e-2, atol=1e-2)


def test_codebook_can_be_trained_once_made_float32() -> None:
    table = CodedTable((random_band(0, 100, Coding(stages=2)),)).float()
    table.codebook.requires_grad_(True)
    table(torch.tensor([5])).sum().backward()
    assert table.codebook.grad is not None
    assert table.codebook.dtype == torch.float32
    # One codeword of each of two stages, each with gradient 1 in every dimension.
    assert float(table.codebook.grad.sum()) == 2 * DIM


def test_stage_that_a_band_lacks_still_adds_nothing_after_training() -> None:
    bands = (random_band(0, 64, Coding(stages=2)), random_band(64, 100, Coding(stages=1)))
    table = CodedTable(bands).float()
    table.codebook.requires_grad_(True)
    table(torch.tensor([5, 70])).square().sum().backward()
    assert table.codebook.grad is not None
    assert not table.codebook.grad[0].any()
    assert int(table.codebook.grad.any(1).sum()) == 3


@given(rows=st.integers(1, 10**9))
def test_pages_are_few_and_not_tiny(rows: int) -> None:
    bits = page_bits_of(rows)
    assert bits >= 6
    assert (rows - 1 >> bits) + 1 <= 2_048 or bits == 6


@given(bits=st.integers(0, 8), power=st.integers(-3, 6))
@settings(max_examples=20, deadline=None)
def test_times_a_power_of_two_is_exact_and_shares_the_codes(bits: int, power: int) -> None:
    table = CodedTable((random_band(0, 50, Coding(bits=bits)),))
    scaled = table.times(2.0**power)
    if scaled is None:  # what half precision holds with fewer digits
        assert power < 0
        return
    ids = torch.arange(50)
    assert torch.equal(scaled(ids), table(ids) * 2.0**power)
    if bits:
        assert scaled.codes is table.codes
    assert scaled.codebook is not table.codebook


@pytest.mark.parametrize("factor", [1.1, 2.0**20])
def test_times_is_none_where_rows_would_be_rounded_or_overflow(factor: float) -> None:
    assert CodedTable((random_band(0, 50, Coding()),)).times(factor) is None
    assert RoundedTable(torch.randn(5, DIM).half()).times(factor) is None
