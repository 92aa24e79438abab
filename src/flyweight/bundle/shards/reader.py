"""What is known of a graph before it is split: who makes and who reads each value, what is constant, and shapes."""

from collections.abc import Collection, Iterable, Mapping

import numpy as np
from onnx import GraphProto, NodeProto, helper

from flyweight.bundle.shapes import OPEN_LENGTH, Value, given_values, has_index, made_values, rows_name
from flyweight.engines.inputs import ROWS
from flyweight.task.field import REQUEST_INDEX, REQUESTS, SPREAD_ROWS


class Reader:
    """Answers questions about a graph.

    Args:
        graph: one that the reader of bundles found sound.
        opset: its operator set.
    """

    def __init__(self, graph: GraphProto, opset: int) -> None:
        self.graph = graph
        self.makers = {name: node for node in graph.node for name in node.output if name}
        self.readers: dict[str, list[NodeProto]] = {}
        for node in graph.node:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)
        self.inputs = {value.name: value for value in graph.input}
        self.stored = {tensor.name: tensor for tensor in graph.initializer if tensor.name not in self.inputs}
        self.constant = set(self.stored)
        for node in graph.node:
            if all(name in self.constant for name in node.input if name):
                self.constant.update(node.output)
        self._at = {batch: _values(graph, opset, batch) for batch in (1, 16)}

    def value(self, name: str) -> Value:
        """Return what is known of a value at a batch of one row."""
        return self._at[1][name]

    def dtype(self, name: str) -> str:
        """Return the dtype of a value, "" where it is not known."""
        kind = self.value(name).type
        element = 0 if kind is None else kind.tensor_type.elem_type
        return str(helper.tensor_dtype_to_np_dtype(element)) if element else ""

    def bytes(self, name: str) -> int:
        """Return the bytes of a value in memory."""
        return self.value(name).elements * np.dtype(self.dtype(name) or "float32").itemsize

    def needs(self, names: Iterable[str], without: Collection[str] = ()) -> set[str]:
        """Return the names of all values that these are made of, themselves included, going no further at `without`."""
        stack, seen = list(names), set[str]()
        while stack:
            name = stack.pop()
            if name and name not in seen:
                seen.add(name)
                stack += self.makers[name].input if name in self.makers and name not in without else ()
        return seen

    def dims(self, name: str) -> list[int | str] | None:
        """Return the dimensions of a value: numbers, "rows", "14*rows", or "" where open; None where not known.

        `rows` is what the graph calls its batch, or "requests" where a value follows from requests alone.
        """
        one, sixteen = (self._at[batch][name].shape for batch in (1, 16))
        if one is None or sixteen is None or len(one) != len(sixteen):
            return None
        given = [value for key, value in self.inputs.items() if key in self.needs([name])]
        dims = [
            _named(few, many, self._batch(given), open_ends=self._open(given))
            for few, many in zip(one, sixteen, strict=True)
        ]
        return None if None in dims else [one for one in dims if one is not None]

    def _batch(self, given: Collection[object]) -> str:
        firsts = {value.type.tensor_type.shape.dim[0].dim_param for value in given}  # type: ignore[attr-defined]
        alone = has_index(self.graph) and firsts == {REQUESTS}
        return REQUESTS if alone else rows_name(self.graph) or ROWS

    def _open(self, given: Collection[object]) -> bool:
        """Return whether any input has a dimension of its own, whose length nothing says."""
        known = {rows_name(self.graph) or ROWS, REQUESTS, SPREAD_ROWS}
        return any(
            not dim.HasField("dim_value") and (place > 0 or dim.dim_param not in known)
            for value in given
            if value.name != REQUEST_INDEX  # type: ignore[attr-defined]
            for place, dim in enumerate(value.type.tensor_type.shape.dim)  # type: ignore[attr-defined]
        )


def _named(few: int, many: int, batch: str, *, open_ends: bool) -> int | str | None:
    """Return what a dimension is that has a length at a batch of 1 and another at 16."""
    if open_ends and few % OPEN_LENGTH == 0:
        return "" if few == many == OPEN_LENGTH else None  # an open one may hide in a product
    if many == 16 * few:
        return batch if few == 1 else f"{few}*{batch}"
    return few if many == few else None


def _values(graph: GraphProto, opset: int, batch: int) -> Mapping[str, Value]:
    values = given_values(graph, batch)
    for node in graph.node:
        values.update(made_values(node, values, opset, "the bundle"))
    return values
