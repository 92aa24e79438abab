"""A logit that adds up `u * (W x + b)` takes the request's columns of the layer as one product for each row.

`h . (u * (W x + b)) = x . (WT (h * u)) + (h * u) . b`, and `WT (h * u)` is a vector of the request. So the last cross
layer of DCN-V2 (Wang et al. 2020, eq. 1, parallel form), whose outputs are read by one logit alone, works out the
columns of the candidate's fields only: with 11 of 25 fields of 16 numbers and 500 candidates, 35 million multiply-adds
less, of 80. Where the residual is the layer's own input, its columns of the logit's weight are added to that vector.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from flyweight.graph.tensors import read_tensor
from flyweight.rewrite.concatenated import Mixed, beside, dim_of, mixed, on_side, parts_of
from flyweight.rewrite.emit import emit, shape_of
from flyweight.rewrite.rule import Rule
from flyweight.rewrite.weights import columns_of, constant, unused_name
from flyweight.rewrite.worth import saved, too_little

aten = torch.ops.aten
#: Operators of the request (a product by the logit's weight, one by the layer's, its bias, the residual's columns, one
#: more dimension) and of the rows (a product, two changes of shape, two sums).
_ADDED = 10


@dataclass(frozen=True, eq=False)
class _Cross:
    """What a logit reads: values side by side, one of them `scale * layer(x) + residual`."""

    parts: list[fx.Node]
    place: int
    product: fx.Node
    scale: Mixed
    layer: fx.Node
    residual: fx.Node | None

    @property
    def x(self) -> fx.Node:
        """What the layer reads."""
        given: Any = self.layer.args[0]
        return given  # type: ignore[no-any-return]

    def columns(self, parts: list[fx.Node]) -> list[int]:
        """Return the places of parts of `scale` in it."""
        places = zip(self.scale.parts, self.scale.starts(), self.scale.widths, strict=True)
        return [start + column for part, start, width in places if part in parts for column in range(width)]


def _find(body: fx.GraphModule) -> list[fx.Node]:
    """Return layers of one output that read a layer's outputs times values of the request and the rows."""
    layers = body.graph.find_nodes(op="call_function", target=aten.linear.default)
    return [node for node in layers if _cross(node) is not None]


def _cross(node: fx.Node) -> _Cross | None:
    shape = shape_of(node)
    if not shape or len(shape) != 2 or shape[-1] != 1:
        return None
    given: Any = node.args[0]
    joined = given.target is aten.cat.default and dim_of(given) == 1
    parts = parts_of(given) if joined else [given]
    for place, part in enumerate(parts):
        for product, residual in _terms(part):
            both = _scaled(product)
            if both is not None and both[1].args[0] is not product:
                return _Cross(parts, place, product, *both, residual)
    return None


def _terms(part: fx.Node) -> list[tuple[fx.Node, fx.Node | None]]:
    """Return the ways to see a value as a product and what is added to it."""
    if part.target is aten.mul.Tensor:
        return [(part, None)]
    if part.target is not aten.add.Tensor or len(part.args) != 2 or part.kwargs:
        return []
    pairs: list[Any] = [part.args, part.args[::-1]]
    same_shape = all(isinstance(one, fx.Node) and len(shape_of(one) or ()) == 2 for one in part.args)
    return [(one, other) for one, other in pairs if same_shape and one.target is aten.mul.Tensor]


def _scaled(product: fx.Node) -> tuple[Mixed, fx.Node] | None:
    """Return the values and the layer that are multiplied."""
    for value, layer in (product.args, product.args[::-1]):
        both = mixed(value)
        if both and both.dim == 1 and isinstance(layer, fx.Node) and layer.target is aten.linear.default:
            return both, layer
    return None


def _check(body: fx.GraphModule, node: fx.Node) -> str | None:
    found = _cross(node)
    assert found is not None
    given: Any = node.args[0]
    between = {given, found.parts[found.place], found.product, found.layer}
    if any(len(one.users) > 1 for one in between):
        return "what it reads is read elsewhere as well"
    if mixed(found.x) is not None:
        return "its layer reads both sides, and is split instead"
    # A rounded weight would be multiplied along its scales, which OpenVINO gets wrong.
    if any(isinstance(one, fx.Node) and constant(body, one) is None for one in (*found.layer.args[1:], node.args[1])):
        return "its weights are rounded or worked out"
    own, width = len(found.columns(found.scale.of_request)), (shape_of(found.x) or (0,))[-1]
    every = sum(found.scale.widths)
    # A residual that is not the layer's input is not added any more, but put beside the rest for the logit to read.
    numbers = own + {None: 0, found.x: every}.get(found.residual, -every)
    return too_little(saved(macs=own * width, numbers=numbers), -saved(operators=-_ADDED))


