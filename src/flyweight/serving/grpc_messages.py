"""The messages of the Open Inference Protocol v2 over gRPC, built from a table: no generated code, no global names.

They live in a pool of their own, so that a program may hold a client's generated copy of the same protocol beside them.

Source: https://github.com/kserve/open-inference-protocol, specification/protocol/open_inference_grpc.proto; the
repository extension: https://github.com/triton-inference-server/common, protobuf/grpc_service.proto.
"""

from functools import cache
from typing import Any

from google.protobuf.descriptor_pb2 import (  # type: ignore[import-untyped]
    DescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
)
from google.protobuf.descriptor_pool import DescriptorPool  # type: ignore[import-untyped]
from google.protobuf.message_factory import GetMessageClass  # type: ignore[import-untyped]

PACKAGE = "inference"
SERVICE = f"{PACKAGE}.GRPCInferenceService"
#: Each message and its fields in order, numbered from 1. `*` repeats; `=` maps a string to it; `|` is one of a choice;
#: a dotted name is a message inside another.
MESSAGES: dict[str, str] = {
    "ServerLiveRequest": "",
    "ServerLiveResponse": "live bool",
    "ServerReadyRequest": "",
    "ServerReadyResponse": "ready bool",
    "ModelReadyRequest": "name string, version string",
    "ModelReadyResponse": "ready bool",
    "ServerMetadataRequest": "",
    "ServerMetadataResponse": "name string, version string, extensions *string",
    "ModelMetadataRequest": "name string, version string",
    "ModelMetadataResponse": "name string, versions *string, platform string, "
    "inputs *ModelMetadataResponse.TensorMetadata, outputs *ModelMetadataResponse.TensorMetadata",
    "ModelMetadataResponse.TensorMetadata": "name string, datatype string, shape *int64",
    "InferParameter": "bool_param |bool, int64_param |int64, string_param |string, double_param |double, "
    "uint64_param |uint64",
    "InferTensorContents": "bool_contents *bool, int_contents *int32, int64_contents *int64, uint_contents *uint32, "
    "uint64_contents *uint64, fp32_contents *float, fp64_contents *double, bytes_contents *bytes",
    "ModelInferRequest": "model_name string, model_version string, id string, parameters =InferParameter, "
    "inputs *ModelInferRequest.InferInputTensor, outputs *ModelInferRequest.InferRequestedOutputTensor, "
    "raw_input_contents *bytes",
    "ModelInferRequest.InferInputTensor": "name string, datatype string, shape *int64, parameters =InferParameter, "
    "contents InferTensorContents",
    "ModelInferRequest.InferRequestedOutputTensor": "name string, parameters =InferParameter",
    "ModelInferResponse": "model_name string, model_version string, id string, parameters =InferParameter, "
    "outputs *ModelInferResponse.InferOutputTensor, raw_output_contents *bytes",
    "ModelInferResponse.InferOutputTensor": "name string, datatype string, shape *int64, parameters =InferParameter, "
    "contents InferTensorContents",
    "ModelRepositoryParameter": "bool_param |bool, int64_param |int64, string_param |string, bytes_param |bytes",
    "RepositoryIndexRequest": "repository_name string, ready bool",
    "RepositoryIndexResponse": "models *RepositoryIndexResponse.ModelIndex",
    "RepositoryIndexResponse.ModelIndex": "name string, version string, state string, reason string",
    "RepositoryModelLoadRequest": "repository_name string, model_name string, parameters =ModelRepositoryParameter",
    "RepositoryModelLoadResponse": "",
    "RepositoryModelUnloadRequest": "repository_name string, model_name string, parameters =ModelRepositoryParameter",
    "RepositoryModelUnloadResponse": "",
}
#: The calls of the service; each takes `<call>Request` and returns `<call>Response`.
CALLS = (
    "ServerLive", "ServerReady", "ModelReady", "ServerMetadata", "ModelMetadata", "ModelInfer", "RepositoryIndex",
    "RepositoryModelLoad", "RepositoryModelUnload",
)  # fmt: skip
_OPTIONAL, _REPEATED = FieldDescriptorProto.LABEL_OPTIONAL, FieldDescriptorProto.LABEL_REPEATED


@cache
def messages() -> dict[str, Any]:
    """Return the class of each message by its name."""
    pool = DescriptorPool()
    pool.Add(_file())
    return {name: GetMessageClass(pool.FindMessageTypeByName(f"{PACKAGE}.{name}")) for name in MESSAGES}


def _file() -> FileDescriptorProto:
    file = FileDescriptorProto(name="flyweight_inference.proto", package=PACKAGE, syntax="proto3")
    built: dict[str, DescriptorProto] = {}
    for name in sorted(MESSAGES, key=lambda one: one.count(".")):
        outer, _, inner = name.rpartition(".")
        message = built[outer].nested_type.add() if outer else file.message_type.add()
        message.name, built[name] = inner, message
    for name, fields in MESSAGES.items():
        for number, text in enumerate(filter(None, fields.split(", ")), 1):
            _add_field(name, built[name], number, *text.split())
    return file


def _add_field(owner: str, message: DescriptorProto, number: int, name: str, kind: str) -> None:
    mark, kind = (kind[0], kind[1:]) if kind[0] in "*=|" else ("", kind)
    field = message.field.add(name=name, number=number, label=_REPEATED if mark in ("*", "=") else _OPTIONAL)
    if mark == "=":  # a map is a repeated message of a key and a value
        entry = message.nested_type.add(name=f"{name.title().replace('_', '')}Entry")
        entry.options.map_entry = True
        _add_field("", entry, 1, "key", "string")
        _add_field("", entry, 2, "value", kind)
        kind = f"{owner}.{entry.name}"
    if mark == "|":
        if not message.oneof_decl:
            message.oneof_decl.add(name="parameter_choice")
        field.oneof_index = 0
    if kind.islower() or kind[-1].isdigit():
        field.type = FieldDescriptorProto.Type.Value(f"TYPE_{kind.upper()}")
    else:
        field.type, field.type_name = FieldDescriptorProto.TYPE_MESSAGE, f".{PACKAGE}.{kind}"
