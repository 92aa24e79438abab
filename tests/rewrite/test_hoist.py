"""What hoisting moves to the request, what it refuses and undoes, and that it leaves the model alone."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, fx, nn

from flyweight.rewrite.hoist import hoist
from flyweight.rewrite.hoisted_model import HoistedModel
from flyweight.rewrite.levels import Level, levels_of
from flyweight.rewrite.rule import Rule
from flyweight.rewrite.rules import RULES
from flyweight.task.field import Field, Role

STEPS = 3


def _batch(rows: int = 7) -> dict[str, Tensor]:
    torch.manual_seed(rows)
    history, other = torch.randint(1, 7, (2, rows, STEPS)).sort(-1).values
    return {"history": history, "other": other, "number": torch.randn(rows)}


def _fields(*names: str) -> dict[str, Field]:
    return {name: Field("candidate" if name == "number" else "request") for name in names}


class ViewsOfSums(nn.Module):
    """Views of views, which are dropped one by one, and the sum that reads the last."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(7, 4, padding_idx=0)

    def forward(self, history: Tensor, number: Tensor) -> Tensor:
        return self.table(history).reshape(-1, 3, 4).flatten(1).sum(1) + number


def test_a_node_that_an_earlier_change_left_nothing_to_do_at_is_passed_over() -> None:
    batch = _batch()
    del batch["other"]
    found = hoist(ViewsOfSums().eval(), _fields(*batch), [batch], RULES)
    assert "drop identities" in [done.rule for done in found.done]
    assert found.undone == ()


class ViewOfALookup(nn.Module):
    """Two lookups in one table, one of which is viewed as a long row."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(7, 4, padding_idx=0)

    def forward(self, history: Tensor, other: Tensor, number: Tensor) -> Tensor:
        read, first = self.table(other), self.table(history)
        return (read.sum(1) ** 2).relu().sum(1) + first.view(-1, 12).sum(1) * number


def test_a_view_of_a_fused_lookup_keeps_its_scores() -> None:
    batch = _batch()
    found = hoist(ViewOfALookup().eval(), _fields(*batch), [batch], RULES)
    assert "fuse tables" in [done.rule for done in found.done]
    assert found.undone == ()


class Mixing(nn.Module):
    """Reads other rows of what the request has."""

    def __init__(self, mix: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.table = nn.Embedding(7, 1)
        self.mix = mix

    def forward(self, history: Tensor, number: Tensor) -> Tensor:
        return self.mix(self.table(history).sum(1)).squeeze(1) * number


MIXES = {
    "mean": lambda value: value - value.mean(0),
    "softmax": lambda value: value.softmax(0),
    "first": lambda value: value + value[:1],
    "last": lambda value: value + value[-1:],
    "largest": lambda value: value * value.amax(0),
    "shifted": lambda value: value.roll(1, 0),
}


@pytest.mark.parametrize("mix", MIXES.values(), ids=MIXES)
@pytest.mark.parametrize("rows", [6, 7, 12])
def test_rows_that_read_other_rows_of_a_request_value_are_left_as_they_were(
    mix: Callable[[Tensor], Tensor], rows: int
) -> None:
    batch = _batch(rows)
    del batch["other"]
    model = Mixing(mix).eval()
    found = hoist(model, _fields(*batch), [batch], RULES)
    assert not isinstance(found.model, HoistedModel)
    (undone,) = found.undone
    assert undone.what == "request only"
    assert undone.why.startswith("undone: largest difference")
    assert torch.allclose(found.model(**batch), model(**batch))


def test_rows_that_read_other_rows_are_found_where_a_batch_begins_with_many_of_one_request() -> None:
    batch = _batch(6)
    del batch["other"]
    long = {name: torch.cat([value[:1].expand_as(value), value]) for name, value in batch.items()}
    found = hoist(Mixing(MIXES["largest"]).eval(), _fields(*batch), [long], RULES)
    assert [one.what for one in found.undone] == ["request only"]


class Sides(nn.Module):
    """An encoder of the history, normalised, beside a candidate's number."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.encoder = nn.Embedding(7, 4), nn.GRU(4, 4, batch_first=True)
        self.layer_norm, self.batch_norm = nn.LayerNorm(4), nn.BatchNorm1d(4)
        self.last = nn.Linear(5, 1)

    def forward(self, history: Tensor, number: Tensor) -> Tensor:
        read = self.layer_norm(self.encoder(self.table(history))[0][:, -1]).softmax(-1)
        return self.last(torch.cat([self.batch_norm(read), number.unsqueeze(1)], 1)).squeeze(1)


def _sides() -> tuple[nn.Module, dict[str, Tensor]]:
    batch = _batch()
    del batch["other"]
    return Sides().eval(), batch


def test_what_the_request_alone_decides_is_worked_out_once() -> None:
    model, batch = _sides()
    found = hoist(model, _fields(*batch), [batch], RULES)
    levels = levels_of(found.model.body)
    once = {str(node.target) for node, level in levels.items() if level == Level.REQUEST}
    for_rows = {str(node.target) for node, level in levels.items() if level == Level.ROW and node.op == "call_function"}
    assert {"aten.layer_norm.default", "aten.softmax.int"} <= once
    assert any("gru" in target for target in once)
    assert not any(word in target for target in for_rows for word in ("gru", "norm", "softmax", "embedding"))


def test_the_model_itself_is_left_as_it_was() -> None:
    model, batch = _sides()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    scores = model(**batch)
    hoist(model, _fields(*batch), [batch], RULES)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(model(**batch), scores)


@pytest.mark.parametrize(
    ("roles", "words"),
    [
        (("candidate", "candidate"), "no input has the role 'request'"),
        (("request", "request"), "every input has the role 'request'"),
    ],
)
def test_models_of_one_side_are_refused_in_words(roles: tuple[Role, Role], words: str) -> None:
    model, batch = _sides()
    found = hoist(model, dict(zip(batch, map(Field, roles), strict=True)), [batch], RULES)
    assert not isinstance(found.model, HoistedModel)
    assert [one for one in found.refused if one.what == "request hoisting" and words in one.why]


def test_a_wrong_rule_is_undone_by_name_and_the_others_stay() -> None:
    softmax = torch.ops.aten.softmax.int

    def squash(body: fx.GraphModule, node: fx.Node) -> None:
        with body.graph.inserting_after(node):
            twice = body.graph.call_function(torch.ops.aten.tanh.default, (node,))
        twice.meta = dict(node.meta)
        node.replace_all_uses_with(twice, delete_user_cb=lambda user: user is not twice)
        done.add(node)

    done: set[fx.Node] = set()
    wrong = Rule(
        "wrong on purpose",
        lambda body: [one for one in body.graph.find_nodes(op="call_function", target=softmax) if one not in done],
        lambda body, node: None,
        squash,
    )
    model, batch = _sides()
    found = hoist(model, _fields(*batch), [batch], [*RULES, wrong])
    assert [one.what for one in found.undone] == ["wrong on purpose"]
    assert "undone: largest difference" in found.undone[0].why
    assert "split linear" in [one.rule for one in found.done]
    assert found.far <= 1e-5
