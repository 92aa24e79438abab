"""An ONNX file as nodes, constants, inputs and outputs. Nothing of it is run here, and nothing in it is trusted."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import torch
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import AttributeProto, TensorProto
from onnx.inliner import inline_local_functions
from torch import Tensor

from flyweight.errors import InputError
from flyweight.graph.onnx_import.constants import NARROW, TYPES, read_constant
from flyweight.graph.onnx_import.node import Node
from flyweight.graph.onnx_import.table import OPERATORS

#: Operator sets that are read: 7 is the first whose broadcasting is NumPy's.
OPSETS = (7, 28)
MAX_NODES = 200_000


@dataclass(frozen=True)
class Graph:
    """What an ONNX file says.

    Args:
        nodes: each after those that it reads.
        constants: by name.
        narrow: (low, high) of the constants of 4 bits.
        inputs: element type of each input, in order.
        outputs: names.
    """

    nodes: tuple[Node, ...]
    constants: dict[str, Tensor]
    narrow: dict[str, tuple[int, int]]
    inputs: dict[str, torch.dtype]
    outputs: tuple[str, ...]


def read_graph(path: Path) -> Graph:
    """Return the graph of an ONNX file.

    Raises:
        InputError: it is no ONNX file, damaged, or holds operators that cannot be run; names them.
    """
    model = _parsed(path)
    opset = _opset(model)
    if model.functions:
        model = inline_local_functions(model)
    graph = model.graph
    constants, narrow = _constants(graph, path.parent)
    nodes = tuple(_node(proto, at, opset) for at, proto in enumerate(graph.node) if proto.op_type != "Constant")
    _check_known(nodes, graph.node)
    inputs = _inputs(graph, set(constants))
    outputs = tuple(value.name for value in graph.output)
    _check_order(nodes, set(constants) | set(inputs), outputs)
    return Graph(nodes, constants, narrow, inputs, outputs)


def _parsed(path: Path) -> onnx.ModelProto:
    if not path.is_file():
        raise InputError(f"There is no ONNX file at {path}; check the path.")
    try:
        model = onnx.load(path, load_external_data=False)
    except (DecodeError, ValueError) as error:
        raise InputError(f"{path} is no ONNX file, or damaged: {str(error)[:200]}") from error
    if not model.graph.node or len(model.graph.node) > MAX_NODES:
        raise InputError(f"{path} holds a graph of {len(model.graph.node):,} operators; 1 to {MAX_NODES:,} are read.")
    return model


def _opset(model: onnx.ModelProto) -> int:
    versions = [entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")]
    least, most = OPSETS
    if len(versions) != 1 or not least <= versions[0] <= most:
        raise InputError(
            f"The ONNX file is written for operator set {versions or 'none'}; {least} to {most} are read. "
            "Convert it with onnx.version_converter.convert_version."
        )
    return int(versions[0])


def _constants(graph: onnx.GraphProto, folder: Path) -> tuple[dict[str, Tensor], dict[str, tuple[int, int]]]:
    if graph.sparse_initializer:
        raise InputError("The ONNX file holds sparse constants, which are not read; export it with dense ones.")
    protos = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.output:
            protos[node.output[0]] = _constant_of(node)
    constants = {name: read_constant(tensor, folder) for name, tensor in protos.items()}
    return constants, {name: NARROW[one.data_type] for name, one in protos.items() if one.data_type in NARROW}


def _constant_of(node: onnx.NodeProto) -> TensorProto:
    attribute = node.attribute[0] if len(node.attribute) == 1 else AttributeProto()
    if attribute.name == "value":
        return attribute.t
    name, kinds = node.output[0], {"int": TensorProto.INT64, "float": TensorProto.FLOAT}
    kind = attribute.name.removeprefix("value_").removesuffix("s")
    if kind not in kinds:
        raise InputError(f"The ONNX file cannot be read: Constant {name[:80]!r} holds {attribute.name[:40]!r}.")
    value = onnx.helper.get_attribute_value(attribute)
    many = attribute.name.endswith("s")
    return onnx.helper.make_tensor(name, kinds[kind], [len(value)] if many else [], value if many else [value])


def _node(proto: onnx.NodeProto, at: int, opset: int) -> Node:
    name = proto.name or (proto.output[0] if proto.output else f"node {at}")
    attributes = {one.name: _attribute(one, proto.op_type, name) for one in proto.attribute}
    return Node(proto.op_type, name, tuple(proto.input), tuple(proto.output), attributes, opset)


def _attribute(attribute: AttributeProto, operator: str, node: str) -> Any:
    kind = attribute.type
    if kind in (AttributeProto.GRAPH, AttributeProto.GRAPHS, AttributeProto.SPARSE_TENSOR, AttributeProto.TYPE_PROTO):
        return None  # only of operators that are refused by name
    value = onnx.helper.get_attribute_value(attribute)
    if kind == AttributeProto.STRING:
        return value.decode("utf-8", "replace")
    if kind == AttributeProto.STRINGS:
        return [one.decode("utf-8", "replace") for one in value]
    if kind == AttributeProto.TENSOR:
        if value.data_location == TensorProto.EXTERNAL:
            raise InputError(f"The ONNX file cannot be read: {operator} node {node[:80]!r} points to another file.")
        return read_constant(value, Path()).numpy() if value.data_type != TensorProto.BFLOAT16 else None
    return list(value) if kind in (AttributeProto.INTS, AttributeProto.FLOATS) else value


def _check_known(nodes: Iterable[Node], protos: Iterable[onnx.NodeProto]) -> None:
    """Name every operator that cannot be run, at once."""
    foreign = {f"{one.domain}.{one.op_type}" for one in protos if one.domain not in ("", "ai.onnx")}
    unknown = Counter(node.operator for node in nodes if node.operator not in OPERATORS or node.operator == "Grid")
    named = [f"{operator} ({count}x)" for operator, count in unknown.most_common() if operator] + sorted(foreign)
    if named:
        first = next(node for node in nodes if node.operator in unknown or foreign)
        why = " Branches and loops cannot be traced." if unknown.keys() & {"If", "Loop", "Scan"} else ""
        raise InputError(
            f"The ONNX file holds operators that cannot be run in PyTorch: {', '.join(named)[:400]}; the first is node "
            f"{first.name[:80]!r}.{why} Export the model again without them, or give the PyTorch module itself."
        )


def _inputs(graph: onnx.GraphProto, constants: set[str]) -> dict[str, torch.dtype]:
    found: dict[str, torch.dtype] = {}
    for value in graph.input:
        if value.name in constants:
            continue
        kind = value.type.tensor_type.elem_type
        if kind not in TYPES or kind in NARROW:
            raise InputError(f"Input {value.name[:80]!r} of the ONNX file is no tensor of numbers (type {kind}).")
        found[value.name] = TYPES[kind][2]
    if not found:
        raise InputError("The ONNX file has no input.")
    return found


def _check_order(nodes: tuple[Node, ...], there: set[str], outputs: tuple[str, ...]) -> None:
    """Check that every value is made once, before it is read."""
    for node in nodes:
        lost = [name for name in node.inputs if name and name not in there]
        if lost:
            node.refuse(f"it reads {lost[0][:80]!r}, which nothing before it makes.")
        made = {name for name in node.outputs if name}
        if made & there or not made:
            node.refuse(f"its outputs {sorted(made)[:3]} are made twice, or it has none.")
        there |= made
    if not outputs or not set(outputs) <= there:
        raise InputError(f"The ONNX file's outputs {list(outputs)[:5]} are not made by its operators.")
