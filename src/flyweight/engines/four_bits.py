"""Graphs of 4-bit weights on which OpenVINO stops the process.

Version 2026.4 divides by zero where a MatMul or Gemm reads 4-bit weights with a scale for each of its inputs, the
dimension that is summed over. Scales of each output, one scale, scales by blocks and 8-bit weights run and are right.
"""

from pathlib import Path

import onnx
from onnx import GraphProto, NodeProto, TensorProto

_FOUR_BITS = (TensorProto.INT4, TensorProto.UINT4)


def crashing_weights(path: Path) -> str | None:
    """Return the name of 4-bit weights that are not known to run, None if there are none."""
    graph = onnx.load(path, load_external_data=False).graph
    shapes = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    four = {tensor.name for tensor in graph.initializer if tensor.data_type in _FOUR_BITS}
    for node in graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in four:
            scale = shapes.get(node.input[1])
            blocks = any(one.name == "block_size" and one.i for one in node.attribute)
            if (scale is None or len(scale) == 1) and not blocks and not _of_outputs(graph, node, shapes):
                return str(node.input[0])
    return None


def _of_outputs(graph: GraphProto, dequantise: NodeProto, shapes: dict[str, list[int]]) -> bool:
    """Whether the scales lie along the outputs of all that reads the weights."""
    rank = len(shapes[dequantise.input[0]])
    axis = _attribute(dequantise, "axis", 1) % rank
    readers = [node for node in graph.node if dequantise.output[0] in node.input]
    return all(list(node.input[1:2]) == [dequantise.output[0]] and axis == _output_axis(node, rank) for node in readers)


def _output_axis(node: NodeProto, rank: int) -> int:
    """Return the dimension of the weights that becomes the outputs; -1 where that is not known."""
    if node.op_type == "MatMul":
        return rank - 1
    if node.op_type == "Gemm":
        return 0 if _attribute(node, "transB", 0) else 1
    return 0 if node.op_type == "Conv" else -1


def _attribute(node: NodeProto, name: str, otherwise: int) -> int:
    return next((one.i for one in node.attribute if one.name == name), otherwise)
