"""Rules for attention over a request's history: the same scores, and no value of rows x steps x width where claimed."""

from functools import cache

import pytest
import torch
from attention_models import HISTORY, ITEMS, Bst, Dice, Din, Encoded, Matched
from torch import Tensor, nn

from flyweight.graph.quantize_ops import quantize_dequantize
from flyweight.rewrite.apply_rules import Rewritten
from flyweight.rewrite.emit import shape_of
from flyweight.rewrite.hoist import hoist
from flyweight.rewrite.levels import Level, levels_of
from flyweight.rewrite.rules import RULES
from flyweight.rewrite.spread import SPREAD
from flyweight.task.field import Field
from flyweight.zoo.models.din import DIN

FIELDS = {
    "history": Field(role="request", rows=ITEMS),
    "item": Field(role="candidate", rows=ITEMS),
    "price": Field(role="candidate"),
}


def _batch(rows: int = 7, steps: int = HISTORY) -> dict[str, Tensor]:
    history = torch.randint(1, ITEMS, (rows, steps))
    history[0, 2:] = history[1] = 0  # one short, one empty
    return {"history": history, "item": torch.randint(1, ITEMS, (rows,)), "price": torch.rand(rows)}


#: Model -> the rules that it needs; one that changes the scores would be undone, and so not be among them.
MODELS = {
    "din": (Din, {"target attention", "sum of products", "late expand", "leaky PReLU"}),
    "din with softmax": (lambda: Din(activation=_sigmoid, softmax=True), {"target attention", "sum of products"}),
    "din with dice, flat": (lambda: Din(activation=Dice, flat=True), {"target attention", "sum of products"}),
    "din in another order": (lambda: Din(parts="q*k k-q k q+k"), {"target attention", "sum of products"}),
    "din of differences": (lambda: Din(parts="q-k"), {"target attention", "sum of products"}),
    "din without products": (lambda: Din(parts="k q"), {"target attention", "sum of products"}),
    "gru, then din": (lambda: Encoded("gru"), {"target attention", "sum of products"}),
    "transformer, then din": (lambda: Encoded("transformer"), {"target attention", "sum of products"}),
    "sums": (lambda: Matched("sum"), {"sum of products"}),
    "bmm": (lambda: Matched("bmm"), {"batched product"}),
    "einsum": (lambda: Matched("einsum"), {"einsum"}),
    "einsum of heads": (lambda: Matched("einsums"), {"einsum"}),
    "additive": (lambda: Matched("additive"), {"late expand"}),
    "fused": (lambda: Matched("fused"), {"attention"}),
    "nn.MultiheadAttention": (lambda: Matched("module"), {"attention"}),
    "nn.MultiheadAttention with a mask": (lambda: Matched("weights"), {"batched product"}),
}


def _sigmoid(width: int) -> nn.Module:
    return nn.Sigmoid()


@cache
def _hoisted(name: str) -> Rewritten:
    torch.manual_seed(0)
    return hoist(MODELS[name][0](), FIELDS, [_batch()], RULES)


def _of_rows(found: Rewritten) -> list[tuple[str, tuple[int, ...]]]:
    """Return operators of the rows that give three dimensions or more, with the sizes after the first."""
    return [
        (str(node.target), shape[1:])
        for node, level in levels_of(found.model.body).items()
        if level == Level.ROW and node.op != "placeholder" and node.target is not SPREAD
        if (shape := shape_of(node)) and len(shape) > 2
    ]


@pytest.mark.parametrize("name", MODELS)
def test_attention_keeps_its_scores_in_every_form(name: str) -> None:
    found = _hoisted(name)
    assert found.undone == ()
    assert found.far < 1e-6
    assert {one.rule for one in found.done} >= MODELS[name][1]


@pytest.mark.parametrize("name", ["sums", "bmm", "einsum", "fused", *(name for name in MODELS if "Multihead" in name)])
def test_keys_and_values_stay_with_the_request(name: str) -> None:
    # What has steps left has one number for each of them: the scores.
    assert all(1 in shape[-2:] for _, shape in _of_rows(_hoisted(name)) if HISTORY in shape)


