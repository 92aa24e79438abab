"""Pairs of a row's vectors by their dot products, as models write them: `bmm(v, v.mT)[:, left, right]`."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from flyweight.rewrite.concatenated import Mixed, handed_on, mixed
from flyweight.rewrite.emit import shape_of
from flyweight.rewrite.weights import constant

aten = torch.ops.aten
_FLAT = frozenset({aten.view.default, aten.reshape.default, aten._unsafe_view.default, aten.flatten.using_ints})
_IDLE = frozenset({aten.slice.Tensor, aten.alias.default, aten.detach.default, aten.clone.default})


@dataclass(frozen=True, eq=False)
class Pairs:
    """Dot products of pairs of vectors that stand side by side.

    Args:
        product: the node that gives all of them, (rows, vectors, vectors).
        vectors: (rows, vectors, dim), of both sides.
        left, right: the vectors of each pair that is read.
    """

    product: fx.Node
    vectors: Mixed
    left: tuple[int, ...]
    right: tuple[int, ...]

    @property
    def sides(self) -> list[bool]:
        """Whether each vector is the request's."""
        spread = set(self.vectors.of_request)
        return [
            part in spread
            for part, width in zip(self.vectors.parts, self.vectors.widths, strict=True)
            for _ in range(width)
        ]


def pairs_of(body: fx.GraphModule, node: fx.Node) -> Pairs | None:
    """Return the pairs that a node picks, or flattens, None where it does neither."""
    picked = _picked(body, node)
    if picked is None:
        return None
    product, left, right = picked
    vectors = _vectors(product)
    return None if vectors is None else Pairs(product, vectors, left, right)


def picked_from(body: fx.GraphModule, node: fx.Node, vectors: fx.Node) -> fx.Node | None:
    """Return what picks pairs from a product, if that is one of vectors with themselves and all that reads it is that.

    Args:
        node: the product.
    """
    if _multiplied(node) is not vectors:
        return None
    while len(node.users) == 1:
        (node,) = node.users
        if _picked(body, node) is not None:
            return node
        if node.target not in _FLAT | _IDLE:
            break
    return None


def _picked(body: fx.GraphModule, node: fx.Node) -> tuple[fx.Node, tuple[int, ...], tuple[int, ...]] | None:
    """Return what pairs are taken of, and their places."""
    if node.op != "call_function" or not node.args:
        return None
    indices = _indices(node)
    source: Any = handed_on(node.args[0])
    if indices is None:
        count = _square(source)
        if node.target not in _FLAT or not count or _width(node) != count**2 or _is_picked(node):
            return None
        return source, *_pairs(torch.arange(count**2), count)
    numbers = [constant(body, handed_on(one)) for one in indices]
    if any(one is None or one.dtype != torch.int64 or one.ndim != 1 for one in numbers):
        return None
    if len(numbers) == 2 and _square(source):
        left, right = (one % _square(source) for one in numbers if one is not None)
        return (source, *(tuple(side.tolist()) for side in (left, right))) if len(left) == len(right) else None
    flat, source = source, handed_on(source.args[0]) if source.target in _FLAT else None
    count = _square(source)
    if len(numbers) != 1 or not count or _width(flat) != count**2 or numbers[0] is None:
        return None
    return source, *_pairs(numbers[0] % count**2, count)


def _pairs(flat: Tensor, count: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    return tuple((flat // count).tolist()), tuple((flat % count).tolist())


def _indices(node: fx.Node) -> list[Any] | None:
    """Return the indices after dimension 0 that a node takes."""
    given: Any = node.args[1] if len(node.args) > 1 else None
    if node.target is aten.index.Tensor and given[0] is None and all(one is not None for one in given[1:]):
        return list(given[1:])
    if node.target is aten.index_select.default and given in (1, -1) and len(shape_of(node) or ()) == 2:
        return [node.args[2]]
    return None


def _is_picked(flat: fx.Node) -> bool:
    """Return whether something takes single pairs of flat products."""
    return any(
        _indices(user) is not None or (handed_on(user) is not user and _is_picked(user)) for user in flat.users
    )


def _square(node: Any) -> int:
    """Return n of (rows, n, n), 0 for all else."""
    shape = shape_of(node)
    if shape is None or len(shape) != 3 or not isinstance(shape[1], int) or shape[1] != shape[2]:
        return 0
    return shape[1]


def _width(node: Any) -> int:
    """Return n of (rows, n), 0 for all else."""
    shape = shape_of(node) or ()
    return math.prod(shape[1:]) if len(shape) == 2 and isinstance(shape[1], int) else 0


def _vectors(product: Any) -> Mixed | None:
    """Return the vectors of both sides that are multiplied by each other."""
    both = mixed(_multiplied(product))
    return both if both and both.dim == 1 else None


def _multiplied(product: Any) -> fx.Node | None:
    """Return the vectors, (rows, vectors, dim), that a product multiplies by themselves."""
    if not isinstance(product, fx.Node) or product.target not in (aten.bmm.default, aten.matmul.default):
        return None
    left, right = (handed_on(one) for one in product.args)
    shape = shape_of(left) or ()
    known = len(shape) == 3 and all(isinstance(size, int) for size in shape[1:])
    return left if known and _turned(right) is left else None


def _turned(node: Any) -> Any:
    """Return what a node transposes in its last two dimensions."""
    numbers: Any = node.args[1:] if isinstance(node, fx.Node) else ()
    if len(shape_of(node) or ()) != 3:
        return None
    turns = (node.target is aten.transpose.int and {number % 3 for number in numbers} == {1, 2}) or (
        node.target is aten.permute.default and [number % 3 for number in numbers[0]] == [0, 2, 1]
    )
    return handed_on(node.args[0]) if turns else None
