"""A graph cut in two: one works out which rows a call asks for, the other takes those rows and gives the scores."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from onnx import GraphProto, ModelProto, NodeProto, TypeProto, ValueInfoProto, helper

from flyweight.bundle.shards.plan import Lookup
from flyweight.bundle.shards.reader import Reader
from flyweight.bundle.shards.tables import Found


@dataclass(frozen=True)
class Cut:
    """What a graph became.

    Args:
        lookups: model of the places, an output for each lookup.
        front: model of the scores, an input more for each lookup.
        plan: which output and which input belong to which table, by its place among the tables.
    """

    lookups: ModelProto
    front: ModelProto
    plan: tuple[Lookup, ...]


def cut_graph(model: ModelProto, reader: Reader, tables: Sequence[Found]) -> Cut:
    """Take the lookups of some tables out of a graph; the rest is left as it is, node by node."""
    taken = [(number, node) for number, table in enumerate(tables) for node in table.nodes]
    entries = tuple(
        Lookup(table=number, places=f"places_{place}", rows=node.output[0])
        for place, (number, node) in enumerate(taken)
    )
    return Cut(_places(model, reader, taken, entries), _front(model, reader, taken), entries)


def _places(
    model: ModelProto, reader: Reader, taken: Sequence[tuple[int, NodeProto]], entries: Sequence[Lookup]
) -> ModelProto:
    names = [node.input[1] for _, node in taken]
    handed = [
        helper.make_node("Identity", [name], [entry.places], name=entry.places)
        for name, entry in zip(names, entries, strict=True)
    ]
    outputs = [
        _declared(entry.places, reader, name, [], f"{entry.places}_")
        for name, entry in zip(names, entries, strict=True)
    ]
    part = _part(model, reader, reader.needs(names), [])
    part.graph.node.extend(handed)
    part.graph.output.extend(outputs)
    return part


def _front(model: ModelProto, reader: Reader, taken: Sequence[tuple[int, NodeProto]]) -> ModelProto:
    rows = {node.output[0]: node for _, node in taken}
    declared = []
    for place, (name, node) in enumerate(rows.items()):
        shape = list(reader.value(node.input[0]).shape or ())
        declared.append(_declared(name, reader, node.input[1], shape[1:], f"rows_{place}_", of=node.input[0]))
    outputs = [value.name for value in reader.graph.output]
    part = _part(model, reader, reader.needs(outputs, without=rows) - rows.keys(), declared)
    part.graph.output.extend(reader.graph.output)
    return part


def _part(model: ModelProto, reader: Reader, names: Iterable[str], more: Sequence[ValueInfoProto]) -> ModelProto:
    """Return a model of the values of these names, without outputs."""
    kept = set(names)
    graph = GraphProto(name="model")
    graph.node.extend(node for node in reader.graph.node if kept & set(node.output))
    graph.input.extend(value for value in reader.graph.input if value.name in kept)
    graph.input.extend(more)
    graph.initializer.extend(tensor for tensor in reader.graph.initializer if tensor.name in kept)
    part = ModelProto()
    part.CopyFrom(model)
    part.graph.CopyFrom(graph)
    return part


def _declared(
    name: str, reader: Reader, places: str, row: Sequence[int], ends: str, *, of: str | None = None
) -> ValueInfoProto:
    """Return the declaration of the places of a lookup or of its rows; open dimensions get names of their own."""
    dims: list[int | str] = [
        dim if dim != "" else f"{ends}{number}" for number, dim in enumerate(reader.dims(places) or [])
    ]
    kind = reader.value(places if of is None else of).type
    assert isinstance(kind, TypeProto)
    return helper.make_tensor_value_info(name, kind.tensor_type.elem_type, [*dims, *row])
