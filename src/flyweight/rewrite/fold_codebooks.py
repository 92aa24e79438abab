"""Codebooks folded into the one linear layer that reads their rows: what is stored has been multiplied already."""

from typing import Any

import torch
from torch import fx

from flyweight.rewrite.emit import emit, shape_of
from flyweight.rewrite.folded_tables import FoldedTables, why_not_folded
from flyweight.rewrite.rule import Rule
from flyweight.rewrite.split_linear import cat_parts
from flyweight.rewrite.stacked_tables import StackedTables
from flyweight.rewrite.weights import columns_of, constant

aten = torch.ops.aten
_FLAT = (aten.flatten.using_ints, aten.reshape.default, aten.view.default)


def _find(body: fx.GraphModule) -> list[fx.Node]:
    """Return the linear layers that read all rows of stacked tables side by side, alone or beside other columns."""
    layers = body.graph.find_nodes(op="call_function", target=aten.linear.default)
    return [node for node in layers if _rows_read(body, node) is not None]


def _rows_read(body: fx.GraphModule, linear: fx.Node) -> tuple[fx.Node, fx.Node] | None:
    """Return the call of stacked tables, and the long rows made of it, that a layer reads."""
    parts: list[Any] = cat_parts(linear.args[0]) or [linear.args[0]]
    for part in parts:
        stacked = part.args[0] if isinstance(part, fx.Node) and part.target in _FLAT else None
        if not isinstance(part, fx.Node) or not isinstance(stacked, fx.Node) or stacked.op != "call_module":
            continue
        module = body.get_submodule(str(stacked.target))
        long = (shape_of(part) or (0,))[-1]
        if isinstance(module, StackedTables) and long == module.fields * module.dim and parts.count(part) == 1:
            return stacked, part
    return None


def _check(body: fx.GraphModule, node: fx.Node) -> str | None:
    found = _rows_read(body, node)
    assert found is not None
    stacked, rows = found
    module = body.get_submodule(str(stacked.target))
    assert isinstance(module, StackedTables)
    joined = node.args[0]
    for value in (stacked, rows, joined):
        others = [user for user in value.users if user not in (rows, joined, node)]  # type: ignore[union-attr]
        if others:
            return f"{others[0].name} reads the rows too"
    if constant(body, node.args[1]) is None:
        return "its weight is rounded, and it runs in integers"
    bias = _bias(node)
    if bias is not None and constant(body, bias) is None:
        return "its bias is worked out"
    if module.dtype != torch.float32:
        return f"its rows are {module.dtype}"
    return why_not_folded(module, int((shape_of(node) or (0,))[-1]))


def _bias(linear: fx.Node) -> Any:
    return linear.args[2] if len(linear.args) > 2 else None


def _apply(body: fx.GraphModule, node: fx.Node) -> None:
    found = _rows_read(body, node)
    assert found is not None
    stacked, rows = found
    module, weight = body.get_submodule(str(stacked.target)), constant(body, node.args[1])
    assert isinstance(module, StackedTables)
    assert isinstance(node.args[1], fx.Node)
    assert weight is not None
    own, others = _columns(node, rows)
    name = next(f"folded_tables_{n}" for n in range(1_000) if not hasattr(body, f"folded_tables_{n}"))
    body.add_submodule(name, FoldedTables(module, weight[:, own], constant(body, _bias(node))))
    with body.graph.inserting_before(node):
        out = body.graph.call_module(name, stacked.args)
    out.meta = dict(node.meta)
    if others:
        parts = [part for part in cat_parts(node.args[0]) if part is not rows]
        rest = parts[0] if len(parts) == 1 else emit(body, node, aten.cat.default, parts, -1)
        part = columns_of(body, node.args[1], others, node, f"{node.args[1].target}_rest")
        out = emit(body, node, aten.add.Tensor, emit(body, node, aten.linear.default, rest, part), out)
    node.replace_all_uses_with(out)
    body.graph.erase_node(node)
    body.graph.eliminate_dead_code()


def _columns(linear: fx.Node, rows: fx.Node) -> tuple[list[int], list[int]]:
    """Return the columns of a layer's weight that read the tables' rows, and the others."""
    own: list[int] = []
    others: list[int] = []
    start = 0
    for part in cat_parts(linear.args[0]) or [rows]:
        stop = start + int((shape_of(part) or (0,))[-1])
        (own if part is rows else others).extend(range(start, stop))
        start = stop
    return own, others


RULE = Rule("fold codebooks", _find, _check, _apply)
