"""Models drawn at random, roles and shapes too: the rewritten model gives the same scores in every form of a call."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from drawn_model import Drawn
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from random_models import random_models
from torch import Tensor, nn

from flyweight.engines.export import export_onnx
from flyweight.engines.registry import find_engine
from flyweight.rewrite import worth
from flyweight.rewrite.apply_rules import Rewritten
from flyweight.rewrite.check import compare
from flyweight.rewrite.hoist import hoist
from flyweight.rewrite.hoisted_model import HoistedModel
from flyweight.rewrite.rules import RULES
from flyweight.task.field import REQUEST_INDEX

#: Of float64 numbers, so that rounding hides no mistake.
TOLERANCE = 1e-9
Columns = dict[str, Tensor]


@pytest.fixture(autouse=True, scope="module")
def _many_rows(one_thread: None) -> Iterator[None]:
    """Time requests of so many rows that small models are worth their rewrites too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(worth, "ROWS", 1_000_000)
        yield


def _examples(count: int) -> settings:
    return settings(
        max_examples=count, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
    )


def _hoisted(drawn: Drawn) -> tuple[nn.Module, Rewritten]:
    """Return a model with float64 numbers, and what it was rewritten to."""
    model, batch = drawn.module().double().eval(), drawn.batch(7, dtype=torch.float64)
    try:
        model(**batch)
    except RuntimeError:
        assume(False)  # a view of what does not lie one after another
    return model, hoist(model, drawn.fields, [batch], RULES, tolerance=TOLERANCE)


def _forms(model: nn.Module, batch: Columns, index: list[int]) -> tuple[Columns, Columns]:
    """Return a batch whose rows belong to requests as `index` says: flat, and as a hoisted model takes it."""
    if not isinstance(model, HoistedModel):
        return batch, batch
    requests = 1 + max(index)
    own, flat = model.request_names, dict(batch)
    given = {**batch, REQUEST_INDEX: torch.tensor(index)}
    for name in own:
        flat[name], given[name] = batch[name][index], batch[name][:requests]
    return flat, given


def _check(model: nn.Module, found: Rewritten, drawn: Drawn, indices: list[list[int]]) -> None:
    """Compare scores of requests in any order, those of one row and those of other rows than it was rewritten on."""
    for index in indices:
        flat, given = _forms(found.model, drawn.batch(len(index), seed=len(index), dtype=torch.float64), index)
        with torch.no_grad():
            assert torch.allclose(found.model(**given), model(**flat), rtol=TOLERANCE, atol=TOLERANCE)
    for rows in (1, 8):
        assert compare(model, found.model, [drawn.batch(rows, rows, torch.float64)], TOLERANCE).ok


#: Requests of several sizes; in any order; the second of three has no candidates; as many requests as rows.
INDICES = [[0, 0, 0, 1, 2, 2, 2, 2], [2, 0, 1, 0, 2, 0, 0], [0, 0, 2, 2, 2], [3, 1, 0, 2]]


@_examples(60)
@given(random_models(steps=12))
def test_a_rewritten_model_gives_the_same_scores_and_no_rule_is_undone(drawn: Drawn) -> None:
    model, found = _hoisted(drawn)
    assert found.undone == ()
    assert isinstance(found.model, HoistedModel)
    _check(model, found, drawn, INDICES)


@_examples(10)
@given(drawn=st.one_of(random_models(roles=("request",)), random_models(roles=("candidate",))))
def test_a_model_of_one_role_stays_plain_and_gives_the_same_scores(drawn: Drawn) -> None:
    model, found = _hoisted(drawn)
    assert found.undone == ()
    assert not isinstance(found.model, HoistedModel)
    assert found.refused[-1].what == "request hoisting"
    _check(model, found, drawn, [])


@_examples(25)
@given(random_models(steps=4, mixing=True))
def test_rows_that_see_each_other_keep_their_scores(drawn: Drawn) -> None:
    """Whether something of it is undone or not."""
    model, found = _hoisted(drawn)
    _check(model, found, drawn, INDICES)


@_examples(4)
@given(random_models(steps=8))
def test_the_exported_file_gives_the_same_scores(tmp_path_factory: pytest.TempPathFactory, drawn: Drawn) -> None:
    model, batch = drawn.module().eval(), drawn.batch(7)
    try:
        model(**batch)
    except RuntimeError:
        assume(False)
    hoisted = hoist(model, drawn.fields, [batch], RULES).model
    exported = export_onnx(hoisted, batch, tmp_path_factory.mktemp("random"))
    engine = find_engine("onnxruntime").prepare(exported.path, 1)
    for index in [*INDICES, [0] * 5, [0]]:
        flat, given = _forms(hoisted, drawn.batch(len(index), seed=1), index)
        if not any(index):
            del given[REQUEST_INDEX]
        wanted = model(**flat).detach().numpy()
        seen = engine.run({name: value.numpy() for name, value in given.items()})
        np.testing.assert_allclose(seen, wanted, rtol=1e-5, atol=1e-5 * max(1.0, float(np.abs(wanted).max())))
