"""Rules for values of the request and the rows side by side: the same scores, and the request's part left the rows."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from cat_models import DIM, READS, ROWS, Columns, Fields, crossed, crossed_twice, dots, read_twice, summed_twice
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from flyweight.engines.export import export_onnx
from flyweight.engines.registry import find_engine
from flyweight.graph.quantize_ops import quantize_dequantize
from flyweight.graph.trace import trace
from flyweight.quantization.fake_quantize import FakeQuantize
from flyweight.quantization.ranges import find_range
from flyweight.rewrite import worth
from flyweight.rewrite.apply_rules import Rewritten
from flyweight.rewrite.concatenated import mixed
from flyweight.rewrite.emit import shape_of
from flyweight.rewrite.hoist import hoist
from flyweight.rewrite.levels import Level, levels_of
from flyweight.rewrite.rules import HOISTING
from flyweight.task.field import REQUEST_INDEX, Field
from flyweight.zoo.models.dcnv2 import DCNv2
from flyweight.zoo.models.deepfm import DeepFM
from flyweight.zoo.models.dlrm import DLRM

aten = torch.ops.aten
#: Rows of a request that the rules think of.
CANDIDATES = worth.ROWS
REQUEST = ("user", "city")
FIELDS = {name: Field(role="request" if name in REQUEST else "candidate", rows=rows) for name, rows in ROWS.items()}


@pytest.fixture(autouse=True, scope="module")
def _many_rows() -> Iterator[None]:
    """Time requests of so many rows that small models are worth their rewrites too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(worth, "ROWS", 1_000_000)
        yield


def _batch(names: tuple[str, ...] = tuple(ROWS), rows: int = 6) -> dict[str, Tensor]:
    return {name: torch.randint(ROWS[name], (rows,)) for name in names}


def _hoisted(model: nn.Module, names: tuple[str, ...] = tuple(ROWS)) -> Rewritten:
    found = hoist(model, FIELDS, [_batch(names)], HOISTING)
    assert found.undone == ()
    assert found.far < 1e-5
    return found


def _done(found: Rewritten) -> dict[str, int]:
    return {one.rule: one.times for one in found.done}


def _joined(found: Rewritten) -> list[str]:
    """Return the concatenations that are left and hold values of both sides."""
    return [node.name for node in found.model.body.graph.nodes if mixed(node) is not None]


def _of_rows(found: Rewritten, target: object) -> list[tuple[int, ...]]:
    """Return the sizes, after the rows, that operators of the rows give."""
    level = levels_of(found.model.body)
    nodes = found.model.body.graph.find_nodes(op="call_function", target=target)
    return [(shape_of(node) or ())[1:] for node in nodes if level[node] == Level.ROW]


@pytest.mark.parametrize("name", READS)
def test_a_concatenation_is_taken_apart(name: str) -> None:
    torch.manual_seed(0)
    read, rules = READS[name]
    found = _hoisted(Fields(read))
    assert _done(found).keys() >= rules
    assert _joined(found) == []


def test_a_cross_layer_adds_what_it_multiplies_by_in_its_bias() -> None:
    found = _hoisted(Fields(lambda m, v: crossed(m, torch.cat(v, 1))))
    assert {"cross residual", "split linear"} <= _done(found).keys()
    assert _of_rows(found, aten.add.Tensor) == [(len(ROWS) * DIM,)]  # of the request's part and the rows'


@settings(max_examples=8, deadline=None)
@given(name=st.sampled_from(sorted(READS)), order=st.permutations(list(ROWS)), seed=st.integers(0, 99))
def test_scores_stay_whatever_the_order_of_the_fields(name: str, order: list[str], seed: int) -> None:
    torch.manual_seed(seed)
    _hoisted(Fields(READS[name][0], tuple(order)))


