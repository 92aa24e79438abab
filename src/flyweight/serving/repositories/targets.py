"""The servers that a bundle can be written for: what each wants on disk, what it runs, and how it is started."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from flyweight.serving.repositories import kserve, openvino_model_server, triton
from flyweight.serving.repositories.served_model import ServedModel


@dataclass(frozen=True)
class Target:
    """A server.

    Args:
        title: its name in full.
        engine: what it runs a model with.
        models: the folder, in what is written, that holds the model's.
        as_label: whether the model's name must be one that Kubernetes takes.
        write: writes its configuration beside the model's files.
        start: how to start it, for the README.
        address: where it then answers.
    """

    title: str
    engine: Literal["onnxruntime", "openvino"]
    models: str
    as_label: bool
    write: Callable[[Path, ServedModel], None]
    start: Callable[[ServedModel], str]
    address: Callable[[ServedModel], str]


#: By the name that `--to` takes.
TARGETS: Mapping[str, Target] = MappingProxyType(
    {
        "triton": Target(
            "Triton Inference Server",
            "onnxruntime",
            triton.MODELS,
            False,
            triton.write_configuration,
            triton.starting,
            triton.address,
        ),
        "openvino-model-server": Target(
            "OpenVINO Model Server",
            "openvino",
            openvino_model_server.MODELS,
            False,
            openvino_model_server.write_configuration,
            openvino_model_server.starting,
            openvino_model_server.address,
        ),
        "kserve": Target(
            "KServe with its Triton runtime",
            "onnxruntime",
            triton.MODELS,
            True,
            kserve.write_configuration,
            kserve.starting,
            kserve.address,
        ),
    }
)
