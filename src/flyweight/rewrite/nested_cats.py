"""`cat([cat([u, i]), j])` is `cat([u, i, j])`, so that a reader sees what is the request's in it."""

import torch
from torch import fx

from flyweight.rewrite.concatenated import dim_of, mixed, parts_of
from flyweight.rewrite.emit import emit
from flyweight.rewrite.rule import Rule

aten = torch.ops.aten


def _find(body: fx.GraphModule) -> list[fx.Node]:
    """Return concatenations of what was put side by side along the same dimension, from both sides."""
    cats = body.graph.find_nodes(op="call_function", target=aten.cat.default)
    return [node for node in cats if any(_opens(part, node) for part in parts_of(node))]


def _opens(part: fx.Node, node: fx.Node) -> bool:
    both = mixed(part)
    return both is not None and both.dim == dim_of(node)


def _check(body: fx.GraphModule, node: fx.Node) -> str | None:
    return None


def _apply(body: fx.GraphModule, node: fx.Node) -> None:
    opened = [one for part in parts_of(node) for one in (parts_of(part) if _opens(part, node) else [part])]
    node.replace_all_uses_with(emit(body, node, aten.cat.default, opened, dim_of(node)))
    body.graph.erase_node(node)


RULE = Rule("nested cats", _find, _check, _apply)
