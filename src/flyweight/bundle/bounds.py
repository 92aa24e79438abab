"""How large and how long a graph can get, worked out before it runs.

A graph of a hundred bytes can ask for a terabyte (`Expand` to a huge shape, a `Concat` with itself forty times) or run
for a year. So the size of every value is worked out for a batch of 1 and of 16 rows, with the shape rules of the ONNX
operators themselves and with `fold` for shapes that are computed on the way. Where a shape cannot be known, the
product of what a node reads bounds what it writes, but for the operators that amplify: those must be known.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, NodeProto, OperatorSetIdProto, TensorProto, TypeProto, defs, helper, numpy_helper
from onnx.shape_inference import InferenceError, infer_node_outputs

from flyweight.bundle.fold import SMALL, fold
from flyweight.bundle.operators import AMPLIFIERS
from flyweight.bundle.tensors import MAX_DIM, small_value
from flyweight.bundle.work import multiplications
from flyweight.errors import BundleError

#: Elements of one value, or four times those of all constants on disk where that is more.
MAX_ELEMENTS = 2**28
MAX_ALL_ELEMENTS = 2**32
#: Multiplications for a batch of one: about a minute on one core.
MAX_WORK = 2**42
#: Length given to dimensions other than the batch that the graph leaves open.
OPEN_LENGTH = 16
_INTEGERS = {
    TensorProto.INT8,
    TensorProto.INT16,
    TensorProto.INT32,
    TensorProto.INT64,
    TensorProto.UINT8,
    TensorProto.UINT16,
    TensorProto.UINT32,
    TensorProto.UINT64,
}


_PLAIN = (np.ndarray, int, float, list)


@dataclass(frozen=True)
class Value:
    """What is known of one value: its type with shape where known, an upper bound of elements, its content if small."""

    type: TypeProto | None
    elements: int
    small: NDArray[Any] | None = None

    @property
    def shape(self) -> list[int] | None:
        """The dimensions, None where any of them is open."""
        return _shape_of(self.type)


def check_bounds(graph: GraphProto, opset: int, where: str) -> None:
    """Check that values and work stay within bounds and grow at most with the square of the batch.

    Raises:
        BundleError: naming the node and what it asks for.
    """
    one, sixteen = (_sizes(graph, opset, batch, where) for batch in (1, 16))
    for name, elements in sixteen.items():
        if elements > 256 * max(one[name], 1):
            raise BundleError(
                f"{where}: value {name[:80]!r} grows from {one[name]:,} elements at a batch of 1 to {elements:,} "
                "at 16, more than with the square of the batch. Get the bundle again from its source."
            )


def _sizes(graph: GraphProto, opset: int, batch: int, where: str) -> dict[str, int]:
    values = {**_constants(graph.initializer), **_inputs(graph, batch)}
    stored = sum(value.elements for value in values.values())
    largest, in_all, work = max(MAX_ELEMENTS * batch, 4 * stored), 0, 0
    imports = [helper.make_opsetid("", opset)]
    for node in graph.node:
        made = _run(node, values, imports, where)
        values.update(made)
        read = [values[name] for name in node.input if name]
        in_all += sum(value.elements for value in made.values())
        work += multiplications(node, [(value.shape, value.elements) for value in read], made_elements(made))
        if made_elements(made) > largest or in_all > MAX_ALL_ELEMENTS * batch + 16 * stored or work > MAX_WORK * batch:
            raise BundleError(
                f"{where}: {node.op_type} {node.name[:80]!r} asks for {made_elements(made):,} elements, {in_all:,} "
                f"with those before and {work:,} multiplications at a batch of {batch}, past the bounds of a bundle. "
                "Get the bundle again from its source."
            )
    return {name: value.elements for name, value in values.items()}


def made_elements(made: Mapping[str, Value]) -> int:
    """Return the elements of the largest value that a node makes."""
    return max((value.elements for value in made.values()), default=0)


def _run(
    node: NodeProto, values: Mapping[str, Value], imports: list[OperatorSetIdProto], where: str
) -> dict[str, Value]:
    """Return what is known of a node's outputs."""
    read = [values[name] for name in node.input if name]
    _check_divisor(node, read, where)
    attributes = {one.name: _attribute(one) for one in node.attribute}
    types = _infer(node, values, imports)
    made = {}
    for place, name in enumerate(node.output):
        if not name:
            continue
        kind = types.get(name)
        shape = _shape_of(kind)
        if shape is None and node.op_type in AMPLIFIERS:
            raise BundleError(
                f"{where}: the size of what {node.op_type} {node.name[:80]!r} makes cannot be known before it runs, so "
                "it could fill the memory. Export the model with constant shapes there."
            )
        elements = math.prod(max(value.elements, 1) for value in read) if shape is None else math.prod(shape)
        small = _content(node, attributes, [values.get(one) for one in node.input], shape) if place == 0 else None
        made[name] = Value(kind, elements, small)
    return made


