"""Which tables can leave a graph: large constants that are read row by row, at places that follow from the inputs."""

from dataclasses import dataclass
from typing import get_args

import numpy as np
from onnx import NodeProto

from flyweight.bundle.manifest import Dtype
from flyweight.bundle.shards.reader import Reader
from flyweight.task.change import Skipped

#: Bytes of constants that a table may be worked out of; one that is stored as it is read may be of any size.
WORKED_OUT_OF = 2**30
_LOOKUPS = ("Gather", "GatherElements")
#: What hands whole numbers on without changing them.
_HANDS_ON = frozenset({"Reshape", "Flatten", "Identity", "Unsqueeze", "Squeeze", "Transpose", "Cast"})


@dataclass(frozen=True)
class Found:
    """A table that can leave the graph.

    Args:
        name: of the value that rows are looked up in.
        shape, dtype: of it.
        nodes: the lookups.
        edges: rows where the parts of a stack of tables begin, as far as the graph tells; the first is 0.
        numbers: whether a mean of rows is a row too; one of codes is not.
        codebook: the name of the constant that rows are places in, where they are codes of one codeword each.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    nodes: tuple[NodeProto, ...]
    edges: tuple[int, ...]
    numbers: bool
    codebook: str | None

    @property
    def bytes(self) -> int:
        """What it takes in memory."""
        return int(np.prod(self.shape)) * np.dtype(self.dtype).itemsize


def find_tables(reader: Reader, over: int) -> tuple[list[Found], list[Skipped]]:
    """Return the tables of at least `over` bytes that can leave a graph, and those that cannot, with the reason."""
    large = {name: nodes for name, nodes in lookups_of(reader).items() if reader.bytes(name) >= over}
    results = {node.output[0] for nodes in large.values() for node in nodes}
    reasons = {name: _cannot(reader, name, nodes, results) for name, nodes in large.items()}
    _keep_what_stays(reader, large, reasons, over)
    found = [_found(reader, name, large[name]) for name, why in reasons.items() if why is None]
    kept = [
        Skipped(name, f"{reader.bytes(name):,} bytes stay in the front: {why}", "shard")
        for name, why in reasons.items()
        if why is not None
    ]
    return found, kept


def lookups_of(reader: Reader) -> dict[str, list[NodeProto]]:
    """Return the lookups of rows in constants, by the name of the constant."""
    lookups: dict[str, list[NodeProto]] = {}
    for node in reader.graph.node:
        if node.op_type in _LOOKUPS and node.input[0] in reader.constant and node.input[1] not in reader.constant:
            lookups.setdefault(node.input[0], []).append(node)
    return lookups


def _cannot(reader: Reader, name: str, nodes: list[NodeProto], results: set[str]) -> str | None:
    shape = reader.value(name).shape
    if not shape or reader.dtype(name) not in get_args(Dtype):
        return "its shape or its type is not known"
    stored = sum(reader.bytes(one) for one in reader.needs([name]) & reader.stored.keys())
    if name not in reader.stored and stored > WORKED_OUT_OF:
        return f"it is worked out of {stored:,} bytes of constants, more than {WORKED_OUT_OF:,}"
    axes = {next((one.i for one in node.attribute if one.name == "axis"), 0) for node in nodes}
    if axes != {0} or (len(shape) > 1 and any(node.op_type == "GatherElements" for node in nodes)):
        return "rows are not looked up along its first axis"
    if any(reader.needs([node.input[1]]) & results for node in nodes):
        return "which rows are read follows from the rows of another large table"
    if any(reader.dims(node.input[1]) is None for node in nodes):
        return "how many rows are read does not follow from the number of candidates"
    return None


def _keep_what_stays(
    reader: Reader, large: dict[str, list[NodeProto]], reasons: dict[str, str | None], over: int
) -> None:
    """Say of each table whose numbers something else reads as well that it stays: taking it out would save nothing."""
    cut = {node.output[0] for name, why in reasons.items() if why is None for node in large[name]}
    places = [node.input[1] for name, why in reasons.items() if why is None for node in large[name]]
    left = reader.needs([*(out.name for out in reader.graph.output), *places], without=cut)
    for name, why in reasons.items():
        still = left & reader.needs([name]) & reader.stored.keys()
        if why is None and any(reader.bytes(one) >= over for one in still):
            users = {node.op_type for one in still for node in reader.readers[one] if node.output[0] in left - cut}
            reasons[name] = f"{', '.join(sorted(users))} reads it as a whole as well"


def _found(reader: Reader, name: str, nodes: list[NodeProto]) -> Found:
    shape = tuple(reader.value(name).shape or ())
    edges = {0, *(edge for node in nodes for edge in _edges(reader, node.input[1]))}
    inside = tuple(sorted(edge for edge in edges if 0 <= edge < shape[0]))
    dtype = reader.dtype(name)
    numbers = np.dtype(dtype).kind == "f" or all(_dequantised(reader, node.output[0]) for node in nodes)
    codebooks = {None} if numbers or len(shape) > 1 else {_codebook(reader, node.output[0]) for node in nodes}
    return Found(name, shape, dtype, tuple(nodes), inside, numbers, codebooks.pop() if len(codebooks) == 1 else None)


def _edges(reader: Reader, places: str) -> list[int]:
    """Return the numbers that are added to ids on their way, one a field: where each field's rows begin."""
    while (node := reader.makers.get(places)) is not None and node.op_type in _HANDS_ON:
        places = node.input[0]
    if node is None or node.op_type != "Add":
        return []
    added = [reader.value(name).small for name in node.input if name in reader.constant]
    known = added and added[0] is not None and added[0].dtype.kind == "i"
    return [int(edge) for edge in np.unique(added[0])] if known else []  # type: ignore[arg-type]


def _codebook(reader: Reader, name: str) -> str | None:
    """Return the constant whose rows a value's whole numbers are only used to look up, or None."""
    while len(after := reader.readers.get(name, [])) == 1 and after[0].op_type in _HANDS_ON:
        name = after[0].output[0]
    found = len(after) == 1 and after[0].op_type == "Gather" and after[0].input[1] == name
    place = next((one.i for one in after[0].attribute if one.name == "axis"), 0) if found else 1
    return after[0].input[0] if place == 0 and after[0].input[0] in reader.constant else None


def _dequantised(reader: Reader, name: str) -> bool:
    """Return whether a value is only made numbers of, with a scale."""
    after = reader.readers.get(name, [])
    return bool(after) and all(
        node.op_type == "DequantizeLinear"
        or (node.op_type in _HANDS_ON - {"Cast"} and _dequantised(reader, node.output[0]))
        for node in after
    )
