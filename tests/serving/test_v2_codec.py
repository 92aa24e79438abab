"""The protocol v2 as bytes: Triton's client reads what is written and is read itself; lies are refused."""

from typing import Any

import numpy as np
import orjson
import pytest
import tritonclient.http as triton

from flyweight.serving.answers import write_answer
from flyweight.serving.datatypes import DATATYPES
from flyweight.serving.refusal import Refusal
from flyweight.serving.tensors import read_tensors


def written(name: str, array: np.ndarray[Any, Any], datatype: str, *, binary: bool) -> tuple[bytes, int | None]:
    """A request as Triton's client writes it."""
    one = triton.InferInput(name, list(array.shape), datatype)
    one.set_data_from_numpy(array, binary_data=binary)
    body, length = triton.InferenceServerClient.generate_request_body([one])
    return body, length


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("datatype", DATATYPES)
def test_numbers_of_a_client_come_back(datatype: str, binary: bool) -> None:
    if datatype == "FP16" and not binary:
        pytest.skip("the protocol has no FP16 in JSON from this client")
    dtype = DATATYPES[datatype]
    ends = [0, 1] if dtype.kind == "b" else [np.iinfo(dtype).min, np.iinfo(dtype).max] if dtype.kind in "iu" else [0.5]
    array = np.array([ends * 3, ends * 3], dtype)
    found = read_tensors(*written("x", array, datatype, binary=binary)).inputs["x"]
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, array)


@pytest.mark.parametrize("binary", [True, False])
def test_strings_of_a_client_come_back(binary: bool) -> None:
    array = np.array(["sku-1", "", "Größe 5"], dtype=object)
    assert read_tensors(*written("x", array, "BYTES", binary=binary)).inputs["x"].tolist() == array.tolist()


@pytest.mark.parametrize("binary", [True, False])
def test_scores_are_what_a_client_reads(binary: bool) -> None:
    scores = np.array([[0.1, -2.5], [3e-8, 7.0]], dtype=np.float32)
    body, length = write_answer("ranker", "3", scores, "mine", binary=binary)
    answer = triton.InferResult.from_response_body(body, header_length=length)
    np.testing.assert_array_equal(answer.as_numpy("scores"), scores)
    told = answer.get_response()
    assert (told["model_name"], told["model_version"], told["id"]) == ("ranker", "3", "mine")


def test_numbers_after_a_header_of_odd_length_are_aligned() -> None:
    body, length = written("x" * 4, np.arange(5), "INT64", binary=True)
    assert length is not None
    header = body[:length] + b" "
    found = read_tensors(header + body[length:], length + 1).inputs["xxxx"]
    assert found.flags.aligned
    assert found.tolist() == [0, 1, 2, 3, 4]


def one(**changes: Any) -> bytes:
    tensor = {"name": "x", "shape": [2], "datatype": "INT64", "data": [1, 2]}
    return orjson.dumps({"inputs": [{key: value for key, value in (tensor | changes).items() if value != "none"}]})


BAD = {
    "no JSON": (b"{", "is no JSON"),
    "NaN": (b'{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[NaN]}]}', "JSON has no NaN"),
    "minus infinity": (b'{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[-Infinity]}]}', "has no NaN"),
    "nothing": (b"", "is no JSON: it is empty"),
    "cut off": (one()[:-5], "it ends there, after 64 bytes: check Content-Length"),
    "tensors without their header's length": (one() + b"\xff", "is no UTF-8 text; check Content-Length, and"),
    "zeros after the header": (one() + bytes(8), "unexpected content after document"),
    "lists of other lengths": (one(shape=[3], data=[[1], [2, 3]]), "data has lists of 1 and of 2 values"),
    "a list": (b"[]", "must be a JSON object; seen a list"),
    "no inputs": (b"{}", "must have 'inputs', a list of tensors; seen keys []"),
    "no object": (b'{"inputs":[3]}', "Input 0 must be an object with a 'name'; seen 3"),
    "no name": (one(name="none"), "Input 0 must have a 'name', a string; seen null"),
    "a name that is a number": (one(name=3), "Input 0 must have a 'name', a string; seen 3"),
    "a long name": (one(name="x" * 10**6), "Input 0 has a name of 1,000,000 letters, 'xx"),
    "a shape of nothing past all": (one(shape=[0, *[2**31 - 1] * 7], data=[]), "is larger than any request; give the"),
    "an unknown datatype": (one(datatype="BF16"), "datatype 'BF16' is not read here; give one of BOOL"),
    "no shape": (one(shape="none"), "shape must be a list of up to 8 whole numbers; seen null"),
    "a negative size": (one(shape=[-1]), "sizes in a shape run from 0 to 2**31 - 1; seen [-1]"),
    "too few values": (one(shape=[3]), "shape [3] is 3 values; seen 2 in its data"),
    "no data": (one(data="none"), "data must be a list; seen null"),
    "fractions": (one(data=[1, 2.5]), "INT64 takes whole numbers; seen 2.5"),
    "texts": (one(data=[1, "2"]), "INT64 takes whole numbers; seen '2'"),
    "null": (one(data=[1, None]), "INT64 takes whole numbers; seen null"),
    "a truth beside numbers": (one(data=[5, True]), "INT64 takes whole numbers; seen True"),
    "a truth beside fractions": (one(datatype="FP32", data=[0.5, True]), "FP32 takes numbers; seen True"),
    "truths": (one(data=[True, False]), "INT64 takes whole numbers; seen True"),
    "ragged lists": (one(data=[[1], 2]), "mixes lists and values; seen 2 beside a list"),
    "a list beside null": (one(data=[[], None]), "mixes lists and values; seen null beside a list"),
    "null for strings": (one(datatype="BYTES", data=["a", None]), "BYTES takes strings; seen null"),
    "too large": (one(datatype="INT8", data=[1, 128]), "INT8 holds -128 to 127; seen 1 to 128"),
    "negative": (one(datatype="UINT8", data=[-1, 2]), "UINT8 holds 0 to 255; seen -1 to 2"),
    "numbers for strings": (one(datatype="BYTES"), "BYTES takes strings; seen 1"),
    "bytes that are not there": (one(data="none", parameters={"binary_data_size": 16}), "says 16 bytes; 0 are left"),
    "both kinds of data": (one(parameters={"binary_data_size": 16}), "both 'data' and 'binary_data_size'"),
    "shared memory": (one(parameters={"shared_memory_region": "a"}), "shared memory is not served here"),
    "an output that is none": (b'{"inputs":[{"name":"x","shape":[0],"datatype":"FP32","data":[]}],'
                               b'"outputs":[{"name":"y"}]}', "Output 'y' is not known; the one output is 'scores'"),
}  # fmt: skip


