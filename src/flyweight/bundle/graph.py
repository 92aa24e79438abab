"""Whether `model.onnx` is a graph that may be handed to an engine. Nothing of it is run here."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import GraphProto, ModelProto, TensorProto, ValueInfoProto, defs, helper

from flyweight.bundle.bounds import check_bounds
from flyweight.bundle.manifest import InputEntry
from flyweight.bundle.nodes import check_node
from flyweight.bundle.shapes import has_index, rows_name
from flyweight.bundle.tensors import MAX_DIM, MAX_RANK, TYPES, check_tensors, small_value
from flyweight.bundle.wire import check_wire
from flyweight.errors import BundleError
from flyweight.task.field import REQUEST_INDEX, REQUESTS, SPREAD_ROWS

MAX_NODES = 50_000
MAX_CONSTANTS = 50_000
MAX_NAME = 1024
MIN_OPSET, MIN_IR = 13, 4
_FLOATS = {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16}
_WHOLE = {TensorProto.INT32, TensorProto.INT64}


@dataclass(frozen=True)
class Graph:
    """What the reader learned of the graph.

    Args:
        inputs: names of the inputs that the graph reads, a part of the manifest's where one is not used.
        flat: those of them with a first dimension of their own, not the batch's: flat ids of bags.
        requests: those with a row for each request, not for each candidate; empty in a graph without `request_index`.
        output: the dimensions of the result after the batch, None where open.
        nodes: how many there are.
    """

    inputs: tuple[str, ...]
    flat: frozenset[str]
    output: tuple[int | None, ...]
    nodes: int
    requests: frozenset[str] = frozenset()

    @property
    def hoisted(self) -> bool:
        """Whether it takes a request once, with its candidates, instead of a row for each candidate."""
        return bool(self.requests)


#: What a graph is: a bundle's model; of a sharded bundle, what says which rows are read, or what takes them.
Part = Literal["model", "lookups", "front"]


def check_graph(
    data: bytes, data_bytes: int | None, inputs: Mapping[str, InputEntry], where: str, part: Part = "model"
) -> Graph:
    """Check an ONNX file's bytes; `data_bytes` is the size of `model.onnx.data`, None where there is none.

    Raises:
        BundleError: the file is damaged, of a newer ONNX, holds an operator or a constant that a bundle may not hold,
            asks for too much memory or work, or does not fit the manifest's inputs.
    """
    check_wire(data, ModelProto.DESCRIPTOR, where)
    try:
        model = ModelProto.FromString(data)
    except DecodeError:
        raise BundleError(f"{where} is not a sound ONNX file. Get the bundle again from its source.") from None
    return _check_model(model, data_bytes, inputs, where, part)


def _check_model(
    model: ModelProto, data_bytes: int | None, inputs: Mapping[str, InputEntry], where: str, part: Part
) -> Graph:
    opset = _check_versions(model, where)
    graph = model.graph
    if model.functions or model.training_info or graph.sparse_initializer or graph.quantization_annotation:
        raise _refusal(where, "it holds functions, training parts or sparse constants, which a bundle may not")
    if len(graph.node) > MAX_NODES or len(graph.initializer) > MAX_CONSTANTS:
        raise _refusal(
            where,
            f"it has {len(graph.node):,} nodes and {len(graph.initializer):,} constants; at most {MAX_NODES:,} are due",
        )
    check_tensors(graph.initializer, data_bytes, where)
    for value in (*graph.input, *graph.output, *graph.value_info):
        _check_value(value, where)
    _check_order(graph, where)
    for node in graph.node:
        check_node(node, opset, where)
    names = _check_inputs(graph, inputs, where)
    output = _check_output(graph, where) if part != "lookups" else _check_places(graph, where)
    check_bounds(graph, opset, where)
    requests = _requests(graph, inputs, where, part)
    return Graph(names, _flat(graph) - requests, output, len(graph.node), requests)


def _check_versions(model: ModelProto, where: str) -> int:
    opsets = [one.version for one in model.opset_import if one.domain in ("", "ai.onnx")]
    newest = defs.onnx_opset_version()
    if len(opsets) != 1 or not model.ir_version >= MIN_IR or opsets[0] < MIN_OPSET:
        raise _refusal(
            where, f"it names ONNX format {model.ir_version} and operator sets {opsets[:4]}; {MIN_OPSET} or more is due"
        )
    if model.ir_version > onnx.IR_VERSION or opsets[0] > newest:
        raise BundleError(
            f"{where} is of ONNX format {model.ir_version}, operator set {opsets[0]}; this environment reads up to "
            f"{onnx.IR_VERSION} and {newest}. Get a newer onnx: pip install -U onnx onnxruntime."
        )
    return int(opsets[0])


def _check_value(value: ValueInfoProto, where: str) -> None:
    tensor = value.type.tensor_type
    if value.type.WhichOneof("value") != "tensor_type" or tensor.elem_type not in TYPES:
        raise _refusal(where, f"value {value.name[:80]!r} is not a tensor of numbers")
    dims = tensor.shape.dim
    if len(dims) > MAX_RANK or any(dim.HasField("dim_value") and not 0 <= dim.dim_value <= MAX_DIM for dim in dims):
        raise _refusal(where, f"value {value.name[:80]!r} has an impossible shape")


def _check_order(graph: GraphProto, where: str) -> None:
    """Check that every name is made once, before it is read, and that outputs are made."""
    made: set[str] = set()
    _add(made, (value.name for value in graph.input), where)
    indexed = has_index(graph)  # the one input that may have a default
    names = (tensor.name for tensor in graph.initializer)
    _add(made, (name for name in names if not (indexed and name == REQUEST_INDEX)), where)
    for node in graph.node:
        lost = next((name for name in node.input if name and name not in made), None)
        if lost is not None:
            raise _refusal(
                where, f"{node.op_type[:40]} {node.name[:80]!r} reads {lost[:80]!r}, which nothing before it makes"
            )
        _add(made, (name for name in node.output if name), where)
    lost = next((value.name for value in graph.output if value.name not in made), None)
    if lost is not None:
        raise _refusal(where, f"nothing makes the output {lost[:80]!r}")


def _add(made: set[str], names: Iterable[str], where: str) -> None:
    for name in names:
        if name in made or not name or len(name) > MAX_NAME:
            raise _refusal(where, f"the name {name[:80]!r} is empty, longer than {MAX_NAME} or made twice")
        made.add(name)


def _check_inputs(graph: GraphProto, inputs: Mapping[str, InputEntry], where: str) -> tuple[str, ...]:
    given = [value for value in graph.input if not (value.name == REQUEST_INDEX and has_index(graph))]
    for value in given:
        spec = inputs.get(value.name)
        if spec is None:
            raise _refusal(where, f"it reads {value.name[:80]!r}, not among the manifest's inputs {sorted(inputs)[:8]}")
        tensor = value.type.tensor_type
        dims = [dim.dim_value if dim.HasField("dim_value") else None for dim in tensor.shape.dim]
        dtype = str(helper.tensor_dtype_to_np_dtype(tensor.elem_type))
        if not dims or dims[0] is not None or dims[1:] != list(spec.shape) or dtype != spec.dtype:
            raise _refusal(
                where,
                f"input {value.name[:80]!r} is {dtype} of shape {dims}, the manifest says {spec.dtype} and "
                f"{list(spec.shape)} after an open batch",
            )
    if not given:
        raise _refusal(where, "it has no inputs")
    return tuple(value.name for value in given)


def _requests(graph: GraphProto, inputs: Mapping[str, InputEntry], where: str, part: Part) -> frozenset[str]:
    """Return the inputs with a row for each request, the index that brings them to the candidates checked."""
    if not has_index(graph):
        return frozenset()
    index = next(value for value in graph.input if value.name == REQUEST_INDEX).type.tensor_type
    default = next(tensor for tensor in graph.initializer if tensor.name == REQUEST_INDEX)
    numbers = small_value(default, 1)
    if index.elem_type != TensorProto.INT64 or [dim.dim_param for dim in index.shape.dim] != [SPREAD_ROWS]:
        raise _refusal(where, f"{REQUEST_INDEX!r} is not int64 with one open dimension {SPREAD_ROWS!r}")
    if numbers is None or numbers.shape != (1,) or numbers.dtype.kind != "i" or int(numbers[0]) != 0:
        raise _refusal(where, f"the default of {REQUEST_INDEX!r} is not the one request 0")
    firsts = {
        value.name: value.type.tensor_type.shape.dim[0].dim_param
        for value in graph.input
        if value.name != REQUEST_INDEX
    }
    found = frozenset(name for name, first in firsts.items() if first == REQUESTS)
    due = frozenset(name for name in firsts if inputs[name].role == "request")
    if found != due or not (found or part != "model"):
        odd = sorted(found ^ due)[:1] or ["no input"]
        raise _refusal(where, f"graph and manifest do not agree on whether {odd[0]!r} has a row for each request")
    return found


def _flat(graph: GraphProto) -> frozenset[str]:
    rows = rows_name(graph)
    firsts = {value.name: value.type.tensor_type.shape.dim[0].dim_param for value in graph.input}
    index = {REQUEST_INDEX} if has_index(graph) else set()
    return frozenset(name for name, first in firsts.items() if rows is not None and first != rows) - index


def _check_output(graph: GraphProto, where: str) -> tuple[int | None, ...]:
    if len(graph.output) != 1 or graph.output[0].type.tensor_type.elem_type not in _FLOATS:
        raise _refusal(where, f"it has {len(graph.output)} outputs; one of floats is due")
    dims = [dim.dim_value if dim.HasField("dim_value") else None for dim in graph.output[0].type.tensor_type.shape.dim]
    if not dims or dims[0] is not None:
        raise _refusal(where, f"its output has shape {dims}; the first dimension must be the open batch")
    return tuple(dims[1:])


def _check_places(graph: GraphProto, where: str) -> tuple[int | None, ...]:
    """Check that all outputs are whole numbers: the places of rows."""
    odd = [value.name for value in graph.output if value.type.tensor_type.elem_type not in _WHOLE]
    if odd or not graph.output:
        raise _refusal(where, f"its output {(odd or [''])[0][:80]!r} is no place of a row, a whole number")
    return ()


def _refusal(where: str, why: str) -> BundleError:
    return BundleError(f"{where} may not be run: {why}. Get the bundle again from its source.")
