"""Integer weights written out as the floats they stand for, where a server's ONNX Runtime would do otherwise.

Flyweight starts ONNX Runtime with two settings (`engines.onnx_runtime.session_options`) that keep it from rounding a
layer's activations because its weights are integers. Triton has no way to set them, and its ONNX Runtime then rounds: a
product with 4-bit weights in blocks of 32 came out 3.6% of the mean output away. With the weights written out there is
nothing to round, and the numbers are those that `Ranker` computes with. Tables are looked up first, so not touched.
"""

from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from onnx import GraphProto, NodeProto, TensorProto, external_data_helper, helper

from flyweight.engines.complaint import complaint
from flyweight.engines.onnx_runtime import NAME

_FOUR_BITS = {TensorProto.INT4, TensorProto.UINT4}


def unpack_weights(graph: GraphProto, opset: int, folder: Path, ir_version: int) -> dict[str, NDArray[Any]]:
    """Take the nodes that unpack integer weights out of a graph; return what they made, the constants it is to read.

    Only where a server's ONNX Runtime would replace them: in a graph without rounded activations, and elsewhere where
    the weights are of four bits or come in blocks.

    Args:
        folder: where the constants lie that are not in the graph.

    Raises:
        EngineError: ONNX Runtime cannot unpack them.
    """
    constants = {tensor.name: tensor for tensor in graph.initializer}
    rounds = any(node.op_type == "QuantizeLinear" for node in graph.node)
    nodes = [
        node
        for node in graph.node
        if node.op_type == "DequantizeLinear"
        and all(name in constants for name in node.input if name)
        and (not rounds or _is_packed(node, constants))
    ]
    if not nodes:
        return {}
    read = {name: constants[name] for node in nodes for name in node.input if name}
    for tensor in read.values():
        if external_data_helper.uses_external_data(tensor):
            external_data_helper.load_external_data_for_tensor(tensor, str(folder))
            tensor.data_location = TensorProto.DEFAULT
            del tensor.external_data[:]
    made = _run(nodes, list(read.values()), opset, ir_version)
    rest = [node for node in graph.node if node not in nodes]
    del graph.node[:]
    graph.node.extend(rest)
    _drop_unread(graph, set(read))
    return made


def _is_packed(node: NodeProto, constants: dict[str, TensorProto]) -> bool:
    blocks = any(one.name == "block_size" and one.i for one in node.attribute)
    return blocks or constants[node.input[0]].data_type in _FOUR_BITS


def _run(nodes: list[NodeProto], read: list[TensorProto], opset: int, ir_version: int) -> dict[str, NDArray[Any]]:
    """Return what nodes make of constants, as ONNX Runtime itself computes it."""
    import onnxruntime

    names = [node.output[0] for node in nodes]
    outputs = [helper.make_empty_tensor_value_info(name) for name in names]
    graph = helper.make_graph(nodes, "unpack", [], outputs, initializer=read)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        return dict(zip(names, session.run(names, {}), strict=True))
    except Exception as error:  # its exceptions have no parent of their own
        raise complaint(NAME, "cannot unpack the integer weights", error) from error


def _drop_unread(graph: GraphProto, names: set[str]) -> None:
    still = {name for node in graph.node for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name not in names or tensor.name in still]
    del graph.initializer[:]
    graph.initializer.extend(kept)
