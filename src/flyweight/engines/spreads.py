"""Hoisted models on their way into ONNX: where the request meets the rows, as operators that every engine has.

`spread` becomes `Gather(value, request_index)`. `request_index` is an input with a default: left out, it is [0], and
what was spread has one row, which broadcasts against the candidates. So one file scores one request, and, given the
index, several. `every_row` becomes `Expand` to as many rows as a candidate's input has.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from onnx.defs import OpSchema
from onnxscript.values import Op, Opset
from torch import Tensor

from flyweight.engines.graph_edits import add_constant
from flyweight.rewrite.hoisted_model import HoistedModel
from flyweight.rewrite.spread import EVERY_ROW, SPREAD
from flyweight.task.field import REQUEST_INDEX, REQUESTS, SPREAD_ROWS

#: Domain of the nodes between the two halves of an export; no file holds it.
DOMAIN = "flyweight.spread"
_INT64 = ir.DataType.INT64


def _operator(name: str, second: str) -> Op:
    kinds = [f"tensor({kind})" for kind in ("float", "float16", "bfloat16", "bool", "int64", "int32", "uint8")]
    schema = OpSchema(
        name,
        DOMAIN,
        1,
        inputs=[OpSchema.FormalParameter("value", "T"), OpSchema.FormalParameter(second, "U")],
        outputs=[OpSchema.FormalParameter("y", "T")],
        type_constraints=[("T", kinds, ""), ("U", kinds, "")],
    )
    return Op(Opset(DOMAIN, 1), name, schema)


_SPREAD, _EVERY_ROW = _operator("Spread", "index"), _operator("EveryRow", "like")


def _spread(value: Any, index: Any) -> Any:
    return _SPREAD(value, index)


def _every_row(value: Any, like: Any) -> Any:
    return _EVERY_ROW(value, like)


#: Operator of PyTorch -> how we write it, for `torch.onnx.export(custom_translation_table=...)`.
SPREADS: dict[Callable[..., Any], Callable[..., Any]] = {SPREAD: _spread, EVERY_ROW: _every_row}


def hoisted_batch(model: HoistedModel, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a flat batch as a hoisted model is captured with: more rows than requests, two requests at least."""
    request = set(model.request_names)
    rows = max(len(value) for value in inputs.values())
    many = torch.arange(max(rows, 5)) % rows
    given = {name: value[many[:3]] if name in request else value[many] for name, value in inputs.items()}
    return {**given, REQUEST_INDEX: torch.arange(len(many)) % 3}


def write_out_spreads(model: ir.Model, requests: set[str]) -> None:
    """Replace the nodes of this module by standard operators and give the index its default, in place."""
    graph = model.graph
    for node in [node for node in graph if node.domain == DOMAIN and node.op_type in _WRITERS]:
        _WRITERS[node.op_type](graph, node)
    graph.opset_imports.pop(DOMAIN, None)
    # Shapes were worked out for an index as long as the rows; with one request they are others.
    for node in graph:
        for value in node.outputs:
            if not value.is_graph_output():
                value.shape = None
    for value in graph.inputs:
        if value.name == REQUEST_INDEX:
            value.shape = ir.Shape([SPREAD_ROWS])
            value.const_value = ir.tensor(np.zeros(1, np.int64), name=REQUEST_INDEX)
            graph.register_initializer(value)
        elif value.name in requests and value.shape is not None:
            value.shape = ir.Shape([REQUESTS, *list(value.shape)[1:]])


def _write_spread(graph: ir.Graph, node: ir.Node) -> None:
    gather = ir.node("Gather", list(node.inputs), {"axis": 0})
    _take_place(graph, node, gather)


def _write_every_row(graph: ir.Graph, node: ir.Node) -> None:
    value, like = node.inputs
    assert value is not None
    assert like is not None
    rank = len(value.shape) if value.shape is not None else None
    assert rank is not None, "values of a traced graph have shapes"
    expand = ir.node("Expand", [value, _shape(graph, node, like, rank)])
    _take_place(graph, node, expand)


def _shape(graph: ir.Graph, before: ir.Node, like: ir.Value, rank: int) -> ir.Value:
    """Return the shape (rows, 1, ...), each rank's once."""
    name = f"{like.name}.rows.{rank}"
    for node in graph:
        if node.outputs[0].name == name:
            return node.outputs[0]
    ones = add_constant(graph, f"rows.ones.{rank}", np.ones(max(rank - 1, 0), np.int64))
    rows = ir.node("Shape", [like], {"start": 0, "end": 1})
    joined = ir.node("Concat", [rows.outputs[0], ones], {"axis": 0}) if rank > 1 else rows
    first = next(iter(graph))
    for made in [rows, joined] if joined is not rows else [rows]:
        graph.insert_before(first, made)
        made.outputs[0].dtype, made.outputs[0].name = _INT64, f"{like.name}.rows.{rank}.{made.op_type}"
    joined.outputs[0].name = name
    return joined.outputs[0]


def _take_place(graph: ir.Graph, node: ir.Node, made: ir.Node) -> None:
    old = node.outputs[0]
    result = made.outputs[0]
    result.shape, name = old.shape, old.name
    if old.dtype is not None:
        result.dtype = old.dtype
    graph.insert_before(node, made)
    ir.convenience.replace_all_uses_with(old, result, replace_graph_outputs=True)
    graph.remove(node, safe=True)
    old.name, result.name, made.name = None, name, name


_WRITERS = {"Spread": _write_spread, "EveryRow": _write_every_row}
