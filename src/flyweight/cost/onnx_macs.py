"""Multiply-accumulates of ONNX operators, from shapes: a table of operator -> formula."""

import math
from collections.abc import Callable, Sequence
from typing import Any

from onnx import NodeProto, helper

Shape = tuple[int, ...]
#: Shapes of what a node reads (None for an input left out), of what it makes -> multiply-accumulates.
Formula = Callable[[NodeProto, Sequence[Shape | None], Shape], int]


def node_macs(node: NodeProto, read: Sequence[Shape | None], made: Shape) -> int | None:
    """Return the multiply-accumulates of a contraction; None if the operator has no formula here.

    Args:
        node: its attributes are read.
        read: shapes of its inputs.
        made: shape of its first output.

    Example:
        >>> from onnx import helper
        >>> node_macs(helper.make_node("MatMul", ["a", "b"], ["c"]), [(2, 3), (3, 4)], (2, 4))
        24
    """
    formula = FORMULAS.get(node.op_type)
    return None if formula is None else formula(node, read, made)


def attribute(node: NodeProto, name: str, otherwise: Any) -> Any:
    """Return an attribute's value, or what it is when left out."""
    return next((helper.get_attribute_value(one) for one in node.attribute if one.name == name), otherwise)


def _shape(read: Sequence[Shape | None], place: int) -> Shape:
    shape = read[place] if place < len(read) else None
    assert shape is not None, "the operator's own definition asks for this input"
    return shape


def _matmul(node: NodeProto, read: Sequence[Shape | None], made: Shape) -> int:
    """Every number made is a sum over the left factor's last dimension."""
    return math.prod(made) * _shape(read, 0)[-1]


def _fused_matmul(node: NodeProto, read: Sequence[Shape | None], made: Shape) -> int:
    return math.prod(made) * _shape(read, 0)[-2 if attribute(node, "transA", 0) else -1]


def _gemm(node: NodeProto, read: Sequence[Shape | None], made: Shape) -> int:
    return math.prod(made) * _shape(read, 0)[0 if attribute(node, "transA", 0) else 1]


def _conv(weight: int) -> Formula:
    """Every number made is a sum over one filter: channels of its group times its window."""
    return lambda node, read, made: math.prod(made) * math.prod(_shape(read, weight)[1:])


def _conv_transpose(node: NodeProto, read: Sequence[Shape | None], made: Shape) -> int:
    return math.prod(_shape(read, 0)) * math.prod(_shape(read, 1)[1:])


def _recurrent(node: NodeProto, read: Sequence[Shape | None], made: Shape) -> int:
    """Steps x batch x (weights of the inputs + weights of the state), all directions and gates in both."""
    steps, batch = _shape(read, 0)[:2]
    return steps * batch * (math.prod(_shape(read, 1)) + math.prod(_shape(read, 2)))


def _einsum(node: NodeProto, read: Sequence[Shape | None], made: Shape) -> int:
    """The product of all sizes, once for each factor after the first; one factor alone is a sum, no product."""
    equation = attribute(node, "equation", b"").decode().replace(" ", "")
    terms = equation.split("->")[0].split(",")
    sizes: dict[str, int] = {}
    for place, term in enumerate(terms):
        shape = _shape(read, place)
        head, dots, tail = term.partition("...")
        names = [*head, *(f"...{-k}" for k in range(len(shape) - len(head) - len(tail), 0, -1)), *tail] if dots else [
            *term
        ]
        for name, size in zip(names, shape, strict=True):
            sizes[name] = max(sizes.get(name, 1), size)
    return math.prod(sizes.values()) * (len(terms) - 1)


#: Operator -> formula. Sums, comparisons and elementwise products ride on the bytes that they move.
FORMULAS: dict[str, Formula] = {
    "MatMul": _matmul,
    "MatMulInteger": _matmul,
    "QLinearMatMul": _matmul,
    "Gemm": _gemm,
    "Conv": _conv(1),
    "ConvInteger": _conv(1),
    "QLinearConv": _conv(3),
    "ConvTranspose": _conv_transpose,
    "LSTM": _recurrent,
    "GRU": _recurrent,
    "RNN": _recurrent,
    "Einsum": _einsum,
    # ONNX Runtime's own, in the files that it writes after optimising
    "FusedMatMul": _fused_matmul,
    "FusedGemm": _gemm,
    "FusedConv": _conv(1),
    "DynamicQuantizeMatMul": _matmul,
    "MatMulIntegerToFloat": _matmul,
    "QGemm": _gemm,
}
#: Contractions for which there is none: what a file holds of them is said, never counted as nothing in silence.
WITHOUT_FORMULA = {
    "Attention": "several forms of inputs",
    "MultiHeadAttention": "several forms of inputs",
    "DeformConv": "its places are data",
    "If": "what it runs depends on values",
    "Loop": "how often it runs depends on values",
    "Scan": "its body is not counted",
    "MatMulNBits": "no shapes outside ONNX Runtime",
}
