"""A layer's weight by what its columns multiply, where one value is read by several blocks of columns."""

from functools import reduce
from typing import Any

import torch
from torch import Tensor, fx

from flyweight.graph.tensors import read_tensor
from flyweight.rewrite.attention_terms import Block, Product
from flyweight.rewrite.emit import emit, shape_of
from flyweight.rewrite.weights import columns_of, constant, unused_name

aten = torch.ops.aten


class BlockWeights:
    """The weight (units, columns) of a layer, whose columns stand in blocks that are sums of products.

    Args:
        body: the graph.
        before: the layer's node; new constants are read before it.
        weight: read by it. One that is rounded stays so: its blocks are cut and added up in the graph.
        blocks: of its columns.
    """

    def __init__(self, body: fx.GraphModule, before: fx.Node, weight: fx.Node, blocks: list[Block]) -> None:
        self._body, self._before, self._weight, self._blocks = body, before, weight, blocks
        self._cuts: dict[int, fx.Node] = {}
        self.units = int((shape_of(before) or (0,))[-1])
        source: Any = weight
        while source.op != "get_attr":
            source = source.args[0]
        self._name = str(source.target)

    def width(self, product: Product) -> int:
        """Return how many columns a product has."""
        return next(block.width for block in self._blocks if product in block.terms or _inside(product, block))

    def of(self, products: list[Product]) -> fx.Node:
        """Return the columns that products are multiplied by, side by side: (units, their widths)."""
        whole = constant(self._body, self._weight)
        if whole is not None:
            summed = torch.cat([self._summed(whole.double(), one) for one in products], 1)
            return self.constant("part", summed.to(whole.dtype))
        parts = [self._in_graph(one) for one in products]
        return parts[0] if len(parts) == 1 else emit(self._body, self._before, aten.cat.default, parts, 1)

    def constant(self, name: str, value: Tensor) -> fx.Node:
        """Return a node that reads a new constant."""
        return read_tensor(self._body, unused_name(self._body, f"{self._name}_{name}"), value, self._before)

    def _summed(self, whole: Tensor, product: Product) -> Tensor:
        found = [
            block.terms[product] * whole[:, block.start : block.start + block.width]
            for block in self._blocks
            if product in block.terms
        ]
        return reduce(torch.add, found)

    def _in_graph(self, product: Product) -> fx.Node:
        body, before = self._body, self._before
        total: fx.Node | None = None
        for block in self._blocks:
            if product not in block.terms:
                continue
            part = self._cut(block)
            if block.terms[product] != 1.0:
                part = emit(body, before, aten.mul.Tensor, part, block.terms[product])
            total = part if total is None else emit(body, before, aten.add.Tensor, total, part)
        assert total is not None
        return total

    def _cut(self, block: Block) -> fx.Node:
        """Return a block of the weight, read once though several products need it."""
        if block.start not in self._cuts:
            columns = list(range(block.start, block.start + block.width))
            cut = columns_of(self._body, self._weight, columns, self._before, f"{self._name}_part")
            self._cuts[block.start] = cut
        return self._cuts[block.start]


def _inside(product: Product, block: Block) -> bool:
    return any(set(product) <= set(other) for other in block.terms)
