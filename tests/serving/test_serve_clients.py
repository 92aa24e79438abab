"""A real service, asked by Triton's own clients over HTTP and gRPC, and by hand."""

from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as grpc_client
import tritonclient.http as http_client
from running_service import NAMES, Service, body_of, request, scores_of
from tritonclient.utils import InferenceServerException


@pytest.fixture(params=["http", "grpc"])
def client(service: Service, request: pytest.FixtureRequest) -> Any:
    module = {"http": http_client, "grpc": grpc_client}[request.param]
    with module.InferenceServerClient(getattr(service, request.param)) as one:
        one.module = module
        yield one


def tensors(client: Any, arrays: dict[str, np.ndarray[Any, Any]], **how: Any) -> list[Any]:
    given = []
    for name, array in arrays.items():
        one = client.module.InferInput(name, list(array.shape), NAMES[str(array.dtype)])
        one.set_data_from_numpy(array, **how)
        given.append(one)
    return given


def test_health_and_metadata(client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("ranker")
    assert client.is_model_ready("ranker", "1")
    as_json = {"as_json": True} if client.module is grpc_client else {}
    assert client.get_server_metadata(**as_json)["name"] == "flyweight"
    model = client.get_model_metadata("ranker", **as_json)
    assert (model["name"], model["versions"], model["platform"]) == ("ranker", ["1"], "flyweight_onnxruntime")
    shapes = {one["name"]: (one["datatype"], [int(size) for size in one["shape"]]) for one in model["inputs"]}
    assert shapes == {"item_id": ("INT64", [-1]), "price": ("FP32", [-1]), "user_id": ("INT64", [1])}
    (output,) = model["outputs"]
    assert (output["name"], output["datatype"], [int(size) for size in output["shape"]]) == ("scores", "FP32", [-1])


def test_scores_are_those_of_numpy(client: Any) -> None:
    arrays = request(500)
    answer = client.infer("ranker", tensors(client, arrays), request_id="mine")
    np.testing.assert_allclose(answer.as_numpy("scores"), scores_of(arrays), rtol=1e-4, atol=1e-6)
    told = answer.get_response()
    assert (told["id"] if isinstance(told, dict) else told.id) == "mine"


def test_output_may_be_asked_for_and_the_version_named(client: Any) -> None:
    arrays = request(3)
    outputs = [client.module.InferRequestedOutput("scores")]
    answer = client.infer("second", tensors(client, arrays), model_version="1", outputs=outputs, timeout=900_000)
    np.testing.assert_allclose(answer.as_numpy("scores"), scores_of(arrays), rtol=1e-4, atol=1e-6)


def test_unload_and_load(client: Any) -> None:
    arrays = request(3)
    client.unload_model("second")
    assert not client.is_model_ready("second")
    with pytest.raises(InferenceServerException, match="'second' is not ready: unloaded"):
        client.infer("second", tensors(client, arrays))
    as_json = {"as_json": True} if client.module is grpc_client else {}
    index = client.get_model_repository_index(**as_json)
    rows = index["models"] if isinstance(index, dict) else index
    assert {row["name"]: row["state"] for row in rows} == {"ranker": "READY", "second": "UNAVAILABLE"}
    assert client.is_server_ready()
    client.load_model("second")
    np.testing.assert_allclose(
        client.infer("second", tensors(client, arrays)).as_numpy("scores"), scores_of(arrays), rtol=1e-4, atol=1e-6
    )


NOT_FOUND, INVALID = ("404", "NOT_FOUND"), ("400", "INVALID_ARGUMENT")


@pytest.mark.parametrize(
    ("model", "version", "changes", "words", "status"),
    [
        ("none", "", {}, "Model 'none' is not served here; there is 'ranker', 'second'", NOT_FOUND),
        ("ranker", "9", {}, "'ranker' has no version '9' here; there is '1'", NOT_FOUND),
        ("ranker", "", {"user_id": np.array([20])}, "'user_id' holds id 20, and ids run from 0 to 19", INVALID),
        ("ranker", "", {"price": np.full(5, np.nan, np.float32)}, "'price' holds 5 NaN or infinite", INVALID),
        ("ranker", "", {"price": np.zeros(4, np.float32)}, "has 5 rows and 'price' 4", INVALID),
        ("ranker", "", {"item_id": np.zeros(5)}, "Id input 'item_id' has dtype float64", INVALID),
    ],
)
def test_bad_request_is_told_in_words(
    client: Any, model: str, version: str, changes: dict[str, Any], words: str, status: tuple[str, str]
) -> None:
    with pytest.raises(InferenceServerException) as told:
        client.infer(model, tensors(client, request(5) | changes), model_version=version)
    assert words in told.value.message()
    assert status[client.module is grpc_client] in str(told.value.status() or status)


def test_deadline_that_has_passed_is_not_scored(service: Service) -> None:
    arrays = body_of(request(900)) | {"parameters": {"timeout": -1}}
    assert service.post("/v2/models/ranker/infer", arrays) == (
        400,
        {"error": "Parameter timeout must be microseconds, a whole number; seen -1."},
    )


@pytest.mark.parametrize("packing", ["gzip", "deflate"])
def test_packed_bodies_both_ways(service: Service, packing: str) -> None:
    arrays = request(900)
    with http_client.InferenceServerClient(service.http) as client:
        client.module = http_client
        answer = client.infer(
            "ranker",
            tensors(client, arrays),
            request_compression_algorithm=packing,
            response_compression_algorithm=packing,
        )
    np.testing.assert_allclose(answer.as_numpy("scores"), scores_of(arrays), rtol=1e-4, atol=1e-6)


def test_plain_json_goes_both_ways(service: Service) -> None:
    arrays = request(4)
    status, answer = service.post("/v2/models/ranker/infer", body_of(arrays))
    assert status == 200
    assert (answer["model_name"], answer["model_version"]) == ("ranker", "1")
    (output,) = answer["outputs"]
    assert (output["name"], output["datatype"], output["shape"]) == ("scores", "FP32", [4])
    np.testing.assert_allclose(output["data"], scores_of(arrays), rtol=1e-4, atol=1e-6)
