"""Products with a layer of low rank, read by linear layers alone, are summed over the rank and never written out.

With z of r numbers, a linear layer L reads of `x * (U z + b)`

    L (x * (U z + b)) = sum_i z_i (L * U_i) x + (L * b) x

which is one narrow layer on x (`L * U_i`: each row of L times U_i) and r products. What is added to the product is
read by L as it was. So a cross layer of DCN-V2 (Wang et al. 2020, arXiv 2008.13535, eq. 1), split in two of low rank,
leaves no vector of its width behind: of both layers, their residuals and the logit, one layer on the embeddings is
left, and a few numbers a row. With 400 embeddings, ranks 4 and 3 and 500 rows, 27 outputs stand for 200,000 numbers
written and read eight times.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, fx

from flyweight.graph.tensors import read_tensor
from flyweight.rewrite.concatenated import dim_of, parts_of
from flyweight.rewrite.emit import emit, shape_of
from flyweight.rewrite.expanded import same
from flyweight.rewrite.rule import Rule
from flyweight.rewrite.weights import constant, unused_name
from flyweight.rewrite.worth import saved, too_little

aten = torch.ops.aten
#: Numbers written or read for each column of a product: the layer's output, the product, the sum with a residual.
_PASSES = 6
#: A rank is low up to the width divided by this.
_LOW = 4
#: Operators that a product takes, and those that stand for it in each layer that reads it.
_GONE, _ADDED = 3, 7


@dataclass(frozen=True, eq=False)
class _Product:
    """`x * (up @ z + bias)`, (rows, width): `up` is (width, rank), z (rows, rank)."""

    node: fx.Node
    x: fx.Node
    z: fx.Node
    up: Tensor
    bias: Tensor | None


@dataclass(eq=False)
class _Reads:
    """What a linear layer makes of the values that it reads: `sum_v linear(v, whole[v]) + sum_p (p by its part)`."""

    whole: dict[fx.Node, Tensor] = field(default_factory=dict)
    products: list[tuple[_Product, Tensor]] = field(default_factory=list)

    def add(self, value: fx.Node, part: Tensor) -> None:
        """Add a layer on a value."""
        known = self.whole.get(value)
        self.whole[value] = part if known is None else known + part


@dataclass(frozen=True, eq=False)
class _Group:
    """Products with the same x, and weight and bias of the layers that read them or give a z from x, in order."""

    x: fx.Node
    products: dict[fx.Node, _Product]
    layers: dict[fx.Node, tuple[Tensor, Tensor | None]]

    def reads(self, layer: fx.Node) -> _Reads:
        """Return what a layer reads, written out."""
        found = _Reads()
        value: Any = layer.args[0]
        stack = [(value, self.layers[layer][0])]
        while stack:
            one, part = stack.pop()
            product = self.products.get(one)
            if product is not None:
                found.products.append((product, part))
                if product.bias is not None:
                    found.add(self.x, part * product.bias)
            elif not self._holds(one):
                found.add(one, part)
            elif one.target is aten.add.Tensor:
                stack += [(other, part) for other in reversed(one.args)]
            else:
                start = 0
                for other in parts_of(one):
                    stack.append((other, part[:, start : start + _width(other)]))
                    start += _width(other)
        return found

    def balance(self) -> None:
        """Make each row that gives a z as large as the rows that are multiplied with it, which nothing else sees.

        Split by singular values they differ a hundredfold, and what learns them with one rate for all (Adam) breaks the
        small ones before the large ones move.
        """
        for product in reversed(self.products.values()):
            if product.z not in self.layers or len(product.z.users) > 1:
                continue
            weight, bias = self.layers[product.z]
            parts = [part for layer in self.layers for one, part in self.reads(layer).products if one is product]
            felt = (torch.cat(parts).unsqueeze(1) * product.up.T).square().mean((0, 2))
            scale = (weight.square().mean(1) / felt).pow(0.25)
            if bool(torch.isfinite(scale).all()) and bool((scale > 0).all()):
                self.layers[product.z] = weight / scale.unsqueeze(1), None if bias is None else bias / scale
                self.products[product.node] = replace(product, up=product.up * scale)

    def _holds(self, value: fx.Node) -> bool:
        """Return whether a value is a sum or a concatenation with a product of the group in it."""
        if value in self.products:
            return True
        return _is_passed_on(value) and any(self._holds(one) for one in value.all_input_nodes)


def _width(node: Any) -> int:
    return int((shape_of(node) or (0,))[-1])


def _is_passed_on(node: Any) -> bool:
    """Return whether a linear layer on a node is a sum of linear layers on what it reads."""
    shape = shape_of(node)
    if not isinstance(node, fx.Node) or shape is None or len(shape) != 2:
        return False
    if node.target is aten.cat.default:
        return dim_of(node) == 1
    both = len(node.args) == 2 and not node.kwargs
    return node.target is aten.add.Tensor and both and all(_is_alike(one, shape) for one in node.args)


def _is_alike(node: Any, shape: tuple[Any, ...]) -> bool:
    seen = shape_of(node)
    return seen is not None and len(seen) == len(shape) and all(map(same, seen, shape))


def _layer(body: fx.GraphModule, node: Any) -> tuple[Tensor, Tensor | None] | None:
    """Return weight and bias of a linear layer whose numbers are constants."""
    if not isinstance(node, fx.Node) or node.target is not aten.linear.default:
        return None
    weight = constant(body, node.args[1])
    given = node.args[2] if len(node.args) > 2 else None
    bias = constant(body, given)
    if weight is None or weight.ndim != 2 or (given is not None and bias is None):
        return None
    return weight, bias


def _product(body: fx.GraphModule, node: fx.Node) -> _Product | None:
    """Return a product with the layer of least rank on one of its sides."""
    shape = shape_of(node)
    if shape is None or len(shape) != 2 or len(node.args) != 2:
        return None
    found = []
    for x, y in (node.args, node.args[::-1]):
        held = _layer(body, y)
        if held is None or x is y or not (_is_alike(x, shape) and _is_alike(y, shape)) or len(y.users) > 1:  # type: ignore[union-attr]
            continue
        if _LOW * held[0].shape[1] > held[0].shape[0]:
            continue
        found.append(_Product(node, x, y.args[0], *held))  # type: ignore[union-attr,arg-type]
    return min(found, key=lambda one: one.up.shape[1], default=None)


def _readers(body: fx.GraphModule, node: fx.Node) -> set[fx.Node] | None:
    """Return the layers that read a value, added up or side by side with others; None where anything else does."""
    found: set[fx.Node] = set()
    for user in node.users:
        if _is_passed_on(user):
            more = _readers(body, user)
            if more is None:
                return None
            found |= more
        elif _layer(body, user) is not None and user.args[0] is node:
            found.add(user)
        else:
            return None
    return found


def _groups(body: fx.GraphModule) -> Iterator[_Group]:
    products: dict[fx.Node, dict[fx.Node, _Product]] = {}
    readers: dict[fx.Node, set[fx.Node]] = {}
    for node in body.graph.find_nodes(op="call_function", target=aten.mul.Tensor):
        one = _product(body, node)
        reading = None if one is None else _readers(body, node)
        if one is not None and reading:
            products.setdefault(one.x, {})[node] = one
            readers.setdefault(one.x, set()).update(reading)
    place = {node: number for number, node in enumerate(body.graph.nodes)}
    for x, those in products.items():
        first = {one.z for one in those.values() if _layer(body, one.z) is not None and one.z.args[0] is x}
        every = sorted(readers[x] | first, key=place.__getitem__)
        yield _Group(x, those, {layer: held for layer in every if (held := _layer(body, layer)) is not None})


def _find(body: fx.GraphModule) -> list[fx.Node]:
    """Return the first product of each group."""
    return [next(iter(group.products)) for group in _groups(body)]


def _group_of(body: fx.GraphModule, node: fx.Node) -> _Group:
    return next(group for group in _groups(body) if node in group.products)


def _check(body: fx.GraphModule, node: fx.Node) -> str | None:
    group = _group_of(body, node)
    width = _width(group.x)
    added = 0
    for layer in group.layers:
        reads = group.reads(layer)
        rank = sum(product.up.shape[1] for product, _ in reads.products)
        added += _width(layer) * (rank + (group.x in reads.whole)) * width
        added += sum(part.numel() for value, part in reads.whole.items() if value is not group.x)
    before = sum(one.up.numel() for one in group.products.values()) + sum(
        _width(layer) * _width(layer.args[0]) for layer in group.layers
    )
    gain = saved(macs=before - added, numbers=_PASSES * width * len(group.products))
    operators = _ADDED * len(group.layers) - _GONE * len(group.products)
    return too_little(gain, saved(operators=operators))


def _apply(body: fx.GraphModule, node: fx.Node) -> None:
    group = _group_of(body, node)
    group.balance()
    every = {layer: group.reads(layer) for layer in group.layers}
    weights, biases, starts, at = [], [], {}, 0
    for layer, reads in every.items():
        base, bias = _on_x(group, reads, group.layers[layer])
        weights += [base, _of_products(reads)]
        biases += [bias, bias.new_zeros(len(weights[-1]))]
        starts[layer] = at
        at += len(base) + len(weights[-1])
    before = next(iter(every))
    rows = read_tensor(body, unused_name(body, "summed_products.weight"), torch.cat(weights), before)
    shift = read_tensor(body, unused_name(body, "summed_products.bias"), torch.cat(biases), before)
    narrow = emit(body, before, aten.linear.default, group.x, rows, shift)
    for layer, reads in every.items():
        new = _written_out(body, group, layer, reads, narrow, starts[layer])
        layer.replace_all_uses_with(new)
        for product in group.products.values():  # what was read of a layer is read of what stands for it
            if product.z is layer:
                group.products[product.node] = replace(product, z=new)
    body.graph.eliminate_dead_code()


def _on_x(group: _Group, reads: _Reads, held: tuple[Tensor, Tensor | None]) -> tuple[Tensor, Tensor]:
    """Return the layer on x itself that is part of a layer, (outputs, width), with its bias."""
    weight, bias = held
    part = reads.whole.get(group.x)
    if part is None:
        part = weight.new_zeros(len(weight), _width(group.x))
    return part, weight.new_zeros(len(weight)) if bias is None else bias


def _of_products(reads: _Reads) -> Tensor:
    """Return the layer on x whose outputs are multiplied with all z of a layer, (outputs x ranks, width)."""
    if not reads.products:
        of_x = next(iter(reads.whole.values()))  # a layer without products reads x alone
        return of_x.new_zeros(0, of_x.shape[1])
    parts = [part.unsqueeze(1) * product.up.T.unsqueeze(0) for product, part in reads.products]
    return torch.cat(parts, 1).flatten(0, 1)


def _written_out(
    body: fx.GraphModule, group: _Group, layer: fx.Node, reads: _Reads, narrow: fx.Node, start: int
) -> fx.Node:
    """Return what stands for a layer: its share of the narrow one, the products with z, and other values' layers."""
    outputs = _width(layer)
    found = emit(body, layer, aten.slice.Tensor, narrow, 1, start, start + outputs)
    if reads.products:
        zs = [group.products[product.node].z for product, _ in reads.products]
        rank = sum(product.up.shape[1] for product, _ in reads.products)
        z = zs[0] if len(zs) == 1 else emit(body, layer, aten.cat.default, zs, 1)
        begin = start + outputs
        felt = emit(body, layer, aten.slice.Tensor, narrow, 1, begin, begin + outputs * rank)
        if outputs > 1:
            felt = emit(body, layer, aten.reshape.default, felt, [-1, outputs, rank])
            z = emit(body, layer, aten.unsqueeze.default, z, 1)
        product = emit(body, layer, aten.mul.Tensor, felt, z)
        summed = emit(body, layer, aten.sum.dim_IntList, product, [-1], outputs == 1)
        found = emit(body, layer, aten.add.Tensor, found, summed)
    for value, part in reads.whole.items():
        if value is not group.x:
            weight = read_tensor(body, unused_name(body, "beside_products.weight"), part, layer)
            other = emit(body, layer, aten.linear.default, value, weight, None)
            found = emit(body, layer, aten.add.Tensor, found, other)
    return found


RULE = Rule("low rank products", _find, _check, _apply)
