"""`bmm` with the request's side becomes `matmul`, which takes one matrix beside many.

Heads that are folded into the rows, (rows * heads, steps, width) as `nn.MultiheadAttention` has them, are unfolded to
(rows, heads, ...), so that what the request has of them is worked out for requests.
"""

from typing import Any

import torch
from torch import fx

from flyweight.rewrite.emit import emit, shape_of, symbols_of
from flyweight.rewrite.expanded import same
from flyweight.rewrite.levels import Level, has_rows_first, levels_of, rows_symbol
from flyweight.rewrite.rule import Rule

aten = torch.ops.aten
_PLACES = {aten.bmm.default: (0, 1), aten.baddbmm.default: (1, 2)}


def _find(body: fx.GraphModule) -> list[fx.Node]:
    """Return batched products of a value of the request and one of the rows."""
    rows = rows_symbol(body)
    if rows is None:
        return []
    level = levels_of(body, through=True)
    found = []
    for node in body.graph.nodes:
        if node.op != "call_function" or node.target not in _PLACES:
            continue
        given = [node.args[place] for place in _PLACES[node.target]]
        if {level[one] for one in given} == {Level.REQUEST, Level.ROW} and _heads(node, rows) is not None:
            found.append(node)
    return found


def _heads(node: fx.Node, rows: str) -> int | None:
    """Return how many products each row has, None where dimension 0 is not a number of rows."""
    shape = shape_of(node)
    assert shape is not None
    if symbols_of(shape[0]) != {rows}:
        return None
    if has_rows_first(node, rows):
        return 1
    size = shape[0].node.expr
    factor = size.as_coefficients_dict()
    if len(factor) != 1:
        return None
    (symbol, count), *_ = factor.items()
    return int(count) if str(symbol) == rows and int(count) == count else None


def _check(body: fx.GraphModule, node: fx.Node) -> str | None:
    if any(node.kwargs.get(name, 1) != 1 for name in ("alpha", "beta")):
        return "its parts are scaled"
    return None


def _apply(body: fx.GraphModule, node: fx.Node) -> None:
    rows = rows_symbol(body)
    assert rows is not None
    heads = _heads(node, rows)
    assert heads is not None
    left, right = (_unfolded(body, node, node.args[place], heads) for place in _PLACES[node.target])  # type: ignore[index]
    out = emit(body, node, aten.matmul.default, left, right)
    if node.target is aten.baddbmm.default:
        out = emit(body, node, aten.add.Tensor, _unfolded(body, node, node.args[0], heads), out)
    if heads > 1:
        out = emit(body, node, aten.reshape.default, out, [-1, *(shape_of(node) or ())[1:]])
    node.replace_all_uses_with(out)
    body.graph.erase_node(node)


def _unfolded(body: fx.GraphModule, before: fx.Node, value: Any, heads: int) -> fx.Node:
    """Return (rows * heads, a, b) as (rows, heads, a, b)."""
    shape, folded = shape_of(value), shape_of(before)
    assert shape is not None
    assert folded is not None
    if heads == 1 or len(shape) != 3 or not same(shape[0], folded[0]):
        assert isinstance(value, fx.Node)
        return value
    return emit(body, before, aten.reshape.default, value, [-1, heads, *shape[1:]])


RULE = Rule("batched product", _find, _check, _apply)
