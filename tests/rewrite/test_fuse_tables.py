"""Lookups fused in traced models: the same numbers, one module, and reasons where they stay apart."""

import pytest
import torch
from torch import Tensor, fx, nn

from flyweight.graph.trace import trace
from flyweight.graph.traced import TracedModel, clean
from flyweight.rewrite.fuse_tables import RULE, fuse_tables
from flyweight.rewrite.spread import spread
from flyweight.rewrite.stacked_tables import StackedTables
from flyweight.tables.coded_embedding import CodedEmbedding
from flyweight.tables.coded_table import CodedTable
from flyweight.tables.coding import Coding, encode


def coded(rows: int, bits: int = 4, dim: int = 8, seed: int = 0, stages: int = 1) -> CodedEmbedding:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(rows, dim, generator=generator)
    return CodedEmbedding(CodedTable((encode(values, torch.ones(rows), Coding(stages=stages, bits=bits), generator),)))


def fused(model: nn.Module, inputs: dict[str, Tensor], **given: object) -> TracedModel:
    """The traced model with the rule applied wherever it fits; checked to give exactly the same."""
    traced = trace(model.eval(), inputs)
    copy = trace(traced, {})
    rule = fuse_tables(**given) if given else RULE  # type: ignore[arg-type]
    for _ in range(10):
        fitting = [node for node in rule.find(copy.body) if rule.check(copy.body, node) is None]
        if not fitting:
            break
        rule.apply(copy.body, fitting[0])
    clean(copy.body)
    with torch.no_grad():
        assert torch.equal(copy(**inputs), traced(**inputs))
        few = {name: value[:1] for name, value in inputs.items()}
        assert torch.equal(copy(**few), traced(**few))
    return copy


def stacks(traced: TracedModel) -> list[int]:
    """How many fields each stack has."""
    return [one.fields for one in traced.body.modules() if isinstance(one, StackedTables)]


def operators(traced: TracedModel) -> list[str]:
    return [str(node.target).split(".")[-2] for node in traced.body.graph.nodes if node.op == "call_function"]


def lookups(body: fx.GraphModule) -> int:
    """How many tables are still read one by one."""
    called = [body.get_submodule(str(node.target)) for node in body.graph.nodes if node.op == "call_module"]
    return sum(isinstance(one, (CodedEmbedding, nn.Embedding)) for one in called)


class SideBySide(nn.Module):
    """Five tables, their rows in an order of its own, beside a price."""

    def __init__(self, price_at: int = 5) -> None:
        super().__init__()
        self.tables = nn.ModuleList(coded(50 + 9 * n, bits=n + 1, seed=n) for n in range(5))
        self.price_at = price_at
        self.head = nn.Linear(41, 3)

    def forward(self, a: Tensor, b: Tensor, c: Tensor, d: Tensor, e: Tensor, price: Tensor) -> Tensor:
        rows = [table(ids) for table, ids in zip(self.tables, (a, b, c, d, e), strict=True)]
        rows = [rows[place] for place in (3, 0, 4, 1, 2)]
        rows.insert(self.price_at, price.unsqueeze(1))
        return self.head(torch.cat(rows, -1))


def ids(*names: str, rows: int = 7) -> dict[str, Tensor]:
    return {name: torch.randint(0, 50, (rows,)) for name in names}


def test_rows_side_by_side_become_one_lookup_in_the_order_of_the_concatenation() -> None:
    traced = fused(SideBySide(), {**ids(*"abcde"), "price": torch.rand(7)})
    assert stacks(traced) == [5]
    assert lookups(traced.body) == 0
    assert sorted(operators(traced)) == ["cat", "flatten", "linear", "unsqueeze"]


@pytest.mark.parametrize("price_at", [0, 2])
def test_another_column_between_cuts_the_rows_in_runs(price_at: int) -> None:
    traced = fused(SideBySide(price_at), {**ids(*"abcde"), "price": torch.rand(7)})
    assert stacks(traced) == [5]
    assert operators(traced).count("slice") == (2 if price_at else 0)