@pytest.mark.parametrize(("body", "words"), BAD.values(), ids=BAD.keys())
def test_bad_json_is_refused_in_words(body: bytes, words: str) -> None:
    with pytest.raises(Refusal) as told:
        read_tensors(body, None)
    assert words in str(told.value)
    assert told.value.status.http == 400


def test_long_text_beside_many_values_takes_no_memory() -> None:
    """NumPy gave each of them as much room as the longest has: terabytes."""
    with pytest.raises(Refusal, match="INT64 takes whole numbers; seen 'aaa"):
        read_tensors(one(data=["a" * 10**6, *[""] * 10**6]), None)


DEEP = b"[" * 1010 + b"1" + b"]" * 1010


@pytest.mark.parametrize(
    "body",
    [
        b'{"inputs":' + DEEP + b"}",
        b'{"inputs":[' + DEEP + b"]}",
        b'{"inputs":{"a":' + DEEP + b"}}",
        one().replace(b"[1,2]", DEEP),
        one().replace(b'"shape":[2]', b'"shape":' + DEEP),
        one().replace(b'"INT64"', DEEP),
        one()[:-1] + b',"outputs":[' + DEEP + b"]}",
        one()[:-1] + b',"outputs":[{"name":' + DEEP + b"}]}",
        one().replace(b'"data"', b'"parameters":{"binary_data_size":' + DEEP + b'},"data"'),
    ],
)
def test_deep_value_is_told_in_few_letters(body: bytes) -> None:
    with pytest.raises(Refusal, match=r"\[\.\.\.\]") as told:
        read_tensors(body, None)
    assert len(str(told.value)) < 300


def test_twice_the_same_input_is_refused() -> None:
    body = orjson.loads(one())
    with pytest.raises(Refusal, match="'x' is given twice"):
        read_tensors(orjson.dumps({"inputs": body["inputs"] * 2}), None)


@pytest.mark.parametrize(
    ("cut", "length", "words"),
    [
        (0, 9999, "says 9,999 bytes of JSON; the body has"),
        (0, 0, "says 0 bytes of JSON"),
        (8, None, "binary_data_size says 16 bytes; 8 are left"),
        (-8, None, "add up to 16 bytes; 24 follow the header"),
    ],
)
def test_body_that_lies_about_its_size_is_refused(cut: int, length: int | None, words: str) -> None:
    body, true = written("x", np.array([1, 2]), "INT64", binary=True)
    body = body[:-cut] if cut > 0 else body + bytes(-cut)
    with pytest.raises(Refusal) as told:
        read_tensors(body, true if length is None else length)
    assert words in str(told.value)


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ((9).to_bytes(4, "little") + b"abc", "string 0 says it is 9 bytes long; 3 bytes of data are left"),
        ((1).to_bytes(4, "little") + b"a" + b"z" * 2, "1 strings are due, each after its length in four bytes"),
        ((1).to_bytes(4, "little") + b"\xff", "strings must be UTF-8"),
    ],
)
def test_strings_that_lie_are_refused(raw: bytes, words: str) -> None:
    header = one(shape=[1], datatype="BYTES", data="none", parameters={"binary_data_size": len(raw)})
    with pytest.raises(Refusal) as told:
        read_tensors(header + raw, len(header))
    assert words in str(told.value)


def test_boolean_bytes_other_than_0_and_1_are_refused() -> None:
    header = one(datatype="BOOL", data="none", parameters={"binary_data_size": 2})
    with pytest.raises(Refusal, match="BOOL takes bytes 0 and 1; seen 7"):
        read_tensors(header + b"\x01\x07", len(header))
