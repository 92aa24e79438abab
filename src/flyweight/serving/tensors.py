"""A request of the Open Inference Protocol v2, read from bytes: JSON, or a JSON header with binary tensors after it.

Source: https://github.com/kserve/open-inference-protocol, specification/protocol/inference_rest.md; the binary tensor
data extension: https://github.com/triton-inference-server/server, docs/protocol/extension_binary_data.md.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any

import orjson
from numpy.typing import NDArray

from flyweight.serving.datatypes import array_of_bytes, array_of_values, check_datatype, checked_shape
from flyweight.serving.refusal import Refusal

Array = NDArray[Any]
SCORES = "scores"


@dataclass(frozen=True, slots=True)
class Tensors:
    """What a request holds, before it is known whether a model takes it.

    Args:
        inputs: arrays by name, in their shapes; strings as objects.
        id: the caller's name for the request, given back with the answer.
        binary: whether scores are due as bytes.
        parameters: the request's own, such as `timeout` in microseconds.
    """

    inputs: dict[str, Array]
    id: str = ""
    binary: bool = False
    parameters: dict[str, Any] = field(default_factory=dict)


def read_tensors(body: bytes, header_length: int | None) -> Tensors:
    """Return the tensors of a body.

    Args:
        header_length: bytes of JSON before the binary tensors (`Inference-Header-Content-Length`); None: all is JSON.

    Raises:
        Refusal: the body is no request of the protocol, or lies about its size.
    """
    if header_length is not None and not 0 < header_length <= len(body):
        raise Refusal(
            f"Inference-Header-Content-Length says {header_length:,} bytes of JSON; the body has {len(body):,} bytes."
        )
    header = _object(body if header_length is None else body[:header_length])
    # A slice of its own begins at an address that eight-byte numbers may begin at, whatever the header's length.
    binary = memoryview(b"" if header_length is None else body[header_length:])
    listed = header.get("inputs")
    if not isinstance(listed, list) or not listed:
        raise Refusal(f"The request must have 'inputs', a list of tensors; seen {_seen(header)}.")
    inputs: dict[str, Array] = {}
    place = 0
    for entry in listed:
        name = _name(entry, inputs)
        inputs[name], place = _tensor(name, entry, binary, place)
    if place != len(binary):
        raise Refusal(f"The tensors' binary_data_size add up to {place:,} bytes; {len(binary):,} follow the header.")
    return Tensors(inputs, _id(header), _wants_binary(header), _parameters(header))


def _object(data: bytes) -> dict[str, Any]:
    try:
        header = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise Refusal(f"The request is no JSON: {error}.") from None
    if not isinstance(header, dict):
        raise Refusal(f"The request must be a JSON object; seen {type(header).__name__}.")
    return header


def _name(entry: Any, inputs: Mapping[str, Array]) -> str:
    if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
        raise Refusal(f"Input {len(inputs)} must be an object with a 'name'; seen {str(entry)[:60]}.")
    name: str = entry["name"]
    if name in inputs:
        raise Refusal(f"Input {name!r} is given twice; give it once.")
    return name


def _tensor(name: str, entry: dict[str, Any], binary: memoryview, place: int) -> tuple[Array, int]:
    """Return an input's array, and where the next binary one begins."""
    datatype = entry.get("datatype")
    check_datatype(name, datatype)
    shape = checked_shape(name, entry.get("shape"))
    elements = shape[0] if len(shape) == 1 else prod(shape)
    size = _binary_size(name, entry)
    if size is None:
        array = array_of_values(name, str(datatype), entry.get("data"))
        if array.size != elements:
            raise Refusal(
                f"Input {name!r}: shape {list(shape)} is {elements:,} values; seen {array.size:,} in its data."
            )
        return array.reshape(shape), place
    if "data" in entry:
        raise Refusal(f"Input {name!r} has both 'data' and 'binary_data_size'; give one of them.")
    if size > len(binary) - place:
        raise Refusal(
            f"Input {name!r}: binary_data_size says {size:,} bytes; {len(binary) - place:,} are left in the body."
        )
    array = array_of_bytes(name, str(datatype), binary[place : place + size], elements)
    return (array if len(shape) == 1 else array.reshape(shape)), place + size


def _binary_size(name: str, entry: Mapping[str, Any]) -> int | None:
    parameters = entry.get("parameters")
    if parameters is None:
        return None
    if not isinstance(parameters, dict):
        raise Refusal(f"Input {name!r}: parameters must be an object; seen {type(parameters).__name__}.")
    if "shared_memory_region" in parameters:
        raise Refusal(f"Input {name!r}: shared memory is not served here; send the values.")
    size = parameters.get("binary_data_size")
    if size is not None and (type(size) is not int or size < 0):
        raise Refusal(f"Input {name!r}: binary_data_size must be a whole number of bytes; seen {size!r}.")
    return size


def _id(header: Mapping[str, Any]) -> str:
    found = header.get("id", "")
    if not isinstance(found, str):
        raise Refusal(f"The request's id must be a string; seen {type(found).__name__}.")
    return found


def _parameters(header: Mapping[str, Any]) -> dict[str, Any]:
    found = header.get("parameters", {})
    if not isinstance(found, dict):
        raise Refusal(f"The request's parameters must be an object; seen {type(found).__name__}.")
    return found


def _wants_binary(header: Mapping[str, Any]) -> bool:
    """Return whether scores are due as bytes: what an output asks for goes before what the request does."""
    outputs = header.get("outputs", [])
    if not isinstance(outputs, list):
        raise Refusal(f"The request's outputs must be a list; seen {type(outputs).__name__}.")
    binary = _parameters(header).get("binary_data_output", False)
    for entry in outputs:
        if not isinstance(entry, dict) or not isinstance(parameters := entry.get("parameters", {}), dict):
            raise Refusal(f"Each output must be an object; seen {str(entry)[:60]}.")
        if entry.get("name") != SCORES:
            raise Refusal(f"Output {entry.get('name')!r} is not known; the one output is {SCORES!r}.")
        if parameters.get("classification"):
            raise Refusal("Output 'scores': classification is not served here; rank the scores, or use /v1/rank.")
        if "shared_memory_region" in parameters:
            raise Refusal("Output 'scores': shared memory is not served here; take the values.")
        binary = parameters.get("binary_data", binary)
    return bool(binary)


def _seen(header: Mapping[str, Any]) -> str:
    return f"keys {sorted(header)[:8]}" if "inputs" not in header else str(header["inputs"])[:60]
