"""A request of the protocol v2 over gRPC as arrays, and scores as its answer; tensors come and go as raw bytes."""

from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flyweight.serving.answering import Answered
from flyweight.serving.datatypes import (
    BYTES,
    MAX_DIMENSIONS,
    array_of_bytes,
    array_of_values,
    check_datatype,
    checked_name,
    checked_shape,
    datatype_of,
)
from flyweight.serving.degraded import DEGRADED_ROWS, degraded_rows
from flyweight.serving.grpc_messages import messages
from flyweight.serving.layout import SCORES
from flyweight.serving.refusal import Refusal
from flyweight.serving.tensors import Tensors

#: The field of `InferTensorContents` that holds each datatype; FP16 has none and comes raw.
CONTENTS = {
    "BOOL": "bool_contents",
    **dict.fromkeys(("INT8", "INT16", "INT32"), "int_contents"),
    "INT64": "int64_contents",
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), "uint_contents"),
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    BYTES: "bytes_contents",
}


def read_message(message: Any) -> Tensors:
    """Return the tensors of a `ModelInferRequest`.

    Raises:
        Refusal: an input is given twice, its bytes or values do not fit its shape, or an output is unknown.
    """
    raw = message.raw_input_contents
    listed = message.inputs
    if not listed:
        raise Refusal("The request has no inputs; give each input of the model as a tensor.")
    if raw and len(raw) != len(listed):
        raise Refusal(f"raw_input_contents has {len(raw)} entries for {len(listed)} inputs; give one for each.")
    inputs: dict[str, NDArray[Any]] = {}
    for place, entry in enumerate(listed):
        if checked_name(entry.name, place) in inputs:
            raise Refusal(f"Input {entry.name!r} is given twice; give it once.")
        inputs[entry.name] = _array(entry, raw[place] if raw else None)
    for output in message.outputs:
        if output.name != SCORES:
            raise Refusal(f"Output {output.name!r} is not known; the one output is {SCORES!r}.")
    parameters = {name: _value(value) for name, value in message.parameters.items()}
    return Tensors(inputs, message.id, True, parameters)


def _array(entry: Any, raw: bytes | None) -> NDArray[Any]:
    name, datatype = entry.name, entry.datatype
    check_datatype(name, datatype)
    shape = checked_shape(name, list(entry.shape[: MAX_DIMENSIONS + 1]))
    elements = prod(shape)
    if "shared_memory_region" in entry.parameters:
        raise Refusal(f"Input {name!r}: shared memory is not served here; send the values.")
    if raw is not None:
        if entry.HasField("contents"):
            raise Refusal(f"Input {name!r} has contents beside raw_input_contents; give one of them.")
        return array_of_bytes(name, datatype, raw, elements).reshape(shape)
    array = _typed(name, datatype, entry.contents)
    if array.size != elements:
        raise Refusal(
            f"Input {name!r}: shape {list(shape)} is {elements:,} values; seen {array.size:,} in its contents."
        )
    return array.reshape(shape)


def _typed(name: str, datatype: str, contents: Any) -> NDArray[Any]:
    field = CONTENTS.get(datatype)
    if field is None:
        raise Refusal(f"Input {name!r}: {datatype} has no field in contents; send it in raw_input_contents.")
    odd = next((one.name for one, _ in contents.ListFields() if one.name != field), None)
    if odd is not None:
        raise Refusal(f"Input {name!r}: {datatype} goes in contents.{field}; seen {odd}.")
    values = list(getattr(contents, field))
    if datatype != BYTES:
        return array_of_values(name, datatype, values)
    try:
        return np.array([one.decode() for one in values], dtype=object)
    except UnicodeDecodeError:
        raise Refusal(f"Input {name!r}: strings must be UTF-8.") from None


def _value(parameter: Any) -> Any:
    choice = parameter.WhichOneof("parameter_choice")
    return None if choice is None else getattr(parameter, choice)


def write_message(model: str, told: Answered) -> Any:
    """Return the `ModelInferResponse` of scored candidates, the scores as raw bytes."""
    scores = np.ascontiguousarray(told.scores)
    own = "" if told.tensors is None else told.tensors.id  # given back as it came, whatever the metadata's
    answer = messages()["ModelInferResponse"](model_name=model, model_version=told.version, id=own or told.request_id)
    degraded = degraded_rows(told.scores)
    if degraded:
        answer.parameters[DEGRADED_ROWS].int64_param = degraded
    answer.outputs.add(name=SCORES, datatype=datatype_of(scores.dtype), shape=scores.shape)
    answer.raw_output_contents.append(scores.tobytes())
    return answer
