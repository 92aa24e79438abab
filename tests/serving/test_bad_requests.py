"""Every kind of bad request, over HTTP and gRPC: what is wrong, what was seen, what is due."""

from collections.abc import Callable
from typing import Any

import grpc
import numpy as np
import orjson
import pytest
from hostile_bodies import binary
from hostile_bodies import packed as packed_request
from running_service import NAMES, Service, body_of, request

from flyweight.serving.grpc_messages import SERVICE, messages

Arrays = dict[str, np.ndarray[Any, Any]]
ROWS = 5


def without(name: str) -> Callable[[Arrays], Arrays]:
    return lambda arrays: {key: array for key, array in arrays.items() if key != name}


def changed(**values: Any) -> Callable[[Arrays], Arrays]:
    return lambda arrays: arrays | {name: np.array(value) for name, value in values.items()}


def price(value: float) -> np.ndarray[Any, Any]:
    return np.full(ROWS, value, np.float32)


BAD = {
    "missing": (without("price"), "Input 'price' is missing; model 'ranker' takes 'user_id', 'item_id', 'price'"),
    "extra": (changed(colour=[1]), "Input 'colour' is not one of model 'ranker'. It takes 'user_id', 'item_id'"),
    "misspelt": (changed(item_ids=[1]), "'item_ids' is not one of model 'ranker'; the nearest is 'item_id'"),
    "fractions for ids": (changed(item_id=np.full(ROWS, 1.5)), "Id input 'item_id' has dtype float64"),
    "text for numbers": (changed(price=np.array(["x"] * ROWS, object)), "Input 'price' takes numbers; seen BYTES"),
    "text for ids": (changed(item_id=np.array(["sku"] * ROWS, object)), "'item_id' holds the text 'sku' and there is"),
    "NaN": (changed(price=price(np.nan)), "'price' holds 5 NaN or infinite"),
    "infinite": (changed(price=price(np.inf)), "'price' holds 5 NaN or infinite"),
    "score infinite": (changed(price=price(3e38)), "The score of candidate 0 is"),
    "id too high": (changed(item_id=[0, 1, 2, 300, 4]), "'item_id' holds id 300, and ids run from 0 to 299"),
    "id below zero": (changed(user_id=[-1]), "'user_id' holds the negative id -1; ids run from 0 to 19"),
    "id past all": (changed(item_id=[0, 1, 2, 2**62, 4]), f"'item_id' holds id {2**62}, and ids run from 0 to 299"),
    "nothing": (
        lambda arrays: {"user_id": arrays["user_id"], "item_id": arrays["item_id"][:0], "price": price(0)[:0]},
        "has 0 rows: there is nothing to score. Give 1 to 1,000 candidates",
    ),
    "over the limit": (
        lambda arrays: request(1001), "The request has 1,001 candidates; model 'ranker' takes up to 1,000 at once"
    ),
    "lengths": (changed(price=np.zeros(4, np.float32)), "'item_id' has 5 rows and 'price' 4"),
    "two users": (changed(user_id=[1, 2]), "'user_id' belongs to the request and has 2 rows for 5 candidates"),
    "two dimensions": (changed(item_id=np.zeros((ROWS, 1), np.int64)), "'item_id'"),
    "index falls": (changed(request_index=[0, 0, 1, 0, 0], user_id=[1, 2]), "it must rise from 0 to 1"),
    "index too high": (changed(request_index=[0, 0, 1, 2, 2], user_id=[1, 2]), "'request_index' holds 0 to 2"),
    "index of text": (changed(request_index=np.array(["a"] * ROWS, object)), "INT64 of shape [5] is due"),
}  # fmt: skip


def over_grpc(
    service: Service,
    arrays: Arrays,
    model: str = "ranker",
    version: str = "",
    seconds: float | None = 20,
    **more: Any,
) -> str:
    """What a call is told."""
    found = messages()
    inputs = [{"name": k, "shape": list(a.shape), "datatype": NAMES[str(a.dtype)]} for k, a in arrays.items()]
    if "raw_input_contents" not in more:
        more["raw_input_contents"] = [_raw(array) for array in arrays.values()]
    message = found["ModelInferRequest"](model_name=model, model_version=version, inputs=inputs, **more)
    with grpc.insecure_channel(service.grpc) as channel, pytest.raises(grpc.RpcError) as told:
        channel.unary_unary(f"/{SERVICE}/ModelInfer")(message.SerializeToString(), timeout=seconds)
    assert told.value.code().name in ("INVALID_ARGUMENT", "NOT_FOUND", "RESOURCE_EXHAUSTED")
    return str(told.value.details())


