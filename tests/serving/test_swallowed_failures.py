"""OpenVINO swallows a failure inside the graph on one thread, and returns the scores of the call before.

Nothing that a request holds may reach such a failure: it is refused before the engine runs, alone and joined.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_models
from running_service import request, scores_of

import flyweight as fw
from flyweight.errors import InputError
from flyweight.serving.call import Takes, call_of, takes_of
from flyweight.serving.refusal import Refusal
from flyweight.serving.scoring import score_calls
from flyweight.serving.vocabulary import Vocabularies

pytest.importorskip("openvino")
Arrays = dict[str, np.ndarray[Any, Any]]


@pytest.fixture(scope="module")
def ranker(hoisted: Path) -> Iterator[Any]:
    with fw.load(hoisted, engine="openvino", threads=1) as found:
        yield found


@pytest.fixture(scope="module")
def takes(ranker: Any) -> Takes:
    return takes_of("ranker", ranker, 1000, Vocabularies())


OUT_OF_RANGE = [
    {name: value}
    for name, most in (("user_id", tiny_models.USERS), ("item_id", tiny_models.ITEMS))
    for value in (-1, -(2**63), most, most + 1, 2**31, 2**32, 2**63 - 1)
]


@pytest.mark.parametrize("bad", OUT_OF_RANGE, ids=str)
def test_id_out_of_range_gets_no_scores_of_another_call(ranker: Any, takes: Takes, bad: dict[str, int]) -> None:
    good, (name, value) = request(6, seed=3), next(iter(bad.items()))
    wrong = request(6, seed=4)
    wrong[name] = wrong[name].copy()
    wrong[name][-1] = value
    alone = score_calls(ranker, [call_of(takes, dict(wrong))])
    first, refused, last = score_calls(ranker, [call_of(takes, dict(one)) for one in (good, wrong, good)])
    for outcome in (*alone, refused):
        assert isinstance(outcome, InputError)
        assert f"{name!r} holds" in str(outcome)
        assert f"id {value}" in str(outcome)
        assert "ids run from 0 to" in str(outcome)
    for scores in (first, last):
        np.testing.assert_allclose(scores, scores_of(good), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "index", [[0, 0, 0, 0, 0, 2], [-1, 0, 0, 0, 1, 1], [0, 0, 1, 1, 0, 0], [0, 0, 0, 0, 0, 2**62]], ids=str
)
def test_request_index_out_of_range_never_reaches_the_engine(takes: Takes, index: list[int]) -> None:
    arrays = request(6) | {"user_id": np.array([1, 2]), "request_index": np.array(index)}
    with pytest.raises(Refusal, match="it must rise from 0 to 1"):
        call_of(takes, arrays)


def test_no_candidates_never_reach_the_engine(ranker: Any, takes: Takes) -> None:
    empty = {"user_id": np.array([1]), "item_id": np.zeros(0, np.int64), "price": np.zeros(0, np.float32)}
    with pytest.raises(Refusal, match="has 0 rows"):
        call_of(takes, dict(empty))
    assert ranker.score({"user_id": 1}, {"item_id": empty["item_id"], "price": empty["price"]}).shape == (0,)


def test_requests_without_candidates_leave_others_their_scores(ranker: Any, takes: Takes) -> None:
    arrays = request(6) | {"user_id": np.array([3, 7, 5]), "request_index": np.array([1] * 6)}
    (scores,) = score_calls(ranker, [call_of(takes, arrays)])
    np.testing.assert_allclose(scores, scores_of(request(6)), rtol=1e-4, atol=1e-6)
