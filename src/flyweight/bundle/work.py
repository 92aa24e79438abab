"""An upper bound of the multiplications a node does, from the shapes it reads and the elements it makes."""

import math
from collections.abc import Sequence

from onnx import NodeProto

#: (shape or None, elements) of each value that a node reads.
Read = Sequence[tuple[Sequence[int] | None, int]]


def multiplications(node: NodeProto, read: Read, made: int) -> int:
    """Return an upper bound of a node's multiplications.

    Where a shape is not known, the product of all elements read is taken, which bounds any contraction.

    Example:
        >>> from onnx import helper
        >>> multiplications(helper.make_node("MatMul", ["a", "b"], ["c"]), [((2, 3), 6), ((3, 4), 12)], 8)
        24
    """
    op = node.op_type
    most = max([made, *(elements for _, elements in read)])
    shapes = [shape for shape, _ in read if shape is not None]
    if op in _CONTRACTIONS and len(shapes) < len(read):
        return math.prod(max(elements, 1) for _, elements in read)
    if op in _MATRIX:
        return made * (shapes[0][-1] if shapes[0] else 1)
    if op == "Gemm":
        return made * max(shapes[0], default=1)
    if op in _CONVOLUTION:
        return made * math.prod(shapes[3 if op == "QLinearConv" else 1][1:])
    if op == "ConvTranspose":
        return read[0][1] * math.prod(shapes[1][1:])
    if op in _RECURRENT:
        return math.prod(shapes[0][:2]) * (read[1][1] + read[2][1])
    if op == "Attention":
        return 2 * read[0][1] * max(shapes[1], default=1) * 2
    if op == "Einsum":
        return _einsum(node, shapes)
    if op in ("MaxPool", "AveragePool", "LRN"):
        return made * _window(node)
    return most


def _einsum(node: NodeProto, shapes: Sequence[Sequence[int]]) -> int:
    equation = next((one.s for one in node.attribute if one.name == "equation"), b"").replace(b" ", b"")
    terms = equation.split(b"->")[0].split(b",")
    if b"." in equation or [len(term) for term in terms] != [len(shape) for shape in shapes]:
        return math.prod(max(size, 1) for shape in shapes for size in shape)
    pairs = (zip(term, shape, strict=True) for term, shape in zip(terms, shapes, strict=True))
    sizes = {label: size for pair in pairs for label, size in pair}
    return math.prod(max(size, 1) for size in sizes.values())


def _window(node: NodeProto) -> int:
    window = 1
    for one in node.attribute:
        if one.name == "kernel_shape":
            window = math.prod(max(size, 1) for size in one.ints)
        elif one.name == "size":
            window = max(one.i, 1)
    return window


_MATRIX = ("MatMul", "MatMulInteger", "QLinearMatMul")
_CONVOLUTION = ("Conv", "ConvInteger", "QLinearConv")
_RECURRENT = ("LSTM", "GRU", "RNN")
_CONTRACTIONS = frozenset({*_MATRIX, *_CONVOLUTION, *_RECURRENT, "Gemm", "ConvTranspose", "Attention", "Einsum"})