def test_dots_of_vectors_taken_twice_are_products_by_a_matrix() -> None:
    def read(m: nn.Module, v: list[Tensor]) -> Tensor:
        x = torch.stack(v, 1)
        return m.triangle((x[:, m.left] * x[:, m.right]).sum(-1)).sum(1)

    found = _hoisted(Fields(read))
    assert {"gathered dots", "pairwise dots", "split linear"} <= _done(found).keys()
    assert _joined(found) == []


def test_a_factorisation_machine_sums_the_requests_fields_once() -> None:
    found = _hoisted(DeepFM(ROWS, dim=DIM, hidden=(8,)))
    assert _done(found)["sum of cat"] == 3
    assert _done(found)["sum of sums"] == 1
    assert {"stack as cat", "distribute cat", "split linear"} <= _done(found).keys()
    assert _joined(found) == []


def test_dlrm_multiplies_the_requests_vectors_once() -> None:
    found = _hoisted(DLRM(ROWS, dim=DIM, top=(8,)))
    assert {"stack as cat", "pairwise dots", "late select", "split linear"} <= _done(found).keys()
    assert _joined(found) == []
    assert _of_rows(found, aten.bmm.default) == [(3, 3)]  # three vectors of the rows, of five
    assert _of_rows(found, aten.matmul.default) == [(3, 2)]
    assert _of_rows(found, aten.cat.default) == [(3 * DIM + 6 + 3,)]  # vectors, request x rows, a triangle of the rows


def test_modules_that_round_are_operators_to_the_rules() -> None:
    torch.manual_seed(0)
    traced = trace(Fields(READS["activations"][0]), _batch())
    (layer,) = traced.body.graph.find_nodes(op="call_function", target=aten.linear.default)
    for place, name in enumerate(("numbers", "weight")):
        value = torch.randn(8) if place == 0 else traced.body.get_parameter("wide.weight")
        traced.body.add_submodule(name, FakeQuantize(find_range(value, 8), rows=place == 0))
        with traced.body.graph.inserting_before(layer):
            rounded = traced.body.graph.call_module(name, (layer.args[place],))
        rounded.meta["val"] = layer.args[place].meta["val"]
        layer.update_arg(place, rounded)
    traced.body.recompile()
    found = hoist(traced, FIELDS, [_batch()], HOISTING)
    assert {"distribute cat", "split linear"} <= _done(found).keys()
    assert found.undone == ()
    assert len(_of_rows(found, torch.ops.flyweight.quantize_dequantize.default)) == 1  # the request's is the request's
    assert not found.model.body.graph.find_nodes(op="call_module", target="weight")


def test_a_logit_over_the_last_cross_layer_reads_the_requests_columns_as_one_product() -> None:
    found = _hoisted(DCNv2(ROWS, dim=DIM, hidden=(8,), init_std=1.0))
    assert {"cross residual", "head of cross", "split linear"} <= _done(found).keys()
    wide, narrow = len(ROWS) * DIM, 3 * DIM
    # Both sides of the first layer; the second's columns of the rows; the perceptron, split; the logit's.
    assert sorted(_of_rows(found, aten.linear.default)) == [(1,), (8,), (narrow,), (wide,)]
    assert _of_rows(found, aten.matmul.default) == [(1, 1)]


@pytest.mark.parametrize("order", [("user", "item", "city", "shop", "word"), tuple(ROWS)])
def test_layers_behind_rounded_values_stay_layers_of_integers(order: tuple[str, ...]) -> None:
    """A layer's numbers are rounded right before it, whatever was concatenated and taken apart."""
    torch.manual_seed(0)

    def read(m: nn.Module, v: list[Tensor]) -> Tensor:
        parts = [torch.stack(v[:3], 1).flatten(1), torch.cat(v[3:], 1).relu()]
        return m.wide(quantize_dequantize(torch.cat(parts, 1), m.step, None, 0, 0, 255)).sum(1)

    found = _hoisted(Fields(read, order))
    assert {"distribute cat", "nested cats", "split linear"} <= _done(found).keys()
    layers = found.model.body.graph.find_nodes(op="call_function", target=aten.linear.default)
    assert len(layers) == 2
    assert all(one.args[0].target is torch.ops.flyweight.quantize_dequantize.default for one in layers)


