"""`cat([cat([u, i]), j])` is `cat([u, i, j])`, so that a reader sees what is the request's in it.

One that nothing else reads is opened whatever is in it: its numbers are copied once instead of twice.
"""

import torch
from torch import fx

from flyweight.rewrite.concatenated import dim_of, mixed, parts_of
from flyweight.rewrite.emit import emit
from flyweight.rewrite.rule import Rule

aten = torch.ops.aten


def _find(body: fx.GraphModule) -> list[fx.Node]:
    """Return concatenations of what was put side by side along the same dimension."""
    cats = body.graph.find_nodes(op="call_function", target=aten.cat.default)
    return [node for node in cats if any(_opens(part, node) for part in parts_of(node))]


def _opens(part: fx.Node, node: fx.Node) -> bool:
    if part.target is not aten.cat.default or dim_of(part) != dim_of(node):
        return False
    return mixed(part) is not None or len(part.users) == 1


def _check(body: fx.GraphModule, node: fx.Node) -> str | None:
    return None


def _apply(body: fx.GraphModule, node: fx.Node) -> None:
    opened = [one for part in parts_of(node) for one in (parts_of(part) if _opens(part, node) else [part])]
    node.replace_all_uses_with(emit(body, node, aten.cat.default, opened, dim_of(node)))
    body.graph.erase_node(node)


RULE = Rule("nested cats", _find, _check, _apply)
