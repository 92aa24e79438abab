"""`(a - x.sum(1)).sum(-1)` is `a.sum(-1) - x.sum((1, 2))`: one sum over neighbouring numbers instead of two over rows.

So the sum of squares of a factorisation machine goes over all its numbers at once: for 500 rows of 14 vectors of 16,
ONNX Runtime takes 140 us instead of 202 for the whole machine; OpenVINO takes as long as before.
"""

from typing import Any

import torch
from torch import fx

from flyweight.rewrite.emit import emit, shape_of
from flyweight.rewrite.expanded import same
from flyweight.rewrite.rule import Rule

aten = torch.ops.aten
_SUM = aten.sum.dim_IntList


def _find(body: fx.GraphModule) -> list[fx.Node]:
    """Return sums of a sum, or of a sum and something else added up or subtracted."""
    return [node for node in body.graph.find_nodes(op="call_function", target=_SUM) if _terms(node)]


def _terms(node: fx.Node) -> list[fx.Node]:
    """Return what is added up, of which one is a sum; [] for anything else."""
    given: Any = node.args[0]
    if not _is_plain(node) or not isinstance(given, fx.Node):
        return []
    if _is_plain(given):
        return [given]
    if given.target not in (aten.add.Tensor, aten.sub.Tensor) or len(given.args) != 2 or given.kwargs:
        return []
    terms: list[Any] = list(given.args)
    shape = shape_of(given) or ()
    for one in terms:
        own = shape_of(one)
        if own is None or len(own) != len(shape) or not all(map(same, own, shape)):
            return []
    return terms if any(_is_plain(one) for one in terms) else []


def _is_plain(node: fx.Node) -> bool:
    """Return whether a node sums over certain dimensions, not the rows, and drops them."""
    if node.target is not _SUM or node.kwargs or any(node.args[2:]) or not node.args[1]:
        return False
    dims: Any = node.args[1]
    return all(dim % len(shape_of(node.args[0]) or (0,)) for dim in dims)


def _check(body: fx.GraphModule, node: fx.Node) -> str | None:
    given: Any = node.args[0]
    sums = [given, *(one for one in _terms(node) if _is_plain(one))]
    again = [one for one in sums if len(one.users) > 1]
    return f"{again[0].name} is read elsewhere as well, so it has to be summed up" if again else None


def _apply(body: fx.GraphModule, node: fx.Node) -> None:
    given: Any = node.args[0]
    sums = [_summed(body, node, term) for term in _terms(node)]
    out = sums[0] if len(sums) == 1 else emit(body, node, given.target, *sums)
    node.replace_all_uses_with(out)
    body.graph.erase_node(node)


def _summed(body: fx.GraphModule, node: fx.Node, term: fx.Node) -> fx.Node:
    """Return the sum of a term; of one that is a sum, over the dimensions of both."""
    rank = len(shape_of(term) or ())
    dims: Any = node.args[1]
    over = sorted(dim % rank for dim in dims)
    if not _is_plain(term):
        return emit(body, node, _SUM, term, over)
    inner: Any = term.args[1]
    old = len(shape_of(term.args[0]) or ())
    first = {dim % old for dim in inner}
    left = [dim for dim in range(old) if dim not in first]
    return emit(body, node, _SUM, term.args[0], sorted(first | {left[dim] for dim in over}))


RULE = Rule("sum of sums", _find, _check, _apply)
