"""Sparse weights on their way into ONNX: stored as values and packed places, made dense by operators of constants.

ONNX's own `sparse_initializer` is no way: OpenVINO 2026.4 does not find such a tensor. What is written here both
engines work out once, as they load the file: ONNX Runtime folds all of it, OpenVINO keeps what constants give.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from onnx.defs import OpSchema
from onnxscript.values import Op, Opset

from flyweight.engines.graph_edits import add_constant, drop_unused, replace
from flyweight.graph import sparse_weight as _defines_the_operator

#: Domain of the nodes between the two halves of an export; no file holds it.
DOMAIN = "flyweight.sparse"
_INT, _INTS = OpSchema.AttrType.INT, OpSchema.AttrType.INTS
_ATTRIBUTES = {"place_bits": _INT, "code_bits": _INT, "entries": _INT, "shape": _INTS}


def _operator() -> Op:
    option, kinds = OpSchema.FormalParameterOption, {"values": "float", "places": "uint8", "codes": "uint8"}
    schema = OpSchema(
        "SparseWeight",
        DOMAIN,
        1,
        inputs=[
            OpSchema.FormalParameter(
                name, f"tensor({kind})", param_option=option.Optional if name == "codes" else option.Single
            )
            for name, kind in kinds.items()
        ],
        outputs=[OpSchema.FormalParameter("y", "tensor(float)")],
        attributes=[OpSchema.Attribute(key, kind, "") for key, kind in _ATTRIBUTES.items()],
    )
    return Op(Opset(DOMAIN, 1), "SparseWeight", schema)


_OPERATOR = _operator()


def _translate(
    values: Any, places: Any, codes: Any, place_bits: int, code_bits: int, entries: int, shape: Sequence[int]
) -> Any:
    sizes = {"place_bits": place_bits, "code_bits": code_bits, "entries": entries, "shape": list(shape)}
    return _OPERATOR(values, places, codes, **sizes)


assert _defines_the_operator
#: Operator of PyTorch -> how the exporter writes it.
SPARSE_WEIGHTS: dict[Callable[..., Any], Callable[..., Any]] = {
    torch.ops.flyweight.sparse_weight.default: _translate,
}


def write_out_sparse_weights(model: ir.Model) -> None:
    """Replace the nodes of sparse weights by standard operators, in place."""
    nodes = [node for node in model.graph if node.domain == DOMAIN]
    for number, node in enumerate(nodes):
        _Writer(model.graph, node, f"w{number}").write()
    model.graph.opset_imports.pop(DOMAIN, None)
    if nodes:
        drop_unused(model.graph)


class _Writer:
    """Writes one sparse weight; names are short, for they are a good part of a small model's bytes."""

    def __init__(self, graph: ir.Graph, node: ir.Node, name: str) -> None:
        self.graph, self.node, self.name = graph, node, name
        self.made = 0

    def write(self) -> None:
        """Put the operators before the node and take it away."""
        values, places, codes = (*self.node.inputs, None)[:3]
        assert values is not None
        assert places is not None
        place_bits, code_bits, entries = (self._number(key) for key in ("place_bits", "code_bits", "entries"))
        shape = list(self.node.attributes["shape"].as_ints())
        whole = int(np.prod(shape))
        if codes is not None:
            picked = self._add("Cast", [self._bits(codes, code_bits, entries)], to=int(ir.DataType.INT64))
            values = self._add("GatherElements", [values, picked])
        if place_bits:
            gaps = self._add("Cast", [self._bits(places, place_bits, entries)], to=int(ir.DataType.INT64))
            spots = self._add("CumSum", [gaps, self._constant("zero", np.array(0, np.int64))])
            spots = self._add("Mod", [spots, self._constant(f"{whole}", np.array([whole]))])  # a reader sees the bound
            empty = self._add("ConstantOfShape", [self._constant(f"{whole}", np.array([whole]))])
            flat = self._add("ScatterElements", [empty, spots, values])
        else:
            there = self._bits(places, 1, whole)
            there = self._add("Cast", [there], to=int(ir.DataType.INT64))
            rank = self._add("CumSum", [there, self._constant("zero", np.array(0, np.int64))])
            flat = self._add("GatherElements", [values, self._add("Mul", [rank, there])])
        dense = self._add("Reshape", [flat, self._shape(shape)])
        dense.shape, dense.dtype = ir.Shape(shape), ir.DataType.FLOAT
        replace(self.node, dense)

    def _bits(self, packed: ir.Value, bits: int, count: int) -> ir.Value:
        """Read whole numbers of a few bits, (count,) float32; see `graph.sparse_bits`."""
        column = self._add("Reshape", [self._add("Cast", [packed], to=int(ir.DataType.INT32)), self._shape([-1, 1])])
        shifted = self._add("Div", [column, self._constant("powers", 2 ** np.arange(8, dtype=np.int32))])
        planes = self._add("Mod", [shifted, self._constant("two", np.array(2, np.int32))])  # (bytes, 8)
        flat = self._add("Reshape", [planes, self._shape([-1])])
        total = packed.shape.numpy()[0] * 8 if packed.shape is not None else 0
        if total != count * bits:
            zero, end = self._shape([0]), self._shape([count * bits])
            flat = self._add("Slice", [flat, zero, end])
        flat = self._add("Cast", [flat], to=int(ir.DataType.FLOAT))
        if bits == 1:
            return flat
        rows = self._add("Reshape", [flat, self._shape([count, bits])])
        return self._add("MatMul", [rows, self._constant(f"powers{bits}", 2.0 ** np.arange(bits, dtype=np.float32))])

    def _add(self, op_type: str, inputs: list[ir.Value], **attributes: Any) -> ir.Value:
        self.made += 1
        node = ir.node(op_type, inputs, attributes)
        node.name = node.outputs[0].name = f"{self.name}.{self.made}"
        self.graph.insert_before(self.node, node)
        return node.outputs[0]

    def _constant(self, name: str, array: Any) -> ir.Value:
        return add_constant(self.graph, f"sparse.{name}", array)

    def _shape(self, sizes: list[int]) -> ir.Value:
        return self._constant("x".join(map(str, sizes)), np.array(sizes, np.int64))

    def _number(self, key: str) -> int:
        return int(self.node.attributes[key].as_int())