@pytest.mark.parametrize("layers", [1, 3])
def test_cross_layers_keep_their_scores(layers: int) -> None:
    found = _hoisted(DCNv2(ROWS, dim=DIM, cross_layers=layers, hidden=(8,), init_std=1.0))
    assert ("head of cross" in _done(found)) == (layers > 1)  # a single one is split: it reads both sides


@pytest.mark.parametrize("layers", [1, 2])
def test_low_rank_cross_layers_keep_their_scores(layers: int) -> None:
    model = DCNv2(ROWS, dim=DIM, cross_layers=layers, hidden=(8,), init_std=1.0)
    for place in range(layers):
        model.cross[place] = nn.Sequential(nn.Linear(len(ROWS) * DIM, 3), nn.Linear(3, len(ROWS) * DIM))
    found = _hoisted(model)
    assert {"low rank products", "split linear"} <= _done(found).keys()
    assert not _done(found).keys() & {"cross residual", "head of cross"}


#: The zoo's fields: 11 of the request and 14 of the candidates.
FULL = {f"{'request' if place < 11 else 'candidate'}_{place}": 5 for place in range(25)}


def _full(model: nn.Module, monkeypatch: pytest.MonkeyPatch, **others: Tensor) -> Rewritten:
    """Hoist a model of the zoo's size, at as many candidates as the rules think of by themselves."""
    monkeypatch.setattr(worth, "ROWS", CANDIDATES)
    fields = {name: Field(role=name.split("_")[0], rows=5) for name in FULL}  # type: ignore[arg-type]
    fields |= {name: Field(role="candidate") for name in others}
    batch = {name: torch.randint(5, (6,)) for name in FULL} | others
    found = hoist(model, fields, [batch], HOISTING)
    assert found.undone == ()
    return found


def test_the_zoos_models_are_worth_their_rewrites(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    dlrm = _full(DLRM(FULL), monkeypatch)
    assert {"stack as cat", "pairwise dots", "late select", "split linear"} <= _done(dlrm).keys()
    assert _of_rows(dlrm, aten.bmm.default) == [(14, 14)]
    # Of 700 columns: 14 vectors of 16, 14 x 11 dots with the request's, 14 * 13 / 2 with each other.
    assert _of_rows(dlrm, aten.cat.default) == [(14 * 16 + 14 * 11 + 91,)]
    deepfm = _full(DeepFM(FULL), monkeypatch)
    assert {"stack as cat", "sum of cat", "sum of sums", "split linear"} <= _done(deepfm).keys()
    assert _joined(dlrm) == _joined(deepfm) == []
    crossed = _full(DCNv2(FULL, init_std=1.0), monkeypatch)
    assert {"cross residual", "head of cross", "join spreads", "split linear"} <= _done(crossed).keys()


def test_dlrm_with_numbers_of_the_candidates_has_one_vector_more(monkeypatch: pytest.MonkeyPatch) -> None:
    found = _full(DLRM(FULL, numbers=3), monkeypatch, dense=torch.randn(6, 3))
    assert _of_rows(found, aten.bmm.default) == [(15, 15)]
    assert _joined(found) == []


def test_a_small_dlrm_is_not_worth_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worth, "ROWS", CANDIDATES)
    found = _hoisted(DLRM(ROWS, dim=DIM, top=(8,)))
    assert "pairwise dots" not in _done(found)
    assert any("pairwise dots" in one.what and "saves" in one.why for one in found.refused)


