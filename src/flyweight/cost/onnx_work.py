"""The work of an exported file for one request: bytes that each operator touches, and multiply-accumulates."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from onnx import GraphProto, NodeProto, TensorProto

from flyweight.cost.onnx_macs import WITHOUT_FORMULA, node_macs
from flyweight.cost.onnx_shapes import Value, element_bytes, read_graph, value_shapes
from flyweight.cost.work import OperatorWork, Work
from flyweight.task.change import Skipped

STEP = "work"
#: Another look at the same bytes: nothing moves.
VIEWS = frozenset({"Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity", "Dropout", "Shape", "Size", "Constant"})
#: Operators that take rows out of their first input by their second.
GATHERS = frozenset({"Gather", "GatherElements", "GatherND"})
#: Operators that read of their input only what they hand on.
CUTS = frozenset({"Slice", "Split"})
_ELEMENTWISE = """
    Abs Acos Add And Asin Atan BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor Cast CastLike Ceil Celu Clip Cos Div
    Elu Equal Erf Exp Floor Gelu Greater GreaterOrEqual HardSigmoid HardSwish IsInf IsNaN LeakyRelu Less LessOrEqual Log
    Max Mean Min Mish Mod Mul Neg Not Or PRelu Pow QuantizeLinear Reciprocal Relu Round Selu Sigmoid Sign Sin Softplus
    Softsign Sqrt Sub Sum Swish Tan Tanh ThresholdedRelu Where Xor BatchNormalization
