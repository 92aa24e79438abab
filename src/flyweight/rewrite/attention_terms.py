"""What a layer over a history reads, as a sum of products: `[q, k, q-k, q*k]` is q, k and q*k, each with a weight.

Every block of columns is written as a polynomial of degree two in what it is made of. Equal products are gathered, with
the sum of their blocks of the weight: W1 + W3 for q, W2 - W3 for k, W4 for q*k, in whatever order and selection the
model has them.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from flyweight.rewrite.emit import shape_of
from flyweight.rewrite.expanded import before_expand, same
from flyweight.rewrite.split_linear import cat_parts
from flyweight.rewrite.spread import SPREAD

aten = torch.ops.aten
#: A product of one or two values, in the order of the graph.
Product = tuple[fx.Node, ...]
Sum = dict[Product, float]
_SIGNS = {aten.add.Tensor: 1.0, aten.sub.Tensor: -1.0}


@dataclass(frozen=True)
class Block:
    """Columns of a layer's input, `start` to `start + width`, as a sum of products."""

    start: int
    width: int
    terms: Sum


def blocks_of(node: Any) -> list[Block]:
    """Return the blocks of a layer's input (rows, steps, columns); [] where they cannot be told."""
    blocks: list[Block] = []
    start = 0
    for part in cat_parts(node) or [node]:
        shape = shape_of(part)
        if shape is None or len(shape) != 3 or any(isinstance(size, torch.SymInt) for size in shape[1:]):
            return []
        blocks.append(Block(start, shape[2], _terms(part, shape[2])))
        start += shape[2]
    return blocks


def is_request(node: fx.Node) -> bool:
    """Return whether a value is the request's, worked out once."""
    return node.target is SPREAD


def is_thin(node: fx.Node) -> bool:
    """Return whether a value has one step for the whole history."""
    return same((shape_of(node) or (0, 0))[1], 1) and not is_request(node)


def _terms(node: fx.Node, width: int) -> Sum:
    """Return a value as a sum of products."""
    base = before_expand(node)
    alone: Sum = {(base,): 1.0}
    if base is not node or not node.args or is_request(node):
        return alone
    given = [one for one in node.args if isinstance(one, fx.Node)]
    if not all(_fits(one, width) for one in given):
        return alone
    if node.target in _SIGNS and len(given) == 2:
        sign = _SIGNS[node.target] * float(node.kwargs.get("alpha", 1.0))
        return _added(_terms(given[0], width), _terms(given[1], width), sign)
    if node.target is aten.neg.default:
        return _added({}, _terms(given[0], width), -1.0)
    if node.target is aten.mul.Tensor and len(given) == 2:
        return _multiplied(_terms(given[0], width), _terms(given[1], width)) or alone
    if node.target in (aten.mul.Tensor, aten.mul.Scalar, aten.div.Tensor, aten.div.Scalar) and len(given) == 1:
        number = next((one for one in node.args if isinstance(one, (int, float))), None)
        if number is not None and node.args[0] is given[0]:
            by = float(number) if "mul" in str(node.target) else 1.0 / float(number)
            return _added({}, _terms(given[0], width), by)
    return alone


def _fits(node: fx.Node, width: int) -> bool:
    shape = shape_of(node)
    return shape is not None and len(shape) == 3 and same(shape[2], width)


def _added(left: Sum, right: Sum, sign: float) -> Sum:
    total = dict(left)
    for product, factor in right.items():
        total[product] = total.get(product, 0.0) + sign * factor
    return total


def _multiplied(left: Sum, right: Sum) -> Sum | None:
    """Return the product of two sums, None where it has more than two factors."""
    total: Sum = {}
    for a, x in left.items():
        for b, y in right.items():
            if len(a) + len(b) > 2:
                return None
            product = (*a, *b) if len(a) + len(b) < 2 else tuple(sorted((*a, *b)))
            total[product] = total.get(product, 0.0) + x * y
    return total