def test_an_empty_history_gives_zeros_in_fused_attention_as_before() -> None:
    model = Matched("fused")
    batch = _batch()
    found = hoist(model, FIELDS, [batch], RULES)
    alone = {name: value[1:2] for name, value in batch.items()}
    assert torch.allclose(found.model(**alone), model(**alone), atol=1e-6)


def _din(steps: int, width: int, units: int, **given: object) -> Rewritten:
    torch.manual_seed(0)
    return hoist(Din(width, units, **given), FIELDS, [_batch(5, steps)], RULES)  # type: ignore[arg-type]


def test_a_long_history_is_multiplied_by_a_matrix_for_each_candidate() -> None:
    shapes = [shape for _, shape in _of_rows(_din(40, 6, 8))]
    assert (7, 8) in shapes  # M: six of width, one of what each step adds
    assert (40, 6) not in shapes


def test_a_short_history_is_multiplied_without_matrices() -> None:
    shapes = [shape for _, shape in _of_rows(_din(5, 16, 8))]
    assert (5, 16) in shapes  # q * k
    assert (17, 8) not in shapes


def test_layers_over_steps_are_flat_from_end_to_end() -> None:
    found = _din(40, 6, 8)
    layers = found.model.body.graph.find_nodes(op="call_function", target=torch.ops.aten.linear.default)
    assert [shape[1] for node in layers if len(shape := shape_of(node) or ()) == 2] == [4, 1, 8, 1]  # and the tower
    # Between them nothing turns back, and the mask still broadcasts.
    calls = [node.target for node in found.model.body.graph.nodes]
    assert torch.ops.flyweight.every_row.default not in calls
    assert calls.count(torch.ops.aten.reshape.default) == 2


@pytest.mark.parametrize("activation", [nn.PReLU, nn.ReLU, nn.Sigmoid, nn.Identity])
@pytest.mark.parametrize("bias", [True, False])
def test_one_number_a_step_is_made_with_the_steps_last(activation: type[nn.Module], bias: bool) -> None:
    torch.manual_seed(0)
    model = DIN({"item": ITEMS, "price": 3}, item="item", item_dim=4, attention=8, hidden=(8,))
    model.weigh[1], model.weigh[2] = activation(), nn.Linear(8, 1, bias=bias)
    batch = _batch(5, 40)
    found = hoist(model, FIELDS, [batch | {"price": torch.arange(5) % 3}], RULES)
    assert found.undone == ()
    assert (8, 40) in [shape for _, shape in _of_rows(found)]
    assert (40, 8) not in [shape for _, shape in _of_rows(found)]


def test_an_activation_over_the_units_keeps_the_steps_where_they_were() -> None:
    torch.manual_seed(0)
    model = DIN({"item": ITEMS, "price": 3}, item="item", item_dim=4, attention=8, hidden=(8,))
    model.weigh[1] = nn.Softmax(-1)
    found = hoist(model, FIELDS, [_batch(5, 40) | {"price": torch.arange(5) % 3}], RULES)
    assert found.undone == ()
    assert (40, 8) in [shape for _, shape in _of_rows(found)]


def test_matrices_and_bias_without_q_of_its_own() -> None:
    found = _din(40, 4, 8, parts="q*k k")
    assert found.undone == ()
    assert (5, 8) in [shape for _, shape in _of_rows(found)]


class Sequences(nn.Module):
    """Each candidate has a sequence of its own, which meets the request's."""

    def __init__(self) -> None:
        super().__init__()
        self.items = nn.Embedding(ITEMS, 4)
        self.first = nn.Linear(16, 8)

    def forward(self, history: Tensor, item: Tensor, price: Tensor) -> Tensor:
        k, x = self.items(history), self.items(item[:, None] * torch.arange(HISTORY) % ITEMS)
        q = self.items(item).unsqueeze(1).expand_as(k)
        return self.first(torch.cat([x * k, q * x, 2 * k - x, k], -1)).relu().sum((1, 2)) * price


