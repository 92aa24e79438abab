"""Nodes and constants that are added to an ONNX graph, under names that nothing in it has."""

from collections.abc import Iterator
from itertools import count
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, NodeProto, TensorProto, helper, numpy_helper

_PREFIX = "flyweight"


class AddedNodes:
    """Collects nodes in the order in which they run, and the constants that they read.

    Args:
        graph: whose names are taken; it is not changed.
        opset: the operator set that it is written in.
    """

    def __init__(self, graph: GraphProto, opset: int) -> None:
        self.opset = opset
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []
        self._taken = set(_names(graph))
        self._numbers = count()

    def node(self, operator: str, *inputs: str, name: str = "", **attributes: Any) -> str:
        """Add a node with one output, and return the output's name.

        Args:
            name: of the node, for errors at run time; its output's otherwise.
        """
        output = self.fresh(operator.lower())
        self.nodes.append(helper.make_node(operator, list(inputs), [output], name=name or output, **attributes))
        return output

    def constant(self, value: NDArray[Any] | int | float, dtype: Any = np.int64) -> str:
        """Add a constant, and return its name; arrays keep their dtype."""
        name = self.fresh("constant")
        array = value if isinstance(value, np.ndarray) else np.asarray(value, dtype)
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape), name))
        return name

    def fresh(self, word: str) -> str:
        """Return a name that nothing has, and keep it."""
        name = next(one for number in self._numbers if (one := f"{_PREFIX}.{word}.{number}") not in self._taken)
        self._taken.add(name)
        return name


def _names(graph: GraphProto) -> Iterator[str]:
    yield from (value.name for value in (*graph.input, *graph.output, *graph.initializer))
    for node in graph.node:
        yield node.name
        yield from node.output
