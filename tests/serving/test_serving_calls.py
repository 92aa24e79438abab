"""Tensors become calls: whose side each is on, how long, which request a candidate belongs to, what strings mean."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from running_service import request, scores_of

import flyweight as fw
from flyweight.errors import FlyweightError, InputError
from flyweight.serving.call import Takes, call_of, takes_of
from flyweight.serving.lane import Limits
from flyweight.serving.rank_route import columns_of
from flyweight.serving.refusal import Refusal
from flyweight.serving.scoring import score_call, score_calls
from flyweight.serving.settings import Settings, settings_from_json, settings_to_json, sources_of
from flyweight.serving.vocabulary import Vocabularies, read_vocabularies

Ranker = Any
CLOSE: Any = {"rtol": 1e-4, "atol": 1e-6}


@pytest.fixture(scope="module")
def ranker(hoisted: Path) -> Ranker:
    return fw.load(hoisted, threads=1)


@pytest.fixture(scope="module")
def takes(ranker: Ranker) -> Takes:
    return takes_of("tiny", ranker, 50, Vocabularies({"item_id": {"sku-1": 4, "sku-2": 299}}))


def test_request_scores_as_numpy_does(ranker: Ranker, takes: Takes) -> None:
    arrays = request(20)
    np.testing.assert_allclose(score_call(ranker, call_of(takes, dict(arrays))), scores_of(arrays), **CLOSE)


def test_equal_row_for_each_candidate_is_one_request(ranker: Ranker, takes: Takes) -> None:
    arrays = request(20)
    call = call_of(takes, arrays | {"user_id": np.full(20, 7)})
    np.testing.assert_allclose(score_call(ranker, call), scores_of(arrays), **CLOSE)


def test_request_index_scores_several_requests(ranker: Ranker, takes: Takes) -> None:
    parts = [request(n, user, seed=user) for user, n in ((3, 4), (9, 1), (11, 5))]
    arrays = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    call = call_of(takes, arrays | {"request_index": np.repeat([0, 1, 2], [4, 1, 5])})
    assert call.requests == 3
    np.testing.assert_allclose(score_call(ranker, call), np.concatenate([*map(scores_of, parts)]), **CLOSE)


def test_joined_calls_score_as_each_alone_and_a_bad_one_fails_alone(ranker: Ranker, takes: Takes) -> None:
    parts = [request(n, user, seed=user) for user, n in ((3, 4), (9, 1), (11, 5))]
    bad = request(3) | {"item_id": np.array([1, 300, 2])}
    calls = [call_of(takes, dict(part)) for part in (*parts[:2], bad, parts[2])]
    *good, wrong, last = score_calls(ranker, calls)
    assert isinstance(wrong, FlyweightError)
    assert "'item_id' holds id 300, and ids run from 0 to 299" in str(wrong)
    for part, scores in zip(parts, (*good, last), strict=True):
        np.testing.assert_allclose(scores, scores_of(part), **CLOSE)


def test_strings_are_looked_up_in_the_vocabulary(takes: Takes) -> None:
    raw = np.array(["sku-2", "sku-1"], dtype=object)
    call = call_of(takes, request(2) | {"item_id": raw, "user_id": np.array(["12"], dtype=object)})
    assert call.offered["item_id"].tolist() == [299, 4]
    assert call.asked["user_id"].tolist() == [12]


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "unknown": ({"item": np.arange(5)}, "Input 'item' is not one of model 'tiny'; the nearest is 'item_id'"),
    "none": ({"item_id": np.arange(0), "price": np.zeros(0)}, "0 rows: there is nothing to score. Give 1 to 50"),
    "lengths": ({"price": np.zeros(4)}, "'item_id' has 5 rows and 'price' 4"),
    "scalar": ({"user_id": np.array(7)}, "'user_id' has shape []; its first dimension counts rows"),
    "scalar text": ({"user_id": np.array("7", dtype=object)}, "'user_id' has shape []; its first dimension counts"),
    "rows": ({"user_id": np.array([1, 2])}, "'user_id' belongs to the request and has 2 rows for 5 candidates"),
    "differs": ({"user_id": np.array([1, 1, 2, 1, 1])}, "differs inside the request: row 2 holds 2 and row 0 1"),
    "text": ({"user_id": np.array(["Ann"], dtype=object)}, "'Ann' and there is no vocabulary of it"),
    "text price": ({"price": np.array(["a"] * 5, dtype=object)}, "'price' takes numbers; seen BYTES"),
    "index shape": ({"request_index": np.arange(4)}, "'request_index' is INT64 of shape [4]; INT64 of shape [5]"),
    "index falls": ({"request_index": np.array([0, 0, 0, -1, 0])}, "holds -1 to 0; it must rise from 0 to 0"),
    "index high": ({"request_index": np.array([0, 0, 0, 0, 1])}, "holds 0 to 1; it must rise from 0 to 0"),
}


@pytest.mark.parametrize(("changes", "words"), BAD.values(), ids=BAD.keys())
def test_bad_call_is_refused_in_words(takes: Takes, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(Refusal) as told:
        call_of(takes, request(5) | changes)
    assert words in str(told.value)


#: Of two inputs of a request, without a bundle.
PAIR = Takes(
    "pair", {"user_id": True, "age": False}, {"item_id": True}, False, frozenset(), 50, Vocabularies(), frozenset()
)


def pair(users: int, ages: int, *index: int) -> dict[str, Any]:
    return {
        "user_id": np.zeros(users, np.int64),
        "age": np.zeros(ages),
        "item_id": np.zeros(len(index), np.int64),
        "request_index": np.array(index, np.int64),
    }


def test_requests_whose_inputs_differ_in_length_never_reach_other_callers() -> None:
    """Between two such calls, one with a row too many and one too few, a third was scored with another's rows."""
    for users, ages in ((2, 3), (2, 1)):
        words = f"'user_id' has 2 rows and 'age' {ages}"
        with pytest.raises(Refusal, match=words):
            call_of(PAIR, pair(users, ages, 0, 1))


