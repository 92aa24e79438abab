"""Scoring a loaded bundle: shapes as the design says, and wrong requests refused in words."""

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_models

import flyweight as fw
from flyweight.bundle.load import load
from flyweight.bundle.ranker import Ranker
from flyweight.bundle.write import Contents, write_bundle
from flyweight.engines.onnx_runtime import OnnxRuntime
from flyweight.engines.registry import ENGINES, FALLBACKS, find_engine
from flyweight.errors import BundleError, EngineError, InputError

ITEMS = np.array([0, 5, tiny_models.ITEMS - 1])
PRICES = np.array([0.5, 1.0, 2.0])


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("load")
    return write_bundle(folder / "ranker.fly", tiny_models.contents(folder / "e"))


@pytest.fixture(scope="module")
def ranker(path: Path) -> Iterator[Ranker]:
    with load(path, threads=1) as ranker:
        yield ranker


def due(user: int, items: Any = ITEMS, prices: Any = PRICES) -> Any:
    return tiny_models.expected(np.full(len(items), user), np.asarray(items), np.asarray(prices, dtype=np.float32))


@pytest.mark.parametrize("user", [7, np.int32(7), [7], np.array([7])])
def test_score_takes_a_request_with_or_without_a_leading_one(ranker: Ranker, user: Any) -> None:
    scores = ranker.score(request={"user_id": user}, candidates={"item_id": ITEMS, "price": PRICES})
    assert scores.shape == (3,)
    np.testing.assert_allclose(scores, due(7), rtol=1e-5)


def test_score_of_one_candidate_and_of_none(ranker: Ranker) -> None:
    one = ranker.score({"user_id": 7}, {"item_id": [5], "price": [1.0]})
    np.testing.assert_allclose(one, due(7, [5], [1.0]), rtol=1e-5)
    none = ranker.score({"user_id": 7}, {"item_id": [], "price": []})
    assert none.shape == (0,)


def test_predict_takes_a_flat_batch(ranker: Ranker) -> None:
    users = np.array([1, 2, 19])
    outputs = ranker.predict({"user_id": users, "item_id": ITEMS, "price": PRICES})
    np.testing.assert_allclose(outputs, tiny_models.expected(users, ITEMS, PRICES.astype(np.float32)), rtol=1e-5)


def test_public_name_is_the_same_function() -> None:
    assert fw.load is load


GOOD = {"item_id": ITEMS, "price": PRICES}


