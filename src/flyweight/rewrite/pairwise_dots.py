"""DLRM's dot products: those of the request's vectors with each other are worked out once.

`bmm([u, v], [u, v].mT)` is `u uT`, a request's; `v uT`, one product with a matrix that all rows share; and `v vT`. With
11 of 25 vectors of 16 numbers, for 500 candidates, ONNX Runtime takes 227 us for the whole, 125 + 44 for what is left;
55 of 300 pairs are the request's, and so are those columns of the layer that reads them. Both orders of a pair are one
product, and all pairs of both sides are read as they come: the layer's columns are put into that order instead.
"""

import torch
from torch import fx

from flyweight.graph.tensors import read_tensor
from flyweight.rewrite.concatenated import beside, on_side
from flyweight.rewrite.emit import emit, shape_of
from flyweight.rewrite.late_select import select, why_not_late
from flyweight.rewrite.rule import Rule
from flyweight.rewrite.self_products import Pairs, pairs_of
from flyweight.rewrite.taken_apart import gain_of_readers
from flyweight.rewrite.weights import unused_name
from flyweight.rewrite.worth import saved, too_little

aten = torch.ops.aten
#: Operators of the request's products (transpose, product, and a pick, which is three) and of the products of both
#: sides (product, reshape), and a concatenation.
_ADDED = 8
_Pair = tuple[int, int]


def _find(body: fx.GraphModule) -> list[fx.Node]:
    """Return where pairs are picked from the dot products of vectors of both sides."""
    return [node for node in body.graph.nodes if pairs_of(body, node) is not None]


def _check(body: fx.GraphModule, node: fx.Node) -> str | None:
    pairs = pairs_of(body, node)
    assert pairs is not None
    wanted = list(zip(pairs.left, pairs.right, strict=True))
    reason = why_not_late(body, node, twice=len(_distinct(wanted)) < len(wanted))
    if reason is not None:
        return reason
    if _other_readers(pairs.product, node):
        return "its products are read elsewhere as well"
    own = sum(pairs.sides)
    vectors, dim = len(pairs.sides), (shape_of(pairs.vectors.parts[0]) or (0,))[-1]
    macs = (vectors**2 - vectors * (vectors - own)) * dim
    ours = sum(pairs.sides[one] and pairs.sides[other] for one, other in wanted)
    widths = (ours, len(wanted) - ours)
    last = len(shape_of(node) or ()) - 1
    behind = gain_of_readers(body, node, last, widths, ours / len(wanted)) if ours else 0.0
    return too_little(saved(macs=macs) + behind, -saved(operators=-_ADDED))


def _other_readers(product: fx.Node, node: fx.Node) -> bool:
    """Return whether more than one chain of operators leads on from a product before a node is reached."""
    while product is not node:
        if len(product.users) != 1:
            return True
        (product,) = product.users
    return False


def _distinct(wanted: list[_Pair]) -> list[_Pair]:
    """Return the pairs without those that are another's, turned."""
    return list(dict.fromkeys((max(pair), min(pair)) for pair in wanted))


def _apply(body: fx.GraphModule, node: fx.Node) -> None:
    pairs = pairs_of(body, node)
    assert pairs is not None
    place = _places(pairs.sides)
    count = [pairs.sides.count(False), pairs.sides.count(True)]
    kinds: dict[tuple[bool, bool], dict[_Pair, _Pair]] = {(True, True): {}, (False, True): {}, (False, False): {}}
    for pair in _distinct(list(zip(pairs.left, pairs.right, strict=True))):
        # The rows' vector first, for it is they that are multiplied by the request's.
        one, other = sorted(pair, key=lambda vector: (pairs.sides[vector], -vector))
        kinds[pairs.sides[one], pairs.sides[other]][pair] = (place[one], place[other])
    made: list[fx.Node] = []
    columns: list[_Pair] = []
    for (left, right), own in kinds.items():
        if own:
            dots, ordered = _dots(body, node, pairs, (left, right), own, (count[left], count[right]))
            made.append(dots)
            columns += ordered
    out = made[0] if len(made) == 1 else emit(body, node, aten.cat.default, made, -1)
    order = [columns.index((max(pair), min(pair))) for pair in zip(pairs.left, pairs.right, strict=True)]
    if order != list(range(len(columns))):
        out = select(body, node, out, order)
    node.replace_all_uses_with(out)
    body.graph.erase_node(node)


def _places(sides: list[bool]) -> list[int]:
    """Return the place of each vector among those of its side."""
    return [sides[:vector].count(side) for vector, side in enumerate(sides)]


def _dots(
    body: fx.GraphModule,
    node: fx.Node,
    pairs: Pairs,
    sides: tuple[bool, bool],
    wanted: dict[_Pair, _Pair],
    count: tuple[int, int],
) -> tuple[fx.Node, list[_Pair]]:
    """Return products of two sides, (rows, pairs), and the pairs in order."""
    every = pairs.vectors.of_rows, pairs.vectors.of_request
    left, right = (beside(body, node, every[side], 1) for side in sides)
    by_place = {places: pair for pair, places in wanted.items()}

    def pick(product: fx.Node) -> fx.Node:
        if len(by_place) == count[0] * count[1]:
            return emit(body, node, aten.reshape.default, product, [-1, count[0] * count[1]])
        index = [_index(body, node, [places[side] for places in sorted(by_place)]) for side in (0, 1)]
        return emit(body, node, aten.index.Tensor, product, [None, *index])

    def with_itself(values: list[fx.Node]) -> fx.Node:
        turned = emit(body, node, aten.transpose.int, values[0], 1, 2)
        return pick(emit(body, node, aten.bmm.default, values[0], turned))

    ordered = [by_place[places] for places in sorted(by_place)]
    if sides[0] == sides[1]:
        return on_side(body, node, [left], with_itself), ordered
    turned = on_side(body, node, [right], lambda values: emit(body, node, aten.transpose.int, values[0], 1, 2))
    return pick(emit(body, node, aten.matmul.default, left, turned)), ordered


def _index(body: fx.GraphModule, node: fx.Node, places: list[int]) -> fx.Node:
    return read_tensor(body, unused_name(body, "pairs.places"), torch.tensor(places), node)


RULE = Rule("pairwise dots", _find, _check, _apply)
