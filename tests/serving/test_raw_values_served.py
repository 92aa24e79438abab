"""A bundle that carries its vocabularies, asked with raw values: over every way in, beside a file, elsewhere."""

import dataclasses
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_models
import tritonclient.grpc as grpc_client
import tritonclient.http as http_client
from running_service import Service, request, scores_of, started
from typer.testing import CliRunner

from flyweight.bundle.read import read_bundle
from flyweight.bundle.write import write_bundle
from flyweight.cli.main import app
from flyweight.serving.call import call_of
from flyweight.serving.refusal import Refusal
from flyweight.serving.served import open_bundle
from flyweight.serving.settings import Settings, sources_of
from flyweight.task.vocabulary import make_vocabulary

ITEMS = [str(900_000_000 + 17 * number) for number in range(tiny_models.ITEMS)]
#: Every user but the last, whom the vocabulary lacks.
USERS = [f"user {number}" for number in range(tiny_models.USERS - 1)]
LENIENT = tiny_models.INPUTS | {"item_id": tiny_models.INPUTS["item_id"].model_copy(update={"unknown": 5})}
CLOSE: Any = {"rtol": 1e-4, "atol": 1e-6}


@pytest.fixture(scope="module")
def raw_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("raw")
    made = tiny_models.contents(folder / "e", proto=tiny_models.hoisted_ranker(), inputs=LENIENT)
    values = {name: make_vocabulary(one, range(len(one))) for name, one in (("item_id", ITEMS), ("user_id", USERS))}
    return write_bundle(folder / "raw.fly", dataclasses.replace(made, vocabularies=values))


@pytest.fixture(scope="module")
def raw_service(raw_bundle: Path) -> Iterator[Service]:
    with started(raw_bundle, "--grpc-port", "0") as running:
        yield running


def raw_of(arrays: dict[str, Any]) -> dict[str, Any]:
    texts = {"item_id": [ITEMS[id_] for id_ in arrays["item_id"]], "user_id": [USERS[id_] for id_ in arrays["user_id"]]}
    return arrays | {name: np.array(one, dtype=object) for name, one in texts.items()}


@pytest.mark.parametrize("module", [http_client, grpc_client])
@pytest.mark.parametrize("raw", [("item_id", "user_id"), ("item_id",)])
def test_tritons_clients_may_send_raw_values_or_ids(raw_service: Service, module: Any, raw: tuple[str, ...]) -> None:
    arrays = request(40)
    given = []
    for name, array in (arrays | {name: raw_of(arrays)[name] for name in raw}).items():
        kind = {"O": "BYTES", "i": "INT64", "f": "FP32"}[array.dtype.kind]
        one = module.InferInput(name, list(array.shape), kind)
        one.set_data_from_numpy(array)
        given.append(one)
    with module.InferenceServerClient(raw_service.http if module is http_client else raw_service.grpc) as client:
        scores = client.infer("raw", given).as_numpy("scores")
        inputs = client.get_model_metadata("raw", **({} if module is http_client else {"as_json": True}))["inputs"]
    np.testing.assert_allclose(scores, scores_of(arrays), **CLOSE)
    assert {one["name"]: one["datatype"] for one in inputs} == {"item_id": "INT64", "user_id": "INT64", "price": "FP32"}
    if module is http_client:
        told = {one["name"]: one.get("parameters") for one in inputs}
        assert told == {"item_id": {"raw_values": 300}, "user_id": {"raw_values": 19}, "price": None}


def test_rank_takes_raw_values_and_gives_them_back(raw_service: Service) -> None:
    arrays = request(6) | {"item_id": np.array([3, 200, 17, 0, 299, 44])}
    raw, prices = raw_of(arrays), arrays["price"].tolist()
    candidates = [{"price": p, "item_id": text} for text, p in zip(raw["item_id"].tolist(), prices, strict=True)]
    body = {"request": {"user_id": raw["user_id"][0]}, "candidates": candidates, "top_k": 4}
    status, answer = raw_service.post("/v1/rank", body)
    assert status == 200
    due = np.argsort(-scores_of(arrays), kind="stable")[:4].tolist()
    assert [one["id"] for one in answer["ranked"]] == [raw["item_id"][place] for place in due]
    numbers = [one | {"item_id": id_} for one, id_ in zip(candidates, arrays["item_id"].tolist(), strict=True)]
    _, by_ids = raw_service.post("/v1/rank", body | {"candidates": numbers})
    assert [one["score"] for one in by_ids["ranked"]] == [one["score"] for one in answer["ranked"]]
    assert all("id" not in one for one in by_ids["ranked"])