@pytest.mark.parametrize(
    ("request_values", "candidates", "words"),
    [
        ({"user": 7}, GOOD, "request: 'user' is not an input here; the nearest is 'user_id'"),
        ({}, GOOD, "request lacks input 'user_id'; it takes 'user_id', seen nothing"),
        ({"user_id": 7}, {"item_id": ITEMS}, "candidates lacks input 'price'"),
        ({"user_id": 7}, {**GOOD, "prise": PRICES}, "candidates: 'prise' is not an input here; the nearest is 'price'"),
        ({"user_id": 7, "price": 1.0}, GOOD, "'price' has role 'candidate'; give it in candidates=, not in request="),
        ({}, {**GOOD, "user_id": [7, 7, 7]}, "'user_id' has role 'request'; give it in request="),
        ({"user_id": 20}, GOOD, "'user_id' holds id 20, and ids run from 0 to 19"),
        ({"user_id": -1}, GOOD, "'user_id' holds the negative id -1"),
        ({"user_id": 2**63}, GOOD, "holds id 9223372036854775808"),
        ({"user_id": 1.5}, GOOD, "'user_id' has dtype float64; ids must be whole numbers"),
        ({"user_id": "7"}, GOOD, "'user_id' holds text, '7'; numbers of dtype int or float are due"),
        ({"user_id": None}, GOOD, "'user_id' holds None; numbers of dtype int or float are due"),
        ({"user_id": 7}, {**GOOD, "item_id": [1, None, 2]}, "'item_id' holds None"),
        ({"user_id": 7}, {**GOOD, "item_id": [1, "b", 2]}, "'item_id' holds text, 'b'"),
        ({"user_id": 7}, {**GOOD, "item_id": [1, 2**63, 2]}, "holds id 9223372036854775808, beyond int64, and ids run"),
        ({"user_id": 7}, {**GOOD, "item_id": [1, 2**64, 2]}, "holds id 18446744073709551616, beyond int64, and ids"),
        ({"user_id": 7}, {**GOOD, "price": [1, 2**64, 2]}, "number 18446744073709551616, beyond int64; give it as a"),
        ({"user_id": [float("nan")] * 3}, GOOD, "'user_id' holds NaN; ids must be whole numbers"),
        ({"user_id": np.ma.array([3], mask=[True])}, GOOD, "'user_id' has 1 masked values of 1; fill them"),
        ({"user_id": [7, 7]}, GOOD, "'user_id' has 2 equal rows and there are 3 candidates; give one value for all"),
        ({"user_id": True}, GOOD, "'user_id' has dtype bool; ids must be whole numbers"),
        ({"user_id": 7}, {**GOOD, "item_id": np.array([1, -(2**63), 2])}, "holds the negative id -9223372036854775808"),
        ({"user_id": 7}, {**GOOD, "item_id": np.array([1, 300, 2], np.int32)}, "'item_id' holds id 300"),
        (
            {"user_id": [1, 2]},
            GOOD,
            "'user_id' differs inside the request: row 1 holds 2 and row 0 1",
        ),
        ({"user_id": 7}, {"item_id": [1, 2], "price": PRICES}, "'item_id' has 2 rows and 'price' 3"),
        ({"user_id": 7}, {"item_id": 3, "price": PRICES}, r"'item_id' has shape \(\); \(N,\) is due"),
        ({"user_id": 7}, {"item_id": ITEMS[:, None], "price": PRICES}, r"has shape \(3, 1\); \(N,\) is due"),
        (
            {"user_id": 7},
            {"item_id": ITEMS, "price": [0, float("nan"), 1]},
            "'price' holds 1 NaN or infinite values of 3",
        ),
        ({"user_id": 7}, {"item_id": ITEMS, "price": [0, 1e300, 1]}, "'price' holds values that float32 cannot hold"),
        (
            {"user_id": 7},
            {"item_id": [[1], [2, 3]], "price": PRICES},
            "rows differ in length: 1 in row 0 and 2 in row 1; pad",
        ),
        ([7], GOOD, "request must be a dict of values by input name; seen list"),
    ],
)
def test_wrong_request_is_refused_in_words(ranker: Ranker, request_values: Any, candidates: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        ranker.score(request=request_values, candidates=candidates)


@pytest.mark.parametrize("dtype", ["int64", "int32", "uint8", "uint64", ">i8", "longlong"])
def test_ids_of_every_whole_dtype_and_stride_score_alike(ranker: Ranker, dtype: str) -> None:
    items = np.repeat(np.array([0, 5, 250], dtype), 2)[::2]
    prices = np.broadcast_to(PRICES[:, None], (3, 2))[:, 0]
    np.testing.assert_allclose(
        ranker.score({"user_id": 7}, {"item_id": items, "price": prices}), due(7, [0, 5, 250]), rtol=1e-5
    )


def test_masked_array_without_masked_values_is_taken(ranker: Ranker) -> None:
    items = np.ma.array(ITEMS, mask=[False] * 3)
    np.testing.assert_allclose(ranker.score({"user_id": 7}, {**GOOD, "item_id": items}), due(7), rtol=1e-5)


def test_callers_arrays_are_left_as_they_are(ranker: Ranker) -> None:
    items, prices = ITEMS.copy(), PRICES.astype(np.float32)
    scores = ranker.score({"user_id": 7}, {"item_id": items, "price": prices})
    scores[:] = 0
    np.testing.assert_array_equal(items, ITEMS)
    np.testing.assert_array_equal(prices, PRICES.astype(np.float32))


def test_several_requests_of_a_wrong_shape_are_told_theirs(ranker: Ranker) -> None:
    with pytest.raises(InputError, match=r"'user_id' has shape \(2, 1\); \(R,\) is due"):
        ranker.score_many({"user_id": [[1], [2]]}, GOOD, [0, 1, 3])


def test_predict_refuses_an_unknown_name(ranker: Ranker) -> None:
    with pytest.raises(InputError, match=r"predict\(\): 'item' is not an input here; the nearest is 'item_id'"):
        ranker.predict({"item": ITEMS})


def test_closed_ranker_says_so(path: Path) -> None:
    ranker = load(path)
    ranker.close()
    ranker.close()
    with pytest.raises(EngineError, match=r"is closed; load the bundle again"):
        ranker.score({"user_id": 7}, GOOD)


def test_unknown_engine_and_threads_are_refused(path: Path) -> None:
    with pytest.raises(InputError, match="tensorflow"):
        load(path, engine="tensorflow")
    with pytest.raises(InputError, match="threads must be a whole number from 0 on; seen -1"):
        load(path, threads=-1)
    with pytest.raises(InputError, match=r"Engine \['onnxruntime'\] is unknown"):
        load(path, engine=["onnxruntime"])  # type: ignore[arg-type]
    for many in (10**9, 2**40):
        with pytest.raises(
            InputError, match=rf"threads must be at most [\d,]+ with the \d+ cores? here; seen {many:,}"
        ):
            load(path, threads=many)


def test_threads_may_be_a_numpy_integer(path: Path) -> None:
    with load(path, threads=np.int64(1)) as ranker:  # type: ignore[arg-type]
        assert ranker.score({"user_id": 7}, GOOD).shape == (3,)


def test_recorded_engine_that_is_missing_falls_back_with_a_warning(tmp_path: Path) -> None:
    path = write_bundle(tmp_path / "r.fly", tiny_models.contents(tmp_path / "e", engine="abacus"))
    with pytest.warns(UserWarning, match=r"timed in abacus; using onnxruntime \(abacus is unknown here\)"):
        ranker = load(path)
    assert ranker.engine == "onnxruntime"


def test_fallback_that_gives_other_scores_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_bundle(tmp_path / "r.fly", tiny_models.contents(tmp_path / "e", engine="abacus"))
    for name in FALLBACKS:
        monkeypatch.setattr(find_engine(name), "prepare", _doubles)
        monkeypatch.setattr(find_engine(name), "available", lambda: None)
    with pytest.raises(EngineError, match=r"openvino: its scores of the stored requests are not the model's: largest"):
        load(path)


def test_recorded_engine_is_not_scored_when_it_is_loaded(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(find_engine("onnxruntime"), "prepare", _doubles)
    assert load(path).engine == "onnxruntime"


def _doubles(model: Path, threads: int) -> Any:
    """An engine whose scores are twice the model's."""
    prepared = OnnxRuntime().prepare(model, threads)
    run = prepared.run
    prepared.run = lambda inputs: 2 * run(inputs)  # type: ignore[method-assign]
    return prepared


def test_recorded_engine_is_taken_without_a_warning(path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load(path).engine == "onnxruntime"


@pytest.mark.parametrize("engine", list(ENGINES))
def test_every_engine_gives_the_same_scores(path: Path, engine: str) -> None:
    if ENGINES[engine].available() is not None:
        pytest.skip(f"{engine} is not installed")
    with load(path, engine=engine, threads=1) as ranker:
        np.testing.assert_allclose(ranker.score({"user_id": 7}, GOOD), due(7), rtol=1e-4)


def test_history_of_a_request_is_repeated_for_each_candidate(tmp_path: Path) -> None:
    path = write_bundle(tmp_path / "h.fly", history_contents(tmp_path / "e"))
    with load(path) as ranker:
        for history in ([1, 2, 3], [[1, 2, 3]]):
            scores = ranker.score({"history": history}, {"item_id": [4, 5]})
            np.testing.assert_array_equal(scores, [1 + 2 + 3 + 4, 1 + 2 + 3 + 5])
        np.testing.assert_array_equal(ranker.score({"history": [[1, 2, 3]] * 2}, {"item_id": [4, 5]}), [10, 11])
        with pytest.raises(InputError, match=r"'history' differs inside the request: row 1 holds \[1 2 4\]"):
            ranker.score({"history": [[1, 2, 3], [1, 2, 4]]}, {"item_id": [4, 5]})


def test_relabelled_rows_are_looked_up_by_the_users_ids(tmp_path: Path) -> None:
    maps = {"item_id": [0, 9, 9, 9, 4, 5, 6, 7, 8, 1]}
    path = write_bundle(tmp_path / "h.fly", history_contents(tmp_path / "e", id_maps=maps))
    with load(path) as ranker:
        np.testing.assert_array_equal(ranker.score({"history": [1]}, {"item_id": [1, 9]}), [1 + 9, 1 + 1])


def history_contents(folder: Path, **changes: Any) -> Contents:
    """A model whose score is the sum of the history's ids and the candidate's."""
    from onnx import TensorProto, helper, numpy_helper

    from flyweight.bundle.manifest import InputEntry
    from flyweight.bundle.samples import Sample

    nodes = [
        helper.make_node("ReduceSum", ["history", "one"], ["h"], keepdims=0),
        helper.make_node("Add", ["h", "item_id"], ["s"]),
        helper.make_node("Cast", ["s"], ["score"], to=TensorProto.FLOAT),
    ]
    inputs: dict[str, tuple[int, list[Any]]] = {
        "history": (TensorProto.INT64, ["length"]),
        "item_id": (TensorProto.INT64, []),
    }
    model = tiny_models.model(nodes, [numpy_helper.from_array(np.array([1]), "one")], inputs)
    entries = {
        "history": InputEntry(role="request", rows=10, dtype="int64", shape=[None]),
        "item_id": InputEntry(role="candidate", rows=10, dtype="int64", shape=[]),
    }
    size = tiny_models.export(folder, model, outside=False)
    sample = Sample({"history": np.array([[1, 9]]), "item_id": np.array([9])}, np.array([19.0], dtype=np.float32))
    evidence = tiny_models.evidence(size, inputs=entries, **changes)
    return Contents(folder, evidence, tiny_models.timing(), [sample], "<html>")


def test_flat_inputs_keep_their_own_length(tmp_path: Path) -> None:
    from onnx import TensorProto, helper

    from flyweight.bundle.manifest import InputEntry
    from flyweight.bundle.samples import Sample

    nodes = [
        helper.make_node("ReduceMax", ["ids"], ["m"], keepdims=0),
        helper.make_node("Add", ["offsets", "m"], ["s"]),
        helper.make_node("Cast", ["s"], ["score"], to=TensorProto.FLOAT),
    ]
    model = tiny_models.model(nodes, [], {"ids": (TensorProto.INT64, []), "offsets": (TensorProto.INT64, [])})
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "ids_length"
    entry = InputEntry(role="sample", dtype="int64", shape=[])
    size = tiny_models.export(tmp_path / "e", model, outside=False)
    sample = Sample({"ids": np.array([5, 6, 7]), "offsets": np.array([0, 2])}, np.array([7.0, 9.0], dtype=np.float32))
    evidence = tiny_models.evidence(size, inputs={"ids": entry, "offsets": entry})
    contents = Contents(tmp_path / "e", evidence, tiny_models.timing(), [sample], "<html>")
    with load(write_bundle(tmp_path / "f.fly", contents)) as ranker:
        np.testing.assert_array_equal(ranker.predict(sample.inputs), [7.0, 9.0])


def test_damaged_bundle_is_a_bundle_error(tmp_path: Path) -> None:
    path = write_bundle(tmp_path / "r.fly", tiny_models.contents(tmp_path / "e"))
    (path / "model.onnx").write_bytes(b"not a model")
    with pytest.raises(BundleError, match=r"model\.onnx has 11 bytes"):
        fw.load(path)
