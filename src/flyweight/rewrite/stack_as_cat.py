"""`stack([u, w, i, j])` is `cat([stack([u, w]), stack([i, j])])`: what the request has of it is stacked once.

Neighbours of one side stay one stack, so there are never more operators than before: a stack is written as an
`Unsqueeze` for each value and one `Concat`.
"""

import torch
from torch import fx

from flyweight.rewrite.concatenated import dim_of, is_spread, on_side, parts_of, runs
from flyweight.rewrite.emit import emit
from flyweight.rewrite.rule import Rule

aten = torch.ops.aten


def _find(body: fx.GraphModule) -> list[fx.Node]:
    """Return stacks of values of the request and of the rows."""
    stacks = body.graph.find_nodes(op="call_function", target=aten.stack.default)
    return [node for node in stacks if len({is_spread(part) for part in parts_of(node)}) > 1]


def _check(body: fx.GraphModule, node: fx.Node) -> str | None:
    return "it stands before the rows" if dim_of(node) == 0 else None


def _apply(body: fx.GraphModule, node: fx.Node) -> None:
    dim = dim_of(node)

    def stacked(values: list[fx.Node]) -> fx.Node:
        if len(values) == 1:
            return emit(body, node, aten.unsqueeze.default, values[0], dim)
        return emit(body, node, aten.stack.default, values, dim)

    sides = [on_side(body, node, run, stacked) for run in runs(parts_of(node))]
    node.replace_all_uses_with(emit(body, node, aten.cat.default, sides, dim))
    body.graph.erase_node(node)


RULE = Rule("stack as cat", _find, _check, _apply)
