"""What is known of each value of a graph before it runs: its shape at a batch size, and its content where small."""

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, NodeProto, TensorProto, TypeProto, defs, helper, numpy_helper
from onnx.checker import ValidationError
from onnx.shape_inference import InferenceError, infer_node_outputs

from flyweight.bundle.fold import SMALL, fold
from flyweight.bundle.strict_json import one_line
from flyweight.bundle.tensors import MAX_DIM, small_value
from flyweight.errors import BundleError
from flyweight.task.field import REQUEST_INDEX, REQUESTS, SPREAD_ROWS

#: Length given to dimensions other than the batch that the graph leaves open.
OPEN_LENGTH = 16
_PLAIN = (np.ndarray, int, float, list)


@dataclass(frozen=True)
class Value:
    """What is known of one value.

    Args:
        type: with shape, where known.
        elements: an upper bound.
        small: its content, if small.
        below: of whole numbers that surely lie in [0, below), that bound.
    """

    type: TypeProto | None
    elements: int
    small: NDArray[Any] | None = None
    below: int | None = None

    @property
    def shape(self) -> list[int] | None:
        """The dimensions, None where any of them is open."""
        if self.type is None or not self.type.tensor_type.HasField("shape"):
            return None
        dims = self.type.tensor_type.shape.dim
        if any(not dim.HasField("dim_value") or not 0 <= dim.dim_value <= MAX_DIM for dim in dims):
            return None
        return [dim.dim_value for dim in dims]


def given_values(graph: GraphProto, batch: int) -> dict[str, Value]:
    """Return the constants of a graph and its inputs at a batch size; other open dimensions get OPEN_LENGTH."""
    rows = rows_name(graph)
    values = _constants(graph.initializer)
    # As many requests as rows is the most that a call may bring.
    likewise = {rows, REQUESTS, SPREAD_ROWS} if has_index(graph) else {rows}
    for value in graph.input:
        dims = value.type.tensor_type.shape.dim
        sizes = [_length(dim, likewise - {None}, batch, leads=place == 0) for place, dim in enumerate(dims)]
        kind = helper.make_tensor_type_proto(value.type.tensor_type.elem_type, sizes)
        values[value.name] = Value(kind, math.prod(sizes))
    return values


def made_values(node: NodeProto, values: Mapping[str, Value], opset: int, where: str) -> dict[str, Value]:
    """Return what is known of a node's outputs, by the shape rules of its operator.

    Where a shape is not known, `elements` is the product of what the node reads.

    Raises:
        BundleError: the node cannot run on what it reads.
    """
    read = [values[name] for name in node.input if name]
    types = _infer(node, values, opset, where)
    made = {}
    for place, name in enumerate(node.output):
        if name:
            value = Value(types.get(name), math.prod(max(one.elements, 1) for one in read))
            shape = value.shape
            elements = value.elements if shape is None else math.prod(shape)
            content = _content(node, values, shape) if place == 0 else None
            made[name] = Value(value.type, elements, content, _bound(node, values))
    return made


def rows_name(graph: GraphProto) -> str | None:
    """Return what the graph calls its batch: the output's first dimension, where an input begins with it too."""
    leading = {dims[0].dim_param for value in graph.input if len(dims := value.type.tensor_type.shape.dim)} - {""}
    outputs = {dims[0].dim_param for value in graph.output if len(dims := value.type.tensor_type.shape.dim)}
    return next(iter(leading & outputs), None)


def has_index(graph: GraphProto) -> bool:
    """Return whether a graph has `request_index` with a default: then its request fields have rows of their own."""
    return any(value.name == REQUEST_INDEX for value in graph.input) and any(
        tensor.name == REQUEST_INDEX for tensor in graph.initializer
    )


def _infer(node: NodeProto, values: Mapping[str, Value], opset: int, where: str) -> dict[str, TypeProto]:
    schema = defs.get_schema(node.op_type, opset, "")
    types, contents = {}, {}
    for name in filter(None, node.input):
        value = values[name]
        if value.type is None:
            return {}
        types[name] = value.type
        if value.small is not None:
            contents[name] = numpy_helper.from_array(value.small)
    imports = [helper.make_opsetid("", opset)]
    try:
        return dict(infer_node_outputs(schema, node, types, contents, opset_imports=imports))
    except (InferenceError, ValidationError, RuntimeError, ValueError, KeyError) as error:
        raise BundleError(
            f"{where}: {node.op_type} {node.name[:80]!r} cannot run on what it reads ({one_line(error)}). "
            "Get the bundle again from its source."
        ) from None


def _bound(node: NodeProto, values: Mapping[str, Value]) -> int | None:
    """Return what the rest of a division lies below: engines give it the divisor's sign, whatever was divided."""
    if node.op_type != "Mod" or any(one.name == "fmod" and one.i for one in node.attribute):
        return None
    divisor = values[node.input[1]].small
    whole = divisor is not None and divisor.dtype.kind in "iu" and divisor.size and bool((divisor > 0).all())
    return int(divisor.max()) if divisor is not None and whole else None


def _content(node: NodeProto, values: Mapping[str, Value], shape: list[int] | None) -> NDArray[Any] | None:
    """Return what a node makes, where that is small and follows from what is known."""
    attributes = {one.name: _attribute(one) for one in node.attribute}
    if node.op_type == "Constant":
        value = next(iter(attributes.values()))
        return np.asarray(value) if isinstance(value, _PLAIN) and np.size(value) <= SMALL else None
    read = [values[name] if name else None for name in node.input]
    first = read[0].shape if read and read[0] is not None else None
    if node.op_type == "Size":
        return None if first is None else np.asarray(math.prod(first), dtype=np.int64)
    if node.op_type == "Shape":
        cut = slice(attributes.get("start"), attributes.get("end"))
        return None if first is None else np.asarray(first[cut], dtype=np.int64)
    return fold(node.op_type, attributes, [None if value is None else value.small for value in read], shape)


def _constants(tensors: Iterable[TensorProto]) -> dict[str, Value]:
    return {
        tensor.name: Value(
            helper.make_tensor_type_proto(tensor.data_type, list(tensor.dims)),
            math.prod(tensor.dims),
            small_value(tensor, SMALL),
        )
        for tensor in tensors
    }


def _length(dim: Any, rows: Collection[str | None], batch: int, *, leads: bool) -> int:
    """Return a dimension's length at a batch; an open one may be called "rows", "rows + 1", "14*rows" or otherwise."""
    if dim.HasField("dim_value"):
        return int(dim.dim_value)
    times, _, of = dim.dim_param.partition("*")  # "14*rows": the rows that a front is given of 14 fields' tables
    if of and times.isascii() and times.isdigit() and len(times) < 7:
        return batch * int(times)
    name, _, more = dim.dim_param.partition(" + ")
    if name in rows and (more == "" or (more.isascii() and more.isdigit() and len(more) < 7)):
        return batch + int(more or 0)
    return batch if leads and not rows else OPEN_LENGTH


def _attribute(attribute: Any) -> Any:
    value = helper.get_attribute_value(attribute)
    if isinstance(value, TensorProto):
        return small_value(value, SMALL)
    return list(value) if not isinstance(value, (int, float, bytes)) else value