class Stacked(nn.Module):
    """Rows put on top of each other, as factorisation machines read them."""

    def __init__(self) -> None:
        super().__init__()
        self.tables = nn.ModuleList(coded(50, seed=n) for n in range(3))

    def forward(self, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
        rows = torch.stack([table(its) for table, its in zip(self.tables, (a, b, c), strict=True)], 1)
        return rows.sum(1).square() - rows.square().sum(1)


def test_stacked_rows_are_what_the_tables_give() -> None:
    assert "stack" not in operators(fused(Stacked(), ids(*"abc")))


class ByItself(nn.Module):
    """Rows that are read one by one, the ids of one of them worked out late."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = coded(50, seed=1), coded(50, seed=2)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        first = torch.relu(self.one(a)) * 2
        return first * self.two(torch.clamp(b, max=30)) + first


def test_rows_read_one_by_one_are_taken_out_of_the_stack() -> None:
    traced = fused(ByItself(), ids("a", "b"))
    assert stacks(traced) == [2]
    assert operators(traced).count("select") == 2


class Kinds(nn.Module):
    """Coded tables, plain ones, and one of another width."""

    def __init__(self) -> None:
        super().__init__()
        self.coded = nn.ModuleList(coded(50, seed=n) for n in range(2))
        self.plain = nn.ModuleList(nn.Embedding(50, 8) for _ in range(2))
        self.wide = nn.Embedding(50, 16)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        rows = [self.coded[0](a), self.plain[0](a), self.coded[1](b), self.plain[1](b), self.wide(b)]
        return torch.cat(rows, 1)


def test_each_kind_of_table_is_stacked_by_itself() -> None:
    traced = fused(Kinds(), ids("a", "b"))
    assert stacks(traced) == [2, 2]
    assert lookups(traced.body) == 1


def test_histories_and_plain_ids_stay_apart() -> None:
    class History(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tables = nn.ModuleList(coded(50, seed=n) for n in range(4))

        def forward(self, a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
            past = torch.cat([self.tables[0](a), self.tables[1](b)], -1).sum(1)
            return past + torch.cat([self.tables[2](c), self.tables[3](d)], -1)

    long = {name: torch.randint(0, 50, (7, 4)) for name in "ab"}
    assert stacks(fused(History(), {**long, **ids("c", "d")})) == [2, 2]


class Requests(nn.Module):
    """Two tables of the request, spread over the rows, beside two of the candidates."""

    def __init__(self) -> None:
        super().__init__()
        self.tables = nn.ModuleList(coded(50, seed=n) for n in range(4))

    def forward(self, a: Tensor, b: Tensor, c: Tensor, d: Tensor, index: Tensor) -> Tensor:
        request = spread(torch.cat([self.tables[0](a), self.tables[1](b)], -1), index)
        return request + torch.cat([self.tables[2](c), self.tables[3](d)], -1)


def test_what_is_spread_over_the_rows_stays_apart_from_the_rows() -> None:
    inputs = {**ids(*"abcd"), "index": torch.zeros(7, dtype=torch.long)}
    assert stacks(fused(Requests(), inputs)) == [2, 2]
    assert stacks(fused(Requests(), inputs, same=lambda one, other: True)) == [4]


def test_a_long_table_read_at_two_places_is_not_stored_twice() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.item, self.brand, self.long = coded(200_000, seed=1), coded(50, seed=2), coded(200_000, seed=3)

        def forward(self, a: Tensor, b: Tensor, c: Tensor, past: Tensor) -> Tensor:
            return torch.cat([self.item(a), self.brand(b), self.long(c), self.item(past).sum(1)], 1)

    inputs = {**ids(*"abc"), "past": torch.randint(0, 50, (7, 4))}
    traced = trace(Shared().eval(), inputs)
    reasons = [RULE.check(traced.body, node) for node in RULE.find(traced.body)]
    assert any("100,256 bytes would be stored twice" in reason for reason in reasons if reason)
    assert stacks(fused(Shared(), inputs)) == [2]


def test_codes_too_long_for_exact_places_are_refused_with_their_length() -> None:
    class Long(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.long, self.short, self.other = coded(4_200_000, dim=1), coded(50, dim=1), coded(50, dim=1)

        def forward(self, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
            return torch.cat([self.long(a), self.short(b), self.other(c)], 1)

    traced = fused(Long(), ids(*"abc"))
    assert stacks(traced) == [2]
    (reason,) = [RULE.check(traced.body, node) for node in RULE.find(traced.body)]
    assert reason is not None
    assert "16,800,000 bits" in reason


def test_a_second_time_nothing_is_found() -> None:
    assert RULE.find(fused(SideBySide(), {**ids(*"abcde"), "price": torch.rand(7)}).body) == []
