"""ONNX files of a few nodes, for counting."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

F32, I64 = TensorProto.FLOAT, TensorProto.INT64
Inputs = dict[str, np.ndarray]


def model_file(
    folder: Path,
    nodes: list[NodeProto],
    inputs: dict[str, tuple[int, list[Any]]],
    constants: Inputs | None = None,
    outputs: tuple[str, ...] = ("y",),
    external: bool = False,
) -> Path:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in inputs.items()],
        [helper.make_tensor_value_info(name, F32, None) for name in outputs],
        [numpy_helper.from_array(value, name) for name, value in (constants or {}).items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    path = folder / "model.onnx"
    onnx.save(model, str(path), save_as_external_data=external, location="model.onnx.data", size_threshold=16)
    return path


def floats(*shape: int) -> np.ndarray:
    return np.ones(shape, np.float32)