"""
#: Operators that work number by number, so that they can be done while their input is still at hand.
ELEMENTWISE = frozenset(_ELEMENTWISE.split())
_SMALL_INTEGERS = frozenset({"INT8", "UINT8", "INT4", "UINT4", "INT2", "UINT2"})


def count_work(path: Path, inputs: Mapping[str, NDArray[Any]], floats: str = "float32") -> Work:
    """Count the bytes and multiply-accumulates of one call of an ONNX file.

    Weights count once and as they are stored; a gather from a constant counts the rows it takes; a product whose two
    factors both come out of `DequantizeLinear` counts as int8, and its operands with the bytes they had before. A row
    asked for twice counts twice, until the whole table is counted.

    Args:
        inputs: the request, by input name; an input with a default may be left out.
        floats: what the engine computes float32 in: "float32", or "bfloat16" or "float16" (activations of 2 bytes).

    Raises:
        InputError: the file or the inputs cannot be used.

    Example: 500 ids of a float32 table of 16 columns take 500 x 64 = 32,000 bytes of rows, however long the table;
    `MatMul` of (500, 400) and (400, 256) takes 500 x 400 x 256 = 51.2 M multiply-accumulates.
    """
    model = read_graph(path)
    values = value_shapes(model, inputs, path.parent)
    return _Counting(model.graph, values, set(inputs), floats).work()


class _Counting:
    """One walk through a graph, in its order, which is one in which it can run."""

    def __init__(self, graph: GraphProto, values: Mapping[str, Value], given: set[str], floats: str) -> None:
        self.graph, self.values, self.floats = graph, values, floats
        self.makers = {name: node for node in graph.node for name in node.output if name}
        self.readers = Counter(name for node in graph.node for name in node.input if name)
        self.outputs = {one.name for one in graph.output}
        #: Constants -> bytes of what they are stored as.
        self.stored = {
            one.name: self._held(values[one.name]) for one in graph.initializer if one.name not in given
        }
        self.charged: set[str] = set()
        self.skipped: list[Skipped] = []

    def work(self) -> Work:
        counted = [one for node in self.graph.node if (one := self._node(node)) is not None]
        return Work(tuple(counted), tuple(self.skipped))

    def _node(self, node: NodeProto) -> OperatorWork | None:
        made = [name for name in node.output if name and (self.readers[name] or name in self.outputs)]
        read = [name for name in dict.fromkeys(node.input) if name]
        if self._folded(node, read, made) or node.op_type in VIEWS or node.op_type == "DequantizeLinear":
            return None
        weights, rows, activations = self._read(node, read, made)
        macs, precision = self._macs(node)
        kept = [name for name in read if self._taken_over(node, name)]
        written = sum(self._bytes(name) for name in made)
        return OperatorWork(
            name=node.name or (made[0] if made else node.op_type),
            operator=node.op_type,
            weights=math.ceil(weights),
            rows=math.ceil(rows),
            read=math.ceil(activations),
            written=math.ceil(written),
            kept=math.ceil(sum(2 * self._bytes(name) for name in kept)),
            macs=macs,
            precision=precision,
            joined=bool(kept),
        )

    def _folded(self, node: NodeProto, read: Sequence[str], made: Sequence[str]) -> bool:
        """Note what is made of constants alone: engines work it out while loading. Sizes are known then, too."""
        if node.op_type not in ("Shape", "Size") and any(self._root(name) not in self.stored for name in read):
            return False
        sources = sum(self.stored.get(self._root(name), 0.0) for name in read)
        for name in made:
            own = self._held(self.values[name]) if name in self.values else 0.0
            self.stored[name] = min(own, sources) if read and node.op_type not in ("Shape", "Size") else own
        return True

    def _read(self, node: NodeProto, read: Sequence[str], made: Sequence[str]) -> tuple[float, float, float]:
        """Bytes of weights, of rows and of activations."""
        weights = rows = activations = 0.0
        for place, name in enumerate(read):
            share = self._share(node, name, made) if place == 0 else 1.0
            root = self._root(name)
            if root not in self.stored:
                activations += share * self._bytes(name)
            elif node.op_type in GATHERS and place == 0:
                rows += share * self.stored[root]
            elif root not in self.charged:
                self.charged.add(root)
                weights += share * self.stored[root]
        return weights, rows, activations

    def _share(self, node: NodeProto, name: str, made: Sequence[str]) -> float:
        """Of its first input, a gather or a cut reads as many numbers as it hands on, and never more than all."""
        if node.op_type not in GATHERS | CUTS:
            return 1.0
        held, taken = self._elements(name), sum(self._elements(one) for one in made)
        return min(1.0, taken / held) if held else 0.0

    def _macs(self, node: NodeProto) -> tuple[int, str]:
        shapes = [self.values[name].shape if name in self.values else None for name in node.input]
        first = self.values.get(node.output[0]) if node.output else None
        reason = WITHOUT_FORMULA.get(node.op_type)
        macs = node_macs(node, shapes, first.shape) if first is not None else None
        if reason is not None:
            self.skipped.append(Skipped(node.name or node.op_type, f"{node.op_type}: {reason}", STEP))
        return (macs, self._precision(node)) if macs else (0, "")

    def _precision(self, node: NodeProto) -> str:
        factors = [node.input[place] for place in ((0, 3) if node.op_type.startswith("QLinear") else (0, 1))]
        whole = [self._quantised(name) for name in factors]
        if all(whole):
            return "int8"
        kind = TensorProto.DataType.Name(self.values[factors[0]].kind)
        return self.floats if kind == "FLOAT" else kind.lower()

    def _quantised(self, name: str) -> bool:
        """Whether a factor is whole numbers of 8 bits or fewer, or was until just now."""
        node = self.makers.get(name)
        while node is not None and (node.op_type in VIEWS or node.op_type == "Transpose") and node.input:
            name = node.input[0]
            node = self.makers.get(name)
        if node is not None and node.op_type == "DequantizeLinear":
            name = node.input[0]
        value = self.values.get(name)
        return value is not None and TensorProto.DataType.Name(value.kind) in _SMALL_INTEGERS

    def _taken_over(self, node: NodeProto, name: str) -> bool:
        """Whether an elementwise operator is the only reader of what another made, number for number."""
        if node.op_type not in ELEMENTWISE or node.op_type in VIEWS:
            return False
        root, only = name, self._only(name)
        while only and (maker := self.makers.get(root)) is not None and self._looks(maker):
            root = maker.input[0]
            only = self._only(root)
        maker = self.makers.get(root)
        if not only or maker is None or root in self.stored:
            return False
        return self._elements(root) == max((self._elements(one) for one in node.output if one), default=0)

    def _only(self, name: str) -> bool:
        return self.readers[name] == 1 and name not in self.outputs

    def _looks(self, node: NodeProto) -> bool:
        return bool(node.input) and (node.op_type in VIEWS or node.op_type == "DequantizeLinear")

    def _root(self, name: str) -> str:
        """Where the bytes of a value really lie: behind views and `DequantizeLinear`."""
        while name not in self.stored and (node := self.makers.get(name)) is not None and self._looks(node):
            name = node.input[0]
        return name

    def _bytes(self, name: str) -> float:
        root = self.values.get(self._root(name))
        return self._held(root) if root is not None else 0.0

    def _held(self, value: Value) -> float:
        """Bytes of a value in the precision that the engine computes in."""
        halved = value.kind == TensorProto.FLOAT and self.floats != "float32"
        return value.elements * (2.0 if halved else element_bytes(value.kind))

    def _elements(self, name: str) -> int:
        value = self.values.get(name)
        return value.elements if value is not None else 0
