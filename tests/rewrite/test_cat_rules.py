"""Rules for values of the request and the rows side by side: the same scores, and the request's part left the rows."""

import pytest
import torch
from torch import Tensor, nn

from flyweight.rewrite import worth
from flyweight.rewrite.apply_rules import Rewritten
from flyweight.rewrite.concatenated import mixed
from flyweight.rewrite.hoist import hoist
from flyweight.rewrite.rules import HOISTING
from flyweight.task.field import Field
from flyweight.zoo.models.deepfm import DeepFM

#: Rows of a request, so many that small models are worth their rewrites too.
MANY = 1_000_000
ROWS = {"user": 9, "city": 7, "item": 11, "shop": 6, "word": 8}
REQUEST = ("user", "city")
FIELDS = {name: Field(role="request" if name in REQUEST else "candidate", rows=rows) for name, rows in ROWS.items()}


def _batch(names: tuple[str, ...] = tuple(ROWS), rows: int = 6) -> dict[str, Tensor]:
    return {name: torch.randint(ROWS[name], (rows,)) for name in names}


def _hoisted(model: nn.Module, names: tuple[str, ...] = tuple(ROWS)) -> Rewritten:
    found = hoist(model, FIELDS, [_batch(names)], HOISTING)
    assert found.undone == ()
    assert found.far < 1e-5
    return found


def _joined(found: Rewritten) -> list[str]:
    """Return the concatenations that are left and hold values of both sides."""
    return [node.name for node in found.model.body.graph.nodes if mixed(node) is not None]


@pytest.fixture
def many_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worth, "ROWS", MANY)


@pytest.mark.usefixtures("many_rows")
def test_a_factorisation_machine_sums_the_requests_fields_once() -> None:
    found = _hoisted(DeepFM(ROWS, dim=4, hidden=(8,)))
    done = {one.rule: one.times for one in found.done}
    assert done["sum of cat"] == 3
    assert {"stack as cat", "distribute cat", "split linear"} <= done.keys()
    assert _joined(found) == []
