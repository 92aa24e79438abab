"""Our messages are those of the protocol: the descriptors of Triton's own client say the same."""

from typing import Any

import numpy as np
import pytest
from running_service import NAMES, request
from tritonclient.grpc import InferInput, service_pb2
from tritonclient.grpc._utils import _get_inference_request

from flyweight.serving.grpc_messages import MESSAGES, messages
from flyweight.serving.grpc_tensors import read_message
from flyweight.serving.refusal import Refusal


@pytest.mark.parametrize("name", MESSAGES)
def test_fields_are_those_of_triton(name: str) -> None:
    """All of ours are Triton's, by name, number, type and message."""
    theirs = service_pb2.DESCRIPTOR.message_types_by_name[name.partition(".")[0]]
    if "." in name:
        theirs = theirs.nested_types_by_name[name.partition(".")[2]]
    ours = messages()[name].DESCRIPTOR
    assert ours.full_name == theirs.full_name
    for field in ours.fields:
        other = theirs.fields_by_name[field.name]
        inner = [one.message_type.full_name if one.message_type else "" for one in (field, other)]
        assert inner[0] == inner[1]
        assert (field.number, field.type, field.is_repeated) == (other.number, other.type, other.is_repeated)


def test_request_of_a_client_is_read() -> None:
    arrays = request(4)
    given = [InferInput(name, list(array.shape), NAMES[str(array.dtype)]) for name, array in arrays.items()]
    for one, array in zip(given, arrays.values(), strict=True):
        one.set_data_from_numpy(array)
    sent = _get_inference_request("ranker", given, "", "mine", None, 0, False, False, 0, 5000, None)
    found = read_message(messages()["ModelInferRequest"].FromString(sent.SerializeToString()))
    assert found.id == "mine"
    assert found.parameters == {"timeout": 5000}
    for name, array in arrays.items():
        np.testing.assert_array_equal(found.inputs[name], array)


def test_typed_contents_are_read() -> None:
    message = messages()["ModelInferRequest"]()
    message.inputs.add(name="a", datatype="INT64", shape=[3]).contents.int64_contents.extend([1, -2, 2**62])
    message.inputs.add(name="b", datatype="BYTES", shape=[1]).contents.bytes_contents.append(b"sku")
    found = read_message(message).inputs
    assert found["a"].tolist() == [1, -2, 2**62]
    assert found["b"].tolist() == ["sku"]


@pytest.mark.parametrize(
    ("datatype", "field", "words"),
    [
        ("INT64", "fp32_contents", "INT64 goes in contents.int64_contents; seen fp32_contents"),
        ("FP16", "fp32_contents", "FP16 has no field in contents; send it in raw_input_contents"),
        ("INT8", "int_contents", "INT8 holds -128 to 127; seen 300 to 300"),
        ("INT32", "int_contents", r"shape \[2\] is 2 values; seen 1 in its contents"),
    ],
)
def test_wrong_contents_are_refused_in_words(datatype: str, field: str, words: str) -> None:
    message = messages()["ModelInferRequest"]()
    shape = [2] if "values" in words else [1]
    getattr(message.inputs.add(name="a", datatype=datatype, shape=shape).contents, field).append(300)
    with pytest.raises(Refusal, match=words):
        read_message(message)


@pytest.mark.parametrize(
    ("tensor", "words"),
    [
        ({"name": "x" * 10**6, "shape": [1]}, "Input 0 has a name of 1,000,000 letters, 'xx"),
        ({"name": "x", "shape": [0, *[2**31 - 1] * 7]}, "is larger than any request; give the shape"),
    ],
)
def test_what_is_past_all_size_is_refused(tensor: dict[str, Any], words: str) -> None:
    message = messages()["ModelInferRequest"](raw_input_contents=[b""])
    message.inputs.add(datatype="INT64", **tensor)
    with pytest.raises(Refusal, match=words):
        read_message(message)


def test_raw_contents_of_another_number_are_refused() -> None:
    message = messages()["ModelInferRequest"](raw_input_contents=[b"", b""])
    message.inputs.add(name="a", datatype="INT64", shape=[1])
    with pytest.raises(Refusal, match="raw_input_contents has 2 entries for 1 inputs"):
        read_message(message)