def test_requests_of_one_call_have_a_limit() -> None:
    with pytest.raises(Refusal, match=r"51 requests in one call; model 'pair' takes up to 50 at once") as told:
        call_of(PAIR, pair(51, 51, 0))
    assert told.value.status.http == 413


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"flat": frozenset({"item_id"})}, "model 'pair' takes flat batches alone; leave it out"),
        ({"offered": {}, "asked": {"user_id": True, "age": False, "item_id": True}}, "takes no candidates; leave it"),
        ({"asked": {}, "offered": {"user_id": True, "age": False, "item_id": True}}, "no inputs of a request; leave"),
    ],
)
def test_request_index_that_would_be_passed_over_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(Refusal, match=words):
        call_of(replace(PAIR, **changes), pair(2, 2, 0, 0))


def test_calls_of_other_types_are_of_another_kind(takes: Takes) -> None:
    """Joined, the truths of one among the ids of the other were scored as ids 0 and 1."""
    kinds = [call_of(takes, request(2) | {"item_id": np.zeros(2, kind)}).kind for kind in (int, bool, np.uint64, int)]
    assert kinds[0] == kinds[3]
    assert len(set(kinds)) == 3


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"offered": {}}, "Model 'pair' takes no candidates, so there is nothing to rank; send tensors to /v2"),
        ({"flat": frozenset({"item_id"})}, "Model 'pair' has inputs with lengths of their own, so there"),
    ],
)
def test_ranking_of_a_model_that_ranks_nothing_is_refused(changes: dict[str, Any], words: str) -> None:
    """One that takes no candidates gave a single score, whatever the candidates."""
    with pytest.raises(Refusal, match=words):
        columns_of(replace(PAIR, **changes), {"user_id": 7, "age": 3}, [{}, {}])


def test_number_never_means_another_thing_for_the_company_it_is_in(takes: Takes) -> None:
    """Alone 4 was an id, and beside a text the raw value "4"."""
    user, mixed = {"user_id": 7}, [{"item_id": 4, "price": 0}, {"item_id": "sku-1", "price": 0}]
    with pytest.raises(Refusal, match=r"'item_id' mixes texts, which are raw values, with whole numbers, .*; seen 4"):
        columns_of(takes, user, mixed)
    plain = columns_of(replace(takes, vocabularies=Vocabularies()), user, [*mixed[:1], {"item_id": "5", "price": 0}])
    assert plain["item_id"].tolist() == ["4", "5"]  # without a vocabulary both are ids


def test_long_name_is_looked_up_in_no_time(takes: Takes) -> None:
    """Looking for the nearest name of one of megabytes held up the whole worker for a second."""
    name, started = "item_if" * 2_000_000, time.perf_counter()
    with pytest.raises(Refusal, match="Input 'item_ifitem_if"):
        call_of(takes, request(2) | {name: np.zeros(2)})
    with pytest.raises(Refusal, match="'request' has the field 'item_ifitem_if"):
        columns_of(takes, {name: 7}, [{}])
    assert time.perf_counter() - started < 0.5


