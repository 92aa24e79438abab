"""Changing a graph node by node: constants read and added, nodes put before others, always under the same names."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray


def constant_of(value: ir.Value | None) -> NDArray[Any] | None:
    """Return the numbers of a constant, an initializer or a Constant node's; None for any other value."""
    tensor = None if value is None else ir.convenience.get_const_tensor(value)
    return None if tensor is None else tensor.numpy()


def add_constant(graph: ir.Graph, name: str, array: NDArray[Any]) -> ir.Value:
    """Return an initializer of that name, the one that is there if its numbers are the same; other numbers get "_1"."""
    wanted, number = name, 0
    while (known := graph.initializers.get(wanted)) is not None:
        seen = constant_of(known)
        if seen is not None and seen.dtype == array.dtype and np.array_equal(seen, array):
            return known
        number += 1
        wanted = f"{name}_{number}"
    value = ir.Value(name=wanted, const_value=ir.Tensor(array, name=wanted))
    value.shape, value.dtype = ir.Shape(array.shape), value.const_value.dtype  # type: ignore[union-attr]
    graph.register_initializer(value)
    return value


def insert_before(
    place: ir.Node,
    op_type: str,
    inputs: Sequence[ir.Value | None],
    dtype: ir.DataType,
    *,
    suffix: str = "",
    **given: Any,
) -> ir.Value:
    """Put a standard node with the attributes given before another; its result has that one's shape.

    It is named after what that one makes, its own operator and the suffix.
    """
    graph, like = place.graph, place.outputs[0]
    assert graph is not None
    node = ir.node(op_type, list(inputs), given)
    result = node.outputs[0]
    node.name = result.name = f"{like.name}.{op_type}{suffix}"
    result.shape, result.dtype = like.shape, dtype
    graph.insert_before(place, node)
    return result


def replace(node: ir.Node, result: ir.Value) -> None:
    """Let `result` stand for what `node` made, under its name, and take the node away."""
    graph, old = node.graph, node.outputs[0]
    assert graph is not None
    name, result.shape = old.name, old.shape
    ir.convenience.replace_all_uses_with(old, result, replace_graph_outputs=True)
    graph.remove(node, safe=True)
    old.name, result.name = None, name


def drop_unused(graph: ir.Graph) -> None:
    """Take away nodes and constants that nothing reads any more."""
    for node in reversed(list(graph)):
        if not any(value.uses() or value.is_graph_output() for value in node.outputs):
            graph.remove(node, safe=True)
    for name, value in list(graph.initializers.items()):
        if not value.uses() and not value.is_graph_output():
            del graph.initializers[name]
