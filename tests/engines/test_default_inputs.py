"""An input with a default in the file may be given or left out, in every engine."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hoisted_file import INDEX, ITEM, USER, expected, write_hoisted

from flyweight.engines.engine import Engine, Prepared
from flyweight.engines.inputs import Input, fit_inputs, read_inputs, read_signature
from flyweight.engines.openvino import OpenVino
from flyweight.engines.registry import ENGINES, TORCH
from flyweight.errors import InputError
from flyweight.task.field import REQUEST_INDEX

STARTED = {**ENGINES, "torch": TORCH["torch"]}
ALL = pytest.mark.parametrize("engine", STARTED.values(), ids=list(STARTED))


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_hoisted(tmp_path_factory.mktemp("hoisted"))


@pytest.fixture
def prepared(engine: Engine, path: Path) -> Iterator[Prepared]:
    prepared = engine.prepare(path, threads=1)
    yield prepared
    prepared.close()


def test_default_input_is_optional(path: Path) -> None:
    assert [one.name for one in read_inputs(path)] == ["user", "item"]
    assert [one.name for one in read_signature(path).optional] == ["request_index"]


@ALL
@pytest.mark.parametrize("rows", [5, 1, 0])
def test_one_request_without_index(prepared: Prepared, rows: int) -> None:
    assert prepared.input_names == ("user", "item")
    scores = prepared.run({"user": USER[:1], "item": ITEM[:rows]})
    np.testing.assert_allclose(scores, expected(USER[:1], ITEM[:rows], np.zeros(rows, np.int64)), rtol=1e-5)


@ALL
@pytest.mark.parametrize(
    ("requests", "index"), [(3, INDEX), (1, np.zeros(5, np.int64)), (2, np.array([1])), (5, np.arange(5))]
)
def test_several_requests_with_index(prepared: Prepared, requests: int, index: np.ndarray) -> None:
    user = np.resize(USER, (requests, 3))
    scores = prepared.run({"user": user, "item": ITEM, "request_index": index})
    np.testing.assert_allclose(scores, expected(user, ITEM, np.resize(index, 5)), rtol=1e-5)


@ALL
def test_forms_take_turns(prepared: Prepared) -> None:
    for _ in range(2):
        one = prepared.run({"user": USER[1:2], "item": ITEM})
        np.testing.assert_allclose(one, expected(USER[1:2], ITEM, np.zeros(5, np.int64)), rtol=1e-5)
        many = prepared.run({"user": USER, "item": ITEM, "request_index": INDEX})
        np.testing.assert_allclose(many, expected(USER, ITEM, INDEX), rtol=1e-5)


@ALL
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"request_index": None}, "'user' has 3 requests; give 'request_index'"),
        ({"request_index": INDEX + 1}, "'request_index' holds 1 to 3; there are 3 requests, counted from 0"),
        ({"request_index": INDEX - 1}, "'request_index' holds -1 to 1; there are 3 requests"),
        ({"request_index": INDEX[:4]}, "'request_index' has 4 entries for 5 rows; give one for each row"),
        ({"request_index": INDEX.astype(float)}, "'request_index' has dtype float64; the model takes int64"),
        ({"rows": INDEX}, "has 'rows', which the model does not take"),
    ],
)
def test_wrong_index_is_named(prepared: Prepared, change: dict[str, np.ndarray | None], words: str) -> None:
    given = {"user": USER, "item": ITEM, "request_index": INDEX} | change
    with pytest.raises(InputError) as caught:
        prepared.run({name: value for name, value in given.items() if value is not None})
    assert words in str(caught.value)


def test_openvino_works_the_default_out_once(path: Path) -> None:
    """Left out, the index is a constant; the network for calls with it is another one."""
    engine = OpenVino()
    compiled = [engine.compile(path, 1, given) for given in ((), ("request_index",))]
    names = [{port.get_any_name() for port in one.inputs} for one in compiled]
    assert names == [{"user", "item"}, {"user", "item", "request_index"}]


def test_rows_of_several_fields_of_a_request_must_fit_the_requests() -> None:
    """A front of a sharded bundle takes the rows of 11 fields of each request one after the other."""
    rows = Input("rows", np.dtype("float32"), (None, 4), ("", ""), ((0, 11, "requests"),))
    index = Input(REQUEST_INDEX, np.dtype("int64"), (None,), ("spread",))
    given = {"rows": np.zeros((22, 4), np.float32), REQUEST_INDEX: np.array([0, 1, 1])}
    assert fit_inputs([rows], given, [index])["rows"].shape == (22, 4)
    with pytest.raises(InputError, match="holds 0 to 2; there are 2 requests"):
        fit_inputs([rows], given | {REQUEST_INDEX: np.array([0, 2])}, [index])
    with pytest.raises(InputError, match="has 23 places for 11 of each of the 2 requests of 'rows'; 22 are due"):
        fit_inputs([rows], given | {"rows": np.zeros((23, 4), np.float32)}, [index])
