"""Stand-ins for nn.Embedding and nn.EmbeddingBag against the originals holding the same decoded rows; exported too."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from flyweight.engines.export import export_onnx
from flyweight.engines.registry import find_engine
from flyweight.tables.coded_embedding import CodedEmbedding, CodedEmbeddingBag
from flyweight.tables.coded_table import CodedTable
from flyweight.tables.coding import CodedBand, Coding, encode
from flyweight.tables.rounded_table import RoundedTable

ROWS, DIM = 200, 6


@pytest.fixture(scope="module")
def table() -> CodedTable:
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(ROWS, DIM, generator=generator)

    def band(start: int, stop: int, coding: Coding) -> CodedBand:
        return encode(rows[start:stop], torch.ones(stop - start), coding, generator, start=start)

    codings = (Coding(stages=2, bits=3), Coding(bits=4), Coding(bits=0), Coding(groups=2, bits=5))
    return CodedTable(tuple(band(64 * k, min(64 * k + 64, ROWS), coding) for k, coding in enumerate(codings)))


def rows_of(table: nn.Module) -> Tensor:
    rows: Tensor = table(torch.arange(ROWS))
    return rows


def drawn(*shape: int) -> Tensor:
    return torch.randint(0, ROWS, shape, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.mark.parametrize("shape", [(), (5,), (4, 3), (2, 3, 4), (0,)])
@pytest.mark.parametrize("dtype", [torch.int64, torch.int32])
def test_embedding_equals_torchs(table: CodedTable, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    ids = drawn(*shape).to(dtype)
    expected = nn.Embedding.from_pretrained(rows_of(table))(ids)
    torch.testing.assert_close(CodedEmbedding(table)(ids), expected)


def test_padding_row_is_kept_exactly(table: CodedTable) -> None:
    row = torch.full((DIM,), 0.123456789)
    coded = CodedEmbedding(table, padding_idx=3, padding_row=row)
    got = coded(torch.tensor([[3, 4], [5, 3]]))
    assert torch.equal(got[0, 0], row)
    assert torch.equal(got[1, 1], row)
    assert torch.equal(got[0, 1], table(torch.tensor(4)))


OFFSETS = torch.tensor([0, 0, 3, 4, 4, 10])  # bags 0 and 3 are empty
BAGS: list[tuple[str, Tensor, dict[str, Any]]] = [
    ("rectangular", drawn(5, 4), {}),
    ("offsets", drawn(12), {"offsets": OFFSETS}),
    ("empty at the end", drawn(12), {"offsets": torch.tensor([0, 5, 12, 12])}),
    ("all empty", drawn(0), {"offsets": torch.tensor([0, 0])}),
    ("int32", drawn(12).int(), {"offsets": OFFSETS.int()}),
]


@pytest.mark.parametrize("mode", ["sum", "mean"])
@pytest.mark.parametrize("padding", [None, 7])
@pytest.mark.parametrize(("what", "ids", "more"), BAGS, ids=[what for what, _, _ in BAGS])
def test_bag_equals_torchs(
    table: CodedTable, mode: str, padding: int | None, what: str, ids: Tensor, more: dict[str, Any]
) -> None:
    ids = ids.clone()
    if padding is not None and ids.numel():
        ids.view(-1)[::3] = padding
    expected = nn.EmbeddingBag.from_pretrained(rows_of(table), mode=mode, padding_idx=padding)(ids, **more)
    torch.testing.assert_close(CodedEmbeddingBag(table, mode, padding)(ids, **more), expected)


@pytest.mark.parametrize(("ids", "offsets"), [(drawn(5, 4), None), (drawn(12), OFFSETS)])
@pytest.mark.parametrize("padding", [None, 7])
def test_weighted_bag_equals_torchs(
    table: CodedTable, ids: Tensor, offsets: Tensor | None, padding: int | None
) -> None:
    weights = torch.rand(ids.shape)
    bag = nn.EmbeddingBag.from_pretrained(rows_of(table), mode="sum", padding_idx=padding)
    got = CodedEmbeddingBag(table, "sum", padding)(ids, offsets, per_sample_weights=weights)
    torch.testing.assert_close(got, bag(ids, offsets, per_sample_weights=weights))


@pytest.mark.parametrize("mode", ["sum", "mean"])
def test_last_offset_may_be_the_number_of_ids(table: CodedTable, mode: str) -> None:
    ids, offsets = drawn(12), torch.tensor([0, 2, 2, 9, 12])
    bag = nn.EmbeddingBag.from_pretrained(rows_of(table), mode=mode, include_last_offset=True)
    got = CodedEmbeddingBag(table, mode, include_last_offset=True)(ids, offsets)
    torch.testing.assert_close(got, bag(ids, offsets))


class Sums(nn.Module):
    """A plain lookup, a history and a bag over one shared table; bags with offsets if they are given."""

    def __init__(self, table: nn.Module) -> None:
        super().__init__()
        self.one, self.bag = CodedEmbedding(table), CodedEmbeddingBag(table, "mean", padding_idx=0)

    def forward(self, ids: Tensor, history: Tensor, offsets: Tensor | None = None) -> Tensor:
        return self.one(ids).sum(1) + self.bag(history, offsets).sum(1)


FLAT = {"ids": drawn(6), "history": drawn(12), "offsets": OFFSETS}
SQUARE = {"ids": torch.arange(ROWS - 6, ROWS), "history": torch.full((6, 3), ROWS - 1)}


@pytest.mark.parametrize("batch", [FLAT, SQUARE], ids=["offsets", "history"])
def test_torch_export_gives_the_same(table: CodedTable, batch: dict[str, Tensor]) -> None:
    model = Sums(table).eval()
    program = torch.export.export(model, (), batch)
    torch.testing.assert_close(program.module()(**batch), model(**batch))


@pytest.mark.parametrize("batch", [FLAT, SQUARE], ids=["offsets", "history"])
@pytest.mark.parametrize("rounded", [False, True])
def test_onnx_gives_the_same_up_to_the_highest_id(
    table: CodedTable, batch: dict[str, Tensor], rounded: bool, tmp_path: Path
) -> None:
    chosen = RoundedTable(rows_of(table).half(), torch.float32) if rounded else table
    model = Sums(chosen).eval()
    exported = export_onnx(model, batch, tmp_path)
    engine = find_engine("onnxruntime").prepare(exported.path, 1)
    fewer = {name: value[:4] for name, value in batch.items()} if "offsets" not in batch else {
        "ids": torch.tensor([ROWS - 1, 0]), "history": torch.tensor([0, 0, ROWS - 1]), "offsets": torch.tensor([0, 2])
    }
    for asked in (batch, fewer):
        got = engine.run({name: value.numpy() for name, value in asked.items()})
        np.testing.assert_allclose(got, model(**asked).detach().numpy(), rtol=1e-4, atol=1e-5)
    engine.close()


def test_export_holds_the_codes_and_not_the_rows(tmp_path: Path) -> None:
    rows = torch.randn(60_000, DIM)
    band = encode(rows, torch.ones(60_000), Coding(bits=4), torch.Generator().manual_seed(0))
    exported = export_onnx(Sums(CodedTable((band,))).eval(), SQUARE, tmp_path)
    assert 30_000 <= exported.bytes < 30_000 + 20_000
