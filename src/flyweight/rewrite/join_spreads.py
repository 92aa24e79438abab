"""Values of the request that stand side by side are joined before they are spread over the rows, not after."""

from typing import Any

import torch
from torch import fx

from flyweight.rewrite.emit import emit, shape_of
from flyweight.rewrite.rule import Rule
from flyweight.rewrite.spread import SPREAD

aten = torch.ops.aten


def _find(body: fx.GraphModule) -> list[fx.Node]:
    """Return concatenations of neighbours that are spread by the same index."""
    cats = body.graph.find_nodes(op="call_function", target=aten.cat.default)
    return [node for node in cats if len(_runs(node)) < len(_parts(node)) and _dim(node) > 0]


def _parts(cat: fx.Node) -> list[fx.Node]:
    parts: Any = cat.args[0]
    return list(parts)


def _dim(cat: fx.Node) -> int:
    dim: Any = cat.args[1] if len(cat.args) > 1 else cat.kwargs.get("dim", 0)
    rank = len(shape_of(cat) or (0,))
    return int(dim) % rank


def _runs(cat: fx.Node) -> list[list[fx.Node]]:
    """Return the parts; neighbours that are spread by the same index together."""
    runs: list[list[fx.Node]] = []
    for part in _parts(cat):
        last = runs[-1][-1] if runs else None
        if last is not None and last.target is SPREAD and part.target is SPREAD and last.args[1] is part.args[1]:
            runs[-1].append(part)
        else:
            runs.append([part])
    return runs


def _check(body: fx.GraphModule, node: fx.Node) -> str | None:
    return None


def _apply(body: fx.GraphModule, node: fx.Node) -> None:
    joined: list[fx.Node] = []
    for run in _runs(node):
        if len(run) == 1:
            joined += run
            continue
        values = emit(body, node, aten.cat.default, [part.args[0] for part in run], _dim(node))
        joined.append(emit(body, node, SPREAD, values, run[0].args[1]))
    out = joined[0] if len(joined) == 1 else emit(body, node, aten.cat.default, joined, _dim(node))
    node.replace_all_uses_with(out)
    body.graph.erase_node(node)


RULE = Rule("join spreads", _find, _check, _apply)
