"""How large and how long a graph can get, worked out before it runs.

A graph of a hundred bytes can ask for a terabyte (`Expand` to a huge shape, a `Concat` with itself forty times) or run
for a year. So the size of every value is worked out for a batch of 1 and of 16 rows, with the shape rules of the ONNX
operators themselves and with `fold` for shapes that are computed on the way. Where a shape cannot be known, the
product of what a node reads bounds what it writes, but for the operators that amplify: those must be known.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from onnx import GraphProto, NodeProto

from flyweight.bundle.operands import check_operands
from flyweight.bundle.operators import AMPLIFIERS
from flyweight.bundle.shapes import Value, given_values, made_values
from flyweight.bundle.work import multiplications
from flyweight.errors import BundleError

#: Elements of one value for each row of the batch, or four times those of all constants where that is more.
MAX_ELEMENTS = 2**27
MAX_ALL_ELEMENTS = 2**31
#: Multiplications for each row of the batch: about a minute on one core.
MAX_WORK = 2**42


@dataclass(frozen=True)
class _Limits:
    elements: int
    all_elements: int
    work: int


def check_bounds(graph: GraphProto, opset: int, where: str) -> None:
    """Check that values and work stay within bounds and grow at most with the square of the batch.

    Raises:
        BundleError: naming the node and what it asks for.
    """
    one, sixteen = (_sizes(graph, opset, batch, where) for batch in (1, 16))
    for name, elements in sixteen.items():
        if elements > 256 * max(one[name], 1):
            raise BundleError(
                f"{where}: value {name[:80]!r} grows from {one[name]:,} elements at a batch of 1 to {elements:,} "
                "at 16, more than with the square of the batch. Get the bundle again from its source."
            )


def _sizes(graph: GraphProto, opset: int, batch: int, where: str) -> dict[str, int]:
    """Return the elements of every value at a batch size, each node checked."""
    values = given_values(graph, batch)
    stored = sum(value.elements for value in values.values())
    limits = _Limits(
        max(MAX_ELEMENTS * batch, 4 * stored), MAX_ALL_ELEMENTS * batch + 16 * stored, MAX_WORK * batch + 16 * stored
    )
    in_all = work = 0
    for node in graph.node:
        read = [values[name] for name in node.input if name]
        check_operands(node, [values[name] if name else None for name in node.input], where)
        made = made_values(node, values, opset, where)
        _check_made(node, made, where)
        values.update(made)
        largest = max((value.elements for value in made.values()), default=0)
        in_all += sum(value.elements for value in made.values())
        work += multiplications(node, [(value.shape, value.elements) for value in read], largest)
        if largest > limits.elements or in_all > limits.all_elements or work > limits.work:
            raise BundleError(
                f"{where}: {node.op_type} {node.name[:80]!r} asks for {largest:,} elements, {in_all:,} with those "
                f"before and {work:,} multiplications at a batch of {batch}, past the bounds of a bundle. "
                "Get the bundle again from its source."
            )
    return {name: value.elements for name, value in values.items()}


def _check_made(node: NodeProto, made: Mapping[str, Value], where: str) -> None:
    """Refuse amplifiers of unknown size and values without elements."""
    for value in made.values():
        if value.shape is None and node.op_type in AMPLIFIERS:
            raise BundleError(
                f"{where}: the size of what {node.op_type} {node.name[:80]!r} makes cannot be known before it runs, so "
                "it could fill the memory. Export the model with constant shapes there."
            )
        if value.shape is not None and value.elements == 0 and node.op_type not in ("Constant", "Shape"):
            raise BundleError(
                f"{where}: {node.op_type} {node.name[:80]!r} makes a value of shape {value.shape} without elements, on "
                "which engines have crashed. Take that part out of the model."
            )