def test_rows_of_a_flat_batch_are_those_of_inputs_cut_by_row() -> None:
    """The places of empty bags are rows though the bags hold nothing, and ids of full ones are no candidates."""
    takes = replace(PAIR, asked={}, offered={"bag": True, "starts": False}, flat=frozenset({"bag"}), most=5)
    for size in (0, 400):
        call = call_of(takes, {"bag": np.zeros(size, np.int64), "starts": np.zeros(3, np.int64)})
        assert call.rows == 3
    with pytest.raises(Refusal, match="has 6 candidates; model 'pair' takes up to 5 at once"):
        call_of(takes, {"bag": np.zeros(2, np.int64), "starts": np.zeros(6, np.int64)})


def test_rows_of_nan_are_told_as_nan() -> None:
    arrays = {"user_id": np.zeros(1, np.int64), "age": np.full(2, np.nan), "item_id": np.zeros(2, np.int64)}
    assert np.isnan(call_of(PAIR, dict(arrays)).asked["age"]).tolist() == [True]  # the ranker refuses it in words
    with pytest.raises(Refusal, match=r"'age' differs inside the request: row 1 holds 1.0 and row 0 nan"):
        call_of(PAIR, arrays | {"age": np.array([np.nan, 1.0])})


def test_order_of_inputs_does_not_keep_calls_apart() -> None:
    takes = replace(PAIR, open=True)
    arrays = {"user_id": np.zeros((1, 3), np.int64), "age": np.zeros((1, 5)), "item_id": np.zeros(4, np.int64)}
    assert call_of(takes, dict(arrays)).kind == call_of(takes, dict(reversed(arrays.items()))).kind


def test_missing_input_is_named(takes: Takes) -> None:
    arrays = request(5)
    del arrays["price"]
    with pytest.raises(Refusal, match=r"Input 'price' is missing; model 'tiny' takes .* seen 2 of 3"):
        call_of(takes, arrays)


def test_too_many_candidates_are_too_large(takes: Takes) -> None:
    with pytest.raises(Refusal, match=r"51 candidates; model 'tiny' takes up to 50 at once") as told:
        call_of(takes, request(51))
    assert told.value.status.http == 413


def test_value_that_the_vocabulary_lacks_is_told_or_left_to_the_ranker(takes: Takes) -> None:
    raw = request(2) | {"item_id": np.array(["sku-2", "new"], dtype=object)}
    with pytest.raises(Refusal, match="holds 'new', which its vocabulary of 2 values lacks, and the model has no"):
        call_of(takes, dict(raw))
    call = call_of(replace(takes, unknown=frozenset({"item_id"})), dict(raw))
    assert call.offered["item_id"].tolist() == [299, -1]


def test_vocabulary_file_is_read_and_checked(tmp_path: Path) -> None:
    file = tmp_path / "vocabulary.json"
    file.write_text('{"item_id": {"sku-1": 4}}')
    assert read_vocabularies(file).ids == {"item_id": {"sku-1": 4}}
    for text, words in (
        ("{", "is no JSON"),
        ("[]", "must be an object of inputs; seen a list"),
        ('{"item_id": {"sku-1": "4"}}', "'item_id' must be an object of ids by raw value"),
    ):
        file.write_text(text)
        with pytest.raises(InputError, match=words):
            read_vocabularies(file)
    with pytest.raises(InputError, match="cannot be read: No such file or directory; check --vocabulary"):
        read_vocabularies(tmp_path / "none.json")


def test_sources_are_named_by_folder_or_by_hand() -> None:
    assert [one.model for one in sources_of(["a/ranker.fly", "old=b/ranker.fly", "./c"])] == ["ranker", "old", "c"]
    with pytest.raises(InputError, match="names no model that a URL can hold; give NAME=PATH"):
        sources_of(["a b.fly"])
    with pytest.raises(InputError, match=r"is no UTF-8, .* rename it"):
        sources_of(["a=caf\udce9.fly"])
    assert sources_of(["a=café.fly"])[0].path.endswith("café.fly")
    with pytest.raises(InputError, match="--workers must be 1 or more; seen 0"):
        Settings(sources_of(["a"]), workers=0)


def test_settings_come_back_from_json() -> None:
    settings = Settings(sources_of(["a", "b=c"]), limits=Limits(wait_us=7), grpc_port=0)
    assert settings_from_json(settings_to_json(settings)) == settings