def _content(
    node: NodeProto, attributes: Mapping[str, Any], read: list[Value | None], shape: list[int] | None
) -> NDArray[Any] | None:
    if node.op_type == "Constant":
        value = next(iter(attributes.values()))
        return np.asarray(value) if isinstance(value, _PLAIN) and np.size(value) <= SMALL else None
    if node.op_type in ("Shape", "Size") and read[0] is not None and read[0].shape is not None:
        if node.op_type == "Size":
            return np.asarray(read[0].elements, dtype=np.int64)
        return np.asarray(read[0].shape[slice(attributes.get("start"), attributes.get("end"))], dtype=np.int64)
    return fold(node.op_type, attributes, [None if value is None else value.small for value in read], shape)


def _infer(node: NodeProto, values: Mapping[str, Value], imports: list[OperatorSetIdProto]) -> dict[str, TypeProto]:
    schema = defs.get_schema(node.op_type, imports[0].version, "")
    types, contents = {}, {}
    for name in node.input:
        value = values.get(name)
        if value is None:
            continue
        if value.type is None:
            return {}
        types[name] = value.type
        if value.small is not None:
            contents[name] = numpy_helper.from_array(value.small)
    try:
        return dict(infer_node_outputs(schema, node, types, contents, opset_imports=imports))
    except (InferenceError, RuntimeError, ValueError, KeyError):
        return {}  # an engine will say what is wrong; here only the bound matters


def _check_divisor(node: NodeProto, read: list[Value], where: str) -> None:
    """Refuse whole-number division by what may be 0 or -1: both can stop the process with a signal."""
    if node.op_type not in ("Div", "Mod") or len(read) < 2:
        return
    kind = read[0].type
    if kind is not None and kind.tensor_type.elem_type not in _INTEGERS:
        return
    divisor = read[1].small
    if divisor is None or not divisor.all() or (divisor == -1).any():
        raise BundleError(
            f"{where}: {node.op_type} {node.name[:80]!r} divides whole numbers by what is 0, -1 or no small constant. "
            "Divide by a constant in the model."
        )


def _constants(tensors: Iterable[TensorProto]) -> dict[str, Value]:
    return {
        tensor.name: Value(
            helper.make_tensor_type_proto(tensor.data_type, list(tensor.dims)),
            math.prod(tensor.dims),
            small_value(tensor, SMALL),
        )
        for tensor in tensors
    }


def _inputs(graph: GraphProto, batch: int) -> dict[str, Value]:
    """Return the graph's inputs at a batch size; other open dimensions get OPEN_LENGTH."""
    shapes = {value.name: value.type.tensor_type.shape.dim for value in graph.input}
    leading = {dims[0].dim_param for dims in shapes.values() if len(dims)} - {""}
    values = {}
    for value in graph.input:
        sizes = [
            dim.dim_value
            if dim.HasField("dim_value")
            else (batch if place == 0 or dim.dim_param in leading else OPEN_LENGTH)
            for place, dim in enumerate(shapes[value.name])
        ]
        kind = helper.make_tensor_type_proto(value.type.tensor_type.elem_type, sizes)
        values[value.name] = Value(kind, math.prod(sizes))
    return values


def _shape_of(kind: TypeProto | None) -> list[int] | None:
    if kind is None or not kind.HasField("tensor_type") or not kind.tensor_type.HasField("shape"):
        return None
    dims = kind.tensor_type.shape.dim
    if any(not dim.HasField("dim_value") or not 0 <= dim.dim_value <= MAX_DIM for dim in dims):
        return None
    return [dim.dim_value for dim in dims]


def _attribute(attribute: Any) -> Any:
    value = helper.get_attribute_value(attribute)
    if isinstance(value, TensorProto):
        return small_value(value, SMALL)
    return list(value) if not isinstance(value, (int, float, bytes)) else value
