"""Rows that were taken out of a stack one by one, and are put side by side again, are read as one long row.

Stacked tables leave this behind for what is spread over the rows field by field and joined only later.
"""

from typing import Any

import torch
from torch import fx

from flyweight.rewrite.concatenated import handed_on
from flyweight.rewrite.emit import emit, shape_of
from flyweight.rewrite.rule import Rule
from flyweight.rewrite.split_linear import cat_parts

aten = torch.ops.aten


def _find(body: fx.GraphModule) -> list[fx.Node]:
    """Return concatenations along the last dimension of rows that stand side by side in one value."""
    cats = body.graph.find_nodes(op="call_function", target=aten.cat.default)
    return [node for node in cats if len(_runs(cat_parts(node))) < len(cat_parts(node))]


def _runs(parts: list[fx.Node]) -> list[list[fx.Node]]:
    """Return the parts; neighbours that are the next row of the same value together."""
    runs: list[list[fx.Node]] = []
    for part in parts:
        last = _place(runs[-1][-1]) if runs else None
        own = _place(part)
        if last is not None and own is not None and last[0] is own[0] and own[1] == last[1] + 1:
            runs[-1].append(part)
        else:
            runs.append([part])
    return runs


def _place(node: fx.Node) -> tuple[fx.Node, int] | None:
    """Return what a node takes a row out of and which, None where it is not the last dimension but one."""
    if node.target is not aten.select.int:
        return None
    given, dim, place = node.args
    source = handed_on(given)
    shape = shape_of(source)
    assert isinstance(source, fx.Node)
    assert isinstance(dim, int)
    if shape is None or dim % len(shape) != len(shape) - 2 or not isinstance(place, int):
        return None
    size = shape[-2]
    if place < 0:
        return (source, place + size) if isinstance(size, int) else None
    return source, place


def _check(body: fx.GraphModule, node: fx.Node) -> str | None:
    return None


def _apply(body: fx.GraphModule, node: fx.Node) -> None:
    joined: list[Any] = []
    for run in _runs(cat_parts(node)):
        found = _place(run[0])
        if len(run) == 1 or found is None:
            joined += run
            continue
        source, start = found
        rows = source
        if len(run) < (shape_of(source) or (0, 0))[-2]:
            rows = emit(body, node, aten.slice.Tensor, source, -2, start, start + len(run))
        joined.append(emit(body, node, aten.flatten.using_ints, rows, -2, -1))
    out = joined[0] if len(joined) == 1 else emit(body, node, aten.cat.default, joined, -1)
    node.replace_all_uses_with(out)
    body.graph.erase_node(node)


RULE = Rule("neighbouring rows", _find, _check, _apply)