def _raw(array: np.ndarray[Any, Any]) -> bytes:
    if array.dtype != object:
        return array.tobytes()
    return b"".join(len(one).to_bytes(4, "little") + one.encode() for one in array.tolist())


@pytest.mark.parametrize("case", BAD)
def test_bad_request_is_told_over_both(service: Service, case: str) -> None:
    change, words = BAD[case]
    arrays = change(request(ROWS))
    assert words in over_grpc(service, arrays)
    body, headers = orjson.dumps(body_of(arrays)), {}
    if any(not np.isfinite(array).all() for array in arrays.values() if array.dtype.kind == "f"):
        packed = packed_request(*binary(arrays), "")  # JSON has no word for it
        body, headers = packed.body, packed.headers
    status, answer, _ = service.ask("POST", "/v2/models/ranker/infer", body, **headers)
    assert status in (400, 413)
    assert words in answer["error"]


@pytest.mark.parametrize(
    ("model", "version", "words"),
    [
        ("none", "", "Model 'none' is not served here; there is 'ranker', 'second'"),
        ("ranker", "9", "Model 'ranker' has no version '9' here; there is '1'"),
    ],
)
def test_unknown_model_and_version_are_told_over_both(service: Service, model: str, version: str, words: str) -> None:
    assert words in over_grpc(service, request(ROWS), model, version)
    path = f"/v2/models/{model}" + (f"/versions/{version}" if version else "")
    status, answer = service.post(f"{path}/infer", body_of(request(ROWS)))
    assert status == 404
    assert words in answer["error"]


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ([b""] * 3, "Input 'user_id': 1 elements of INT64 are 8 bytes; seen 0 bytes of data"),
        ([bytes(8), bytes(40), bytes(21)], "Input 'price': 5 elements of FP32 are 20 bytes; seen 21 bytes of data"),
        ([bytes(8), bytes(40)], "raw_input_contents has 2 entries for 3 inputs; give one for each"),
    ],
)
def test_bytes_that_lie_about_their_size_are_told_over_grpc(service: Service, raw: list[bytes], words: str) -> None:
    assert words in over_grpc(service, request(ROWS), raw_input_contents=raw)


@pytest.mark.parametrize("seconds", [20, None])
@pytest.mark.parametrize(
    ("timeout", "seen"),
    [({"string_param": "soon"}, "'soon'"), ({"double_param": np.nan}, "NaN"), ({"int64_param": -5}, "-5")],
)
def test_timeout_that_is_none_is_told_with_and_without_a_deadline(
    service: Service, timeout: dict[str, Any], seen: str, seconds: float | None
) -> None:
    words = f"Parameter timeout must be microseconds, a whole number; seen {seen}."
    assert over_grpc(service, request(ROWS), parameters={"timeout": timeout}, seconds=seconds) == words


def test_bytes_that_are_no_message_are_told(service: Service) -> None:
    with grpc.insecure_channel(service.grpc) as channel, pytest.raises(grpc.RpcError) as told:
        channel.unary_unary(f"/{SERVICE}/ModelInfer")(b"\xff\xff\xff\x07abc", timeout=20)
    assert told.value.code().name == "INVALID_ARGUMENT"
    assert told.value.details() == "The 7 bytes of the call are no ModelInferRequest of the protocol."


def test_answer_over_grpc_has_the_id_of_the_request(service: Service) -> None:
    """The name in the metadata goes before it in logs alone."""
    found, arrays = messages(), request(ROWS)
    inputs = [{"name": k, "shape": list(a.shape), "datatype": NAMES[str(a.dtype)]} for k, a in arrays.items()]
    raw = [_raw(array) for array in arrays.values()]
    message = found["ModelInferRequest"](model_name="ranker", id="Größe 5", inputs=inputs, raw_input_contents=raw)
    with grpc.insecure_channel(service.grpc) as channel:
        ask = channel.unary_unary(f"/{SERVICE}/ModelInfer")
        told = ask(message.SerializeToString(), timeout=20, metadata=(("x-request-id", "order-7"),))
    assert found["ModelInferResponse"].FromString(told).id == "Größe 5"
