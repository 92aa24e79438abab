"""Stacked tables give, bit for bit, the rows of the tables that they were made of; in the exported file too."""

import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from flyweight.engines.export import export_onnx
from flyweight.engines.registry import find_engine
from flyweight.rewrite.stacked_tables import Asked, StackedTables
from flyweight.tables.coded_embedding import CodedEmbedding
from flyweight.tables.coded_table import CodedTable
from flyweight.tables.coding import CodedBand, Coding
from flyweight.tables.packing import pack
from flyweight.tables.rounded_table import RoundedTable

DIM = 8
#: Every coding that the menu of tables offers for rows of 8 numbers, and a few that it does not.
ONE_GROUP = [
    Coding(bits=0),
    *(Coding(bits=bits) for bits in range(1, 9)),
    Coding(stages=2),
    Coding(stages=3),
    Coding(stages=3, bits=3),
    Coding(stages=2, bits=7),
    Coding(rounded=True),
]
PIECES = st.builds(Coding, groups=st.just(4), stages=st.integers(1, 2), bits=st.integers(1, 8))


def band(start: int, stop: int, coding: Coding, seed: int) -> CodedBand:
    """Random codes and codewords."""
    generator = torch.Generator().manual_seed(seed * 1_000 + start)
    rows, width, nothing = stop - start, DIM // coding.groups, torch.empty(0, dtype=torch.uint8)
    if coding.rounded:
        return CodedBand(start, stop, coding, nothing, torch.randn(1, 1, rows, DIM, generator=generator))
    slots = coding.stages * coding.groups
    codebook = torch.randn(coding.stages, coding.groups, 2**coding.bits, width, generator=generator).half()
    codes = torch.randint(0, 2**coding.bits, (rows * slots,), generator=generator).to(torch.uint8)
    return CodedBand(start, stop, coding, pack(codes, coding.bits) if coding.bits else nothing, codebook)


def table(codings: Sequence[Coding], seed: int, last: int = 40) -> CodedTable:
    """A table of one band for each coding, 64 rows each but for the last."""
    cuts = [64 * place for place in range(len(codings))] + [64 * (len(codings) - 1) + last]
    return CodedTable(tuple(band(a, b, c, seed) for a, b, c in zip(cuts, cuts[1:], codings, strict=False)))


def rows_of(table: nn.Module) -> int:
    return table.num_embeddings if isinstance(table, nn.Embedding) else table.rows


def ids_for(tables: Sequence[nn.Module], rows: int, seed: int = 0) -> list[Tensor]:
    """Ids of every table, its highest and its lowest first."""
    generator = torch.Generator().manual_seed(seed)
    drawn = [torch.randint(0, rows_of(one), (rows,), generator=generator) for one in tables]
    for one, ids in zip(tables, drawn, strict=True):
        ids[0] = rows_of(one) - 1
        ids[1:2] = 0
    return drawn


def wanted(tables: Sequence[nn.Module], ids: Sequence[Tensor]) -> Tensor:
    return torch.stack([one(its) for one, its in zip(tables, ids, strict=True)], -2)


@pytest.mark.parametrize("coding", ONE_GROUP, ids=str)
def test_each_coding_beside_others_gives_its_own_rows(coding: Coding) -> None:
    tables = [table([Coding(bits=4)], 1), table([coding], 2), table([Coding(rounded=True)], 3)]
    for rows in (1, 2, 300):
        ids = ids_for(tables, rows)
        assert torch.equal(StackedTables([Asked(one) for one in tables])(*ids), wanted(tables, ids))


@given(
    codings=st.lists(st.lists(st.sampled_from(ONE_GROUP), min_size=1, max_size=4), min_size=1, max_size=6),
    rounded=st.integers(0, 3),
    seed=st.integers(0, 1000),
)
@settings(max_examples=60, deadline=None)
def test_any_mixture_of_tables_and_bands_gives_their_rows(
    codings: list[list[Coding]], rounded: int, seed: int
) -> None:
    tables: list[nn.Module] = [table(own, seed + place) for place, own in enumerate(codings)]
    tables += [RoundedTable(torch.randn(5 + place, DIM).half()) for place in range(rounded)]
    random.Random(seed).shuffle(tables)
    stacked, ids = StackedTables([Asked(one) for one in tables]), ids_for(tables, 100, seed)
    assert torch.equal(stacked(*ids), wanted(tables, ids))
    # Tables this small lose more to a common layout than to codes: a few numbers a band and a table.
    assert stacked.bytes() <= sum(one.bytes() for one in tables) + 150 * sum(map(len, codings)) + 80 * rounded + 150


@given(
    codings=st.lists(st.lists(PIECES, min_size=1, max_size=3), min_size=1, max_size=4),
    seed=st.integers(0, 1000),
)
@settings(max_examples=30, deadline=None)
def test_rows_in_pieces_give_the_same(codings: list[list[Coding]], seed: int) -> None:
    tables = [table(own, seed + place) for place, own in enumerate(codings)]
    ids = ids_for(tables, 100, seed)
    assert torch.equal(StackedTables([Asked(one) for one in tables])(*ids), wanted(tables, ids))


