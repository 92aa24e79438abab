"""Constants whose every number half precision holds exactly, stored in it and cast as the engine loads them.

What is worked out of codebooks before a file is written (unfolded, moved, multiplied by powers of two) is float32 of
numbers that were float16. In a small bundle that was a quarter of all bytes.
"""

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from flyweight.engines.graph_edits import constant_of

#: Bytes below which a cast's own operator is most of what would be saved, and numbers above which engines, which keep
#: what they cast, would hold a large table a second time while they load.
LEAST_BYTES, MOST_NUMBERS = 1024, 1 << 20
#: What reads its constants before anything is folded.
_READS_FIRST = frozenset({"QuantizeLinear", "DequantizeLinear", "Resize", "BatchNormalization"})


def halve_constants(model: ir.Model) -> None:
    """Store what can be in half precision, in place."""
    graph = model.graph
    for value in list(graph.initializers.values()):
        users = [node for node, _ in value.uses()]
        if not users or value in graph.inputs or any(node.op_type in _READS_FIRST for node in users):
            continue
        halved = _halved(constant_of(value))
        if halved is not None:
            _cast(graph, value, halved)


def _halved(array: NDArray[np.generic] | None) -> NDArray[np.float16] | None:
    """Return the numbers in half precision; None where one would be rounded, or where it is not worth it."""
    if array is None or array.dtype != np.float32 or array.nbytes <= LEAST_BYTES or array.size > MOST_NUMBERS:
        return None
    with np.errstate(over="ignore"):
        half = array.astype(np.float16)
    return half if np.array_equal(half.astype(np.float32), array) else None


def _cast(graph: ir.Graph, value: ir.Value, half: NDArray[np.float16]) -> None:
    """Put a cast of the halved numbers in a constant's place, under its name."""
    name = value.name
    cast = ir.node("Cast", [], {"to": int(ir.DataType.FLOAT)})
    made = cast.outputs[0]
    made.shape, made.dtype = value.shape, ir.DataType.FLOAT
    ir.convenience.replace_all_uses_with(value, made, replace_graph_outputs=True)
    graph.initializers.pop(str(name))
    cast.name = made.name = name
    stored = ir.Value(name=f"{name}.half", const_value=ir.Tensor(half, name=f"{name}.half"))
    stored.shape, stored.dtype = ir.Shape(half.shape), ir.DataType.FLOAT16
    graph.register_initializer(stored)
    cast.resize_inputs(1)
    cast.replace_input_with(0, stored)
    graph.insert_before(graph[0], cast)
