"""Branches of very different range joined by a concatenation: neural collaborative filtering's loss, and its cure."""

from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from flyweight.engines.executed import executed_operators
from flyweight.engines.export import export_onnx
from flyweight.graph.trace import trace
from flyweight.graph.traced import TracedModel
from flyweight.quantization.build import Built, Mending, build
from flyweight.quantization.insert import Rounding
from flyweight.quantization.observe import observe
from flyweight.quantization.sites import find_sites
from flyweight.tables.coded_embedding import CodedEmbedding
from flyweight.tables.coded_table import CodedTable
from flyweight.tables.coding import Coding, encode
from small_tasks import seeded

USERS, ITEMS, DIM = 40, 100, 16


class Filtering(nn.Module):
    """Neural collaborative filtering: a product of embeddings (-6 to 7) beside an MLP (0 to about 200), one layer."""

    def __init__(self) -> None:
        super().__init__()
        self.user, self.item = nn.Embedding(USERS, DIM), nn.Embedding(ITEMS, DIM)
        self.mlp = nn.Sequential(nn.Linear(2 * DIM, 32), nn.ReLU(), nn.Linear(32, DIM), nn.ReLU())
        self.score = nn.Linear(2 * DIM, 1)
        with torch.no_grad():
            self.mlp[2].weight *= 200
            self.score.weight[:, :DIM] = 0.25 * torch.randn(1, DIM)
            self.score.weight[:, DIM:] = 0.25 * torch.randn(1, DIM) / 60

    def forward(self, user: Tensor, item: Tensor) -> Tensor:
        one, other = self.user(user), self.item(item)
        deep = self.mlp(torch.cat([one, other], 1))
        return self.score(torch.cat([one * other, deep], 1)).squeeze(1)


def pairs() -> dict[str, Tensor]:
    """Every user with every item."""
    return {
        "user": torch.arange(USERS).repeat_interleave(ITEMS),
        "item": torch.arange(ITEMS).repeat(USERS),
    }


def agreement_at_10(scores: Tensor, wanted: Tensor) -> float:
    """Return the share of each user's ten best items that both scores have."""
    one, other = (value.reshape(USERS, ITEMS).topk(10).indices for value in (scores, wanted))
    return float((one[:, :, None] == other[:, None, :]).any(2).float().mean())


@pytest.fixture(scope="module")
def filtering() -> tuple[TracedModel, Tensor]:
    with torch.no_grad():
        model = seeded(Filtering).eval()
        traced = trace(model, pairs())
        return traced, model(**pairs())


@cache
def quantised(traced: TracedModel, *, balanced: bool) -> Built:
    layers = {site.name: "int8" for site in find_sites(traced)[0]}
    return build(traced, layers, Rounding(), Mending(balance=balanced), [pairs()])  # type: ignore[arg-type]


def test_ncf_loses_its_ranking_with_one_shared_scale_and_not_with_the_step(
    filtering: tuple[TracedModel, Tensor],
) -> None:
    traced, wanted = filtering
    cat = find_sites(traced)[0][-1].input
    branches = next(node for node in traced.body.graph.nodes if node.name == cat).all_input_nodes
    seen = observe(traced, [pairs()], {node.name: None for node in branches})
    product, deep = (seen[node.name].histogram for node in branches)
    assert deep.most > 12 * max(product.most, -product.least)  # the case is the one that was published
    with torch.no_grad():
        shared = agreement_at_10(quantised(traced, balanced=False).model(**pairs()), wanted)
        own = agreement_at_10(quantised(traced, balanced=True).model(**pairs()), wanted)
    assert shared < 0.85
    assert own > 0.95


def test_balancing_is_exact_and_said(filtering: tuple[TracedModel, Tensor]) -> None:
    traced, wanted = filtering
    built = quantised(traced, balanced=True)
    (record,) = [one for one in built.done if one["what"] == "branches"]
    assert record["layers"] == ["score"]
    assert record["how"] == "folded"  # into the MLP's last layer; the product of embeddings is left as it is
    assert record["steps"][1] > 12 * record["steps"][0]
    plain = trace(built.model, {})
    for module in plain.body.quantizers.children():
        module.enabled = False
    with torch.no_grad():
        bias = built.model.body.score.bias - traced.body.score.bias  # corrected for rounding
        assert float((plain(**pairs()) - bias - wanted).abs().max() / wanted.abs().max()) < 0.02


def test_the_layer_behind_balanced_branches_runs_in_integers(
    filtering: tuple[TracedModel, Tensor], tmp_path: Path
) -> None:
    traced, _ = filtering
    path = export_onnx(quantised(traced, balanced=True).model, pairs(), tmp_path).path
    for engine in ("onnxruntime", "openvino"):
        products = [one for one in executed_operators(path, engine) if one.multiplies]
        assert sum(one.count for one in products) == 3
        assert {one.precision for one in products} <= {"uint8", "int8"}


class SideBySide(nn.Module):
    """Two coded tables of very different size beside each other, one layer."""

    def __init__(self) -> None:
        super().__init__()
        self.user, self.item = coded(USERS, 40.0, seed=1), coded(ITEMS, 0.3, seed=2)
        self.score = nn.Linear(2 * DIM, 1)
        with torch.no_grad():
            self.score.weight[:, DIM:] *= 100

    def forward(self, user: Tensor, item: Tensor) -> Tensor:
        return self.score(torch.cat([self.user(user), self.item(item)], 1)).squeeze(1)


def coded(rows: int, size: float, seed: int) -> CodedEmbedding:
    generator = torch.Generator().manual_seed(seed)
    values = size * torch.randn(rows, DIM, generator=generator)
    band = encode(values, torch.ones(rows), Coding(bits=3), generator)
    return CodedEmbedding(CodedTable((band,)), 0, values[0].half().float())


def test_tables_are_balanced_in_their_codebooks_exactly() -> None:
    model = seeded(SideBySide).eval()
    with torch.no_grad():
        wanted, traced = model(**pairs()), trace(model, pairs())
        built = quantised(traced, balanced=True)
        plain = trace(built.model, {})
        for module in plain.body.quantizers.children():
            module.enabled = False
        plain.body.score.bias = nn.Parameter(model.score.bias)  # corrected for rounding
        found = plain(**pairs())
    (record,) = [one for one in built.done if one["what"] == "branches"]
    assert record["how"] == "folded"
    assert not built.model.body.graph.find_nodes(op="call_function", target=torch.ops.aten.mul.Tensor)
    grown = built.model.body.item.table.codebook / traced.body.item.table.codebook
    assert float(grown.min()) == float(grown.max()) > 16
    assert float(grown.min()).hex().startswith("0x1.0000000000000p+")
    assert torch.equal(traced.body.item.table.codebook, model.item.table.codebook)  # what was traced is left as it was
    assert float((found - wanted).abs().max() / wanted.abs().max()) < 0.01  # weights are rounded, rows are not


def test_a_table_that_two_inputs_share_is_left_as_it_is() -> None:
    class Twice(SideBySide):
        def forward(self, user: Tensor, item: Tensor) -> Tensor:
            return super().forward(user, item) + self.item(user).sum(1)

    model = seeded(Twice).eval()
    with torch.no_grad():
        traced = trace(model, pairs())
        built = quantised(traced, balanced=True)
    assert torch.equal(built.model.body.item.table.codebook, model.item.table.codebook)
    (record,) = [one for one in built.done if one["what"] == "branches"]
    assert record["how"] in ("folded", "multiplied")