def test_unseen_values_are_counted_or_refused_in_words(raw_service: Service) -> None:
    texts = [ITEMS[5], "new", "900000017.0"]
    candidates = [{"item_id": text, "price": 1.0, "id": place} for place, text in enumerate(texts)]
    status, answer = raw_service.post("/v1/rank", {"request": {"user_id": "user 3"}, "candidates": candidates})
    assert status == 200
    assert [one["id"] for one in answer["ranked"]] == [0, 1, 2]
    assert len({one["score"] for one in answer["ranked"]}) == 1
    _, metrics, _ = raw_service.ask("GET", "/metrics")
    assert 'flyweight_unknown_ids_total{field="item_id",model="raw",version="1"} 2.0' in metrics.decode()
    status, answer = raw_service.post("/v1/rank", {"request": {"user_id": "Ann"}, "candidates": candidates})
    assert status == 400
    assert "'user_id' holds 'Ann', which its vocabulary of 19 values lacks, and the model has no id" in answer["error"]


def test_a_file_goes_before_the_bundles_own_and_says_so(
    raw_bundle: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "v.json"
    file.write_text('{"item_id": {"sku": 7}, "price_list": {}}')
    with caplog.at_level(logging.INFO, "flyweight.serving"):
        opened = open_bundle(sources_of([str(raw_bundle)])[0], Settings((), vocabulary=str(file)))
    assert "raw: --vocabulary goes before the bundle's own for item_id" in caplog.text
    given = request(2) | {"item_id": np.array(["sku", ITEMS[0]], dtype=object)}
    call = call_of(opened.takes, given | {"user_id": np.array(["user 4"], dtype=object)})
    assert call.offered["item_id"].tolist() == [7, -1]
    assert call.asked["user_id"].tolist() == [4]
    opened.ranker.close()


def test_text_without_any_vocabulary_says_how_to_get_one(hoisted: Path) -> None:
    opened = open_bundle(sources_of([str(hoisted)])[0], Settings(()))
    with pytest.raises(Refusal, match=r"'Ann' and there is no vocabulary of it; .*\(flyweight vocabulary\)"):
        call_of(opened.takes, request(2) | {"user_id": np.array(["Ann"], dtype=object)})
    opened.ranker.close()


def test_export_says_that_raw_values_stay_behind(raw_bundle: Path, tmp_path: Path) -> None:
    told = CliRunner().invoke(app, ["export", str(raw_bundle), "--to", "triton", "--out", str(tmp_path / "t")])
    assert told.exit_code == 0
    assert "The bundle's vocabularies do not come along" in told.output
    readme = (tmp_path / "t" / "README.txt").read_text()
    assert "never raw values, for user_id, item_id" in readme


def test_the_verb_writes_and_shows(hoisted: Path, tmp_path: Path) -> None:
    bundle, file = tmp_path / "r.fly", tmp_path / "v.json"
    write_bundle(bundle, tiny_models.contents(tmp_path / "e"))
    file.write_text('{"user_id": ["ann", "bob"]}')

    def run(*words: object) -> str:
        told = CliRunner().invoke(app, ["vocabulary", *map(str, words)])
        assert told.exit_code == 0
        return told.output

    assert "carries no vocabulary; write one into it with --from" in run(bundle)
    assert "user_id: 2 raw values" in run(bundle, "--from", file)
    assert run(bundle) == "user_id: 2 raw values\n"
    assert read_bundle(bundle).vocabularies["user_id"].values() == ["ann", "bob"]
    shown = CliRunner().invoke(app, ["inspect", str(bundle)]).output
    assert "bytes that are not the model's: user_id 2" in shown
