"""A small file as hoisting writes it: request fields with a row for each request, `request_index` with a default."""

from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

WEIGHT = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
USER = np.random.default_rng(1).normal(size=(3, 3)).astype(np.float32)  # (requests, 3)
ITEM = np.random.default_rng(2).normal(size=(5, 4)).astype(np.float32)  # (rows, 4)
INDEX = np.array([0, 0, 1, 2, 2])


def expected(user: NDArray[np.float32], item: NDArray[np.float32], index: NDArray[np.int64]) -> NDArray[np.float32]:
    """The scores in NumPy."""
    return ((user @ WEIGHT)[index] * item).sum(1)


def write_hoisted(folder: Path) -> Path:
    """Write sum(item * (user @ weight)[request_index]), with shapes read at run time on the way."""
    nodes = [
        helper.make_node("MatMul", ["user", "weight"], ["projected"]),
        helper.make_node("Gather", ["projected", "request_index"], ["spread"], axis=0),
        helper.make_node("Shape", ["item"], ["shape"]),
        helper.make_node("Expand", ["spread", "shape"], ["expanded"]),
        helper.make_node("Mul", ["expanded", "item"], ["product"]),
        helper.make_node("ReduceSum", ["product", "one"], ["score"], keepdims=0),
    ]
    inputs = [
        helper.make_tensor_value_info("user", TensorProto.FLOAT, ["requests", 3]),
        helper.make_tensor_value_info("item", TensorProto.FLOAT, ["rows", 4]),
        helper.make_tensor_value_info("request_index", TensorProto.INT64, ["spread"]),
    ]
    constants = {"weight": WEIGHT, "one": np.array([1]), "request_index": np.array([0])}
    initializers = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    output = helper.make_tensor_value_info("score", TensorProto.FLOAT, ["rows"])
    graph = helper.make_graph(nodes, "hoisted", inputs, [output], initializers)
    path = folder / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path
