"""Triton Inference Server: a model repository, `repository/NAME/config.pbtxt` and `repository/NAME/VERSION/model.onnx`.

Layout: https://github.com/triton-inference-server/server, docs/user_guide/model_repository.md; the configuration is the
message `ModelConfig` of triton-inference-server/common, protobuf/model_config.proto.
"""

from pathlib import Path
from typing import Any

from flyweight.serving.repositories.asked_tensors import AskedTensor
from flyweight.serving.repositories.served_model import ServedModel
from flyweight.serving.repositories.stored_calls import StoredCall, calls_of
from flyweight.serving.repositories.text_protobuf import Word, write_text

MODELS = "repository"
#: Its ONNX Runtime reads our ONNX format (10); so does that of every release since mid-2024.
IMAGE = "nvcr.io/nvidia/tritonserver:25.12-py3"
_WARMUP = "warmup"
#: Calls of the stored requests that a model answers before it counts as ready: the first ones allocate memory.
_WARMUP_COUNT = 10


def write_configuration(folder: Path, model: ServedModel) -> None:
    """Write the model's `config.pbtxt` and the request that it is warmed up with."""
    place = folder / MODELS / model.name
    call = calls_of(model.bundle.samples[0], model.signature)[0]
    (place / _WARMUP).mkdir()
    for tensor in model.signature.inputs:
        array = call.inputs[tensor.name]
        little = array.astype(array.dtype.newbyteorder("<"))
        (place / _WARMUP / _warmup_file(model, tensor)).write_bytes(little.tobytes())
    (place / "config.pbtxt").write_text(write_text(model_config(model, call)), encoding="utf-8")


def model_config(model: ServedModel, call: StoredCall) -> dict[str, Any]:
    """Return the fields of a model's `ModelConfig`.

    No batching across requests: Triton joins requests by a first dimension that all inputs share, and one request's
    fields have one value for all of its candidates.

    Args:
        call: the request to warm up with.
    """
    threads = model.bundle.timing.threads if model.bundle.timing.engine == "onnxruntime" else None
    parameters = {
        **({"intra_op_thread_count": str(threads)} if threads else {}),
        "flyweight_bundle": model.bundle.manifest.name,
        "flyweight_manifest_sha256": model.manifest_sha256,
    }
    return {
        "name": model.name,
        "platform": "onnxruntime_onnx",
        "backend": "onnxruntime",
        "default_model_filename": "model.onnx",
        "max_batch_size": 0,
        "input": [_tensor(one) for one in model.signature.inputs],
        "output": [_tensor(model.signature.output)],
        "version_policy": {"latest": {"num_versions": 1}},
        "instance_group": [{"count": 1, "kind": Word("KIND_CPU")}],
        "parameters": [{"key": key, "value": {"string_value": value}} for key, value in parameters.items()],
        "model_warmup": [
            {
                "name": "a stored request",
                "batch_size": 1,
                "count": _WARMUP_COUNT,
                "inputs": [
                    {
                        "key": one.name,
                        "value": {
                            "data_type": _data_type(one),
                            "dims": list(call.inputs[one.name].shape),
                            "input_data_file": _warmup_file(model, one),
                        },
                    }
                    for one in model.signature.inputs
                ],
            }
        ],
    }


def starting(model: ServedModel) -> str:
    """Return the command that starts the server, in the folder that was written."""
    return (
        "docker run --rm -p 8000:8000 -p 8001:8001 -p 8002:8002 \\\n"
        f'  -v "$PWD/{MODELS}:/models:ro" {IMAGE} \\\n'
        "  tritonserver --model-repository=/models"
    )


def address(model: ServedModel) -> str:
    """Return where a request goes once it has started."""
    return f"http://localhost:8000{model.infer_path}"


def _warmup_file(model: ServedModel, tensor: AskedTensor) -> str:
    """Return a file's name by the input's place: an input may be called anything."""
    return f"input_{model.signature.inputs.index(tensor)}"


def _tensor(tensor: AskedTensor) -> dict[str, Any]:
    dims = [-1 if size is None else size for size in tensor.shape]
    return {"name": tensor.name, "data_type": _data_type(tensor), "dims": dims}


def _data_type(tensor: AskedTensor) -> Word:
    return Word(f"TYPE_{tensor.datatype}")
