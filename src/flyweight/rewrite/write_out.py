"""The end of hoisting: a spread value is written out for every row where its reader does not broadcast."""

import torch
from torch import fx

from flyweight.rewrite.emit import emit, shape_of
from flyweight.rewrite.levels import REQUEST, has_rows_first, rows_symbol
from flyweight.rewrite.spread import EVERY_ROW, SPREAD
from flyweight.task.field import REQUEST_INDEX

aten = torch.ops.aten
#: Operators that take one row beside many.
BROADCASTING = frozenset(
    {
        *(getattr(aten, name).Tensor for name in ("add", "sub", "mul", "div", "eq", "ne", "lt", "le", "gt", "ge")),
        *(getattr(aten, name).default for name in ("maximum", "minimum", "logical_and", "logical_or", "matmul")),
        aten.bitwise_and.Tensor,
        aten.bitwise_or.Tensor,
        aten.where.self,
        aten.masked_fill.Scalar,
        aten.pow.Tensor_Tensor,
    }
)


def write_out_spreads(body: fx.GraphModule) -> int:
    """Put `every_row` between a spread and each reader that needs all rows, in place; return how many."""
    rows = rows_symbol(body)
    like = next(
        node
        for node in body.graph.find_nodes(op="placeholder")
        if not node.meta.get(REQUEST) and node.target != REQUEST_INDEX
    )
    written = 0
    for node in list(body.graph.find_nodes(op="call_function", target=SPREAD)):
        readers = [user for user in node.users if rows is None or not _broadcasts(user, rows)]
        if readers:
            out = emit(body, node.next, EVERY_ROW, node, like)
            for reader in readers:
                reader.replace_input_with(node, out)
            written += 1
    return written


def _broadcasts(reader: fx.Node, rows: str) -> bool:
    """Return whether an operator gives all rows by itself: another value that it reads has them."""
    if reader.target not in BROADCASTING:
        return False
    shape = shape_of(reader)
    given = [one for one in reader.all_input_nodes if shape_of(one) is not None]
    if shape is None or (reader.target is aten.matmul.default and any(len(shape_of(one) or ()) < 3 for one in given)):
        return False
    has_all = any(one.target is not SPREAD and has_rows_first(one, rows) for one in given)
    level = all(len(shape_of(one) or ()) == len(shape) for one in given if one.target is SPREAD)
    return has_all and level and has_rows_first(reader, rows)
