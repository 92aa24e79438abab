"""`Linear(cat[u, i])  ->  (u Wu + b) + i Wi`: the request's part once, whatever the order of the columns."""

from typing import Any

import torch
from torch import fx

from flyweight.rewrite.emit import emit, shape_of
from flyweight.rewrite.rule import Rule
from flyweight.rewrite.spread import SPREAD
from flyweight.rewrite.weights import cannot_cut, columns_of

aten = torch.ops.aten


def _find(body: fx.GraphModule) -> list[fx.Node]:
    """Return linear layers that read, side by side along their inputs, values of the request and of the rows."""
    return [
        node
        for node in body.graph.find_nodes(op="call_function", target=aten.linear.default)
        if (parts := cat_parts(node.args[0])) and any(_is_spread(one) for one in parts)
    ]


def cat_parts(node: Any) -> list[fx.Node]:
    """Return what a concatenation along the last dimension puts side by side; [] for anything else."""
    if not isinstance(node, fx.Node) or node.target is not aten.cat.default:
        return []
    parts, dim = node.args[0], node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", 0)
    shape = shape_of(node)
    assert isinstance(parts, (list, tuple))
    return list(parts) if shape is not None and dim in (-1, len(shape) - 1) else []  # type: ignore[arg-type]


def _is_spread(node: Any) -> bool:
    return isinstance(node, fx.Node) and node.target is SPREAD


def _check(body: fx.GraphModule, node: fx.Node) -> str | None:
    widths = [(shape_of(part) or (None,))[-1] for part in cat_parts(node.args[0])]
    if not all(isinstance(width, int) for width in widths):
        return "the width of a part is not known"
    return cannot_cut(node.args[1])


def _apply(body: fx.GraphModule, node: fx.Node) -> None:
    parts = cat_parts(node.args[0])
    weight, bias = node.args[1], node.args[2] if len(node.args) > 2 else None
    assert isinstance(weight, fx.Node)
    sides: tuple[list[tuple[fx.Node, list[int]]], ...] = ([], [])
    start = 0
    for part in parts:
        width = (shape_of(part) or (0,))[-1]
        sides[not _is_spread(part)].append((part, list(range(start, start + width))))
        start += width
    outs = [
        _partial(body, node, side, weight, given)
        for side, given in zip(sides, (bias, None), strict=True)
        if side
    ]
    total = outs[0] if len(outs) == 1 else emit(body, node, aten.add.Tensor, *outs)
    node.replace_all_uses_with(total)
    body.graph.erase_node(node)


def _partial(
    body: fx.GraphModule, node: fx.Node, side: list[tuple[fx.Node, list[int]]], weight: fx.Node, bias: Any
) -> fx.Node:
    """Return the layer over some of its columns."""
    values = [value for value, _ in side]
    columns = [column for _, own in side for column in own]
    joined = values[0] if len(values) == 1 else emit(body, node, aten.cat.default, values, -1)
    source: Any = weight
    while source.op != "get_attr":
        source = source.args[0]
    which = "request" if _is_spread(values[0]) else "rows"
    part = columns_of(body, weight, columns, node, f"{source.target}_{which}")
    return emit(body, node, aten.linear.default, joined, part, bias)


RULE = Rule("split linear", _find, _check, _apply)
