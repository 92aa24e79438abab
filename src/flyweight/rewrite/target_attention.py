"""DIN's algebra: `[q, k, q-k, q*k] W` without a value of the candidates' times the history's size before the layer.

With k of the request and one q a row, the layer is `q (W1 + W3) + k (W2 - W3) + (q * k) W4` (Zhou et al., Deep Interest
Network, section 4.3, gives the input; the split is ours). Two ways to work that out:

- matrices: `[k, 1] M_n`, where `M_n = diag(q_n) W4 + (W2 - W3)` over a last row `q_n (W1 + W3) + b`. One matrix
  product for each candidate and nothing to add afterwards; M has rows x width x units numbers.
- products: `(q * k) W4` plus the two parts; q * k has rows x steps x width numbers, and two sums pass over the output.

Measured in ONNX Runtime, OpenVINO (f32, bf16) and PyTorch at 500 candidates, 10 to 100 steps, widths 16 to 64 and 36 or
80 units, matrices win where `steps * (width + 2 units) > 4 width * units`: by 5 to 35% at 100 steps, and lose by up to
a factor of two at 10.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx

from flyweight.rewrite.attention_terms import Block, Product, blocks_of, is_request, is_thin
from flyweight.rewrite.block_weights import BlockWeights
from flyweight.rewrite.emit import emit, shape_of
from flyweight.rewrite.rule import Rule
from flyweight.rewrite.split_linear import cat_parts
from flyweight.rewrite.steps_last import tail_of, with_steps_last
from flyweight.rewrite.weights import cannot_cut

aten = torch.ops.aten
_ROUND = torch.ops.flyweight.quantize_dequantize.default
_FLAT = frozenset({aten.view.default, aten.reshape.default, aten._unsafe_view.default, aten.flatten.using_ints})


@dataclass
class _Sides:
    """The products that a layer reads, by what they are made of."""

    request: list[Product] = field(default_factory=list)  # of the request: once
    thin: list[Product] = field(default_factory=list)  # one step a row
    meeting: list[tuple[fx.Node, fx.Node]] = field(default_factory=list)  # request times thin
    rows: list[Product] = field(default_factory=list)  # all else: a value for each row and step


def _find(body: fx.GraphModule) -> list[fx.Node]:
    """Return layers over (rows, steps, columns) with something in them that need not be worked out for both."""
    return [node for node in body.graph.find_nodes(op="call_function", target=aten.linear.default) if _fits(node)]


def _fits(node: fx.Node) -> bool:
    read = _history(node.args[0])
    if isinstance(read, fx.Node) and read.target is _ROUND:
        return any(is_request(one) for one in cat_parts(read.args[0])) and len(shape_of(read) or ()) == 3
    blocks = blocks_of(read)
    if not blocks or (shape_of(read) or (0, 1))[1] == 1:
        return False
    sides = _sides(blocks)
    if not sides.request and not sides.meeting:
        return False
    # What the rule leaves behind: a layer over one product.
    return len({product for block in blocks for product in block.terms}) > 1


def _history(node: Any) -> Any:
    """Return the (rows, steps, columns) that a layer reads, also where it reads it as (rows * steps, columns)."""
    if isinstance(node, fx.Node) and node.target in _FLAT:
        flat, full = shape_of(node), shape_of(node.args[0])
        if flat is not None and full is not None and len(flat) == 2 and len(full) == 3 and flat[1] == full[2]:
            return node.args[0]
    return node


def _sides(blocks: list[Block]) -> _Sides:
    sides = _Sides()
    for product in dict.fromkeys(product for block in blocks for product in block.terms):
        if all(is_request(one) for one in product):
            sides.request.append(product)
        elif all(is_thin(one) for one in product):
            sides.thin.append(product)
        elif len(product) == 2 and all(is_request(one) or is_thin(one) for one in product):
            key, query = product if is_request(product[0]) else product[::-1]
            sides.meeting.append((key, query))
        else:
            sides.rows.append(product)
    return sides


def _check(body: fx.GraphModule, node: fx.Node) -> str | None:
    read = _history(node.args[0])
    if read.target is _ROUND:
        return "its input is rounded after q, k, q-k and q*k stand side by side, and what is rounded does not add up"
    return cannot_cut(node.args[1])


def _apply(body: fx.GraphModule, node: fx.Node) -> None:
    read = _history(node.args[0])
    blocks = blocks_of(read)
    sides = _sides(blocks)
    bias = node.args[2] if len(node.args) > 2 else None
    assert isinstance(node.args[1], fx.Node)
    weights = BlockWeights(body, node, node.args[1], blocks)
    steps = (shape_of(read) or (0, 0))[1]
    if sides.meeting and not _matrices_pay(steps, weights, sides):
        sides.rows += [(key, query) if key < query else (query, key) for key, query in sides.meeting]
        sides.meeting = []
    tail = tail_of(body, node) if sides.meeting and not sides.rows and read is node.args[0] else None
    if tail is not None:
        with_steps_last(body, _Matrices(body, node, sides, weights, bias, steps_last=True).product(), tail)
        body.graph.erase_node(node)
        return
    total = _Total(body, node)
    total.add(_layer(body, node, sides.rows, weights, None))
    if sides.meeting:
        total.add(_Matrices(body, node, sides, weights, bias).product())
    else:
        total.add(_layer(body, node, sides.thin, weights, bias if sides.thin else None))
        total.add(_layer(body, node, sides.request, weights, None if sides.thin else bias))
    out = total.node
    assert out is not None
    if read is not node.args[0]:
        out = emit(body, node, aten.reshape.default, out, [-1, weights.units])
    node.replace_all_uses_with(out)
    body.graph.erase_node(node)


def _matrices_pay(steps: int, weights: BlockWeights, sides: _Sides) -> bool:
    """Return whether a matrix for each row takes less than products and sums over all steps; measured, see above."""
    width = sum(weights.width(product) for product in {(key,) for key, _ in sides.meeting})
    return steps * (width + 2 * weights.units) > 4 * width * weights.units


def _layer(body: fx.GraphModule, node: fx.Node, products: list[Product], weights: BlockWeights, bias: Any) -> Any:
    """Return the layer over some of its products, None without any."""
    if not products:
        return None
    values = [_product(body, node, product) for product in products]
    joined = values[0] if len(values) == 1 else emit(body, node, aten.cat.default, values, -1)
    return emit(body, node, aten.linear.default, joined, weights.of(products), bias)


def _product(body: fx.GraphModule, node: fx.Node, product: Product) -> fx.Node:
    return product[0] if len(product) == 1 else emit(body, node, aten.mul.Tensor, *product)


@dataclass(frozen=True)
class _Matrices:
    """`[k, 1] M`: the keys times a matrix for each row, (rows, steps, units).

    Args:
        steps_last: its transpose instead, M^T [k, 1]^T, (rows, units, steps); nothing but keys and queries is then read
            turned, so no matrix is made twice.
    """

    body: fx.GraphModule
    node: fx.Node
    sides: _Sides
    weights: BlockWeights
    bias: Any
    steps_last: bool = False

    def product(self) -> fx.Node:
        """Add it to the graph."""
        keys = list(dict.fromkeys(key for key, _ in self.sides.meeting))
        parts = [self._part(key) for key in keys]
        read = keys[0] if len(keys) == 1 else self._emit(aten.cat.default, keys, -1)
        last = self._last_row()
        if last is not None:
            parts.append(self._turned(last) if self.steps_last else last)
            read = self._emit(aten.cat.default, [read, _ones(self.body, self.node, read)], -1)
        matrix = parts[0] if len(parts) == 1 else self._emit(aten.cat.default, parts, 2 if self.steps_last else 1)
        left = [one for one in self.sides.request if one[0] not in keys or len(one) > 1]
        rest = _layer(self.body, self.node, left, self.weights, None)
        if self.steps_last:
            out = self._emit(aten.matmul.default, matrix, self._turned(read))
            rest = rest if rest is None else self._turned(rest)
        else:
            out = self._emit(aten.matmul.default, read, matrix)
        return out if rest is None else self._emit(aten.add.Tensor, out, rest)

    def _part(self, key: fx.Node) -> fx.Node:
        """Return the rows of M that a key's columns meet, (rows, width, units), or their transpose."""
        part = None
        for query in [query for one, query in self.sides.meeting if one is key]:
            product = (key, query) if key < query else (query, key)
            side = query if self.steps_last else self._turned(query)
            scaled = self._emit(aten.mul.Tensor, side, self._columns(product))
            part = scaled if part is None else self._emit(aten.add.Tensor, part, scaled)
        assert part is not None
        return self._emit(aten.add.Tensor, part, self._columns((key,))) if (key,) in self.sides.request else part

    def _columns(self, product: Product) -> fx.Node:
        """Return a product's weight, (width, units), or as it is stored, (units, width)."""
        stored = self.weights.of([product])
        return stored if self.steps_last else self._emit(aten.t.default, stored)

    def _last_row(self) -> fx.Node | None:
        """Return what every step of a row adds, (rows, 1, units)."""
        if self.sides.thin:
            found: fx.Node | None = _layer(self.body, self.node, self.sides.thin, self.weights, self.bias)
            return found
        if self.bias is None:
            return None
        return self._emit(aten.mul.Tensor, _ones(self.body, self.node, self.sides.meeting[0][1]), self.bias)

    def _turned(self, value: fx.Node) -> fx.Node:
        return self._emit(aten.transpose.int, value, 1, 2)

    def _emit(self, target: Any, *args: Any) -> fx.Node:
        return emit(self.body, self.node, target, *args)


def _ones(body: fx.GraphModule, node: fx.Node, like: fx.Node) -> fx.Node:
    """Return (..., 1) of ones, as many as a value (..., width) has rows and steps."""
    return emit(body, node, aten.ones_like.default, emit(body, node, aten.slice.Tensor, like, 2, 0, 1))


@dataclass
class _Total:
    """A sum that grows part by part."""

    body: fx.GraphModule
    before: fx.Node
    node: fx.Node | None = None

    def add(self, part: fx.Node | None) -> None:
        """Add a part, if there is one."""
        if part is None:
            return
        self.node = part if self.node is None else emit(self.body, self.before, aten.add.Tensor, self.node, part)


RULE = Rule("target attention", _find, _check, _apply)
