"""What each node of a graph depends on: constants, sizes, the request, or the rows."""

from enum import IntEnum
from typing import Any

import torch
from torch import Tensor, fx

from flyweight.rewrite.emit import shape_of, symbols_of
from flyweight.rewrite.spread import SPREAD
from flyweight.task.field import REQUEST_INDEX

#: Key of a placeholder's meta that says it is of role "request".
REQUEST = "flyweight.request"
sym_size = torch.ops.aten.sym_size.int


class Level(IntEnum):
    """What a value depends on, the higher the more: each node has the highest of what it reads."""

    CONSTANT = 0
    SIZED = 1  # made of constants and of how many rows there are: zeros(rows, 3)
    REQUEST = 2
    ROW = 3


def levels_of(body: fx.GraphModule, *, through: bool = False) -> dict[fx.Node, Level]:
    """Return the level of each node.

    Args:
        through: whether what was spread to the rows counts as the request's, as it may be read before.
    """
    found: dict[fx.Node, Level] = {}
    for node in body.graph.nodes:
        found[node] = _level(node, found, through)
    return found


def _level(node: fx.Node, found: dict[fx.Node, Level], through: bool) -> Level:
    if node.op == "placeholder":
        if node.target == REQUEST_INDEX:
            return Level.CONSTANT
        return Level.REQUEST if node.meta.get(REQUEST) else Level.ROW
    if node.target is SPREAD:
        return Level.REQUEST if through else Level.ROW
    if node.target is sym_size:
        return Level.SIZED if symbols_of(node.meta.get("val")) else Level.CONSTANT
    return max((found[one] for one in node.all_input_nodes), default=Level.CONSTANT)


def rows_symbol(body: fx.GraphModule) -> str | None:
    """Return the name of the open number of rows, None where candidates and requests do not share one."""
    names = set()
    for node in body.graph.find_nodes(op="placeholder"):
        shape = shape_of(node)
        if node.target == REQUEST_INDEX or not shape:
            continue
        names.add(symbols_of(shape[0]))
    return next(iter(names.pop()), None) if len(names) == 1 else None


def has_rows_first(node: Any, rows: str) -> bool:
    """Return whether dimension 0 of a value is the rows, and no other is."""
    shape = shape_of(node)
    if not shape or not isinstance(shape[0], torch.SymInt):
        return False
    return str(shape[0].node.expr) == rows and not any(rows in symbols_of(size) for size in shape[1:])


def is_tensor(node: Any) -> bool:
    """Return whether a node gives one tensor."""
    return isinstance(node, fx.Node) and isinstance(node.meta.get("val"), Tensor)
