"""Bundles of hoisted models: a request given once, several in a call, ids nobody knows, tampered files."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import ModelProto, numpy_helper
from tiny_models import evidence, timing

import flyweight as fw
from flyweight.bundle.manifest import InputEntry
from flyweight.bundle.ranker import Ranker as Loaded
from flyweight.bundle.read import read_bundle
from flyweight.bundle.samples import Sample
from flyweight.bundle.verify import verify
from flyweight.bundle.write import Contents, write_bundle
from flyweight.engines.export import export_onnx
from flyweight.errors import BundleError, InputError
from flyweight.rewrite.hoist import hoist
from flyweight.rewrite.rules import RULES
from flyweight.task.field import REQUEST_INDEX
from small_tasks import Ranker, batches, world

FIELDS = {
    "user_id": fw.Field("request", 60, unknown=0),
    "item_id": fw.Field("candidate", 400),
    "price": fw.Field("candidate"),
}
ROWS = 7
Columns = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[torch.nn.Module, Path, Columns]:
    """An untrained ranker, its bundle, and rows of several users."""
    torch.manual_seed(0)
    model = Ranker().eval()
    inputs = batches(*world(ROWS, seed=3))[0][0]
    folder = tmp_path_factory.mktemp("hoisted")
    hoisted = hoist(model, FIELDS, [inputs], RULES).model
    exported = export_onnx(hoisted, inputs, folder / "e")
    entries = {
        name: InputEntry(
            role=field.role,
            rows=field.rows,
            unknown=field.unknown,
            dtype=str(inputs[name].numpy().dtype),
            shape=[],
        )
        for name, field in FIELDS.items()
    }
    of_one = {**inputs, "user_id": torch.full((ROWS,), 5)}
    with torch.no_grad():
        samples = [
            Sample({key: value.numpy() for key, value in one.items()}, model(**one).numpy()) for one in (inputs, of_one)
        ]
    contents = Contents(folder / "e", evidence(exported.bytes, inputs=entries), timing(), samples, "<html></html>")
    return model, write_bundle(folder / "r.fly", contents), inputs


@pytest.fixture
def ranker(made: tuple[torch.nn.Module, Path, Columns]) -> Loaded:
    return fw.load(made[1], threads=1)


def due(model: torch.nn.Module, users: list[int], inputs: Columns) -> np.ndarray:
    with torch.no_grad():
        return model(**{**inputs, "user_id": torch.tensor(users)}).numpy()


def candidates(inputs: Columns) -> dict[str, np.ndarray]:
    return {name: inputs[name].numpy() for name in ("item_id", "price")}


def test_one_request_scores_as_the_model_does(made, ranker: Loaded) -> None:
    model, _, inputs = made
    assert ranker.bundle.graph.requests == {"user_id"}
    found = ranker.score({"user_id": 9}, candidates(inputs))
    np.testing.assert_allclose(found, due(model, [9] * ROWS, inputs), atol=1e-5)


def test_flat_rows_of_many_users_score_as_the_model_does(made, ranker: Loaded) -> None:
    model, _, inputs = made
    found = ranker.predict({name: value.numpy() for name, value in inputs.items()})
    np.testing.assert_allclose(found, due(model, inputs["user_id"].tolist(), inputs), atol=1e-5)


@pytest.mark.parametrize("offsets", [[0, 3, 7], [0, 0, 7], [0, 7, 7], [0, 1, 7]])
def test_several_requests_in_one_call_score_as_one_by_one(made, ranker: Loaded, offsets: list[int]) -> None:
    _, _, inputs = made
    found = ranker.score_many({"user_id": [4, 8]}, candidates(inputs), offsets)
    for user, start, end in zip([4, 8], offsets, offsets[1:], strict=False):
        part = {name: value[start:end] for name, value in candidates(inputs).items()}
        np.testing.assert_allclose(found[start:end], ranker.score({"user_id": user}, part), atol=1e-6)


@pytest.mark.parametrize(
    ("offsets", "words"),
    [
        ([0, 3, 6], "runs from 0 to 6; it must rise from 0 to 7"),
        ([0, 5, 3, 7], "falls after place 1"),
        ([7], "one more than requests"),
        ([0.0, 3.0, 7.0], "must be whole numbers"),
        ([0, 7], "'user_id' has 2 rows; offsets are of 1"),
    ],
)
def test_offsets_that_do_not_fit_are_refused(made, ranker: Loaded, offsets: list[float], words: str) -> None:
    with pytest.raises(InputError, match=words):
        ranker.score_many({"user_id": [4, 8]}, candidates(made[2]), offsets)


def test_no_candidates_give_no_scores(ranker: Loaded) -> None:
    assert ranker.score({"user_id": 9}, {"item_id": np.empty(0, int), "price": np.empty(0)}).shape == (0,)


def test_request_field_that_differs_names_field_and_row(made, ranker: Loaded) -> None:
    with pytest.raises(InputError, match="'user_id' differs inside the request: row 2 holds 6 and row 0 5"):
        ranker.score({"user_id": [5, 5, 6, 5, 5, 5, 5]}, candidates(made[2]))


def test_unknown_ids_take_the_row_for_them_and_are_counted(made, ranker: Loaded) -> None:
    model, _, inputs = made
    found = ranker.score({"user_id": 4_000_000}, candidates(inputs))
    np.testing.assert_allclose(found, due(model, [0] * ROWS, inputs), atol=1e-5)
    assert ranker.unknown_ids == {"user_id": 1}
    with pytest.raises(InputError, match="'item_id' holds id 400, and ids run from 0 to 399"):
        ranker.score({"user_id": 1}, {**candidates(inputs), "item_id": np.full(ROWS, 400)})


def test_unknown_ids_count_once_for_a_request_and_only_where_it_is_scored(made, ranker: Loaded) -> None:
    given = candidates(made[2])
    with pytest.raises(InputError, match="'user_id' differs inside the request: row 1 holds 200 and row 0 100"):
        ranker.score({"user_id": [100, 200, 300, 100, 100, 100, 100]}, given)
    with pytest.raises(InputError, match="'price' has shape"):
        ranker.score({"user_id": 100}, {**given, "price": 1.0})
    assert ranker.unknown_ids == {}
    ranker.score({"user_id": [100] * ROWS}, given)
    ranker.score({"user_id": 2**63}, given)
    ranker.score({"user_id": [2**64]}, given)
    ranker.score_many({"user_id": [3, 2**63]}, given, [0, 3, 7])
    assert ranker.unknown_ids == {"user_id": 4}


def test_unknown_ids_of_threads_are_all_counted(made, ranker: Loaded) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: ranker.score({"user_id": 100}, candidates(made[2])), range(100)))
    assert ranker.unknown_ids == {"user_id": 100}


def test_unknown_ids_are_refused_where_asked(made) -> None:
    with pytest.raises(InputError, match="'user_id' holds id 60"):
        fw.load(made[1], unknown="refuse").score({"user_id": 60}, candidates(made[2]))
    with pytest.raises(InputError, match="unknown must be 'map' or 'refuse'; seen 'guess'"):
        fw.load(made[1], unknown="guess")  # type: ignore[arg-type]


def test_verify_scores_both_forms(made) -> None:
    found = verify(made[1])
    assert found.ok, str(found)


def spoil(path: Path, tmp_path: Path, change: Callable[[ModelProto], None]) -> Path:
    """Return a copy of a bundle with another graph, every hash made to fit."""
    import mutations

    files = {file.name: file.read_bytes() for file in path.iterdir()}
    model = ModelProto.FromString(files["model.onnx"])
    change(model)
    target = tmp_path / "spoilt.fly"
    target.mkdir()
    for name, data in mutations.repaired({**files, "model.onnx": model.SerializeToString()}).items():
        (target / name).write_bytes(data)
    return target


def _default_of_two(model: ModelProto) -> None:
    (index,) = [one for one in model.graph.initializer if one.name == REQUEST_INDEX]
    index.CopyFrom(numpy_helper.from_array(np.zeros(2, np.int64), REQUEST_INDEX))


def _default_far_away(model: ModelProto) -> None:
    (index,) = [one for one in model.graph.initializer if one.name == REQUEST_INDEX]
    index.CopyFrom(numpy_helper.from_array(np.full(1, 10**6), REQUEST_INDEX))


def _fixed_index(model: ModelProto) -> None:
    (index,) = [one for one in model.graph.input if one.name == REQUEST_INDEX]
    index.type.tensor_type.shape.dim[0].dim_value = 1


def _candidate_as_request(model: ModelProto) -> None:
    (item,) = [one for one in model.graph.input if one.name == "price"]
    item.type.tensor_type.shape.dim[0].dim_param = "requests"


def _another_default(model: ModelProto) -> None:
    model.graph.initializer.append(numpy_helper.from_array(np.zeros(1, np.int64), "user_id"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_default_of_two, "the default of 'request_index' is not the one request 0"),
        (_default_far_away, "the default of 'request_index' is not the one request 0"),
        (_fixed_index, "'request_index' is not int64 with one open dimension 'spread'"),
        (_candidate_as_request, "do not agree on whether 'price' has a row for each request"),
        (_another_default, "the name 'user_id' is empty, longer than .* or made twice"),
    ],
)
def test_a_tampered_index_is_refused(made, tmp_path: Path, change: Callable[[ModelProto], None], words: str) -> None:
    with pytest.raises(BundleError, match=words):
        read_bundle(spoil(made[1], tmp_path, change))


def test_the_file_alone_scores_one_request_in_onnx_runtime(made) -> None:
    """Another server takes the file as it is: one row of the request, N candidates, no index."""
    import onnxruntime

    model, path, inputs = made
    session = onnxruntime.InferenceSession(str(path / "model.onnx"), providers=["CPUExecutionProvider"])
    assert [one.name for one in session.get_inputs()] == ["user_id", "item_id", "price"]
    (found,) = session.run(None, {"user_id": np.array([9]), **candidates(inputs)})
    np.testing.assert_allclose(found, due(model, [9] * ROWS, inputs), atol=1e-5)
    assert onnx.load(path / "model.onnx", load_external_data=False).graph.input[0].type.tensor_type.HasField("shape")
