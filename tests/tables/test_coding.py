"""Rows as sums of codewords: more stages never hurt, a shorter code is the start of a longer one."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from flyweight.tables.coding import CodedBand, Coding, encode, extend
from flyweight.tables.menu import encode_menu, menu


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def drawn(rows: int, dim: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = seeded(seed)
    return torch.randn(rows, dim, generator=generator), torch.rand(rows, generator=generator) ** 2 + 1e-3


def error(band: CodedBand, rows: Tensor, weights: Tensor) -> float:
    return float((weights * (band.decode(torch.arange(len(rows))) - rows).square().sum(1)).sum())


@given(bits=st.integers(1, 8), groups=st.sampled_from([1, 2, 4, 8]), seed=st.integers(0, 100))
@settings(max_examples=25, deadline=None)
def test_each_stage_lowers_the_weighted_error(bits: int, groups: int, seed: int) -> None:
    rows, weights = drawn(300, 8, seed)
    band, last = None, math.inf
    for stages in (1, 2, 3):
        band = extend(band, rows, weights, Coding(groups, stages, bits), seeded(seed + stages))
        now = error(band, rows, weights)
        # Codewords are stored in half precision: where nothing is left to explain, that rounding is all there is.
        assert now <= last * (1 + 1e-3) + 1e-5
        last = now


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize(("groups", "stages"), [(1, 1), (1, 3), (4, 2)])
def test_codes_take_rows_times_bits(bits: int, groups: int, stages: int) -> None:
    rows, weights = drawn(77, 8)
    coding = Coding(groups, stages, bits)
    band = encode(rows, weights, coding, seeded())
    assert coding.bits_per_row(8) == groups * stages * bits
    assert band.codes.numel() == math.ceil(77 * groups * stages * bits / 8)
    assert band.bytes == band.codes.numel() + 2 * stages * groups * 2**bits * (8 // groups)


def test_longer_code_begins_with_the_shorter_one() -> None:
    rows, weights = drawn(200, 4)
    short = extend(None, rows, weights, Coding(stages=1), seeded())
    long = extend(short, rows, weights, Coding(stages=2), seeded(1))
    assert torch.equal(long.codebook[:1], short.codebook)
    places = torch.arange(200)
    second = long.decode(places) - short.decode(places)
    assert len(torch.unique(second.round(decimals=3), dim=0)) <= 16


def test_no_bits_is_the_weighted_mean_and_rounded_is_half_precision() -> None:
    rows, weights = drawn(50, 4)
    one = encode(rows, weights, Coding(bits=0), seeded())
    mean = (rows * weights[:, None]).sum(0) / weights.sum()
    assert torch.equal(one.decode(torch.tensor([0, 49])), mean.half().float().expand(2, 4))
    assert one.bytes == 2 * 4
    half = encode(rows, weights, Coding(rounded=True), seeded())
    assert torch.equal(half.decode(torch.tensor([49, 0])), rows[[49, 0]].half().float())
    assert half.bytes == 2 * 50 * 4


def test_heavy_rows_are_coded_better_than_light_ones() -> None:
    rows, _ = drawn(400, 8)
    weights = torch.where(torch.arange(400) < 20, 1000.0, 1.0)
    band = encode(rows, weights, Coding(bits=4), seeded())
    off = (band.decode(torch.arange(400)) - rows).square().sum(1)
    assert off[:20].mean() < 0.5 * off[20:].mean()


@pytest.mark.parametrize("rows", [2, 3, 10, 100, 5_000, 200_000])
@pytest.mark.parametrize("dim", [1, 3, 16])
@pytest.mark.parametrize("fine", [False, True])
def test_menu_starts_at_one_vector_and_grows(rows: int, dim: int, fine: bool) -> None:
    codings = menu(rows, dim, fine=fine)
    sizes = [coding.bits_per_row(dim) for coding in codings]
    assert codings[0] == Coding(bits=0)
    assert sizes == sorted(sizes)
    assert len(set(codings)) == len(codings) > 1
    assert all(dim % coding.groups == 0 for coding in codings)
    assert not fine or codings[-1].bits_per_row(dim) >= 4 * dim


def test_menu_is_coded_alike_for_the_same_seed() -> None:
    rows, weights = drawn(300, 8)
    codings = menu(300, 8, fine=True)
    one, other = (list(encode_menu(rows, weights, codings, start=64, seed=5)) for _ in range(2))
    for first, second, coding in zip(one, other, codings, strict=True):
        assert (first.start, first.stop, first.coding) == (64, 364, coding)
        assert torch.equal(first.codes, second.codes)
        assert torch.equal(first.codebook, second.codebook)


@pytest.mark.parametrize(
    ("coding", "words"),
    [
        (Coding(), "one 4-bit code"),
        (Coding(stages=3), "3 4-bit codes"),
        (Coding(groups=4), "one 4-bit code for each of 4 pieces"),
        (Coding(bits=0), "one shared vector"),
        (Coding(rounded=True), "float16 rows"),
    ],
)
def test_coding_is_said_in_words(coding: Coding, words: str) -> None:
    assert str(coding) == words