@settings(max_examples=12, deadline=None)
@given(
    roles=st.lists(st.sampled_from(["request", "candidate"]), min_size=5, max_size=5).filter(lambda r: len(set(r)) > 1),
    widths=st.lists(st.integers(1, 5), min_size=5, max_size=5),
    readers=st.lists(
        st.sampled_from(["layer", "relu", "sum", "squares", "slice", "nested", "cross", "whole"]),
        min_size=1, max_size=4, unique=True,
    ),
)  # fmt: skip
def test_scores_stay_whatever_the_columns_and_their_readers(
    roles: list[str], widths: list[int], readers: list[str]
) -> None:
    torch.manual_seed(0)
    wide = dict(zip("abcde", widths, strict=True))
    fields = {name: Field(role=role) for name, role in zip("abcde", roles, strict=True)}  # type: ignore[arg-type]
    batch = {name: torch.randn(6, width) for name, width in wide.items()}
    found = hoist(Columns(wide, readers), fields, [batch], HOISTING)
    assert found.undone == ()
    assert found.far < 1e-5


@pytest.mark.parametrize(
    ("read", "reason"),
    [
        (lambda m, v: torch.cat(v, 1).sum(1), "sum of cat in sum_1: saves 3.0 us a request of 1 candidates"),
        (lambda m, v: torch.cat(v, 1).relu().prod(1), "distribute cat in relu: nothing behind it takes"),
        (lambda m, v: dots(torch.stack(v, 1)).flatten(1).prod(1), "pairwise dots in flatten: prod needs its columns"),
        (
            lambda m, v: m.triangle(dots(torch.stack(v, 1))[:, m.left, m.right]).sum(1),
            "pairwise dots in index: saves 0.0 us a request of 1 candidates",
        ),
        (
            lambda m, v: read_twice(m, dots(torch.stack(v, 1))),
            "pairwise dots in index: its products are read elsewhere as well",
        ),
        (
            lambda m, v: m.pair(quantize_dequantize(dots(torch.stack(v, 1)).flatten(1), m.steps, None, 1)).sum(1),
            "pairwise dots in flatten: quantize_dequantize needs its columns in their order",
        ),
        (lambda m, v: torch.cat(v, 1)[:, 1:-1].prod(1), "slice of cat in slice_2: it falls on 4 values, of which 2"),
        (lambda m, v: summed_twice(torch.stack(v, 1)), "sum of sums in sum_2: sum_1 is read elsewhere as well"),
        (lambda m, v: crossed_twice(m, torch.cat(v, 1)), "cross residual in add: the product or the layer is read"),
    ],
)
def test_what_does_not_pay_or_cannot_be_is_refused_with_the_reason(
    read: Callable[..., Tensor], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worth, "ROWS", 1)
    found = _hoisted(Fields(read))
    said = [f"{one.what}: {one.why}" for one in found.refused]
    assert any(reason in one for one in said), said


def test_an_exported_dlrm_scores_one_request_and_several(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, batch = DLRM(ROWS, dim=DIM, top=(8,)).eval(), _batch(rows=7)
    found = _hoisted(model)
    engine = find_engine("onnxruntime").prepare(export_onnx(found.model, batch, tmp_path).path, 1)
    wanted = model(**batch).detach().numpy()
    flat = {name: batch[name].numpy() for name in engine.input_names}
    assert engine.run({**flat, REQUEST_INDEX: np.arange(7)}) == pytest.approx(wanted, abs=1e-5)
    of_two = {name: value[np.arange(7) // 4] if name in REQUEST else value for name, value in flat.items()}
    wanted = model(**{name: torch.from_numpy(value) for name, value in of_two.items()}).detach().numpy()
    two = {name: value[:2] if name in REQUEST else value for name, value in flat.items()}
    assert engine.run({**two, REQUEST_INDEX: np.arange(7) // 4}) == pytest.approx(wanted, abs=1e-5)
    one = {name: value[:1] if name in REQUEST else value[:4] for name, value in flat.items()}
    assert engine.run(one) == pytest.approx(wanted[:4], abs=1e-5)
