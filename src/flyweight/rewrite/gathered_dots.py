"""`(v[:, left] * v[:, right]).sum(2)` is `bmm(v, v.mT)[:, left, right]`: no value of rows x pairs x width is made.

Inner-product networks (PNN, Qu et al. 2016, arXiv 1611.00144) are often written so. For 500 rows of 25 vectors of 16
numbers and 300 pairs, 2.4 million numbers are written three times; products by a matrix are 5 million multiply-adds.
Then those of the request's vectors can be worked out once.
"""

import math
from typing import Any

import torch
from torch import fx

from flyweight.rewrite.concatenated import handed_on
from flyweight.rewrite.emit import emit, shape_of
from flyweight.rewrite.rule import Rule
from flyweight.rewrite.weights import constant
from flyweight.rewrite.worth import saved, too_little

aten = torch.ops.aten


def _find(body: fx.GraphModule) -> list[fx.Node]:
    """Return sums, over the width, of products of vectors that were taken from the same ones."""
    sums = body.graph.find_nodes(op="call_function", target=aten.sum.dim_IntList)
    return [node for node in sums if _taken(body, node) is not None]


def _taken(body: fx.GraphModule, node: fx.Node) -> tuple[fx.Node, Any, Any] | None:
    """Return the vectors, and the places of both sides' in them."""
    product, dims = node.args[0], node.args[1]
    if not isinstance(product, fx.Node) or product.target is not aten.mul.Tensor or "dtype" in node.kwargs:
        return None
    if list(dims) not in ([2], [-1]) or len(shape_of(product) or ()) != 3:  # type: ignore[arg-type]
        return None
    sides = [_picked(body, one) for one in product.args]
    left, right = sides
    if left is None or right is None or left[0] is not right[0]:
        return None
    return left[0], left[1], right[1]


def _picked(body: fx.GraphModule, node: Any) -> tuple[fx.Node, fx.Node] | None:
    """Return (rows, vectors, width) and the places that vectors of it are taken from."""
    if not isinstance(node, fx.Node):
        return None
    given: Any = node.args[1:]
    if node.target is aten.index.Tensor and len(given[0]) == 2 and given[0][0] is None:
        places = given[0][1]
    elif node.target is aten.index_select.default and given[0] % 3 == 1:
        places = given[1]
    else:
        return None
    numbers, vectors = constant(body, handed_on(places)), handed_on(node.args[0])
    shape = shape_of(vectors) or ()
    if numbers is None or numbers.dtype != torch.int64 or numbers.ndim != 1 or len(shape) != 3:
        return None
    return (vectors, places) if all(isinstance(size, int) for size in shape[1:]) else None


def _check(body: fx.GraphModule, node: fx.Node) -> str | None:
    found = _taken(body, node)
    assert found is not None
    product: Any = node.args[0]
    if len(product.users) > 1:
        return "the products are read elsewhere as well, so they have to be made"
    _, count, width = shape_of(found[0]) or (0, 0, 0)
    pairs = math.prod((shape_of(product) or (0, 0))[1:2])
    return too_little(saved(numbers=3 * pairs * width), saved(macs=count * count * width, numbers=pairs))


def _apply(body: fx.GraphModule, node: fx.Node) -> None:
    found = _taken(body, node)
    assert found is not None
    vectors, left, right = found
    turned = emit(body, node, aten.transpose.int, vectors, 1, 2)
    dots = emit(body, node, aten.bmm.default, vectors, turned)
    out = emit(body, node, aten.index.Tensor, dots, [None, left, right])
    if bool(node.args[2]) if len(node.args) > 2 else bool(node.kwargs.get("keepdim", False)):
        out = emit(body, node, aten.unsqueeze.default, out, 2)
    node.replace_all_uses_with(out)
    body.graph.erase_node(node)


RULE = Rule("gathered dots", _find, _check, _apply)