def _apply(body: fx.GraphModule, node: fx.Node) -> None:
    found = _cross(node)
    assert found is not None
    weight, bias = node.args[1], node.args[2] if len(node.args) > 2 else None
    assert isinstance(weight, fx.Node)
    start = sum(_width(part) for part in found.parts[: found.place])
    ours, theirs = (found.columns(side) for side in (found.scale.of_request, found.scale.of_rows))
    every = list(range(start, start + sum(found.scale.widths)))
    absorbed = found.residual is found.x
    head = columns_of(body, weight, [start + one for one in ours], node, "head.request")
    residual = columns_of(body, weight, every, node, "head.residual") if absorbed else None
    ask = _of_request(body, node, found, (head, residual, bias))
    # What is left of the columns, in the place of all of them.
    parts, columns, at = [], [], 0
    for place, part in enumerate(found.parts):
        if place != found.place:
            parts.append(part)
            columns += list(range(at, at + _width(part)))
        else:
            parts.append(_of_rows(body, node, found, theirs))
            columns += [start + one for one in theirs]
            if found.residual is not None and not absorbed:
                parts.append(found.residual)
                columns += every
        at += _width(part)
    joined = parts[0] if len(parts) == 1 else emit(body, node, aten.cat.default, parts, 1)
    left = emit(body, node, aten.linear.default, joined, columns_of(body, weight, columns, node, "head.rows"), None)
    out = emit(body, node, aten.add.Tensor, left, ask[0])
    if len(ask) > 1:
        out = emit(body, node, aten.add.Tensor, out, ask[1])
    node.replace_all_uses_with(out)
    body.graph.erase_node(node)


def _width(part: fx.Node) -> int:
    return int((shape_of(part) or (0,))[-1])


def _cut(body: fx.GraphModule, node: fx.Node, layer: fx.Node, outputs: list[int], which: str) -> list[fx.Node]:
    """Return a layer's weight, and its bias if it has one, of some outputs."""
    whole = {one: value for one in layer.args[1:] if (value := constant(body, one)) is not None}
    return [
        read_tensor(body, unused_name(body, f"{one.target}_{which}"), value[outputs], node)  # type: ignore[union-attr]
        for one, value in whole.items()
    ]


def _of_rows(body: fx.GraphModule, node: fx.Node, found: _Cross, columns: list[int]) -> fx.Node:
    """Return the rows' columns of the product."""
    outputs = emit(body, node, aten.linear.default, found.x, *_cut(body, node, found.layer, columns, "rows"))
    return emit(body, node, aten.mul.Tensor, beside(body, node, found.scale.of_rows, 1), outputs)


def _of_request(
    body: fx.GraphModule, node: fx.Node, found: _Cross, head: tuple[fx.Node, fx.Node | None, Any]
) -> list[fx.Node]:
    """Return what the request's columns add to the logit, (rows, 1): a product with x, and what biases give."""
    ours = found.columns(found.scale.of_request)
    weights = _cut(body, node, found.layer, ours, "request")
    value = beside(body, node, found.scale.of_request, 1)
    scaled = on_side(body, node, [value], lambda one: emit(body, node, aten.mul.Tensor, one[0], head[0]))

    def asked(values: list[fx.Node]) -> fx.Node:
        vector = emit(body, node, aten.matmul.default, values[0], weights[0])
        if head[1] is not None:
            vector = emit(body, node, aten.add.Tensor, vector, head[1])
        return emit(body, node, aten.unsqueeze.default, vector, 2)  # (requests, width, 1)

    lying = emit(body, node, aten.unsqueeze.default, found.x, 1)  # (rows, 1, width)
    product = emit(body, node, aten.matmul.default, lying, on_side(body, node, [scaled], asked))
    sums = [emit(body, node, aten.reshape.default, product, [-1, 1])]
    if len(weights) > 1:
        flat = emit(body, node, aten.unsqueeze.default, weights[1], 0)
        sums.append(
            on_side(body, node, [scaled], lambda one: emit(body, node, aten.linear.default, one[0], flat, head[2]))
        )
    elif head[2] is not None:
        sums.append(head[2])
    return sums


RULE = Rule("head of cross", _find, _check, _apply)
