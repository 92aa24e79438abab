"""Layers folded into the tables that they read: the same outputs, fewer numbers looked up, reasons where not."""

import random
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from flyweight.engines.export import export_onnx
from flyweight.engines.registry import find_engine
from flyweight.graph.trace import trace
from flyweight.graph.traced import TracedModel, clean
from flyweight.rewrite import fold_codebooks, fuse_tables
from flyweight.rewrite.folded_tables import FoldedTables
from flyweight.tables.coded_embedding import CodedEmbedding
from flyweight.tables.coded_table import CodedTable
from flyweight.tables.coding import Coding, encode

DIM = 4


def coded(coding: Coding, seed: int, padding: int | None = None) -> CodedEmbedding:
    """A table of three bands: often seen rows in `coding`, others in one bit, the rest in one vector."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(150, DIM, generator=generator)
    bands = [(0, 64, coding), (64, 128, Coding(bits=1)), (128, 150, Coding(bits=0))]
    parts = tuple(encode(values[a:b], torch.ones(b - a), own, generator, start=a) for a, b, own in bands)
    return CodedEmbedding(CodedTable(parts), padding, None if padding is None else torch.full((DIM,), 0.5))


class Ranker(nn.Module):
    """A low-rank first layer over many fields and, if asked for, a price."""

    def __init__(self, codings: Sequence[Coding], outputs: int, price: bool = False, bias: bool = True) -> None:
        super().__init__()
        self.tables = nn.ModuleList(coded(own, n, 3 if n == 1 else None) for n, own in enumerate(codings))
        self.price = price
        self.layer = nn.Linear(len(codings) * DIM + price, outputs, bias)

    def forward(self, ids: Tensor, price: Tensor) -> Tensor:
        rows = [table(column) for table, column in zip(self.tables, ids.unbind(-1), strict=True)]
        return self.layer(torch.cat([price.unsqueeze(-1), *rows] if self.price else rows, -1))


def folded(model: nn.Module, inputs: dict[str, Tensor]) -> tuple[TracedModel, list[str]]:
    """Return the trace with tables fused and codebooks folded, checked against the model, and what was refused."""
    traced = trace(model.eval(), inputs)
    for rule in (fuse_tables.RULE, fold_codebooks.RULE):
        for node in rule.find(traced.body):
            if not node._erased and rule.check(traced.body, node) is None:
                rule.apply(traced.body, node)
    clean(traced.body)
    for rows in (len(next(iter(inputs.values()))), 1):
        some = {name: value[:rows] for name, value in inputs.items()}
        torch.testing.assert_close(traced(**some), model(**some), rtol=1e-5, atol=1e-5)
    left = fold_codebooks.RULE.find(traced.body)
    return traced, [fold_codebooks.RULE.check(traced.body, node) or "" for node in left]


def batch(fields: int, *shape: int) -> dict[str, Tensor]:
    ids = torch.randint(0, 150, (*shape, fields))
    ids[0] = 149
    ids[1] = 3
    return {"ids": ids, "price": torch.rand(shape)}


def is_folded(traced: TracedModel) -> bool:
    return any(isinstance(module, FoldedTables) for module in traced.body.modules())


FOUR = [Coding(bits=4)]


@pytest.mark.parametrize(("outputs", "price", "bias"), [(1, False, True), (8, True, True), (8, False, False)])
def test_a_narrow_layer_is_folded_into_its_tables(outputs: int, price: bool, bias: bool) -> None:
    traced, _ = folded(Ranker(FOUR * 10, outputs, price, bias), batch(10, 9))
    assert is_folded(traced)
    left = traced.body.graph.find_nodes(op="call_function", target=torch.ops.aten.linear.default)
    assert len(left) == price


def test_sums_of_codewords_are_folded_before_they_are_added() -> None:
    model = Ranker([Coding(stages=2), Coding(bits=3), Coding(stages=2, bits=3), *FOUR * 7], 2)
    traced, _ = folded(model, batch(10, 9))
    assert is_folded(traced)


def test_histories_are_folded_too() -> None:
    traced, _ = folded(Ranker(FOUR * 16, 3), batch(16, 9, 5))
    assert is_folded(traced)


def test_few_lookups_of_a_wide_layer_stay_with_the_numbers_as_reason() -> None:
    traced, (reason,) = folded(Ranker(FOUR * 5, 32), batch(5, 9))
    assert not is_folded(traced)
    assert "5 lookups of 32 outputs" in reason


def test_bytes_that_would_grow_are_refused_with_both_numbers() -> None:
    """A padding row and 16 fields of 16 + 2 + 1 codewords, 4 halves each, and a layer of 64 x 64 floats."""
    _, (reason,) = folded(Ranker(FOUR * 16, 64), batch(16, 9))
    assert f"{305 * 64 * 4:,} bytes" in reason
    assert f"{305 * 4 * 2 + 64 * 64 * 4:,}" in reason


def test_rows_that_others_read_stay() -> None:
    class Cross(Ranker):
        def forward(self, ids: Tensor, price: Tensor) -> Tensor:
            rows = torch.cat([table(column) for table, column in zip(self.tables, ids.unbind(-1), strict=True)], -1)
            return self.layer(rows) * rows.sum(-1, keepdim=True)

    traced, (reason,) = folded(Cross(FOUR * 16, 4), batch(16, 9))
    assert not is_folded(traced)
    assert reason.endswith("reads the rows too")


def test_two_fields_of_one_table_stay() -> None:
    model = Ranker(FOUR * 16, 4)
    model.tables[3] = model.tables[5]
    _, (reason,) = folded(model, batch(16, 9))
    assert "two fields read the same table" in reason


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_engines_give_what_the_model_gives(engine: str, tmp_path: Path) -> None:
    found = find_engine(engine)
    if found.available() is not None:
        pytest.skip(str(found.available()))
    own = random.Random(0)
    model = Ranker([own.choice([*FOUR, Coding(stages=2), Coding(bits=3)]) for _ in range(9)], 4, price=True)
    inputs = batch(9, 30)
    traced, _ = folded(model, inputs)
    assert is_folded(traced)
    prepared = found.prepare(export_onnx(traced, inputs, tmp_path).path, 1)
    for rows in (30, 1):
        some = {name: value[:rows] for name, value in inputs.items()}
        got = torch.from_numpy(prepared.run({name: value.numpy() for name, value in some.items()}))
        torch.testing.assert_close(got, model(**some), rtol=1e-5, atol=1e-5)