def test_a_sequence_of_the_candidates_stays_with_the_rows() -> None:
    found = hoist(Sequences(), FIELDS, [_batch()], RULES)
    assert found.undone == ()
    assert "target attention" in {one.rule for one in found.done}


def test_a_candidate_inside_the_sequence_is_right() -> None:
    found = hoist(Bst(), FIELDS, [_batch()], RULES)
    assert found.undone == ()
    assert found.far < 1e-6


class Queries(nn.Module):
    """Several queries a row."""

    def __init__(self, queries: int, causal: bool) -> None:
        super().__init__()
        self.items = nn.Embedding(ITEMS, 4)
        self.scale = nn.Parameter(torch.rand(queries, 1))
        self.causal = causal

    def forward(self, history: Tensor, item: Tensor, price: Tensor) -> Tensor:
        k, q = self.items(history), self.items(item).unsqueeze(1) * self.scale
        return nn.functional.scaled_dot_product_attention(q, k, k, is_causal=self.causal).mean((1, 2)) * price


@pytest.mark.parametrize(
    ("queries", "causal", "words"),
    [(HISTORY, True, "it is causal"), (9, False, "its scores, 9 queries a row, take more than keys")],
)
def test_attention_is_refused_with_the_reason(queries: int, causal: bool, words: str) -> None:
    found = hoist(Queries(queries, causal), FIELDS, [_batch()], RULES)
    assert words in " ".join(one.why for one in found.refused)


class Rounded(nn.Module):
    """A layer whose weight, and with `inputs` what it reads, is rounded to 8 bits."""

    def __init__(self, layer: nn.Linear, inputs: bool) -> None:
        super().__init__()
        self.weight, self.bias, self.inputs = layer.weight, layer.bias, inputs
        self.register_buffer("scales", layer.weight.detach().abs().amax(1) / 127)
        self.register_buffer("scale", torch.tensor(0.03))

    def forward(self, x: Tensor) -> Tensor:
        x = quantize_dequantize(x, self.scale) if self.inputs else x
        return nn.functional.linear(x, quantize_dequantize(self.weight, self.scales), self.bias)


@pytest.mark.parametrize("steps", [5, 40])
def test_a_rounded_weight_stays_rounded_where_it_is_cut(steps: int) -> None:
    model = Din(activation=_sigmoid)
    model.first = Rounded(model.first, inputs=False)  # type: ignore[assignment]
    found = hoist(model, FIELDS, [_batch(7, steps)], RULES)
    assert found.undone == ()
    assert "target attention" in {one.rule for one in found.done}
    rounded = found.model.body.graph.find_nodes(
        op="call_function", target=torch.ops.flyweight.quantize_dequantize.default
    )
    assert sum((shape_of(node) or (0, 0))[1] for node in rounded) == 16  # each of the columns once


def test_differences_that_are_rounded_do_not_add_up() -> None:
    model = Din()
    model.first = Rounded(model.first, inputs=True)  # type: ignore[assignment]
    found = hoist(model, FIELDS, [_batch()], RULES)
    assert found.undone == ()
    assert "what is rounded does not add up" in " ".join(one.why for one in found.refused)


class Scored(nn.Module):
    """Products of the history and the candidate that are read twice."""

    def __init__(self) -> None:
        super().__init__()
        self.items = nn.Embedding(ITEMS, 4)

    def forward(self, history: Tensor, item: Tensor, price: Tensor) -> Tensor:
        product = self.items(history) * self.items(item).unsqueeze(1)
        return product.sum(-1).amax(1) + product.amax((1, 2)) * price


def test_products_that_are_read_elsewhere_are_left() -> None:
    found = hoist(Scored(), FIELDS, [_batch()], RULES)
    assert "the products are read elsewhere as well" in " ".join(one.why for one in found.refused)


def test_a_slope_for_each_channel_stays_a_prelu() -> None:
    found = hoist(Din(activation=lambda width: nn.PReLU(HISTORY)), FIELDS, [_batch()], RULES)
    assert f"it has {HISTORY} slopes, one for each channel" in " ".join(one.why for one in found.refused)
