"""A sum over products with the request's history is a matrix product: no value of rows x steps x width is made.

`sum_t w[n, t] k[t]` is `w k`, and `sum_d q[n, d] k[t, d]` is `k q`. Both broadcast, so that one request's history is
read once for all candidates. Saved are a pass that writes the products and one that reads them.
"""

from typing import Any

import torch
from torch import fx

from flyweight.rewrite.emit import emit, shape_of
from flyweight.rewrite.expanded import before_expand, same
from flyweight.rewrite.rule import Rule
from flyweight.rewrite.spread import SPREAD

aten = torch.ops.aten
_STEPS, _WIDTH = 1, 2


def _find(body: fx.GraphModule) -> list[fx.Node]:
    """Return sums, over the steps or the width, of (rows, steps, width) times what lacks the other of the two."""
    found = body.graph.find_nodes(op="call_function", target=aten.sum.dim_IntList)
    return [node for node in found if _factors(node) is not None]


def _factors(node: fx.Node) -> tuple[fx.Node, fx.Node, int] | None:
    """Return the history, what it is multiplied by, and the dimension that is summed over."""
    product, dims = node.args[0], node.args[1]
    shape = shape_of(product)
    if not isinstance(product, fx.Node) or product.target is not aten.mul.Tensor or shape is None or len(shape) != 3:
        return None
    if not isinstance(dims, (list, tuple)) or len(dims) != 1 or not isinstance(dims[0], int) or "dtype" in node.kwargs:
        return None
    dim = dims[0] % 3
    if dim not in (_STEPS, _WIDTH):
        return None
    for history, other in (product.args, product.args[::-1]):
        small = _before_any_expand(other)
        if isinstance(history, fx.Node) and history.target is SPREAD and _meet(history, small, dim):
            return history, small, dim
    return None


def _before_any_expand(node: Any) -> Any:
    """Return what is repeated along the steps or the width."""
    base = before_expand(node)
    if base is node and isinstance(node, fx.Node) and node.target is aten.expand.default:
        small, large = shape_of(node.args[0]), shape_of(node)
        if small and large and len(small) == 3 and same(small[2], 1) and all(map(same, small[:2], large[:2])):
            return node.args[0]
    return base


def _meet(history: fx.Node, other: Any, dim: int) -> bool:
    """Return whether both have the summed dimension, and only the history the one that is left."""
    full, small = shape_of(history), shape_of(other)
    if full is None or small is None or len(full) != 3 or len(small) != 3 or other.target is SPREAD:
        return False
    left = _WIDTH if dim == _STEPS else _STEPS
    return same(full[dim], small[dim]) and same(small[left], 1) and not same(full[left], 1) and same(full[0], small[0])


def _check(body: fx.GraphModule, node: fx.Node) -> str | None:
    product = node.args[0]
    assert isinstance(product, fx.Node)
    if len(product.users) > 1:
        return "the products are read elsewhere as well, so they have to be made"
    return None


def _apply(body: fx.GraphModule, node: fx.Node) -> None:
    found = _factors(node)
    assert found is not None
    history, other, dim = found
    turned = emit(body, node, aten.transpose.int, other, 1, 2)
    pair = (turned, history) if dim == _STEPS else (history, turned)
    out = emit(body, node, aten.matmul.default, *pair)  # (rows, 1, width) or (rows, steps, 1)
    kept = bool(node.args[2]) if len(node.args) > 2 else bool(node.kwargs.get("keepdim", False))
    if not kept:
        out = emit(body, node, aten.squeeze.dim, out, dim)
    node.replace_all_uses_with(out)
    body.graph.erase_node(node)


RULE = Rule("sum of products", _find, _check, _apply)
