"""Whole numbers that a model works out in floats, which an engine that rounds all floats would get wrong.

OpenVINO told to compute in bfloat16 does so with every float of a model, also with those that become an id or a place
in a table: eight bits hold no place above 256. Seen with 2026.4: packed codes read so gave no scores at all, and
another model of the process died when that one was freed.
"""

from pathlib import Path

import onnx

_WHOLE = {onnx.TensorProto.INT8, onnx.TensorProto.INT16, onnx.TensorProto.INT32, onnx.TensorProto.INT64} | {
    onnx.TensorProto.UINT8, onnx.TensorProto.UINT16, onnx.TensorProto.UINT32, onnx.TensorProto.UINT64
}  # fmt: skip
_FLOATS = {onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16}


def rounded_index(path: Path) -> str | None:
    """Return the node that makes whole numbers of floats computed from the inputs, None where there is none.

    What is worked out of constants alone is done once, in float32, when a file is loaded.
    """
    model = onnx.load(path, load_external_data=False)
    typed = onnx.shape_inference.infer_shapes(model).graph
    types = {one.name: one.type.tensor_type.elem_type for one in (*typed.value_info, *typed.input)}
    moving = {one.name for one in model.graph.input}
    for node in model.graph.node:
        if not moving.intersection(node.input):
            continue
        moving.update(node.output)
        if node.op_type != "Cast" or types.get(node.input[0]) not in _FLOATS:
            continue
        if next(one.i for one in node.attribute if one.name == "to") in _WHOLE:
            return str(node.name or node.output[0])
    return None