def test_a_codeword_after_the_other_where_sums_would_be_too_many() -> None:
    """Nine tables of 65,536 sums of 8 numbers would take 19 MB."""
    tables = [table([Coding(stages=2, bits=8)], place) for place in range(9)]
    stacked, ids = StackedTables([Asked(one) for one in tables]), ids_for(tables, 100)
    assert stacked.stages == 2
    assert torch.equal(stacked(*ids), wanted(tables, ids))


@pytest.mark.parametrize("codings", [[Coding(bits=4)], [Coding(stages=2)], [Coding(groups=2, stages=2)]], ids=str)
def test_padding_ids_keep_rows_of_their_own(codings: list[Coding]) -> None:
    zero, half = torch.zeros(DIM), torch.full((DIM,), 0.5)
    tables = [
        CodedEmbedding(table(codings, 1), 3, zero),
        CodedEmbedding(table(codings, 2)),
        CodedEmbedding(table(codings, 3), 0, half),
    ]
    stacked = StackedTables([Asked(one.table, one.padding_idx, one.padding_row) for one in tables])
    ids = [torch.tensor([3, 5, 7]), torch.tensor([3, 0, 39]), torch.tensor([3, 0, 39])]
    assert torch.equal(stacked(*ids), wanted(tables, ids))


def test_histories_and_small_whole_numbers_are_taken() -> None:
    tables = [table([Coding(bits=3)], 1), table([Coding(bits=4), Coding(rounded=True)], 2)]
    ids = [torch.randint(0, 40, (5, 7)), torch.randint(0, 104, (5, 7)).int()]
    got = StackedTables([Asked(one) for one in tables])(*ids)
    assert got.shape == (5, 7, 2, DIM)
    assert torch.equal(got, wanted(tables, ids))


def test_a_table_of_two_fields_is_stored_once() -> None:
    one, other = table([Coding(bits=4)], 1), table([Coding(bits=4)], 2)
    once, twice = StackedTables([Asked(one), Asked(other)]), StackedTables([Asked(one), Asked(other), Asked(one)])
    assert twice.bytes() - once.bytes() < 100
    ids = ids_for([one, other, one], 20)
    assert torch.equal(twice(*ids), wanted([one, other, one], ids))


def test_the_highest_ids_of_long_tables_are_read_right() -> None:
    """16.7 million bits a table, and the second one's bytes begin behind them: near where float32 stops being exact."""
    tables = [CodedTable((band(0, (1 << 22) - 5, Coding(bits=4), seed),)) for seed in (1, 2, 3)]
    ids = [torch.arange((1 << 22) - 1_005, (1 << 22) - 5) for _ in tables]
    assert torch.equal(StackedTables([Asked(one) for one in tables])(*ids), wanted(tables, ids))


class Fields(nn.Module):
    """What stacked tables give for inputs by name."""

    def __init__(self, stacked: StackedTables) -> None:
        super().__init__()
        self.stacked = stacked

    def forward(self, **ids: Tensor) -> Tensor:
        return self.stacked(*ids.values()).flatten(-2)


def exported(tables: Sequence[nn.Module], folder: Path) -> tuple[Path, int]:
    """Export and check in every engine; return the file and how many operators it has that compute on ids."""
    ids = ids_for(tables, 50)
    inputs = {f"field_{place}": its for place, its in enumerate(ids)}
    path = export_onnx(Fields(StackedTables([Asked(one) for one in tables])), inputs, folder).path
    for name in ("onnxruntime", "openvino"):
        engine = find_engine(name)
        if engine.available() is not None:
            continue
        prepared = engine.prepare(path, 1)
        for rows in (50, 1):
            got = prepared.run({name: its[:rows].numpy() for name, its in inputs.items()})
            assert torch.equal(torch.from_numpy(got), wanted(tables, [its[:rows] for its in ids]).flatten(-2))
    nodes = onnx.load(str(path), load_external_data=False).graph.node
    read = set(inputs)
    for node in nodes:
        if read & set(node.input):
            read |= set(node.output)
    return path, Counter(bool(read & set(node.output)) for node in nodes)[True]


def test_25_tables_of_4_bits_export_to_20_operators(tmp_path: Path) -> None:
    tables = [table([Coding(bits=4)], place) for place in range(25)]
    _, operators = exported(tables, tmp_path)
    assert operators <= 26  # 6 of them reshape, which costs nothing; one by one they are over 300


def test_25_tables_of_every_kind_and_several_bands_export_to_under_50_operators(tmp_path: Path) -> None:
    own = random.Random(0)
    tables: list[nn.Module] = [table(own.sample(ONE_GROUP[:12], own.choice([1, 1, 3])), place) for place in range(20)]
    tables += [RoundedTable(torch.randn(9, DIM).half()) for _ in range(5)]
    _, operators = exported(tables, tmp_path)
    assert operators < 50
